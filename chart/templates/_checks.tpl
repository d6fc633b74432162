{{/* What cannot be, or would be a mistake, each with the way out. Included by a resource that is always there. */}}
{{- define "memstore.checks" -}}
{{- $mode := include "memstore.mode" . -}}
{{- $type := include "memstore.type" . -}}
{{- $redis := eq $type "redis" -}}
{{- $count := int .Values.shards.count -}}
{{- if eq $mode "redis-cluster" -}}
  {{- if not $redis -}}
    {{- fail "partitioning is \"redis-cluster\" and the shards are memcached, which has no cluster: use partitioning \"proxy\" or \"client-side\", or shards.type \"redis\"" -}}
  {{- end -}}
  {{- if lt $count 3 -}}
    {{- fail (printf "a Redis Cluster needs 3 nodes that own slots, so that two of them can outvote a lost one, and shards.count is %d: make it 3 or more" $count) -}}
  {{- end -}}
  {{- if .Values.shards.ringNames -}}
    {{- fail "shards.ringNames means nothing in a Redis Cluster, which deals keys by slots: remove it" -}}
  {{- end -}}
{{- end -}}
{{- if .Values.auth.enabled -}}
  {{- if not .Values.auth.existingSecret -}}
    {{- fail "auth.enabled needs auth.existingSecret, the name of a Secret with the password: kubectl create secret generic cache-auth --from-literal=password=... , then --set auth.existingSecret=cache-auth" -}}
  {{- end -}}
  {{- if not $redis -}}
    {{- fail "auth.enabled: memcached's text protocol has no password that clients would say; remove it, and let networkPolicy say who may connect" -}}
  {{- end -}}
  {{- if and .Values.auth.user (not (include "memstore.shardsSince" (dict "root" . "version" "6.2"))) -}}
    {{- fail (printf "auth.user needs Redis 6.2 or later, and the shards' image is %s: remove auth.user or take a newer image" (include "memstore.shardImage" .)) -}}
  {{- end -}}
{{- else if .Values.auth.existingSecret -}}
  {{- fail "auth.existingSecret is given and auth.enabled is false, so that nobody would be asked for the password: set auth.enabled to true, or remove the Secret's name" -}}
{{- end -}}
{{- if and .Values.shards.persistence.enabled (not $redis) -}}
  {{- fail "shards.persistence.enabled: memcached keeps nothing on disk; remove it" -}}
{{- end -}}
{{- if include "memstore.hasProxy" . -}}
  {{- if and .Values.proxy.autoscaling.enabled .Values.proxy.keda.enabled -}}
    {{- fail "proxy.autoscaling and proxy.keda would both decide about the number of proxies: enable one of them" -}}
  {{- end -}}
  {{- if and .Values.proxy.keda.enabled (not .Values.proxy.keda.triggers) -}}
    {{- fail "proxy.keda.enabled needs proxy.keda.triggers: say what to scale by" -}}
  {{- end -}}
  {{- if and .Values.proxy.service.nodePort (eq .Values.proxy.service.type "ClusterIP") -}}
    {{- fail "proxy.service.nodePort means nothing with proxy.service.type ClusterIP: remove it, or use NodePort or LoadBalancer" -}}
  {{- end -}}
  {{- if and .Values.proxy.service.loadBalancerSourceRanges (ne .Values.proxy.service.type "LoadBalancer") -}}
    {{- fail "proxy.service.loadBalancerSourceRanges means something only with proxy.service.type LoadBalancer: remove it, or say with networkPolicy who may connect" -}}
  {{- end -}}
{{- end -}}
{{- /* Shards that leave take their keys along. What runs can be asked only where the chart is installed, not where it is rendered. */ -}}
{{- $running := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "memstore.shards" .) -}}
{{- $volumes := or (eq $mode "redis-cluster") .Values.shards.persistence.enabled -}}
{{- if and $running (ne (ternary "yes" "no" $volumes) (ternary "yes" "no" (gt (len (dig "spec" "volumeClaimTemplates" list $running)) 0))) -}}
  {{- fail (printf "the shards of this release run %s volumes, which a StatefulSet cannot change: install another release beside it with these values, and move applications there" (ternary "without" "with" $volumes)) -}}
{{- end -}}
{{- if ne $mode "redis-cluster" -}}
  {{- $before := dig "spec" "replicas" 0 $running | int -}}
  {{- if and (gt $before $count) (not .Values.shards.allowDataLoss) -}}
    {{- fail (printf "shards.count is %d and %d shards run: about %d%% of the keys would be lost with those that leave; set shards.allowDataLoss to true if that is meant" $count $before (div (mul 100 (sub $before $count)) $before)) -}}
  {{- end -}}
{{- end -}}
{{- end }}
