{{- define "memstore.redisConf" -}}
{{- $cluster := eq (include "memstore.mode" .) "redis-cluster" -}}
{{- $since7 := include "memstore.shardsSince" (dict "root" . "version" "7.0") -}}
port {{ .Values.shards.service.port }}
# Who may connect is said by the NetworkPolicy and the password.
protected-mode no
dir /data
tcp-keepalive 60
{{- with include "memstore.maxmemory" . }}
maxmemory {{ . }}
{{- end }}
maxmemory-policy {{ .Values.shards.maxmemoryPolicy }}
{{- if and .Values.shards.persistence.enabled .Values.shards.persistence.appendOnly }}
appendonly yes
{{- else if not .Values.shards.persistence.enabled }}
appendonly no
save ""
{{- end }}
{{- if $cluster }}
cluster-enabled yes
cluster-config-file /data/nodes.conf
cluster-node-timeout {{ .Values.redisCluster.nodeTimeout }}
cluster-require-full-coverage {{ ternary "yes" "no" .Values.redisCluster.requireFullCoverage }}
{{- /* Replicas stay where reconcile has put them, and take over however long they were cut off: half of a cache is better than none. */}}
cluster-replica-validity-factor 0
{{- if $since7 }}
cluster-allow-replica-migration no
{{- else }}
cluster-migration-barrier 999
{{- end }}
{{- if include "memstore.announcesHostnames" . }}
cluster-preferred-endpoint-type hostname
{{- end }}
{{- end }}
{{- if .Values.auth.enabled }}
include /run/redis/auth.conf
{{- end }}
{{- with .Values.shards.config }}
{{ . | trim }}
{{- end }}
{{- end }}

{{/* The shell script that starts Redis with the password from its file, and redis-cli with it. */}}
{{- define "memstore.redisStart" -}}
umask 077
password=$(sed 's/[\\"]/\\&/g' /etc/memstore/auth/password)
{
{{- with .Values.auth.user }}
  printf 'user default off\nuser {{ . }} on ">%s" ~* &* +@all\n' "$password"
  printf 'masteruser {{ . }}\nmasterauth "%s"\n' "$password"
{{- else }}
  printf 'requirepass "%s"\nmasterauth "%s"\n' "$password" "$password"
{{- end }}
} > /run/redis/auth.conf
exec redis-server "$@"
{{- end }}

{{- define "memstore.redisPing" -}}
{{- $tls := "" -}}
{{- if .Values.auth.enabled }}REDISCLI_AUTH=$(cat /etc/memstore/auth/password) {{ end -}}
redis-cli{{ with .Values.auth.user }} --user {{ . }}{{ end }} --no-auth-warning -p {{ .Values.shards.service.port }} ping
{{- end }}
