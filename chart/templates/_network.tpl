{{/* Pods of this release by their components. */}}
{{- define "memstore.peers" -}}
- podSelector:
    matchLabels:
      {{- include "memstore.selector" .root | nindent 6 }}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: {{ .components | toJson }}}
{{- end }}

{{/* Who may use the store. */}}
{{- define "memstore.clientPeers" -}}
- podSelector: {}
{{- with .Values.networkPolicy.clientNamespaces }}
- namespaceSelector:
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ . | toJson }}}
{{- end }}
{{- with .Values.networkPolicy.clientPeers }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Name servers, wherever they are: a cache on the node is no pod. Long answers come over TCP. */}}
{{- define "memstore.dnsEgress" -}}
- ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}
