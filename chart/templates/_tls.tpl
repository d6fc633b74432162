{{/*
TLS: who speaks it, with which certificates, and where these are in pods. Folders, never single files (subPath): those would not change while a pod runs.
*/}}

{{/* "true" if clients speak TLS to the proxies. */}}
{{- define "memstore.clientsTls" -}}
{{- if and .Values.tls.enabled .Values.tls.clients (include "memstore.hasProxy" .) -}}true{{- end -}}
{{- end }}

{{/* "true" if the release's own shards speak TLS. */}}
{{- define "memstore.shardsTls" -}}
{{- if and .Values.tls.enabled .Values.tls.shards (include "memstore.hasShards" .) -}}true{{- end -}}
{{- end }}

{{/* Secret of the certificate that clients see. */}}
{{- define "memstore.tlsSecret" -}}
{{- .Values.tls.existingSecret | default (printf "%s-tls" (include "memstore.fullname" .)) -}}
{{- end }}

{{/* Secret of the shards' certificate. */}}
{{- define "memstore.shardsTlsSecret" -}}
{{- .Values.tls.shardsSecret | default (include "memstore.tlsSecret" .) -}}
{{- end }}

{{/* "true" if whoever connects may, or has to, present a certificate. */}}
{{- define "memstore.tlsAuth" -}}
{{- if ne .Values.tls.clientAuth "none" -}}true{{- end -}}
{{- end }}

{{/* The host that the certificate of the shards has to be valid for, whichever of them is asked: they have one certificate. */}}
{{- define "memstore.shardsServerName" -}}
{{- printf "%s.%s" (include "memstore.shards" .) (include "memstore.domain" .) -}}
{{- end }}

{{/* The host that clients know proxies by. */}}
{{- define "memstore.clientsServerName" -}}
{{- .Values.tls.serverName | default (printf "%s.%s" (include "memstore.fullname" .) (include "memstore.domain" .)) -}}
{{- end }}

{{/*
Volume of a certificate: (dict "name" "tls" "secret" "x" "keys" (list "ca.crt")). What is not needed is not mounted, and a pod waits for a key that is missing.
*/}}
{{- define "memstore.tlsVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret | quote }}
    defaultMode: 0440
    items:
      {{- range .keys }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}

{{/* What is needed of the shards' Secret by who connects to them. */}}
{{- define "memstore.towardsShardsKeys" -}}
{{- ternary (list "ca.crt" "tls.crt" "tls.key") (list "ca.crt") (not (empty (include "memstore.tlsAuth" .))) | toJson -}}
{{- end }}

{{- define "memstore.towardsShardsVolume" -}}
{{- include "memstore.tlsVolume" (dict "name" "tls-shards" "secret" (include "memstore.shardsTlsSecret" .) "keys" (include "memstore.towardsShardsKeys" . | fromJsonArray)) -}}
{{- end }}

{{- define "memstore.towardsShardsMount" -}}
- {name: tls-shards, mountPath: /etc/memstore/tls-shards, readOnly: true}
{{- end }}

{{/* Arguments of `memstore try` and `cluster reconcile`, as a JSON list: (dict "root" $ "folder" "tls" "name" "host, or empty") */}}
{{- define "memstore.tlsArgs" -}}
{{- $args := list "--tls" "--tls-ca" (printf "/etc/memstore/%s/ca.crt" .folder) -}}
{{- if include "memstore.tlsAuth" .root -}}
  {{- $args = concat $args (list "--tls-certificate" (printf "/etc/memstore/%s/tls.crt" .folder) "--tls-key" (printf "/etc/memstore/%s/tls.key" .folder)) -}}
{{- end -}}
{{- with .name -}}{{- $args = concat $args (list "--tls-server-name" .) -}}{{- end -}}
{{- $args | toJson -}}
{{- end }}

{{/* Settings `tls` and `servers_tls` of a pool, beside those that the values have, as YAML: (dict "root" $ "pool" one of memstore.pools) */}}
{{- define "memstore.poolTls" -}}
{{- $root := .root -}}
{{- $settings := dict -}}
{{- if include "memstore.clientsTls" $root -}}
  {{- $tls := dict "certificate" "/etc/memstore/tls/tls.crt" "key" "/etc/memstore/tls/tls.key" -}}
  {{- if include "memstore.tlsAuth" $root -}}
    {{- $_ := set $tls "client_ca" "/etc/memstore/tls/ca.crt" -}}
    {{- $_ := set $tls "client_auth" $root.Values.tls.clientAuth -}}
  {{- end -}}
  {{- $_ := set $settings "tls" $tls -}}
{{- end -}}
{{- if include "memstore.shardsTls" $root -}}
  {{- $tls := dict "ca" "/etc/memstore/tls-shards/ca.crt" "server_name" (include "memstore.shardsServerName" $root) -}}
  {{- if include "memstore.tlsAuth" $root -}}
    {{- $_ := set $tls "certificate" "/etc/memstore/tls-shards/tls.crt" -}}
    {{- $_ := set $tls "key" "/etc/memstore/tls-shards/tls.key" -}}
  {{- end -}}
  {{- $_ := set $settings "servers_tls" $tls -}}
{{- end -}}
{{- with .pool.serversTls -}}
  {{- if .existingSecret -}}
    {{- $tls := dict "ca" (printf "/etc/memstore/%s/ca.crt" .folder) -}}
    {{- if .clientCertificate -}}
      {{- $_ := set $tls "certificate" (printf "/etc/memstore/%s/tls.crt" .folder) -}}
      {{- $_ := set $tls "key" (printf "/etc/memstore/%s/tls.key" .folder) -}}
    {{- end -}}
    {{- $_ := set $settings "servers_tls" $tls -}}
  {{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end }}

{{/* Volume of what servers that run elsewhere are verified by: one of memstore.pools' serversTls. */}}
{{- define "memstore.serversTlsVolume" -}}
{{- $keys := ternary (list "ca.crt" "tls.crt" "tls.key") (list "ca.crt") (eq (toString .clientCertificate) "true") -}}
{{- include "memstore.tlsVolume" (dict "name" .folder "secret" .existingSecret "keys" $keys) -}}
{{- end }}

{{/* Names that the Certificate of cert-manager is for, as a JSON list. */}}
{{- define "memstore.certificateNames" -}}
{{- $names := list -}}
{{- $ns := .Release.Namespace -}}
{{- if include "memstore.clientsTls" . -}}
  {{- $name := include "memstore.fullname" . -}}
  {{- $names = concat $names (list $name (printf "%s.%s" $name $ns) (printf "%s.%s.svc" $name $ns) (printf "%s.%s" $name (include "memstore.domain" .))) -}}
{{- end -}}
{{- if and (include "memstore.shardsTls" .) (not .Values.tls.shardsSecret) -}}
  {{- range $host := list (printf "%s.%s" (include "memstore.shards" .) $ns) (printf "%s.%s.svc" (include "memstore.shards" .) $ns) (include "memstore.shardsServerName" .) -}}
    {{- $names = concat $names (list $host (printf "*.%s" $host)) -}}
  {{- end -}}
{{- end -}}
{{- concat $names (compact (list .Values.tls.serverName)) (.Values.tls.certManager.dnsNames | default list) | uniq | toJson -}}
{{- end }}

{{/* What would be wrong. */}}
{{- define "memstore.tlsChecks" -}}
{{- $tls := .Values.tls -}}
{{- $issuer := $tls.certManager.issuerRef | default dict -}}
{{- if $tls.enabled -}}
  {{- if not (or (include "memstore.clientsTls" .) (include "memstore.shardsTls" .)) -}}
    {{- fail "tls.enabled is true, and neither clients nor shards would speak TLS: set tls.clients or tls.shards to true, or tls.enabled to false" -}}
  {{- end -}}
  {{- if and $tls.existingSecret $issuer -}}
    {{- fail "tls.existingSecret and tls.certManager.issuerRef both say where the certificate comes from: remove one of them" -}}
  {{- end -}}
  {{- $onlyShards := and $tls.shardsSecret (not (include "memstore.clientsTls" .)) -}}
  {{- if not (or $tls.existingSecret $issuer $onlyShards) -}}
    {{- fail "tls.enabled needs a certificate: set tls.existingSecret to the name of a Secret with tls.crt, tls.key and ca.crt, or tls.certManager.issuerRef.name to an issuer of cert-manager" -}}
  {{- end -}}
  {{- if and $issuer $onlyShards -}}
    {{- fail "tls.shardsSecret is set, and only shards speak TLS, so that nobody would use the certificate of tls.certManager: remove one of them" -}}
  {{- end -}}
  {{- if and $issuer (not $issuer.name) -}}
    {{- fail "tls.certManager.issuerRef has no name: set tls.certManager.issuerRef.name" -}}
  {{- end -}}
  {{- if and (include "memstore.shardsTls" .) (eq (include "memstore.type" .) "redis") -}}
    {{- $since := ternary "6.2" "6.0" (eq $tls.clientAuth "optional") -}}
    {{- if not (include "memstore.shardsSince" (dict "root" . "version" $since)) -}}
      {{- fail (printf "tls.shards%s needs Redis %s or later, and the shards' image is %s: take a newer image, or set tls.shards to false" (ternary " with tls.clientAuth optional" "" (eq $tls.clientAuth "optional")) $since (include "memstore.shardImage" .)) -}}
    {{- end -}}
  {{- end -}}
{{- else if or $tls.existingSecret $issuer -}}
  {{- fail (printf "%s is set and tls.enabled is false, so that nobody would speak TLS: set tls.enabled to true, or remove it" (ternary "tls.existingSecret" "tls.certManager.issuerRef" (not (empty $tls.existingSecret)))) -}}
{{- end -}}
{{- range include "memstore.pools" . | fromJsonArray -}}
  {{- $from := .from -}}
  {{- with .settings.tls -}}
    {{- if and (include "memstore.clientsTls" $) (or .certificate .key .client_ca .client_auth) -}}
      {{- fail (printf "%s.tls: certificates are those of tls.enabled: remove certificate, key, client_ca and client_auth, or set tls.clients to false" $from) -}}
    {{- else if not (or (include "memstore.clientsTls" $) (and .certificate .key) .certificates) -}}
      {{- fail (printf "%s.tls needs a certificate: set tls.enabled to true and tls.existingSecret, or certificate and key to files that are mounted" $from) -}}
    {{- end -}}
  {{- end -}}
  {{- if and .serversTls.existingSecret (or (dig "servers_tls" "ca" "" .settings) (dig "servers_tls" "certificate" "" .settings) (dig "servers_tls" "key" "" .settings)) -}}
    {{- fail (printf "%s.servers_tls and %s both say where certificates are: remove one of them" $from (ternary "proxy.serversTls" (printf "%s.serversTls" $from) (eq $from "proxy.pool"))) -}}
  {{- end -}}
  {{- if and .settings.servers_tls (include "memstore.shardsTls" $) (or .settings.servers_tls.ca .settings.servers_tls.certificate .settings.servers_tls.key .settings.servers_tls.server_name) -}}
    {{- fail (printf "%s.servers_tls: certificates of shards are those of tls.shards: remove ca, certificate, key and server_name" $from) -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* Where clients get what they verify certificates by: (dict "root" $ "secret" "its name") */}}
{{- define "memstore.authorityNote" }}
Clients verify the certificate by its authority{{ if eq .root.Values.tls.clientAuth "required" }}, and have to present one that it has signed{{ end }}:

    kubectl -n {{ .root.Release.Namespace }} get secret {{ .secret }} -o jsonpath='{.data.ca\.crt}' | base64 -d > ca.crt
{{- if .root.Values.tls.certManager.issuerRef }}

The Secret is there when cert-manager has issued the certificate; pods wait for it: kubectl -n {{ .root.Release.Namespace }} describe certificate {{ .secret }}
{{- end }}
{{- end }}
