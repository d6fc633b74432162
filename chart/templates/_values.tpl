{{/*
Values as all templates take them. Each includes it before anything else, since any of them may be the first.

After `helm upgrade --reuse-values` over a newer chart the values are those of the older one, and what came since is missing: then the chart's own
defaults stand in. The digest tells, so that what somebody took away on purpose (null) stays away otherwise.
*/}}
{{- define "memstore.values" -}}
{{- $defaults := .Files.Get "files/defaults.json" | fromJson -}}
{{- if ne (toString .Values.defaultsDigest) $defaults.defaultsDigest -}}
  {{- include "memstore.fill" (dict "into" .Values "from" $defaults) -}}
  {{- $_ := set .Values "defaultsDigest" $defaults.defaultsDigest -}}
{{- end -}}
{{- /* Clients expect each kind of server on its own port; a release that is there keeps the one it has. */ -}}
{{- $port := ternary 11211 6379 (eq (include "memstore.type" .) "memcached") -}}
{{- range $service, $values := dict (include "memstore.shards" .) .Values.shards.service (include "memstore.fullname" .) .Values.proxy.service -}}
  {{- if kindIs "invalid" $values.port -}}
    {{- $running := lookup "v1" "Service" $.Release.Namespace $service -}}
    {{- $ports := dig "spec" "ports" list ($running | default dict) -}}
    {{- $_ := set $values "port" (int (ternary (dig "port" $port (first $ports | default dict)) $port (not (empty $ports)))) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Puts what is missing in one mapping there from another: (dict "into" {...} "from" {...}) */}}
{{- define "memstore.fill" -}}
{{- $into := .into -}}
{{- range $key, $default := .from -}}
  {{- if not (hasKey $into $key) -}}
    {{- $_ := set $into $key $default -}}
  {{- else if and (kindIs "map" $default) (kindIs "map" (get $into $key)) -}}
    {{- include "memstore.fill" (dict "into" (get $into $key) "from" $default) -}}
  {{- end -}}
{{- end -}}
{{- end }}
