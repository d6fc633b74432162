{{/* What cannot be, or would be a mistake, each with the way out. Included by a resource that is always there. */}}
{{- define "memstore.checks" -}}
{{- $mode := include "memstore.mode" . -}}
{{- $type := include "memstore.type" . -}}
{{- $redis := eq $type "redis" -}}
{{- $count := int .Values.shards.count -}}
{{- $hasShards := include "memstore.hasShards" . -}}
{{- $whole := include "memstore.wholeName" . -}}
{{- if gt (len $whole) 44 -}}
  {{- /* Such names were only cut once, and other ones are other shards. */ -}}
  {{- $cut := trunc 44 $whole | trimSuffix "-" -}}
  {{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (printf "%s-shards" $cut) | default dict -}}
  {{- if and (ne $cut (include "memstore.fullname" .)) (eq (dig "metadata" "labels" "app.kubernetes.io/instance" "" $running) .Release.Name) -}}
    {{- fail (printf "the resources of this release are called %s, and would be called %s now, where its shards would be empty: set fullnameOverride to %s" $cut (include "memstore.fullname" .) $cut) -}}
  {{- end -}}
{{- end -}}
{{- range $name, $value := dict "shards.count" .Values.shards.count "metrics.port" .Values.metrics.port -}}
  {{- if not $value -}}{{- fail (printf "%s is null, but it is required: omit it for the default" $name) -}}{{- end -}}
{{- end -}}
{{- if eq $mode "redis-cluster" -}}
  {{- if not $redis -}}
    {{- fail "partitioning is \"redis-cluster\" and the shards are memcached, which has no cluster: use partitioning \"proxy\" or \"client-side\", or shards.type \"redis\"" -}}
  {{- end -}}
  {{- if lt $count 3 -}}
    {{- fail (printf "a Redis Cluster needs 3 nodes that own slots, so that two of them can outvote a lost one, and shards.count is %d: make it 3 or more" $count) -}}
  {{- end -}}
  {{- if .Values.shards.ringNames -}}
    {{- fail "shards.ringNames has no meaning in a Redis Cluster, which maps keys to slots: remove it" -}}
  {{- end -}}
{{- end -}}
{{- if .Values.auth.enabled -}}
  {{- if not .Values.auth.existingSecret -}}
    {{- fail "auth.enabled needs auth.existingSecret, the name of a Secret with the password: kubectl create secret generic cache-auth --from-literal=password=... , then --set auth.existingSecret=cache-auth" -}}
  {{- end -}}
  {{- if not $redis -}}
    {{- fail "auth.enabled: memcached's text protocol has no passwords; remove it, and restrict clients with networkPolicy" -}}
  {{- end -}}
  {{- if and .Values.auth.user (not (include "memstore.shardsSince" (dict "root" . "version" "6.2"))) -}}
    {{- fail (printf "auth.user needs Redis 6.2 or later, and the shards' image is %s: remove auth.user or take a newer image" (include "memstore.shardImage" .)) -}}
  {{- end -}}
  {{- if .Values.auth.users.existingSecret -}}
    {{- if not (include "memstore.shardsSince" (dict "root" . "version" "6.2")) -}}
      {{- fail (printf "auth.users needs Redis 6.2 or later, and the shards' image is %s: remove auth.users or take a newer image" (include "memstore.shardImage" .)) -}}
    {{- end -}}
    {{- range include "memstore.redisSettings" . | fromJsonArray -}}
      {{- if has .setting (list "user" "aclfile") -}}
        {{- fail (printf "%s sets %s, and Redis takes users from one place only: remove it, and put it into the Secret of auth.users.existingSecret" .place .setting) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- else if .Values.auth.users.existingSecret -}}
  {{- fail "auth.users.existingSecret is set and auth.enabled is false: the release's own components need a password beside these users: set auth.enabled to true and auth.existingSecret" -}}
{{- else if .Values.auth.existingSecret -}}
  {{- fail "auth.existingSecret is set and auth.enabled is false, so that no password would be required: set auth.enabled to true, or remove the Secret's name" -}}
{{- end -}}
{{- if and (eq (toString (.Values.proxy.pool | default dict).distribution) "single") (gt $count 1) (ne $mode "redis-cluster") $hasShards -}}
  {{- fail (printf "proxy.pool.distribution is \"single\", which is for one shard, and shards.count is %d: use ketama to spread keys, or make shards.count 1" $count) -}}
{{- end -}}
{{- if and $hasShards (ne $mode "redis-cluster") -}}
  {{- $names := include "memstore.ringNames" . | fromJsonArray -}}
  {{- $pool := .Values.proxy.pool | default dict -}}
  {{- range $prefix, $target := $pool.pin -}}
    {{- if and (hasPrefix "{" $target) (hasSuffix "}" $target) -}}
      {{- if eq (toString $pool.distribution) "random" -}}
        {{- fail (printf "proxy.pool.pin: the keys that begin with %q are to follow a hash tag, but no shard owns one with distribution random: name a shard" $prefix) -}}
      {{- end -}}
    {{- else if not (has $target $names) -}}
      {{- fail (printf "proxy.pool.pin: the keys that begin with %q are to go to %q, which is none of the %d shards (%s): name one of them, or a hash tag in braces" $prefix $target $count (join ", " (ternary $names (concat (slice $names 0 3) (list "...")) (le $count 4)))) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and $hasShards (ne $mode "client-side") (ne $mode "redis-cluster") -}}
  {{- $names := include "memstore.ringNames" . | fromJsonArray -}}
  {{- with dig "keyless_scripts" "any" (.Values.proxy.pool | default dict) -}}
    {{- if not (has . (concat $names (list "refuse" "any"))) -}}
      {{- fail (printf "proxy.pool.keyless_scripts: scripts without keys are to run on %q, which is none of the %d shards: name one of them, or use refuse or any" . $count) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "memstore.poolChecks" . -}}
{{- include "memstore.tlsChecks" . -}}
{{- include "memstore.passwords" . -}}
{{- include "memstore.decided" . -}}
{{- include "memstore.effects" . -}}
{{- if and .Values.shards.persistence.enabled (not $redis) -}}
  {{- fail "shards.persistence.enabled: memcached stores nothing on disk; remove it" -}}
{{- end -}}
{{- if and .Values.shards.persistence.enabled (eq (include "memstore.kept" .) "nothing") (not .Values.shards.allowDataLoss) -}}
  {{- fail "shards.persistence.enabled is true, but nothing would be persisted: neither appendonly (shards.persistence.appendOnly) nor snapshots (save) are configured; set shards.persistence.appendOnly to true, or add save lines to shards.config, or set shards.persistence.enabled to false, or shards.allowDataLoss to true if this is intended" -}}
{{- end -}}
{{- if include "memstore.hasProxy" . -}}
  {{- if and .Values.proxy.autoscaling.enabled .Values.proxy.keda.enabled -}}
    {{- fail "proxy.autoscaling and proxy.keda would both control the number of proxies: enable one of them" -}}
  {{- end -}}
  {{- with .Values.proxy.autoscaling -}}
    {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
      {{- fail (printf "proxy.autoscaling.minReplicas %d is more than maxReplicas %d" (int .minReplicas) (int .maxReplicas)) -}}
    {{- end -}}
    {{- if and .enabled .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" ($.Values.proxy.resources | default dict))) -}}
      {{- fail "proxy.autoscaling.targetCPUUtilizationPercentage is a percentage of the CPU request, and proxy.resources.requests.cpu is not set: set it" -}}
    {{- end -}}
    {{- if and .enabled (not .targetCPUUtilizationPercentage) (not .metrics) -}}
      {{- fail "proxy.autoscaling.enabled needs proxy.autoscaling.targetCPUUtilizationPercentage or proxy.autoscaling.metrics: set one of them" -}}
    {{- end -}}
  {{- end -}}
  {{- $pools := include "memstore.hasPools" . -}}
  {{- $families := .Values.proxy.service.ipFamilies | default list -}}
  {{- if and (has "IPv6" $families) (not (contains ":" .Values.proxy.listenAddress)) -}}
    {{- fail (printf "proxy.service.ipFamilies has IPv6, and proxies would listen on %s, which is IPv4: set proxy.listenAddress to \"[::]\", which accepts both" .Values.proxy.listenAddress) -}}
  {{- end -}}
  {{- if and (gt (len $families) 1) (eq .Values.proxy.service.ipFamilyPolicy "SingleStack") -}}
    {{- fail "proxy.service.ipFamilies has two families, and proxy.service.ipFamilyPolicy is SingleStack: use PreferDualStack, or remove a family" -}}
  {{- end -}}
  {{- if eq (toString .Values.proxy.service.clusterIP) "None" -}}
    {{- if ne .Values.proxy.service.type "ClusterIP" -}}
      {{- fail "proxy.service.clusterIP None is for proxy.service.type ClusterIP only" -}}
    {{- end -}}
    {{- if and (not $pools) (ne (toString (int .Values.proxy.service.port)) (include "memstore.clientsPort" .)) -}}
      {{- fail (printf "with proxy.service.clusterIP None clients connect to the proxies directly, which listen on %s: set proxy.service.port to that" (include "memstore.clientsPort" .)) -}}
    {{- end -}}
  {{- end -}}
  {{- if and (not $pools) (eq (toString (int .Values.metrics.port)) (include "memstore.clientsPort" .)) -}}
    {{- fail (printf "metrics.port is %d, which clients of the proxy use: choose another one" (int .Values.metrics.port)) -}}
  {{- end -}}
  {{- with .Values.proxy.keda -}}
    {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
      {{- fail (printf "proxy.keda.minReplicas %d is more than maxReplicas %d" (int .minReplicas) (int .maxReplicas)) -}}
    {{- end -}}
  {{- end -}}
  {{- if and .Values.proxy.keda.enabled (not .Values.proxy.keda.triggers) -}}
    {{- fail "proxy.keda.enabled needs proxy.keda.triggers: set them" -}}
  {{- end -}}
  {{- range $name := list "serviceMonitor" "podMonitor" -}}
    {{- with get $.Values.metrics $name -}}
      {{- if and .scrapeTimeout (gt (include "memstore.scrapeTime" .scrapeTimeout | int64) (include "memstore.scrapeTime" .interval | int64)) -}}
        {{- fail (printf "metrics.%s.scrapeTimeout %s is more than interval %s, which Prometheus does not take: make it shorter" $name .scrapeTimeout .interval) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and .Values.proxy.service.nodePort (eq .Values.proxy.service.type "ClusterIP") -}}
    {{- fail "proxy.service.nodePort has no meaning with proxy.service.type ClusterIP: remove it, or use NodePort or LoadBalancer" -}}
  {{- end -}}
  {{- if and .Values.proxy.service.loadBalancerSourceRanges (ne .Values.proxy.service.type "LoadBalancer") -}}
    {{- fail "proxy.service.loadBalancerSourceRanges has a meaning only with proxy.service.type LoadBalancer: remove it, or restrict clients with networkPolicy" -}}
  {{- end -}}
{{- end -}}
{{- if not $hasShards -}}
  {{- $elsewhere := include "memstore.elsewhere" . | fromJsonArray | first -}}
  {{- $policy := .Values.networkPolicy -}}
  {{- $known := include "memstore.serversKnown" . | fromJson -}}
  {{- if and $policy.enabled $known.named (not $policy.proxyExtraEgress) (not $policy.serversCIDRs) -}}
    {{- fail (printf "%s is set, and the NetworkPolicy of the proxies does not allow connections to these servers, whose addresses the values do not tell: set networkPolicy.serversCIDRs to their networks, or set networkPolicy.proxyExtraEgress" (first $known.named)) -}}
  {{- end -}}
  {{- if and $policy.enabled $known.portless $policy.serversCIDRs (not $policy.serversPorts) -}}
    {{- fail (printf "networkPolicy.serversCIDRs is set, and %s does not tell the ports of its servers: set networkPolicy.serversPorts" (first $known.portless)) -}}
  {{- end -}}
  {{- if and (lookup "apps/v1" "StatefulSet" .Release.Namespace (include "memstore.shards" .)) (not .Values.shards.allowDataLoss) -}}
    {{- fail (printf "%s is set, and this release runs shards, which would be deleted with their keys: install another release beside it, or set shards.allowDataLoss to true if this is intended" $elsewhere) -}}
  {{- end -}}
{{- else -}}
{{- /* Shards that leave take their keys along. What runs can be asked only where the chart is installed, not where it is rendered. */ -}}
{{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "memstore.shards" .) -}}
{{- if $running -}}
  {{- $kind := include "memstore.kind" . -}}
  {{- $before := dig "metadata" "annotations" "memstore.dev/kind" $kind $running -}}
  {{- $size := "volume [0-9]+" -}}
  {{- $volume := regexFind $size $kind | trimPrefix "volume " | int64 -}}
  {{- $smaller := regexFind $size $before | trimPrefix "volume " | int64 -}}
  {{- if and $smaller (gt $volume $smaller) (eq (regexReplaceAll $size $before "") (regexReplaceAll $size $kind "")) -}}
    {{- $name := include "memstore.shards" . -}}
    {{- $asked := ternary .Values.shards.persistence.size .Values.redisCluster.nodesVolume.size .Values.shards.persistence.enabled -}}
    {{- fail (printf "the volumes of the shards would become larger (%d to %d bytes), which a StatefulSet cannot do. It is possible without a restart: 1. Enlarge every claim, if its storage class allows it: kubectl -n %s patch pvc data-%s-0 -p '{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"%v\"}}}}' and so on. 2. Delete the StatefulSet and keep its pods: kubectl -n %s delete statefulset %s --cascade=orphan. 3. Run this upgrade again: the new StatefulSet adopts the running pods" $smaller $volume .Release.Namespace $name $asked .Release.Namespace $name) -}}
  {{- end -}}
  {{- if ne $before $kind -}}
    {{- fail (printf "the shards of this release are %q and would become %q, which an upgrade cannot do: install another release beside it with these values, and move applications there" $before $kind) -}}
  {{- end -}}
{{- end -}}
{{- if and (include "memstore.restartsEmpty" .) (eq .Values.shards.updateStrategy "RollingUpdate") (not .Values.shards.allowDataLoss) -}}
  {{- if eq (include "memstore.kept" .) "all" -}}
    {{- fail "this upgrade replaces the shards' pods one after the other, and each returns empty, because it loads the append-only file (shards.persistence.appendOnly), which the running shards do not have: send CONFIG SET appendonly yes to each of them and wait until INFO persistence has aof_rewrite_in_progress:0, then upgrade with shards.allowDataLoss set to true, or leave shards.persistence.appendOnly false" -}}
  {{- end -}}
  {{- fail "this upgrade replaces the shards' pods one after the other, and each returns empty, because it has neither persistence nor a replica: all keys would be lost; set shards.allowDataLoss to true if this is intended, or shards.updateStrategy to OnDelete, which leaves the pods as they are until you delete them" -}}
{{- end -}}
{{- if and (not $running) .Release.IsUpgrade -}}
  {{- range (lookup "apps/v1" "StatefulSet" .Release.Namespace "" | default dict).items -}}
    {{- $labels := .metadata.labels | default dict -}}
    {{- if and (eq (get $labels "app.kubernetes.io/instance") $.Release.Name) (eq (get $labels "app.kubernetes.io/component") "shard") (not $.Values.shards.allowDataLoss) -}}
      {{- fail (printf "the shards of this release are called %s and would be called %s, and be empty: restore nameOverride and fullnameOverride, or set shards.allowDataLoss to true if this is intended" .metadata.name (include "memstore.shards" $)) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if ne $mode "redis-cluster" -}}
  {{- $ring := splitList ":" (dig "metadata" "annotations" "memstore.dev/ring" "" $running) -}}
  {{- if and (eq (len $ring) 2) (le (int (first $ring)) $count) (not .Values.shards.allowDataLoss) -}}
    {{- if ne (include "memstore.ringDigest" (dict "root" . "count" (int (first $ring)))) (last $ring) -}}
      {{- fail "this upgrade changes which shard has which key (shards.ringNames, or hash, distribution, hash_tag or pin of proxy.pool): keys would no longer be found; restore these values, or set shards.allowDataLoss to true if this is intended" -}}
    {{- end -}}
  {{- end -}}
  {{- $before := dig "spec" "replicas" 0 $running | int -}}
  {{- if and (gt $before $count) (not .Values.shards.allowDataLoss) -}}
    {{- fail (printf "shards.count is %d and %d shards are running: about %d%% of the keys would be lost with the removed shards; set shards.allowDataLoss to true if this is intended" $count $before (div (mul 100 (sub $before $count)) $before)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Tells whether the first shards have the same keys as before: (dict "root" $ "count" 3) */}}
{{- define "memstore.ringDigest" -}}
{{- $names := include "memstore.ringNames" .root | fromJsonArray -}}
{{- $pool := .root.Values.proxy.pool | default dict -}}
{{- $dealt := list (slice $names 0 .count) (toString $pool.hash) (toString $pool.distribution) (toString ($pool.hash_tag | default "")) -}}
{{- with $pool.pin }}{{- $dealt = append $dealt . -}}{{- end -}}
{{- $dealt | toJson | sha256sum | trunc 16 -}}
{{- end }}

{{/* Tells whether pods of shards have to be replaced. */}}
{{- define "memstore.shardTemplateDigest" -}}
{{- include "memstore.shardTemplate" . | fromYaml | toJson | sha256sum | trunc 16 -}}
{{- end }}

{{/* "true" if what runs is to be replaced, and would come back without its keys; asked where the chart is installed. */}}
{{- define "memstore.restartsEmpty" -}}
{{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "memstore.shards" .) -}}
{{- $kept := include "memstore.kept" . -}}
{{- /* What a shard has not written it cannot read, and a log of writes that is to be read first hides a snapshot. */ -}}
{{- $before := dig "metadata" "annotations" "memstore.dev/kept" $kept ($running | default dict) -}}
{{- $is_lost := or (eq $kept "nothing") (eq $before "nothing") (and (eq $kept "all") (ne $before "all")) -}}
{{- if and $running $is_lost (not (include "memstore.hasReplicas" .)) -}}
  {{- $digest := include "memstore.shardTemplateDigest" . -}}
  {{- $changes := ne (dig "metadata" "annotations" "memstore.dev/template" $digest $running) $digest -}}
  {{- /* With OnDelete pods may still be those of an earlier template. */ -}}
  {{- $replicas := dig "spec" "replicas" 0 $running | int -}}
  {{- $waits := and (eq (dig "spec" "updateStrategy" "type" "" $running) "OnDelete") (lt (dig "status" "updatedReplicas" 0 $running | int) $replicas) -}}
  {{- if or $changes $waits -}}true{{- end -}}
{{- end -}}
{{- end }}

{{/* A password among other values would stand in a ConfigMap or a pod's description, and the proxy would not know it. */}}
{{- define "memstore.passwords" -}}
{{- $setting := "(?im)^\\s*(--)?(requirepass|masterauth|primaryauth|tls-key-file-pass|tls-client-key-file-pass|user)(\\s|=|$)" -}}
{{- range $name, $text := dict "shards.config" .Values.shards.config "shards.extraArgs" (.Values.shards.extraArgs | default list | join " " | replace " --" "\n--") -}}
  {{- /* Redis takes names and values in quotes as well. */ -}}
  {{- range regexFindAll (printf "%s.*" $setting) (toString $text | replace "\"" "" | replace "'" "") -1 -}}
    {{- $found := regexFind "(?i)[a-z][-a-z]*" . -}}
    {{- if or (ne (lower $found) "user") (regexMatch "\\s[>#]\\S" .) -}}
      {{- fail (printf "%s has a password (%s), which is not secret there and unknown to the proxy: put it into a Secret and set auth.existingSecret to its name" $name $found) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* What the chart tells servers itself, and has to know, must not be said behind its back. */}}
{{- define "memstore.decided" -}}
{{- if eq (include "memstore.type" .) "redis" -}}
  {{- $decided := dict "port" "shards.service.port" "maxmemory" "shards.maxmemory" "maxmemory-policy" "shards.maxmemoryPolicy" "cluster-enabled" "partitioning" "cluster-node-timeout" "redisCluster.nodeTimeout" "cluster-require-full-coverage" "redisCluster.requireFullCoverage" -}}
  {{- range list "dir" "cluster-config-file" "cluster-announce-ip" "cluster-announce-hostname" "cluster-announce-port" "replica-announce-ip" "slave-announce-ip" -}}
    {{- $_ := set $decided . "" -}}
  {{- end -}}
  {{- if include "memstore.shardsTls" . -}}
    {{- range list "tls-port" "tls-cert-file" "tls-key-file" "tls-ca-cert-file" "tls-replication" "tls-cluster" "unixsocket" -}}{{- $_ := set $decided . "" -}}{{- end -}}
    {{- $_ := set $decided "tls-auth-clients" "tls.clientAuth" -}}
  {{- end -}}
  {{- range include "memstore.redisSettings" . | fromJsonArray -}}
    {{- if hasKey $decided .setting -}}
      {{- $value := get $decided .setting -}}
      {{- fail (printf "%s sets %s, which the chart configures itself: remove it%s" .place .setting (ternary "" (printf ", and set %s" $value) (empty $value))) -}}
    {{- end -}}
  {{- end -}}
{{- else -}}
  {{- range $given := .Values.shards.extraArgs -}}
    {{- range $argument, $value := dict "(-m *[0-9]*|--memory-limit(=.*)?)" "shards.maxmemory" "(-p *[0-9]*|--port(=.*)?)" "shards.service.port" -}}
      {{- if regexMatch (printf "^%s$" $argument) $given -}}
        {{- fail (printf "shards.extraArgs sets %s, which the chart configures itself: remove it, and set %s" $given $value) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* What a StatefulSet of shards cannot stop to be: its server, whether that speaks TLS, its port and its volumes. */}}
{{- define "memstore.kind" -}}
{{- $cluster := eq (include "memstore.mode" .) "redis-cluster" -}}
{{- $persistence := .Values.shards.persistence -}}
{{- $volume := "none" -}}
{{- if or $cluster $persistence.enabled -}}
  {{- $size := ternary (list "shards.persistence.size" $persistence.size) (list "redisCluster.nodesVolume.size" .Values.redisCluster.nodesVolume.size) $persistence.enabled -}}
  {{- $volume = printf "%s %s" (include "memstore.bytes" (dict "of" (last $size) "name" (first $size))) $persistence.storageClass -}}
  {{- with $persistence.annotations -}}{{- $volume = printf "%s %s" $volume (toJson . | sha256sum | trunc 8) -}}{{- end -}}
{{- end -}}
{{- $tls := ternary " with TLS" "" (eq (include "memstore.shardsTls" .) "true") -}}
{{- printf "%s%s%s, port %d, volume %s" (include "memstore.type" .) (ternary " cluster" "" $cluster) $tls (int .Values.shards.service.port) (trim $volume) -}}
{{- end }}
