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
  {{- $_ := set .Values "ofOlderChart" true -}}
{{- end -}}
{{- /* A section that is taken away as a whole says nothing of what is in it, and one below it is switched off if it can be. */ -}}
{{- range $section, $default := $defaults -}}
  {{- if and (kindIs "map" $default) (not (kindIs "map" (get $.Values $section))) -}}
    {{- $_ := set $.Values $section $default -}}
  {{- end -}}
  {{- if kindIs "map" $default -}}
    {{- range $below, $default := omit $default "resources" "pool" -}}
      {{- $given := get $.Values $section -}}
      {{- if and (kindIs "map" $default) $default (not (kindIs "map" (get $given $below))) -}}
        {{- if hasKey $default "enabled" -}}{{- $_ := set $default "enabled" false -}}{{- end -}}
        {{- $_ := set $given $below $default -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- /* Clients expect each kind of server on its own port. memcached was on that of Redis once: a release that is there keeps what it has. */ -}}
{{- $memcached := eq (include "memstore.type" .) "memcached" -}}
{{- $port := ternary 11211 6379 $memcached -}}
{{- range $service, $values := dict (include "memstore.shards" .) .Values.shards.service (include "memstore.fullname" .) .Values.proxy.service -}}
  {{- if kindIs "invalid" $values.port -}}
    {{- $ports := list -}}
    {{- if $memcached -}}{{- $ports = dig "spec" "ports" list (lookup "v1" "Service" $.Release.Namespace $service | default dict) -}}{{- end -}}
    {{- $_ := set $values "port" (dig "port" $port (first $ports | default dict) | int) -}}
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
