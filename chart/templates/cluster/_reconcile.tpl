{{/* A pod that cares for the cluster: (dict "root" $ "args" (list ...) "restartPolicy" "Always") */}}
{{- define "memstore.reconcilePod" -}}
{{- $own := .root.Values.redisCluster.reconcile -}}
{{- $ends := ne .restartPolicy "Always" -}}
metadata:
  {{- if $ends }}
  {{- include "memstore.jobMetadata" (dict "root" .root "component" "reconcile") | nindent 2 }}
  {{- else }}
  labels:
    {{- include "memstore.podLabels" (dict "root" .root "component" "reconcile" "labels" (mergeOverwrite (dict) ($own.podLabels | default dict) .labels)) | nindent 4 }}
  {{- with mergeOverwrite (dict) (.root.Values.commonAnnotations | default dict) ($own.podAnnotations | default dict) }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
spec:
  {{- $place := dict "nodeSelector" .root.Values.proxy.nodeSelector "tolerations" .root.Values.proxy.tolerations "priorityClassName" $own.priorityClassName }}
  {{- if $ends }}{{- $place = include "memstore.jobPlace" .root | fromYaml }}{{- end }}
  {{- include "memstore.podSpec" (dict "root" .root "own" $place "component" "reconcile" "hook" $ends) | nindent 2 }}
  restartPolicy: {{ .restartPolicy }}
  # Nothing is lost by ending it anywhere.
  terminationGracePeriodSeconds: 5
  containers:
    - name: reconcile
      image: {{ include "memstore.proxyImage" .root | quote }}
      imagePullPolicy: {{ .root.Values.proxy.image.pullPolicy }}
      args:
        - cluster
        - reconcile
        - --nodes
        - {{ include "memstore.nodes" .root | quote }}
        - --primaries
        - {{ .root.Values.shards.count | quote }}
        - --replicas
        - {{ .root.Values.redisCluster.replicasPerPrimary | quote }}
        {{- range .args }}
        - {{ . | quote }}
        {{- end }}
        {{- $auth := .root.Values.auth.enabled }}
        {{- $tls := include "memstore.shardsTls" .root }}
        {{- if $tls }}
        {{- range include "memstore.tlsArgs" (dict "root" .root "folder" "tls-shards" "name" (include "memstore.shardsServerName" .root)) | fromJsonArray }}
        - {{ . | quote }}
        {{- end }}
        {{- end }}
        {{- if $auth }}
        {{- with .root.Values.auth.user }}
        - --user
        - {{ . | quote }}
        {{- end }}
      env:
        - {name: MEMSTORE_CLUSTER_AUTH_FILE, value: /etc/memstore/auth/password}
      {{- end }}
      resources:
        {{- include "memstore.resources" (dict "of" $own.resources "name" "redisCluster.reconcile.resources") | nindent 8 }}
      securityContext:
        {{- include "memstore.securityContext" (dict "root" .root "own" dict) | nindent 8 }}
      {{- if or $auth $tls }}
      volumeMounts:
        {{- if $auth }}
        {{- include "memstore.authMount" .root | nindent 8 }}
        {{- end }}
        {{- if $tls }}
        {{- include "memstore.towardsShardsMount" .root | nindent 8 }}
        {{- end }}
  volumes:
    {{- if $auth }}
    {{- include "memstore.authVolume" .root | nindent 4 }}
    {{- end }}
    {{- if $tls }}
    {{- include "memstore.towardsShardsVolume" .root | nindent 4 }}
    {{- end }}
      {{- end }}
{{- end }}

{{- define "memstore.reconcileDeployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "memstore.metadata" (dict "root" . "name" (include "memstore.reconcile" .) "component" "reconcile") | nindent 2 }}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector:
    matchLabels:
      {{- include "memstore.selector" . | nindent 6 }}
      app.kubernetes.io/component: reconcile
      memstore.dev/reconcile: loop
  template:
    {{- /* Growing and shrinking is for the hooks: this one runs with the values before while they work. */}}
    {{- include "memstore.reconcilePod" (dict "root" . "restartPolicy" "Always" "labels" (dict "memstore.dev/reconcile" "loop") "args" (list "--keep-slots" "--interval" .Values.redisCluster.reconcile.interval)) | nindent 4 }}
{{- end }}

{{/* The same once, as a hook: (dict "root" $ "name" "join" "hook" "post-upgrade" "args" (list ...)) */}}
{{- define "memstore.reconcileJob" -}}
{{- $hook := dict "helm.sh/hook" .hook "helm.sh/hook-weight" "0" "helm.sh/hook-delete-policy" "before-hook-creation,hook-succeeded" -}}
{{- $spec := include "memstore.reconcileJobSpec" . -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "memstore.metadata" (dict "root" .root "name" (include "memstore.once" (dict "root" .root "name" .name "spec" $spec)) "component" "reconcile" "annotations" $hook) | nindent 2 }}
spec:
  {{- $spec }}
{{- end }}

{{- define "memstore.reconcileJobSpec" }}
  # What was begun is finished by the next one; a run that begins later takes its place.
  backoffLimit: 6
  {{- $limit := .root.Values.redisCluster.reconcile.limit }}
  {{- $seconds := mul (regexFind "^[0-9]+" $limit | int) (get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[smh]$" $limit)) }}
  activeDeadlineSeconds: {{ add $seconds 60 }}
  # Who applies what is rendered without Helm finds it done, and not in the way.
  ttlSecondsAfterFinished: 86400
  template:
    {{- include "memstore.reconcilePod" (dict "root" .root "restartPolicy" "OnFailure" "args" (concat (list "--once" "--limit" .root.Values.redisCluster.reconcile.limit) .args)) | nindent 4 }}
{{- end }}
