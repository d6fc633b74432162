{{/*
Pods that run for a moment: those that an upgrade waits for, and those of `helm test`. Each has to end by itself: a sidecar that a mesh puts into
it would not, and the upgrade would wait until its time is over. So none is put in unless jobs.podLabels or jobs.podAnnotations say so.
*/}}
{{- define "memstore.jobLabels" -}}
{{- $none := dict "sidecar.istio.io/inject" "false" "kuma.io/sidecar-injection" "disabled" -}}
{{- mergeOverwrite $none (.Values.jobs.podLabels | default dict) | toYaml -}}
{{- end }}

{{- define "memstore.jobAnnotations" -}}
{{- $none := dict "sidecar.istio.io/inject" "false" "linkerd.io/inject" "disabled" "kuma.io/sidecar-injection" "disabled" "consul.hashicorp.com/connect-inject" "false" -}}
{{- mergeOverwrite $none (.Values.commonAnnotations | default dict) (.Values.jobs.podAnnotations | default dict) | toYaml -}}
{{- end }}

{{/* Metadata of a Job's pods: (dict "root" $ "component" "ring") */}}
{{- define "memstore.jobMetadata" -}}
labels:
  {{- include "memstore.podLabels" (dict "root" .root "component" .component "labels" (include "memstore.jobLabels" .root | fromYaml)) | nindent 2 }}
annotations:
  {{- include "memstore.jobAnnotations" .root | nindent 2 }}
{{- end }}

{{/* Where they run: as memstore.podSpec takes it. */}}
{{- define "memstore.jobPlace" -}}
{{- $jobs := .Values.jobs -}}
{{- $place := dict "nodeSelector" ($jobs.nodeSelector | default .Values.proxy.nodeSelector) "tolerations" ($jobs.tolerations | default .Values.proxy.tolerations) -}}
{{- merge $place (pick $jobs "affinity" "priorityClassName") | toYaml -}}
{{- end }}

{{/* Whom they may talk to; nobody connects to them. */}}
{{- define "memstore.jobsPolicy" -}}
podSelector:
  matchLabels:
    {{- include "memstore.selector" . | nindent 4 }}
  matchExpressions:
    - {key: app.kubernetes.io/component, operator: In, values: [reconcile, ring, test]}
policyTypes: [Ingress, Egress]
ingress: []
egress:
  {{- include "memstore.dnsEgress" . | nindent 2 }}
  - ports:
      {{- $ports := list (int .Values.shards.service.port) }}
      {{- if include "memstore.hasProxy" . }}
      {{- /* Some networks look at a Service's port before it becomes the pod's. */}}
      {{- range include "memstore.pools" . | fromJsonArray }}
      {{- $ports = concat $ports (list (int .port) (int .service.port)) }}
      {{- end }}
      {{- $ports = append $ports (int .Values.metrics.port) }}
      {{- end }}
      {{- range uniq $ports }}
      - {port: {{ . }}, protocol: TCP}
      {{- end }}
    to:
      {{- include "memstore.peers" (dict "root" . "components" (list "shard" "proxy")) | nindent 6 }}
  {{- with .Values.jobs.extraEgress }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
