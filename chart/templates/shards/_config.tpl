{{- define "memstore.redisConf" -}}
{{- $cluster := eq (include "memstore.mode" .) "redis-cluster" -}}
{{- $since7 := include "memstore.shardsSince" (dict "root" . "version" "7.0") -}}
{{- $tls := include "memstore.shardsTls" . -}}
{{- if $tls -}}
port 0
tls-port {{ .Values.shards.service.port }}
tls-cert-file /etc/memstore/tls/tls.crt
tls-key-file /etc/memstore/tls/tls.key
tls-ca-cert-file /etc/memstore/tls/ca.crt
tls-auth-clients {{ get (dict "none" "no" "optional" "optional" "required" "yes") .Values.tls.clientAuth }}
{{- if $cluster }}
tls-replication yes
tls-cluster yes
{{- end }}
# For probes, and for what reads certificates again: also when those have ended.
unixsocket /run/redis/redis.sock
unixsocketperm 700
{{- else -}}
port {{ .Values.shards.service.port }}
{{- end }}
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
cluster-node-timeout {{ int64 .Values.redisCluster.nodeTimeout }}
cluster-require-full-coverage {{ ternary "yes" "no" .Values.redisCluster.requireFullCoverage }}
{{- /* Replicas stay where reconcile has put them, and take over however long they were cut off: half of a cache is better than none. */}}
cluster-replica-validity-factor 0
{{- if include "memstore.hasReplicas" . }}
{{- /* A copy never goes over the disk, which without persistence is large enough for what nodes know of each other only. */}}
repl-diskless-sync yes
repl-diskless-sync-delay 0
{{- if include "memstore.shardsSince" (dict "root" . "version" "6.0") }}
repl-diskless-load on-empty-db
{{- end }}
{{- end }}
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

{{/* What Redis is told by lines and arguments of the user's own, in its order, as a JSON list; it takes names in any case, and anything in quotes. */}}
{{- define "memstore.redisSettings" -}}
{{- $found := list -}}
{{- $arguments := .Values.shards.extraArgs | default list | join " " | replace " --" "\n--" -}}
{{- range $place := list (list "shards.config" .Values.shards.config) (list "shards.extraArgs" $arguments) -}}
  {{- range splitList "\n" (last $place | toString) -}}
    {{- $words := regexSplit "[\\s=]+" (replace "\"" "" . | replace "'" "" | trim | trimPrefix "--" | lower) -1 -}}
    {{- $found = append $found (dict "place" (first $place) "setting" (first $words) "value" (rest $words | join " " | trim)) -}}
  {{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{/* "true" if a shard that comes back without its keys could empty a replica that still has them. */}}
{{- define "memstore.comesBackEmpty" -}}
{{- if and (include "memstore.hasReplicas" .) (eq (include "memstore.kept" .) "nothing") -}}true{{- end -}}
{{- end }}

{{/*
What a shard has on disk when it starts again: nothing, snapshots or all. The last line about either counts, and Redis takes snapshots unless it is told
not to; what is given to it as arguments comes after its file.
*/}}
{{- define "memstore.kept" -}}
{{- $persistence := .Values.shards.persistence -}}
{{- $appends := $persistence.appendOnly -}}
{{- $saves := true -}}
{{- range include "memstore.redisSettings" . | fromJsonArray -}}
  {{- if eq .setting "appendonly" -}}{{- $appends = eq .value "yes" -}}{{- end -}}
  {{- if eq .setting "save" -}}{{- $saves = ne .value "" -}}{{- end -}}
{{- end -}}
{{- if not $persistence.enabled -}}nothing
{{- else if $appends -}}all
{{- else if $saves -}}snapshots
{{- else -}}nothing
{{- end -}}
{{- end }}

{{- define "memstore.hasReplicas" -}}
{{- if and (eq (include "memstore.mode" .) "redis-cluster") (gt (int .Values.redisCluster.replicasPerPrimary) 0) -}}true{{- end -}}
{{- end }}

{{/* Seconds until a replica has taken the place of a primary that died: until that counts as failed, and an election. */}}
{{- define "memstore.takeoverSeconds" -}}
{{- add 5 (div (add (mul 2 (int .Values.redisCluster.nodeTimeout)) 999) 1000) -}}
{{- end }}

{{/* "true" if Redis needs a shell script to start: more than its configuration. */}}
{{- define "memstore.redisNeedsScript" -}}
{{- if or .Values.auth.enabled (include "memstore.shardsTls" .) (include "memstore.comesBackEmpty" .) -}}true{{- end -}}
{{- end }}

{{/* The script. */}}
{{- define "memstore.redisStart" -}}
{{- $auth := .Values.auth.enabled -}}
{{- $tls := include "memstore.shardsTls" . -}}
{{- if $auth -}}
umask 077
# For Redis, in quotes.
quoted() { printf %s "$1" | sed 's/[\\"]/\\&/g'; }
password=$({{ include "memstore.password" . }})
lines=$(printf %s "$password" | wc -l)
if test -z "$password" || test "$lines" != 0; then
  echo "the password in Secret {{ .Values.auth.existingSecret }} is empty or has several lines; give it one" >&2
  exit 1
fi
# What probes say, also when the Secret has another one by now.
printf %s "$password" > /run/redis/password
{{- if include "memstore.hasUsers" . }}
{{ include "memstore.redisUsers" . }}
users > /run/redis/users.acl
{{- end }}
password=$(quoted "$password")
{
{{- if include "memstore.hasUsers" . }}
  printf 'aclfile /run/redis/users.acl\nmasterauth "%s"\n' "$password"
  {{- with .Values.auth.user }}
  printf 'masteruser {{ . }}\n'
  {{- end }}
{{- else }}
{{- with .Values.auth.user }}
  printf 'user default off\nuser {{ . }} on ">%s" ~* &* +@all\n' "$password"
  printf 'masteruser {{ . }}\nmasterauth "%s"\n' "$password"
{{- else }}
  printf 'requirepass "%s"\nmasterauth "%s"\n' "$password" "$password"
{{- end }}
{{- end }}
} > /run/redis/auth.conf
{{ end -}}
{{- if include "memstore.comesBackEmpty" . -}}
# A primary that is back, and empty, before its replica has taken its place would empty that too.
if awk '$3 ~ /myself/ && $3 ~ /master/ && NF > 8 { id = $1 } { of[$4] } END { exit !(id in of) }' /data/nodes.conf 2>/dev/null; then
  trap 'exit 0' TERM
  sleep {{ include "memstore.takeoverSeconds" . }} &
  wait $!
  trap - TERM
fi
{{ end -}}
{{- if or $auth $tls -}}
{{ include "memstore.redisFollow" . }}
{{ end -}}
exec redis-server "$@"
{{- end }}

{{/* Users of the Secret as Redis reads them, without comments, and that of the password, which nobody but the chart may define. */}}
{{- define "memstore.redisUsers" -}}
{{- $own := .Values.auth.user | default "default" -}}
hashed() { printf %s "$1" | sha256sum | cut -d ' ' -f 1; }
users() {
  tr -d '\r' < /etc/memstore/users/users.acl | sed -e 's/^[[:space:]]*//' -e '/^#/d' -e '/^$/d' -e '/^user[[:space:]]\{1,\}{{ $own | replace "." "\\." }}\([[:space:]]\|$\)/d'
  echo
  {{- if ne $own "default" }}
  # Whom no line names would be let in without a password.
  grep -q '^[[:space:]]*user[[:space:]]\{1,\}default\([[:space:]]\|$\)' /etc/memstore/users/users.acl || echo 'user default off'
  {{- end }}
  echo "user {{ $own }} on #$(hashed "$password")${previous:+ #$(hashed "$previous")} ~* &* +@all"
}
{{- end }}

{{/*
Whatever of the Secrets changes while Redis runs is told to it: nothing restarts, and nobody is disconnected. It is a child of the server, and ends with it.
*/}}
{{- define "memstore.redisFollow" -}}
{{- $acl := include "memstore.shardsSince" (dict "root" . "version" "6.0") -}}
{{ include "memstore.redisCli" . }}
{{- if include "memstore.shardsTls" . }}
certificates() { cat /etc/memstore/tls/tls.crt /etc/memstore/tls/tls.key /etc/memstore/tls/ca.crt | cksum; }
read_certificates=$(certificates)
{{- end }}
{{- if include "memstore.hasUsers" . }}
read_users=$(cksum < /etc/memstore/users/users.acl)
{{- end }}
follow() {
  set +e
  passwords= failed=
  # A server that starts is not there yet.
  while case "$(cli ping 2>&1)" in *"not connect"*) true ;; *) false ;; esac; do sleep 1; done
  while :; do
    said=
    {{- if include "memstore.shardsTls" . }}
    now=$(certificates)
    if test "$now" != "$read_certificates"; then
      # It reads all of the files, and keeps what it has if they do not fit together.
      said=$(cli config set tls-cert-file /etc/memstore/tls/tls.crt 2>&1)
      if test "$said" = OK; then read_certificates=$now said=; echo "new certificates are used for new connections"; fi
    fi
    {{- end }}
    {{- if .Values.auth.enabled }}
    password=$({{ include "memstore.password" . }}) previous=
    if test -s /etc/memstore/auth/previous; then previous=$({{ include "memstore.password" . | replace "auth/password" "auth/previous" }}); fi
    if test -n "$password" && test "$(printf %s "$password$previous" | wc -l)" = 0 && test "$password $previous" != "$passwords"; then
      changed=$({
        {{- if $acl }}
        printf 'acl setuser {{ .Values.auth.user | default "default" }} resetpass ">%s"' "$(quoted "$password")"
        if test -n "$previous"; then printf ' ">%s"' "$(quoted "$previous")"; fi
        {{- else }}
        printf 'config set requirepass "%s"' "$(quoted "$password")"
        {{- end }}
        # All nodes accept the previous one as long as the Secret has it.
        printf '\nconfig set masterauth "%s"\n' "$(quoted "${previous:-$password}")"
      } | cli 2>&1 | tr -d '\n')
      if test "$changed" = OKOK; then
        printf %s "$password" > /run/redis/password
        if test -n "$passwords"; then echo "the passwords of the Secret are accepted"; fi
        passwords="$password $previous"
      else
        said="$said $changed"
      fi
    fi
    {{- end }}
    {{- if include "memstore.hasUsers" . }}
    now=$(cksum < /etc/memstore/users/users.acl)
    if test "$now" != "$read_users"; then
      users > /run/redis/users.acl
      # All of them or, if one is wrong, none.
      changed=$(cli acl load 2>&1)
      if test "$changed" = OK; then read_users=$now; echo "the users of the Secret are used"; else said="$said $changed"; fi
    fi
    {{- end }}
    # A sentence once, until it is another one.
    if test -n "$said" && test "$said" != "$failed"; then echo "what is new in the Secrets is not used: $said" >&2; fi
    failed=$said
    sleep 10
  done
}
follow &
{{- end }}

{{/* The password as the proxy reads it: without the line end that editors leave. */}}
{{- define "memstore.password" -}}
tr -d '\r' < /etc/memstore/auth/password
{{- end }}

{{/* redis-cli with what it has to say, as a function of the shell. */}}
{{- define "memstore.redisCli" -}}
cli() { {{ if .Values.auth.enabled }}REDISCLI_AUTH="$(cat /run/redis/password)" {{ end }}redis-cli{{ with .Values.auth.user }} --user {{ . }}{{ end }} --no-auth-warning {{ if include "memstore.shardsTls" . }}-s /run/redis/redis.sock{{ else }}-p {{ .Values.shards.service.port }}{{ end }} "$@"; }
{{- end }}

{{/* Whether a shard can serve. A replica also has to have what its primary has, or a rollout would go on to that. */}}
{{- define "memstore.redisReady" -}}
{{ include "memstore.redisCli" . }}
test "$(cli ping)" = PONG
{{- if include "memstore.hasReplicas" . }}
cli role | awk 'NR == 1 { role = $1 } NR == 4 { link = $1 } END { exit !(role == "master" || link == "connected") }'
{{- end }}
{{- end }}

{{/* Before a primary ends a replica takes its place, with all that was written. */}}
{{- define "memstore.redisHandOver" -}}
{{ include "memstore.redisCli" . }}
{{- if .Values.auth.enabled }}
export REDISCLI_AUTH="$(cat /run/redis/password)"
{{- end }}
is_primary() { test "$(cli role | head -n 1)" = master; }
is_primary || exit 0
replicas=$(cli info replication | tr -d '\r' | sed -n 's/^slave[0-9]*:ip=\([^,]*\),port=\([0-9]*\),state=online.*/\1/p')
for replica in $replicas; do
  # One that does not answer must not use up the time for the others.
  timeout 5 redis-cli{{ with .Values.auth.user }} --user {{ . }}{{ end }} --no-auth-warning
    {{- if include "memstore.shardsTls" . }} --tls --cacert /etc/memstore/tls/ca.crt --cert /etc/memstore/tls/tls.crt --key /etc/memstore/tls/tls.key{{ end }} -h "$replica" -p {{ .Values.shards.service.port }} cluster failover
  attempts=0
  while is_primary && test $((attempts += 1)) -le 30; do sleep 0.2; done
  is_primary || exit 0
done
{{- end }}


{{/* The script that starts memcached with TLS, and has it read certificates again when they have changed. */}}
{{- define "memstore.memcachedStart" -}}
certificates() { cat /etc/memstore/tls/tls.crt /etc/memstore/tls/tls.key{{ if include "memstore.tlsAuth" . }} /etc/memstore/tls/ca.crt{{ end }} | cksum; }
read_certificates=$(certificates)
# Without TLS, since a certificate may have ended, and on the loopback address: only from this pod. Images have either nc or bash.
refresh() {
  if command -v nc >/dev/null; then printf 'refresh_certs\r\nquit\r\n' | timeout 5 nc 127.0.0.1 {{ include "memstore.memcachedLocalPort" . }}
  else timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/{{ include "memstore.memcachedLocalPort" . }} && printf "refresh_certs\r\nquit\r\n" >&3 && cat <&3'; fi 2>&1 | tr -d '\r\n'
}
follow() {
  set +e
  failed=
  while sleep 10; do
    now=$(certificates)
    if test "$now" != "$read_certificates"; then
      said=$(refresh)
      if test "$said" = OK; then
        read_certificates=$now failed=
        echo "new certificates are used for new connections"
      elif test "$said" != "$failed"; then
        failed=$said
        echo "new certificates are not used: $said" >&2
      fi
    fi
  done
}
follow &
exec memcached "$@"
{{- end }}

{{/* Where memcached is told to read certificates again. */}}
{{- define "memstore.memcachedLocalPort" -}}
{{- add 1 (int .Values.shards.service.port) -}}
{{- end }}
