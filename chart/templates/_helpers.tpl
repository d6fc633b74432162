{{/*
Names: letters, digits and dashes, a letter first, as Services have them; a release may have others. A StatefulSet's may have 52 characters: its
pods carry it, with a hash, as a label of at most 63. What does not fit is changed, and ends in a hash of the whole, or two releases could get one name.
*/}}
{{- define "memstore.asName" -}}
{{- $fits := . | replace "." "-" | trimSuffix "-" -}}
{{- if not (regexMatch "^[a-z]" $fits) -}}{{- $fits = printf "m%s" $fits -}}{{- end -}}
{{- if or (ne $fits (trimSuffix "-" .)) (gt (len $fits) 44) -}}
  {{- $fits = printf "%s-%s" (trunc 38 $fits | trimSuffix "-") (sha256sum . | trunc 5) -}}
{{- end -}}
{{- $fits -}}
{{- end }}

{{- define "memstore.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 44 | trimSuffix "-" -}}
{{- end }}

{{- define "memstore.wholeName" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) .Values.fullnameOverride -}}
{{- end }}

{{- define "memstore.fullname" -}}{{ include "memstore.asName" (include "memstore.wholeName" .) }}{{- end }}

{{- define "memstore.shards" -}}{{ include "memstore.fullname" . }}-shards{{- end }}
{{- define "memstore.proxies" -}}{{ include "memstore.fullname" . }}-proxy{{- end }}
{{- define "memstore.ring" -}}{{ include "memstore.fullname" . }}-ring{{- end }}
{{- define "memstore.reconcile" -}}{{ include "memstore.fullname" . }}-reconcile{{- end }}

{{/*
Name of what runs once, such as a Job, whose kind forbids to change it: another spec has another name, so that it can be applied whatever was there
before. (dict "root" $ "name" "ring-wait" "spec" "its text")
*/}}
{{- define "memstore.once" -}}
{{- printf "%s-%s-%s" (include "memstore.fullname" .root) .name (.spec | sha256sum | trunc 8) -}}
{{- end }}

{{/* The domain of this release's Services, without a last dot. */}}
{{- define "memstore.domain" -}}{{ .Release.Namespace }}.svc.{{ .Values.cluster.domain | default "cluster.local" | trimSuffix "." }}{{- end }}

{{/* Where a shard is; {} or $(POD_NAME) may stand for its name. The dot at the end spares the search list. */}}
{{- define "memstore.shardHost" -}}
{{- printf "%s.%s.%s" .pod (include "memstore.shards" .root) (include "memstore.domain" .root) -}}
{{- end }}

{{- define "memstore.selector" -}}
app.kubernetes.io/name: {{ include "memstore.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of a resource or a pod, as YAML: by those that tell whose it is the others are never replaced. (dict "root" $ "component" "x" "labels" {...}) */}}
{{- define "memstore.podLabels" -}}
{{- $own := include "memstore.selector" .root | fromYaml -}}
{{- with .component }}{{- $_ := set $own "app.kubernetes.io/component" . -}}{{- end -}}
{{- mergeOverwrite (dict) (.root.Values.commonLabels | default dict) (.labels | default dict) $own | toYaml -}}
{{- end }}

{{- define "memstore.labels" -}}
{{- $chart := dict "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "app.kubernetes.io/part-of" "memstore" -}}
{{- mergeOverwrite $chart (include "memstore.podLabels" . | fromYaml) | toYaml -}}
{{- end }}

{{/* Metadata of a resource: (dict "root" $ "name" ... "component" ... "annotations" {...}) */}}
{{- define "memstore.metadata" -}}
name: {{ .name | quote }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "memstore.labels" . | nindent 2 }}
{{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) (.annotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What kind of thing it is: proxy, client-side or redis-cluster. */}}
{{- define "memstore.mode" -}}
{{- $mode := .Values.partitioning -}}
{{- $cluster := .Values.enableRedisCluster -}}
{{- $proxy := .Values.proxy.enabled -}}
{{- if not $mode -}}
  {{- if $cluster -}}{{- $mode = "redis-cluster" -}}
  {{- else if eq (toString $proxy) "false" -}}{{- $mode = "client-side" -}}
  {{- else -}}{{- $mode = "proxy" -}}{{- end -}}
{{- else if and (kindIs "bool" $cluster) (ne $cluster (eq $mode "redis-cluster")) -}}
  {{- fail (printf "partitioning is %q and enableRedisCluster is %v, which contradict each other: remove enableRedisCluster" $mode $cluster) -}}
{{- else if and (eq $mode "proxy") (eq (toString $proxy) "false") -}}
  {{- fail "partitioning is \"proxy\" and proxy.enabled is false, which contradict each other: remove proxy.enabled, or set partitioning to \"client-side\"" -}}
{{- else if and (eq $mode "client-side") (eq (toString $proxy) "true") -}}
  {{- fail "partitioning is \"client-side\" and proxy.enabled is true, which contradict each other: remove proxy.enabled, or set partitioning to \"proxy\"" -}}
{{- end -}}
{{- $mode -}}
{{- end }}

{{/* "true" if there is a proxy. */}}
{{- define "memstore.hasProxy" -}}
{{- $mode := include "memstore.mode" . -}}
{{- if or (eq $mode "proxy") (and (eq $mode "redis-cluster") (ne (toString .Values.proxy.enabled) "false")) -}}true{{- end -}}
{{- end }}

{{/* "true" if the release runs shards, and proxies do not only serve servers that run elsewhere. */}}
{{- define "memstore.hasShards" -}}
{{- $elsewhere := include "memstore.elsewhere" . | fromJsonArray -}}
{{- if not (and (eq (include "memstore.mode" .) "proxy") $elsewhere) -}}true{{- end -}}
{{- end }}

{{/* "true" if proxies use a ring of the release's own shards. */}}
{{- define "memstore.hasRing" -}}
{{- if and (eq (include "memstore.mode" .) "proxy") (include "memstore.hasShards" .) -}}true{{- end -}}
{{- end }}

{{/* redis or memcached. */}}
{{- define "memstore.type" -}}
{{- $type := .Values.shards.type -}}
{{- $redis := .Values.shards.isRedis -}}
{{- if and $type (kindIs "bool" $redis) (ne $redis (eq $type "redis")) -}}
  {{- fail (printf "shards.type is %q and shards.isRedis is %v, which contradict each other: remove shards.isRedis" $type $redis) -}}
{{- end -}}
{{- $type | default (ternary "memcached" "redis" (eq (toString $redis) "false")) -}}
{{- end }}

{{/* Pods with shards: in a Redis Cluster the replicas too. */}}
{{- define "memstore.pods" -}}
{{- $count := int .Values.shards.count -}}
{{- if eq (include "memstore.mode" .) "redis-cluster" -}}
  {{- mul $count (add1 (int .Values.redisCluster.replicasPerPrimary)) -}}
{{- else -}}{{- $count -}}{{- end -}}
{{- end }}

{{/* An image in the registry for all of them, unless its name has one: (dict "root" $ "image" "repository:tag") */}}
{{- define "memstore.fromRegistry" -}}
{{- $registry := dig "imageRegistry" "" (.root.Values.global | default dict) | default "" | trimSuffix "/" -}}
{{- $first := splitList "/" .image | first -}}
{{- $has := and (contains "/" .image) (or (contains "." $first) (contains ":" $first) (eq $first "localhost")) -}}
{{- if and $registry (not $has) -}}{{- printf "%s/" $registry -}}{{- end -}}
{{- .image -}}
{{- end }}

{{/* Image of (dict "root" $ "of" "shards.image" "image" .Values.shards.image "default" "repository:tag" "tag" "tag if none is given"). */}}
{{- define "memstore.image" -}}
{{- $repository := .image.repository | default .default -}}
{{- $name := splitList "/" $repository | last | splitList ":" | first -}}
{{- $inside := splitList "/" $repository | last | trimPrefix $name | trimPrefix ":" -}}
{{- $plain := trimSuffix (printf ":%s" $inside) $repository -}}
{{- if and $inside .image.tag .image.repository (not (contains "@" $repository)) -}}
  {{- fail (printf "image.repository %q has a tag and image.tag %q is given too: remove one of them" $repository .image.tag) -}}
{{- end -}}
{{- $image := $repository -}}
{{- if .image.digest -}}
  {{- if not (contains "@" $repository) -}}{{- $image = printf "%s@%s" $plain .image.digest -}}{{- end -}}
{{- else if not (contains "@" $repository) -}}
  {{- $tag := coalesce .image.tag $inside .tag "" -}}
  {{- if not $tag -}}
    {{- fail (printf "%s.repository %q has no tag, and \":latest\" may change at any time: add %s.tag or %s.digest" .of $repository .of .of) -}}
  {{- end -}}
  {{- $image = printf "%s:%s" $plain $tag -}}
{{- end -}}
{{- include "memstore.fromRegistry" (dict "root" .root "image" $image) -}}
{{- end }}

{{- define "memstore.proxyImage" -}}
{{- $repository := .Values.proxy.image.repository -}}
{{- if regexMatch "(?i)(twemproxy|nutcracker)" (splitList "/" $repository | last) -}}
  {{- fail (printf "proxy.image.repository: %s is Twemproxy, which the proxy of this chart replaces: remove that line, or use memstore/memstore" $repository) -}}
{{- end -}}
{{- include "memstore.image" (dict "root" . "of" "proxy.image" "image" .Values.proxy.image "default" "memstore/memstore" "tag" .Chart.AppVersion) -}}
{{- end }}

{{- define "memstore.defaultShardImage" -}}
{{- ternary "redis:8.2-alpine" "memcached:1.6-alpine" (eq (include "memstore.type" .) "redis") -}}
{{- end }}

{{/* Tag of an image that is given without one: the default one's, if it is the same image from elsewhere. */}}
{{- define "memstore.shardTag" -}}
{{- $default := include "memstore.defaultShardImage" . | splitList ":" -}}
{{- if eq (splitList "/" .Values.shards.image.repository | last) (first $default) -}}{{- last $default -}}{{- end -}}
{{- end }}

{{- define "memstore.shardImage" -}}
{{- $default := include "memstore.defaultShardImage" . -}}
{{- include "memstore.image" (dict "root" . "of" "shards.image" "image" .Values.shards.image "default" $default "tag" (include "memstore.shardTag" .)) -}}
{{- end }}

{{/* Version of the shards' server as major.minor; 99.0 if nothing tells it. */}}
{{- define "memstore.shardVersion" -}}
{{- /* What is behind @ is a digest, and says nothing. */ -}}
{{- $repository := .Values.shards.image.repository | default (include "memstore.defaultShardImage" .) -}}
{{- $inside := splitList "@" $repository | first | splitList "/" | last | splitList ":" | rest | join ":" -}}
{{- $version := coalesce .Values.shards.image.version .Values.shards.image.tag $inside "none" -}}
{{- $numbers := regexFind "^v?[0-9]+(\\.[0-9]+)?" $version | trimPrefix "v" -}}
{{- if not $numbers -}}99.0
{{- else if contains "." $numbers -}}{{- $numbers -}}
{{- else -}}{{- printf "%s.0" $numbers -}}{{- end -}}
{{- end }}

{{/* "true" if the shards' server is at least of a version: (dict "root" $ "version" "7.0") */}}
{{- define "memstore.shardsSince" -}}
{{- if semverCompare (printf ">=%s.0" .version) (printf "%s.0" (include "memstore.shardVersion" .root)) -}}true{{- end -}}
{{- end }}

{{- define "memstore.announcesHostnames" -}}
{{- $asked := .Values.redisCluster.announceHostnames -}}
{{- $can := include "memstore.shardsSince" (dict "root" . "version" "7.0") -}}
{{- if and (eq (toString $asked) "true") (not $can) -}}
  {{- fail (printf "redisCluster.announceHostnames needs Redis 7 or later, and the shards' image is %s: remove it; older nodes announce their addresses" (include "memstore.shardImage" .)) -}}
{{- end -}}
{{- if and $can (ne (toString $asked) "false") -}}true{{- end -}}
{{- end }}

{{/* Bytes of a quantity of Kubernetes, or of a size as Redis writes it (kb, mb, gb): (dict "of" "6Gi" "name" "value's name") */}}
{{- define "memstore.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "kb" 1024.0 "mb" 1048576.0 "gb" 1073741824.0 -}}
{{- $text := .of | toString -}}
{{- if or (kindIs "float64" .of) (kindIs "int64" .of) (kindIs "int" .of) -}}{{- $text = printf "%d" (int64 .of) -}}{{- end -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- if or (not $number) (not (hasKey $units $unit)) -}}
  {{- fail (printf "%s: %q is not a quantity of memory; write it as 6Gi or 512Mi" .name $text) -}}
{{- end -}}
{{- mulf (float64 $number) (get $units $unit) | int64 -}}
{{- end }}

{{/* Bytes of a shard's memory limit; empty if it has none. */}}
{{- define "memstore.memoryLimit" -}}
{{- $limit := dig "limits" "memory" "" (.Values.shards.resources | default dict) -}}
{{- if $limit -}}{{- include "memstore.bytes" (dict "of" $limit "name" "shards.resources.limits.memory") -}}{{- end -}}
{{- end }}

{{/* Bytes for items in a shard; empty if there is no limit. */}}
{{- define "memstore.maxmemory" -}}
{{- $limit := include "memstore.memoryLimit" . -}}
{{- $asked := .Values.shards.maxmemory | toString -}}
{{- if kindIs "float64" .Values.shards.maxmemory -}}{{- $asked = printf "%d" (int64 .Values.shards.maxmemory) -}}{{- end -}}
{{- $copies := or .Values.shards.persistence.enabled (include "memstore.hasReplicas" .) -}}
{{- $share := ternary "60%" "85%" (not (empty $copies)) -}}
{{- $bytes := "" -}}
{{- if and $asked (not (hasSuffix "%" $asked)) -}}
  {{- $bytes = include "memstore.bytes" (dict "of" $asked "name" "shards.maxmemory") -}}
{{- else if $limit -}}
  {{- $percent := $asked | default $share | trimSuffix "%" -}}
  {{- if not (regexMatch "^[0-9]+(\\.[0-9]+)?$" $percent) -}}
    {{- fail (printf "shards.maxmemory: %q is not a percentage; write it as 75%%" $asked) -}}
  {{- end -}}
  {{- $bytes = divf (mulf (float64 $limit) (float64 $percent)) 100.0 | int64 | toString -}}
{{- else if $asked -}}
  {{- fail (printf "shards.maxmemory is %s of the memory limit, but there is no limit: set shards.resources.limits.memory, or write it as a quantity such as 6Gi" $asked) -}}
{{- end -}}
{{- if and $bytes (eq (int64 $bytes) 0) -}}
  {{- fail "shards.maxmemory is 0, which means no limit for the servers: omit it, or set a size" -}}
{{- end -}}
{{- if and $bytes (lt (int64 $bytes) 1048576) -}}
  {{- fail (printf "shards.maxmemory is %s bytes, less than an empty server needs: write it with a unit, as 6Gi or 512Mi" $bytes) -}}
{{- end -}}
{{- if and $bytes $limit (gt (int64 $bytes) (mulf (float64 $limit) 0.95 | int64)) -}}
  {{- fail (printf "shards.maxmemory %s is more than 95%% of shards.resources.limits.memory %v, so that a full shard would be killed: make it smaller, or the limit larger" $asked .Values.shards.resources.limits.memory) -}}
{{- end -}}
{{- $bytes -}}
{{- end }}

{{/* Names on the ring, as a JSON list. */}}
{{- define "memstore.ringNames" -}}
{{- $count := int .Values.shards.count -}}
{{- $names := .Values.shards.ringNames | default list -}}
{{- if and $names (ne (len $names) $count) -}}
  {{- fail (printf "shards.ringNames has %d names and shards.count is %d: set one name for each shard" (len $names) $count) -}}
{{- end -}}
{{- if not $names -}}
  {{- range $ordinal := until $count -}}{{- $names = append $names (printf "shard-%d" $ordinal) -}}{{- end -}}
{{- end -}}
{{- $names | toJson -}}
{{- end }}

{{/* Requests and limits: who gives only a memory limit gets it, and not what a default asked for. (dict "of" .Values.x.resources "name" "x.resources") */}}
{{- define "memstore.resources" -}}
{{- $resources := deepCopy (.of | default dict) -}}
{{- $limit := dig "limits" "memory" "" $resources -}}
{{- $request := dig "requests" "memory" "" $resources -}}
{{- range $part := list "requests" "limits" -}}
  {{- with dig $part "memory" "" $resources -}}
    {{- /* Kubernetes takes 256m, which is a quarter of a byte. */ -}}
    {{- $_ := include "memstore.bytes" (dict "of" . "name" (printf "%s.%s.memory" $.name $part)) -}}
  {{- end -}}
{{- end -}}
{{- if and $limit (not $request) -}}
  {{- $_ := set $resources "requests" (merge (dict "memory" $limit) ($resources.requests | default dict)) -}}
{{- else if and $limit $request -}}
  {{- $bytes := include "memstore.bytes" (dict "of" $limit "name" (printf "%s.limits.memory" .name)) | int64 -}}
  {{- if gt (include "memstore.bytes" (dict "of" $request "name" (printf "%s.requests.memory" .name)) | int64) $bytes -}}
    {{- fail (printf "%s: requests.memory %v is more than limits.memory %v: raise the limit, or omit the request" .name $request $limit) -}}
  {{- end -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{- define "memstore.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
  {{- .Values.serviceAccount.name | default (include "memstore.fullname" .) -}}
{{- else -}}{{- .Values.serviceAccount.name | default "default" -}}{{- end -}}
{{- end }}

{{/* Security context of a component's pods and containers: the chart's, then that of all, then its own. */}}
{{- define "memstore.podSecurityContext" -}}
{{- $base := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- mergeOverwrite $base (deepCopy .root.Values.podSecurityContext) (deepCopy (.own | default dict)) | toYaml -}}
{{- end }}

{{- define "memstore.securityContext" -}}
{{- $base := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $base (deepCopy .root.Values.securityContext) (deepCopy (.own | default dict)) | toYaml -}}
{{- end }}

{{/* What pods of all components have: (dict "root" $ "own" .Values.x "component" "x" "hook" "true if it may run before the release is there") */}}
{{- define "memstore.podSpec" -}}
serviceAccountName: {{ ternary "default" (include "memstore.serviceAccount" .root) (and (eq (toString .hook) "true") .root.Values.serviceAccount.create) | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with concat (.root.Values.imagePullSecrets | default list) (dig "imagePullSecrets" list (.root.Values.global | default dict) | default list) }}
imagePullSecrets:
  {{- range . }}
  - {{ ternary (dict "name" .) . (kindIs "string" .) | toJson }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "memstore.podSecurityContext" (dict "root" .root "own" .own.podSecurityContext) | nindent 2 }}
{{- with .own.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .own.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- with .own.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .own.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .own.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .own.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .own.topologySpreadConstraints | nindent 2 }}
{{- else if .own.spread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ .own.spread }}
    # A node that is lost or drained has no shards, and must not count as one that lacks some.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "memstore.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
{{- end }}
{{- end }}

{{/* A probe from its values, without what is asked: (omit ... ) */}}
{{- define "memstore.probeTimes" -}}
{{- pick . "failureThreshold" "initialDelaySeconds" "periodSeconds" "successThreshold" "timeoutSeconds" | toYaml -}}
{{- end }}

{{/* Volume of a pool's password, and of the one before it if there is such a key, which comes and goes while pods run. */}}
{{- define "memstore.authsVolume" -}}
- name: {{ .folder }}
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ .existingSecret | quote }}
          items:
            - {key: {{ .passwordKey | quote }}, path: password}
      - secret:
          name: {{ .existingSecret | quote }}
          optional: true
          items:
            - {key: {{ .previousPasswordKey | quote }}, path: previous}
{{- end }}

{{/* Volume and mount of the password. */}}
{{- define "memstore.authVolume" -}}
{{- include "memstore.poolAuthVolume" (merge (dict "folder" "auth") .Values.auth) -}}
{{- end }}

{{- define "memstore.poolAuthVolume" -}}
- name: {{ .folder }}
  secret:
    secretName: {{ .existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .passwordKey | quote }}, path: password}
{{- end }}

{{/* "true" if there are users beside that of the password. */}}
{{- define "memstore.hasUsers" -}}
{{- if and .Values.auth.enabled .Values.auth.users.existingSecret -}}true{{- end -}}
{{- end }}

{{/* Volume and mount of these. */}}
{{- define "memstore.usersVolume" -}}
- name: users
  secret:
    secretName: {{ .Values.auth.users.existingSecret | quote }}
    defaultMode: 0440
    items:
      - {key: {{ .Values.auth.users.key | quote }}, path: users.acl}
{{- end }}

{{- define "memstore.usersMount" -}}
- {name: users, mountPath: /etc/memstore/users, readOnly: true}
{{- end }}

{{- define "memstore.authMount" -}}
- {name: auth, mountPath: /etc/memstore/auth, readOnly: true}
{{- end }}

{{/* Host names of the nodes of a Redis Cluster, {} for their ordinals. */}}
{{- define "memstore.nodes" -}}
{{- printf "%s.:%d" (include "memstore.shardHost" (dict "root" . "pod" (printf "%s-{}" (include "memstore.shards" .)))) (int .Values.shards.service.port) -}}
{{- end }}
