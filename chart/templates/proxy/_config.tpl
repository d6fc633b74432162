{{/* What the proxy is told, except who its shards are. What it takes over only at its start is in the Deployment. */}}
{{- define "memstore.proxyConfig" -}}
log_level: {{ .Values.proxy.logLevel }}
drain_grace: {{ printf "%ds" (int .Values.proxy.drain.graceSeconds) }}
drain_limit: {{ printf "%ds" (int .Values.proxy.drain.limitSeconds) }}
ready_min_healthy: {{ .Values.proxy.readyMinHealthy | quote }}
pools:
  {{- range include "memstore.pools" . | fromJsonArray }}
  {{ .name | quote }}:
    {{- include "memstore.poolConfig" (dict "root" $ "pool" .) | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Settings that a Redis Cluster decides itself, as a JSON list. */}}
{{- define "memstore.decidedByCluster" -}}
{{- list "hash" "distribution" "hash_tag" "pin" "auto_eject_hosts" "redis_db" "databases" "preconnect" "servers_within_limit" | toJson -}}
{{- end }}

{{/* Settings of a pool: (dict "root" $ "pool" one of memstore.pools) */}}
{{- define "memstore.poolConfig" -}}
{{- $root := .root -}}
{{- $from := .pool.from -}}
{{- $own := eq (include "memstore.mode" $root) "redis-cluster" -}}
{{- $pool := .pool.settings -}}
{{- $_ := set $pool "listen" (printf "%s:%d" $root.Values.proxy.listenAddress (int .pool.port)) -}}
{{- $_ := set $pool "redis" .pool.redis -}}
{{- if and (eq (toString $pool.cluster_facade) "true") (not (or $pool.cluster_facade_announce $pool.cluster_facade_nodes)) -}}
  {{- /* Whoever has connected to the Service would be told the address of one pod, which goes with it. */ -}}
  {{- $_ := set $pool "cluster_facade_announce" (printf "%s.%s:%d" (include "memstore.fullname" $root) (include "memstore.domain" $root) (int .pool.service.port)) -}}
{{- end -}}
{{- with .pool.auth -}}
  {{- if .existingSecret -}}
    {{- $_ := set $pool "redis_auth_file" (printf "/etc/memstore/%s/password" .folder) -}}
    {{- $_ := set $pool "redis_auth_previous_file" (printf "/etc/memstore/%s/previous" .folder) -}}
    {{- with .user }}{{- $_ := set $pool "redis_user" . -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- if and (include "memstore.hasUsers" $root) (eq $from "proxy.pool") -}}
  {{- $_ := set $pool "users_file" "/etc/memstore/users/users.acl" -}}
{{- end -}}
{{- range $setting, $chart := include "memstore.poolTls" . | fromYaml -}}
  {{- $_ := set $pool $setting (merge (dict) $chart (get $pool $setting | default dict)) -}}
{{- end -}}
{{- if or $own $pool.cluster -}}
  {{- range $setting, $chart := dict "hash" "fnv1a_64" "distribution" "ketama" -}}
    {{- if eq (get $pool $setting) $chart -}}{{- $_ := unset $pool $setting -}}{{- end -}}
  {{- end -}}
  {{- range include "memstore.decidedByCluster" . | fromJsonArray -}}
    {{- if hasKey $pool . -}}
      {{- fail (printf "%s.%s: a Redis Cluster decides about that itself: remove it" $from .) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if $own -}}
  {{- $seed := printf "%s.%s.:%d" (include "memstore.shards" $root) (include "memstore.domain" $root) (int $root.Values.shards.service.port) -}}
  {{- $_ := set $pool "cluster" (dict "seeds" (list $seed) "read_from" $root.Values.redisCluster.readFrom) -}}
{{- else if .pool.configMap.name -}}
  {{- $_ := set $pool "servers_file" (printf "/etc/memstore/%s/servers.yml" .pool.configMap.folder) -}}
{{- else if include "memstore.hasShards" $root -}}
  {{- $_ := set $pool "servers_file" "/etc/memstore/ring/servers.yml" -}}
  {{- $_ := set $pool "servers_within" "/etc/memstore/next/servers.yml" -}}
  {{- $_ := set $pool "servers_within_attempt" "/etc/memstore/next/attempt.yml" -}}
  {{- $_ := set $pool "servers_peers" (printf "%s.%s.:%d" (include "memstore.proxies" $root) (include "memstore.domain" $root) (int $root.Values.metrics.port)) -}}
  {{- if .pool.redis -}}{{- $_ := set $pool "shard_identity" $root.Values.proxy.shardIdentity -}}{{- end -}}
{{- end -}}
{{- toYaml $pool -}}
{{- end }}

{{/* The port that the proxy itself listens on; the Service's may be one that only root could take. */}}
{{- define "memstore.clientsPort" -}}
{{- ternary "6379" "11211" (eq (include "memstore.type" .) "redis") -}}
{{- end }}

{{/* The shards as the proxy reads them: where they are, and under which names they own keys. */}}
{{- define "memstore.servers" -}}
{{- $root := . -}}
{{- range $ordinal, $name := include "memstore.ringNames" . | fromJsonArray -}}
{{- if $ordinal }}
{{ end -}}
- {{ printf "%s.:%d:1 %s" (include "memstore.shardHost" (dict "root" $root "pod" (printf "%s-%d" (include "memstore.shards" $root) $ordinal))) (int $root.Values.shards.service.port) $name | quote }}
{{- end }}
{{- end }}

{{/*
How many proxies the Deployment asks for; empty: it does not say. Without a number Kubernetes takes one, and an autoscaler would need until its next look to
bring back the others; so while it is on, what runs stays.
*/}}
{{- define "memstore.proxyReplicas" -}}
{{- $proxy := .Values.proxy -}}
{{- $scaler := ternary $proxy.autoscaling $proxy.keda $proxy.autoscaling.enabled -}}
{{- if kindIs "invalid" $proxy.count -}}
{{- else if $scaler.enabled -}}
  {{- $running := lookup "apps/v1" "Deployment" .Release.Namespace (include "memstore.proxies" .) -}}
  {{- max (int $scaler.minReplicas) (dig "spec" "replicas" 0 ($running | default dict) | int) -}}
{{- else -}}{{- int $proxy.count -}}{{- end -}}
{{- end }}
