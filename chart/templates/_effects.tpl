{{/*
What would have no effect is refused, since whoever writes it believes that it has one. A row says why, what of, as values or whole sections, and what in
these has an effect all the same. Given is what differs from the chart's defaults; those of an older chart (--reuse-values) are nobody's wish.
*/}}
{{- define "memstore.effects" -}}
{{- $root := . -}}
{{- $mode := include "memstore.mode" . -}}
{{- $redis := eq (include "memstore.type" .) "redis" -}}
{{- $hasProxy := include "memstore.hasProxy" . -}}
{{- $cluster := eq $mode "redis-cluster" -}}
{{- $defaults := .Files.Get "files/defaults.json" | fromJson -}}
{{- $metrics := .Values.metrics -}}
{{- $proxy := .Values.proxy -}}
{{- $service := $proxy.service -}}
{{- $persistence := .Values.shards.persistence -}}
{{- $pool := $proxy.pool | default dict -}}
{{- $pools := include "memstore.hasPools" . -}}
{{- /* Who switches the proxy off says that the rest of its values means nothing. */ -}}
{{- $off := eq (toString $proxy.enabled) "false" -}}
{{- $rows := list -}}
{{- if not $hasProxy -}}
  {{- $why := "there is no proxy: remove it, or use partitioning \"proxy\"" -}}
  {{- $of := list "metrics" "redisCluster.readFrom" "networkPolicy.allowExternal" "networkPolicy.metricsNamespaces" "networkPolicy.metricsPeers" "networkPolicy.proxyExtraIngress" "networkPolicy.proxyExtraEgress" "networkPolicy.serversCIDRs" "networkPolicy.serversPorts" -}}
  {{- /* Jobs have the proxy's image and run where it would, and the shards' Service has addresses as its own. */ -}}
  {{- $but := list "proxy.image" "proxy.nodeSelector" "proxy.tolerations" "proxy.service.ipFamilyPolicy" "proxy.service.ipFamilies" "proxy.pool.hash" "proxy.pool.distribution" "proxy.pool.hash_tag" "proxy.pool.pin" -}}
  {{- if eq (toString (int $service.port)) (include "memstore.clientsPort" .) -}}{{- $but = append $but "proxy.service.port" -}}{{- end -}}
  {{- $rows = append $rows (dict "why" $why "of" (ternary $of (append $of "proxy") $off) "but" $but) -}}
{{- end -}}
{{- if not (include "memstore.hasShards" .) -}}
  {{- $of := list "shards" "proxy.shardIdentity" "proxy.pool.servers_within_limit" "networkPolicy.shardsExtraIngress" "networkPolicy.shardsExtraEgress" -}}
  {{- $but := list "shards.type" "shards.isRedis" "shards.allowDataLoss" "shards.enabled" -}}
  {{- if eq (toString (int .Values.shards.service.port)) (include "memstore.clientsPort" .) -}}{{- $but = append $but "shards.service.port" -}}{{- end -}}
  {{- $rows = append $rows (dict "why" (printf "%s is set, so that the release runs no shards: remove it" (include "memstore.elsewhere" . | fromJsonArray | first)) "of" $of "but" $but) -}}
{{- else if $hasProxy -}}
  {{- $rows = append $rows (dict "why" "no servers that run elsewhere are named: remove it, or set proxy.pool.servers" "of" (list "networkPolicy.serversCIDRs" "networkPolicy.serversPorts" "proxy.serversTls")) -}}
{{- end -}}
{{- if and $hasProxy (not $cluster) (not $pool.servers_dns) -}}
  {{- $rows = append $rows (dict "why" "proxy.pool.servers_dns is not set: remove it, or set that" "of" (list "proxy.pool.servers_srv" "proxy.pool.servers_count" "proxy.pool.servers_names")) -}}
{{- end -}}
{{- if and $hasProxy (not $cluster) (not $proxy.serversUrl) -}}
  {{- $rows = append $rows (dict "why" "proxy.serversUrl is empty: remove it, or set that" "of" (list "proxy.serversUrlRefresh")) -}}
{{- end -}}
{{- if and $hasProxy (not $cluster) (not $proxy.serversConfigMap.name) -}}
  {{- $rows = append $rows (dict "why" "proxy.serversConfigMap.name is empty: remove it, or set that" "of" (list "proxy.serversConfigMap")) -}}
{{- end -}}
{{- if and .Values.auth.enabled (not .Values.auth.users.existingSecret) -}}
  {{- $rows = append $rows (dict "why" "auth.users.existingSecret is empty: remove it, or set that" "of" (list "auth.users.key")) -}}
{{- end -}}
{{- $tls := .Values.tls -}}
{{- if $tls.enabled -}}
  {{- if not (include "memstore.clientsTls" .) -}}
    {{- $why := ternary "tls.clients is false: remove it, or set that to true" "there is no proxy: remove it, or use partitioning \"proxy\"" (not (empty $hasProxy)) -}}
    {{- $of := ternary (list "tls.serverName") (list "tls.serverName" "tls.clients") (not (empty $hasProxy)) -}}
    {{- $rows = append $rows (dict "why" $why "of" $of) -}}
  {{- end -}}
  {{- if not (include "memstore.shardsTls" .) -}}
    {{- $why := ternary "tls.shards is false: remove it, or set that to true" "the release runs no shards: remove it" (eq (include "memstore.hasShards" .) "true") -}}
    {{- $of := ternary (list "tls.shardsSecret") (list "tls.shardsSecret" "tls.shards") (eq (include "memstore.hasShards" .) "true") -}}
    {{- $rows = append $rows (dict "why" $why "of" $of) -}}
  {{- end -}}
  {{- if not $tls.certManager.issuerRef -}}
    {{- $rows = append $rows (dict "why" "tls.certManager.issuerRef is empty: remove it, or set that" "of" (list "tls.certManager")) -}}
  {{- end -}}
{{- end -}}
{{- if and $hasProxy (not $proxy.serversTls.existingSecret) -}}
  {{- $rows = append $rows (dict "why" "proxy.serversTls.existingSecret is empty: remove it, or set that" "of" (list "proxy.serversTls")) -}}
{{- end -}}
{{- if not .Values.networkPolicy.serversCIDRs -}}
  {{- $rows = append $rows (dict "why" "networkPolicy.serversCIDRs is empty: remove it, or set that" "of" (list "networkPolicy.serversPorts")) -}}
{{- end -}}
{{- if $pools -}}
  {{- $rows = append $rows (dict "why" "each of proxy.pools has its own: remove it, and set that" "of" (list "auth" "shards.type" "shards.isRedis" "proxy.service.nodePort" "proxy.serversTls")) -}}
  {{- if ne (toString (int $service.port)) (include "memstore.clientsPort" .) -}}
    {{- $rows = append $rows (dict "why" "each of proxy.pools has its own port: remove it" "of" (list "proxy.service.port")) -}}
  {{- end -}}
  {{- $rows = append $rows (dict "why" "there are several pools (proxy.pools): remove it" "of" (list "tests.memtier")) -}}
{{- end -}}
{{- if eq $proxy.kind "DaemonSet" -}}
  {{- $of := list "proxy.count" "proxy.autoscaling" "proxy.keda" "proxy.spread" "proxy.topologySpreadConstraints" "proxy.pdb" -}}
  {{- $rows = append $rows (dict "why" "proxy.kind is DaemonSet, which has one proxy on each node: remove it, or use Deployment" "of" $of "but" (list "proxy.pdb.enabled")) -}}
{{- end -}}
{{- if not $cluster -}}
  {{- $rows = append $rows (dict "why" "it is for a Redis Cluster, and these shards are independent: remove it, or use partitioning \"redis-cluster\"" "of" (list "redisCluster")) -}}
{{- else -}}
  {{- if $persistence.enabled -}}
    {{- $rows = append $rows (dict "why" "shards.persistence.enabled is true, so that the size of volumes is shards.persistence.size: remove it" "of" (list "redisCluster.nodesVolume")) -}}
  {{- end -}}
  {{- if $hasProxy -}}
    {{- $rows = append $rows (dict "why" "nodes of a Redis Cluster are identified by their node IDs: remove it" "of" (list "proxy.shardIdentity")) -}}
    {{- $rows = append $rows (dict "why" "a Redis Cluster provides the list of its nodes itself: remove it, or use partitioning \"proxy\"" "of" (list "proxy.serversUrl" "proxy.serversUrlRefresh" "proxy.serversConfigMap" "proxy.pools" "proxy.pool.servers" "proxy.pool.servers_dns" "proxy.pool.servers_srv" "proxy.pool.servers_count" "proxy.pool.servers_names" "proxy.pool.cluster")) -}}
  {{- end -}}
{{- end -}}
{{- if not $persistence.enabled -}}
  {{- $of := list "shards.persistence.size" "shards.persistence.appendOnly" -}}
  {{- if not $cluster -}}{{- $of = list "shards.persistence" -}}{{- end -}}
  {{- $rows = append $rows (dict "why" "shards.persistence.enabled is false, so that nothing is persisted: remove it, or set that to true" "of" $of) -}}
{{- end -}}
{{- if $pools -}}
{{- else if $redis -}}
  {{- if eq (toString $pool.miss_on_get_errors) "true" -}}
    {{- $rows = append $rows (dict "why" "it is for memcached, and the shards are Redis: remove it" "of" (list "proxy.pool.miss_on_get_errors")) -}}
  {{- end -}}
{{- else -}}
  {{- $of := list "shards.config" "shards.maxmemoryPolicy" -}}
  {{- if not $off -}}{{- $of = concat $of (list "proxy.shardIdentity" "proxy.pool.redis_db" "proxy.pool.databases" "proxy.pool.resp3" "proxy.pool.info_refresh") -}}{{- end -}}
  {{- $rows = append $rows (dict "why" "it is for Redis, and the shards are memcached: remove it" "of" $of) -}}
{{- end -}}
{{- if and (eq (toString $pool.distribution) "slots") (not $cluster) -}}
  {{- $rows = append $rows (dict "why" "proxy.pool.distribution is slots, which has its own hash function and hash tag: remove it, or use another distribution" "of" (list "proxy.pool.hash" "proxy.pool.hash_tag")) -}}
{{- end -}}
{{- if $hasProxy -}}
  {{- if eq $service.type "ClusterIP" -}}
    {{- $rows = append $rows (dict "why" "proxy.service.type is ClusterIP: remove it, or use NodePort or LoadBalancer" "of" (list "proxy.service.externalTrafficPolicy")) -}}
  {{- end -}}
  {{- if ne $service.type "LoadBalancer" -}}
    {{- $rows = append $rows (dict "why" "proxy.service.type is not LoadBalancer: remove it, or use that" "of" (list "proxy.service.loadBalancerClass" "proxy.service.loadBalancerIP" "proxy.service.healthCheckNodePort")) -}}
  {{- else if ne $service.externalTrafficPolicy "Local" -}}
    {{- $rows = append $rows (dict "why" "proxy.service.externalTrafficPolicy is not Local: remove it, or use that" "of" (list "proxy.service.healthCheckNodePort")) -}}
  {{- end -}}
  {{- if ne $service.sessionAffinity "ClientIP" -}}
    {{- $rows = append $rows (dict "why" "proxy.service.sessionAffinity is not ClientIP: remove it, or use that" "of" (list "proxy.service.sessionAffinityTimeoutSeconds")) -}}
  {{- end -}}
{{- end -}}
{{- $external := ne $service.type "ClusterIP" -}}
{{- if kindIs "bool" .Values.networkPolicy.allowExternal -}}{{- $external = .Values.networkPolicy.allowExternal -}}{{- end -}}
{{- if and $external (eq $mode "proxy") -}}
  {{- $why := ternary "networkPolicy.allowExternal is true" (printf "proxy.service.type is %s, whose clients are not pods" $service.type) (eq (toString .Values.networkPolicy.allowExternal) "true") -}}
  {{- $rows = append $rows (dict "why" (printf "%s, so that everybody may connect: remove it, or set networkPolicy.allowExternal to false" $why) "of" (list "networkPolicy.clientNamespaces" "networkPolicy.clientPeers")) -}}
{{- end -}}
{{- if not (or $metrics.serviceMonitor.enabled $metrics.podMonitor.enabled) -}}
  {{- $rows = append $rows (dict "why" "there is no ServiceMonitor or PodMonitor: enable one in metrics, or name namespaces in networkPolicy.metricsNamespaces" "of" (list "networkPolicy.metricsPeers")) -}}
{{- end -}}
{{- if not .Values.networkPolicy.enabled -}}
  {{- $rows = append $rows (dict "why" "networkPolicy.enabled is false, so that everybody may connect: remove it, or set that to true" "of" (list "networkPolicy" "jobs.extraEgress") "but" (list "networkPolicy.enabled")) -}}
{{- end -}}
{{- if not .Values.auth.enabled -}}
  {{- $rows = append $rows (dict "why" "auth.enabled is false: remove it, or set that to true" "of" (list "auth" (ternary "auth" "proxy.pool.reauth" (or $off (not (empty $pools)))))) -}}
{{- end -}}
{{- if and (or (eq $mode "client-side") (not (include "memstore.hasShards" .))) (not .Values.tests.enabled) -}}
  {{- $rows = append $rows (dict "why" "there are no Jobs or test pods: remove it, or set tests.enabled to true" "of" (list "jobs")) -}}
{{- end -}}
{{- if not .Values.serviceAccount.create -}}
  {{- $rows = append $rows (dict "why" "serviceAccount.create is false: remove it, or set that to true" "of" (list "serviceAccount.annotations")) -}}
{{- end -}}
{{- /* Sections with a switch of their own. */ -}}
{{- $sections := dict "tls" .Values.tls "shards.pdb" .Values.shards.pdb "tests" .Values.tests "tests.memtier" .Values.tests.memtier -}}
{{- range list "serviceMonitor" "podMonitor" "rules" "dashboard" -}}{{- $_ := set $sections (printf "metrics.%s" .) (get $metrics .) -}}{{- end -}}
{{- if $cluster -}}{{- $_ := set $sections "redisCluster.reconcile" .Values.redisCluster.reconcile -}}{{- end -}}
{{- range list "livenessProbe" "readinessProbe" -}}{{- $_ := set $sections (printf "shards.%s" .) (get $root.Values.shards .) -}}{{- end -}}
{{- if not $off -}}
  {{- range list "autoscaling" "keda" "pdb" "startupProbe" "livenessProbe" "readinessProbe" -}}{{- $_ := set $sections (printf "proxy.%s" .) (get $proxy .) -}}{{- end -}}
{{- end -}}
{{- range $name, $section := $sections -}}
  {{- if not $section.enabled -}}
    {{- $rows = append $rows (dict "why" (printf "%s.enabled is false: remove it, or set that to true" $name) "of" (list $name) "but" (list (printf "%s.enabled" $name))) -}}
  {{- else if $section.custom -}}
    {{- $rows = append $rows (dict "why" (printf "%s.custom is a complete probe, which replaces the chart's: set it there" $name) "of" (list $name) "but" (list (printf "%s.custom" $name))) -}}
  {{- end -}}
{{- end -}}
{{- if .Values.ofOlderChart -}}{{- $rows = list -}}{{- end -}}
{{- range $row := $rows -}}
  {{- range $path := $row.of -}}
    {{- $given := $root.Values -}}
    {{- $default := $defaults -}}
    {{- range splitList "." $path -}}
      {{- $given = get (ternary $given dict (kindIs "map" $given)) . -}}
      {{- $default = get (ternary $default dict (kindIs "map" $default)) . -}}
    {{- end -}}
    {{- range $name := include "memstore.changed" (dict "name" $path "given" $given "default" $default) | splitList "\n" | compact -}}
      {{- $has := false -}}
      {{- range $row.but -}}{{- if hasPrefix (printf "%s." .) (printf "%s." $name) -}}{{- $has = true -}}{{- end -}}{{- end -}}
      {{- if not $has -}}{{- fail (printf "%s has no effect, since %s" $name $row.why) -}}{{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Names of values that are not the chart's defaults, one a line; nothing is as good as empty. (dict "name" "proxy.keda" "given" ... "default" ...) */}}
{{- define "memstore.changed" -}}
{{- $nothing := list "null" "\"\"" "{}" "[]" -}}
{{- if and (kindIs "map" .given) (kindIs "map" .default) .default -}}
  {{- range $key, $given := .given -}}
    {{- include "memstore.changed" (dict "name" (printf "%s.%s" $.name $key) "given" $given "default" (get $.default $key)) -}}
  {{- end -}}
{{- else if and (ne (toJson .given) (toJson .default)) (not (and (has (toJson .given) $nothing) (has (toJson .default) $nothing))) -}}
{{ printf "%s\n" .name }}
{{- end -}}
{{- end }}
