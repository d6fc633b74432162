{{/* What would have no effect is refused, since whoever writes it believes that it has one. A row has what it depends on, why, and the values. */}}
{{- define "memstore.effects" -}}
{{- $mode := include "memstore.mode" . -}}
{{- $redis := eq (include "memstore.type" .) "redis" -}}
{{- $hasProxy := include "memstore.hasProxy" . -}}
{{- $cluster := eq $mode "redis-cluster" -}}
{{- $defaults := .Files.Get "files/defaults.json" | fromJson -}}
{{- $metrics := .Values.metrics -}}
{{- $proxy := .Values.proxy -}}
{{- $service := $proxy.service -}}
{{- $persistence := .Values.shards.persistence -}}
{{- $policy := .Values.networkPolicy -}}
{{- $pool := $proxy.pool | default dict -}}
{{- $rows := list -}}
{{- if not $hasProxy -}}
  {{- $values := dict "metrics.serviceMonitor.enabled" $metrics.serviceMonitor.enabled "metrics.podMonitor.enabled" $metrics.podMonitor.enabled "metrics.rules.enabled" $metrics.rules.enabled "metrics.dashboard.enabled" $metrics.dashboard.enabled -}}
  {{- /* Who switches it off says that the rest of its values means nothing. */ -}}
  {{- if ne (toString $proxy.enabled) "false" -}}
    {{- $values = merge $values (dict "proxy.autoscaling.enabled" $proxy.autoscaling.enabled "proxy.keda.enabled" $proxy.keda.enabled "proxy.service.type" (ne $service.type "ClusterIP") "proxy.service.nodePort" $service.nodePort) -}}
    {{- range $setting, $value := omit $pool "hash" "distribution" "hash_tag" -}}
      {{- $_ := set $values (printf "proxy.pool.%s" $setting) (ne (toString $value) (toString (get $defaults.proxy.pool $setting))) -}}
    {{- end -}}
  {{- end -}}
  {{- $rows = append $rows (list "there is no proxy: remove it, or use partitioning \"proxy\"" $values) -}}
{{- end -}}
{{- if not $cluster -}}
  {{- $own := .Values.redisCluster -}}
  {{- $rows = append $rows (list "it is for a Redis Cluster, and these shards know nothing of each other: remove it, or use partitioning \"redis-cluster\"" (dict "redisCluster.replicasPerPrimary" $own.replicasPerPrimary "redisCluster.requireFullCoverage" $own.requireFullCoverage "redisCluster.announceHostnames" (kindIs "bool" $own.announceHostnames) "redisCluster.readFrom" (ne $own.readFrom "primary"))) -}}
{{- end -}}
{{- if not $persistence.enabled -}}
  {{- $values := dict "shards.persistence.size" (ne (toString $persistence.size) $defaults.shards.persistence.size) -}}
  {{- if not $cluster -}}{{- $values = merge $values (dict "shards.persistence.storageClass" $persistence.storageClass "shards.persistence.annotations" $persistence.annotations) -}}{{- end -}}
  {{- $rows = append $rows (list "shards.persistence.enabled is false, so that nothing is kept: remove it, or set that to true" $values) -}}
{{- end -}}
{{- if $redis -}}
  {{- $rows = append $rows (list "it is for memcached, and the shards are Redis: remove it" (dict "proxy.pool.miss_on_get_errors" (eq (toString $pool.miss_on_get_errors) "true"))) -}}
{{- else -}}
  {{- $rows = append $rows (list "it is for Redis, and the shards are memcached: remove it" (dict "shards.config" .Values.shards.config "shards.maxmemoryPolicy" (ne .Values.shards.maxmemoryPolicy $defaults.shards.maxmemoryPolicy) "proxy.pool.redis_db" (hasKey $pool "redis_db") "proxy.pool.databases" (hasKey $pool "databases") "proxy.pool.resp3" (hasKey $pool "resp3"))) -}}
{{- end -}}
{{- if eq $service.type "ClusterIP" -}}
  {{- $rows = append $rows (list "proxy.service.type is ClusterIP: remove it, or use NodePort or LoadBalancer" (dict "proxy.service.externalTrafficPolicy" $service.externalTrafficPolicy)) -}}
{{- end -}}
{{- if ne $service.type "LoadBalancer" -}}
  {{- $rows = append $rows (list "proxy.service.type is not LoadBalancer: remove it, or use that" (dict "proxy.service.loadBalancerClass" $service.loadBalancerClass)) -}}
{{- end -}}
{{- if not $proxy.autoscaling.enabled -}}
  {{- $rows = append $rows (list "proxy.autoscaling.enabled is false: remove it, or set that to true" (dict "proxy.autoscaling.metrics" $proxy.autoscaling.metrics)) -}}
{{- end -}}
{{- if not $proxy.keda.enabled -}}
  {{- $rows = append $rows (list "proxy.keda.enabled is false: remove it, or set that to true" (dict "proxy.keda.triggers" $proxy.keda.triggers)) -}}
{{- end -}}
{{- if not $policy.enabled -}}
  {{- $values := dict "jobs.extraEgress" .Values.jobs.extraEgress "networkPolicy.allowExternal" (kindIs "bool" $policy.allowExternal) -}}
  {{- range list "clientNamespaces" "clientPeers" "metricsNamespaces" "shardsExtraIngress" "shardsExtraEgress" "proxyExtraIngress" "proxyExtraEgress" -}}
    {{- $_ := set $values (printf "networkPolicy.%s" .) (get $policy .) -}}
  {{- end -}}
  {{- $rows = append $rows (list "networkPolicy.enabled is false, so that everybody may connect: remove it, or set that to true" $values) -}}
{{- end -}}
{{- if not .Values.auth.enabled -}}
  {{- $rows = append $rows (list "auth.enabled is false: remove it, or set that to true" (dict "auth.user" .Values.auth.user)) -}}
{{- end -}}
{{- if not .Values.serviceAccount.create -}}
  {{- $rows = append $rows (list "serviceAccount.create is false: remove it, or set that to true" (dict "serviceAccount.annotations" .Values.serviceAccount.annotations)) -}}
{{- end -}}
{{- if not .Values.tests.enabled -}}
  {{- $rows = append $rows (list "tests.enabled is false: remove it, or set that to true" (dict "tests.memtier.enabled" .Values.tests.memtier.enabled)) -}}
{{- end -}}
{{- range $rows -}}
  {{- $why := first . -}}
  {{- range $name, $given := last . -}}
    {{- if $given -}}{{- fail (printf "%s has no effect, since %s" $name $why) -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{- end }}
