{{/*
What proxies serve: one pool, or those of proxy.pools; whose servers are the release's own shards, or run elsewhere.
*/}}

{{/* Values that say where servers are that run elsewhere, as a JSON list of their names. */}}
{{- define "memstore.elsewhere" -}}
{{- $proxy := .Values.proxy -}}
{{- $found := list -}}
{{- range $name, $given := dict "proxy.serversUrl" $proxy.serversUrl "proxy.serversConfigMap.name" $proxy.serversConfigMap.name "proxy.pools" $proxy.pools -}}
  {{- if $given -}}{{- $found = append $found $name -}}{{- end -}}
{{- end -}}
{{- range list "servers" "servers_dns" "cluster" -}}
  {{- if get ($proxy.pool | default dict) . -}}{{- $found = append $found (printf "proxy.pool.%s" .) -}}{{- end -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{/* "true" if there are several pools, each with a port of its own. */}}
{{- define "memstore.hasPools" -}}
{{- if and (eq (include "memstore.mode" .) "proxy") .Values.proxy.pools -}}true{{- end -}}
{{- end }}

{{/*
All pools, as a JSON list: their names, the values they come from, ports, kinds, settings, the Secret of their password, their ConfigMap of servers, what these
servers are verified by, and the names of all folders.
*/}}
{{- define "memstore.pools" -}}
{{- $proxy := .Values.proxy -}}
{{- $found := list -}}
{{- if include "memstore.hasPools" . -}}
  {{- range $name, $given := $proxy.pools -}}
    {{- $settings := $proxy.pool | default dict | deepCopy -}}
    {{- /* What is a default for others is no mistake where it has no meaning. */ -}}
    {{- range ternary (include "memstore.decidedByCluster" $ | fromJsonArray) list (not (empty $given.cluster)) -}}{{- $_ := unset $settings . -}}{{- end -}}
    {{- if $given.redis -}}{{- $_ := unset $settings "miss_on_get_errors" -}}{{- end -}}
    {{- range $setting, $value := omit $given "port" "nodePort" "redis" "auth" "serversConfigMap" "serversTls" -}}
      {{- $_ := set $settings $setting $value -}}
    {{- end -}}
    {{- $pool := dict "name" $name "from" (printf "proxy.pools.%s" $name) "port" (int $given.port) "redis" $given.redis "settings" $settings -}}
    {{- $_ := set $pool "service" (dict "name" $name "port" (int $given.port) "target" $name "nodePort" $given.nodePort) -}}
    {{- $_ := set $pool "auth" (merge (dict "folder" (printf "auth-%s" $name)) ($given.auth | default dict) (dict "existingSecret" "" "user" "" "passwordKey" "password" "previousPasswordKey" "previous")) -}}
    {{- $_ := set $pool "configMap" (merge (dict "folder" (printf "servers-%s" $name)) ($given.serversConfigMap | default dict) (dict "name" "" "key" "servers.yml")) -}}
    {{- $_ := set $pool "serversTls" (merge (dict "folder" (printf "tls-%s" $name)) ($given.serversTls | default dict) (dict "existingSecret" "" "clientCertificate" false)) -}}
    {{- $found = append $found $pool -}}
  {{- end -}}
{{- else -}}
  {{- $settings := deepCopy ($proxy.pool | default dict) -}}
  {{- with $proxy.serversUrl -}}
    {{- $_ := set $settings "servers_url" . -}}
    {{- $_ := set $settings "servers_url_refresh" $proxy.serversUrlRefresh -}}
  {{- end -}}
  {{- $port := include "memstore.clientsPort" . | int -}}
  {{- $pool := dict "name" "cache" "from" "proxy.pool" "port" $port "redis" (eq (include "memstore.type" .) "redis") "settings" $settings -}}
  {{- $_ := set $pool "service" (dict "name" (include "memstore.type" .) "port" (int $proxy.service.port) "target" "clients" "nodePort" $proxy.service.nodePort) -}}
  {{- $_ := set $pool "auth" (merge (dict "folder" "auth" "existingSecret" (ternary .Values.auth.existingSecret "" .Values.auth.enabled)) .Values.auth) -}}
  {{- $_ := set $pool "configMap" (merge (dict "folder" "servers") $proxy.serversConfigMap) -}}
  {{- $_ := set $pool "serversTls" (merge (dict "folder" "tls-servers") $proxy.serversTls) -}}
  {{- $found = append $found $pool -}}
{{- end -}}
{{- $found | toJson -}}
{{- end }}

{{/* What would be wrong with pools whose servers run elsewhere. */}}
{{- define "memstore.poolChecks" -}}
{{- $elsewhere := include "memstore.elsewhere" . | fromJsonArray -}}
{{- $mode := include "memstore.mode" . -}}
{{- $run := toString .Values.shards.enabled -}}
{{- if and (eq $run "false") (ne $mode "proxy") -}}
  {{- fail (printf "shards.enabled is false and partitioning is %q, which consists of shards: remove shards.enabled, or use partitioning \"proxy\"" $mode) -}}
{{- else if and (eq $run "false") (not $elsewhere) -}}
  {{- fail "shards.enabled is false, and no value says to which servers the proxies connect: set proxy.pool.servers, proxy.pool.servers_dns, proxy.pool.cluster, proxy.serversConfigMap.name, proxy.serversUrl or proxy.pools" -}}
{{- end -}}
{{- if and (eq $mode "proxy") $elsewhere -}}
  {{- if eq $run "true" -}}
    {{- fail (printf "shards.enabled is true, and %s is set, whose servers run elsewhere: remove one of them" (first $elsewhere)) -}}
  {{- end -}}
  {{- if gt (len $elsewhere) 1 -}}
    {{- fail (printf "%s and %s both say where servers are: remove one of them" (first $elsewhere) (index $elsewhere 1)) -}}
  {{- end -}}
{{- end -}}
{{- if include "memstore.hasPools" . -}}
  {{- $ports := dict (toString (int .Values.metrics.port)) "metrics.port" -}}
  {{- range include "memstore.pools" . | fromJsonArray -}}
    {{- $pool := . -}}
    {{- if or (gt (len .name) 15) (eq .name "metrics") (not (regexMatch "^[a-z]([a-z0-9]|-[a-z0-9])*$" .name)) -}}
      {{- fail (printf "%s: pools are also names of ports, which have at most 15 lower-case letters, digits and single dashes, a letter first, and \"metrics\" is taken: rename it" .from) -}}
    {{- end -}}
    {{- $port := toString (int .port) -}}
    {{- with get $ports $port -}}
      {{- fail (printf "%s.port is %s, as is %s: choose another one" $pool.from $port .) -}}
    {{- end -}}
    {{- $_ := set $ports $port (printf "%s.port" .from) -}}
    {{- $sources := list -}}
    {{- range list "servers" "servers_dns" "servers_url" "cluster" -}}
      {{- if get $pool.settings . -}}{{- $sources = append $sources . -}}{{- end -}}
    {{- end -}}
    {{- if .configMap.name -}}{{- $sources = append $sources "serversConfigMap" -}}{{- end -}}
    {{- if not $sources -}}
      {{- fail (printf "%s does not say where its servers are: set servers, servers_dns, servers_url, cluster or serversConfigMap" .from) -}}
    {{- else if gt (len $sources) 1 -}}
      {{- fail (printf "%s.%s and %s.%s both say where servers are: remove one of them" .from (first $sources) .from (index $sources 1)) -}}
    {{- end -}}
    {{- if and .settings.cluster (not .redis) -}}
      {{- fail (printf "%s.cluster: memcached has no cluster: set redis to true, or use servers" .from) -}}
    {{- end -}}
    {{- if and .auth.existingSecret (not .redis) -}}
      {{- fail (printf "%s.auth: memcached's text protocol has no passwords: remove it" .from) -}}
    {{- end -}}
    {{- with .service.nodePort -}}
      {{- $node := printf "node %d" (int .) -}}
      {{- with get $ports $node -}}
        {{- fail (printf "%s.nodePort is %s, as is %s: choose another one" $pool.from (trimPrefix "node " $node) .) -}}
      {{- end -}}
      {{- $_ := set $ports $node (printf "%s.nodePort" $pool.from) -}}
    {{- end -}}
    {{- if and .service.nodePort (eq $.Values.proxy.service.type "ClusterIP") -}}
      {{- fail (printf "%s.nodePort has no meaning with proxy.service.type ClusterIP: remove it, or use NodePort or LoadBalancer" .from) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- if and (eq $mode "proxy") $elsewhere -}}
  {{- range include "memstore.pools" . | fromJsonArray -}}
    {{- include "memstore.serverChecks" . -}}
  {{- end -}}
{{- end -}}
{{- end }}

{{/* What is wrong with the servers of one of memstore.pools: no proxy would start with them. */}}
{{- define "memstore.serverChecks" -}}
{{- $from := .from -}}
{{- $names := dict -}}
{{- range $server := .settings.servers -}}
  {{- $words := splitList " " $server | compact -}}
  {{- $address := regexReplaceAll ":[0-9]+$" (first $words) "" -}}
  {{- $port := regexFind ":[0-9]+$" $address | trimPrefix ":" -}}
  {{- if and (not (hasPrefix "/" $address)) (not (regexMatch "^0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$" $port)) -}}
    {{- fail (printf "%s.servers: %q has port %s, and ports are from 1 to 65535" $from $server $port) -}}
  {{- end -}}
  {{- if regexMatch ":0+$" (first $words) -}}
    {{- fail (printf "%s.servers: %q has weight 0, and would have no keys: remove it, or give it 1" $from $server) -}}
  {{- end -}}
  {{- $name := ternary (index $words (sub (len $words) 1 | int)) $address (gt (len $words) 1) -}}
  {{- with get $names $name -}}
    {{- fail (printf "%s.servers: %q and %q have the same name: give one of them another one behind its weight" $from . $server) -}}
  {{- end -}}
  {{- $_ := set $names $name $server -}}
{{- end -}}
{{- if regexMatch "^[a-z]+://[^/?#]*@" (toString .settings.servers_url) -}}
  {{- fail (printf "%s has a user name or a password, which everybody could read in a ConfigMap and the proxy does not take: remove it" (ternary "proxy.serversUrl" (printf "%s.servers_url" $from) (eq $from "proxy.pool"))) -}}
{{- end -}}
{{- end }}

{{/*
What a NetworkPolicy can know of servers that run elsewhere, as JSON: by port the addresses that values name, all ports that they name, what is known by no
address, and what has no known port.
*/}}
{{- define "memstore.serversKnown" -}}
{{- $blocks := dict -}}
{{- $ports := list -}}
{{- $named := list -}}
{{- $portless := list -}}
{{- range include "memstore.pools" . | fromJsonArray -}}
  {{- $from := .from -}}
  {{- $settings := .settings -}}
  {{- range $server := $settings.servers -}}
    {{- $address := splitList " " $server | first | trimAll " " -}}
    {{- /* A Unix socket is no matter of networks. */ -}}
    {{- if not (hasPrefix "/" $address) -}}
      {{- $address = regexReplaceAll ":[0-9]+$" $address "" -}}
      {{- $port := regexFind "[1-9][0-9]*$" $address -}}
      {{- $host := regexReplaceAll ":[0-9]+$" $address "" | trimPrefix "[" | trimSuffix "]" | lower | trimPrefix "::ffff:" -}}
      {{- $ports = append $ports (int $port) -}}
      {{- $block := "" -}}
      {{- $byte := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
      {{- if regexMatch (printf "^(%s\\.){3}%s$" $byte $byte) $host -}}{{- $block = printf "%s/32" $host -}}
      {{- else if regexMatch "^[0-9a-f]*:[0-9a-f:.]*$" $host -}}{{- $block = printf "%s/128" $host -}}
      {{- else if ne $host "localhost" -}}{{- $named = append $named (printf "%s.servers" $from) -}}{{- end -}}
      {{- if and $block (not (hasPrefix "127." $block)) (ne $block "::1/128") -}}
        {{- $_ := set $blocks $port (append (get $blocks $port | default list) $block | uniq) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- with $settings.cluster -}}
    {{- /* Its nodes name each other. */ -}}
    {{- $named = append $named (printf "%s.cluster" $from) -}}
    {{- range .seeds -}}{{- $ports = append $ports (regexFind "[1-9][0-9]*$" . | int) -}}{{- end -}}
  {{- end -}}
  {{- with $settings.servers_dns -}}
    {{- $named = append $named (printf "%s.servers_dns" $from) -}}
    {{- with toString . | regexFind ":0*[1-9][0-9]*$" -}}{{- $ports = append $ports (regexFind "[1-9][0-9]*$" . | int) -}}
    {{- else -}}{{- $portless = append $portless (printf "%s.servers_dns" $from) -}}{{- end -}}
  {{- end -}}
  {{- if $settings.servers_url -}}
    {{- $name := ternary "proxy.serversUrl" (printf "%s.servers_url" $from) (eq $from "proxy.pool") -}}
    {{- $named = append $named $name -}}
    {{- $portless = append $portless $name -}}
  {{- end -}}
  {{- if .configMap.name -}}
    {{- $name := ternary "proxy.serversConfigMap" (printf "%s.serversConfigMap" $from) (eq $from "proxy.pool") -}}
    {{- $named = append $named $name -}}
    {{- $portless = append $portless $name -}}
  {{- end -}}
{{- end -}}
{{- dict "blocks" $blocks "ports" (uniq $ports | sortAlpha) "named" $named "portless" $portless | toJson -}}
{{- end }}

{{/* To whom proxies may connect whose servers run elsewhere, as rules of a NetworkPolicy. */}}
{{- define "memstore.serversEgress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $known := include "memstore.serversKnown" . | fromJson -}}
{{- range $port, $blocks := $known.blocks }}
- ports:
    - {port: {{ $port }}, protocol: TCP}
  to:
    {{- range $blocks }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- with $policy.serversCIDRs }}
- ports:
    {{- range $policy.serversPorts | default $known.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    {{- range . }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}
{{- end }}

{{/* Whose servers they are, in words. */}}
{{- define "memstore.theirServers" -}}
{{- $proxy := .Values.proxy -}}
{{- $pool := $proxy.pool | default dict -}}
{{- if $pool.servers -}}{{- printf "%d servers that run elsewhere (proxy.pool.servers)" (len $pool.servers) -}}
{{- else if $pool.servers_dns -}}the servers named by proxy.pool.servers_dns
{{- else if $pool.cluster -}}the Redis Cluster that proxy.pool.cluster names
{{- else if $proxy.serversConfigMap.name -}}the servers listed in ConfigMap {{ $proxy.serversConfigMap.name }}
{{- else -}}the servers listed at proxy.serversUrl
{{- end -}}
{{- end }}

{{- define "memstore.ofPool" -}}
{{- if ne .from "proxy.pool" }} ({{ .from }}){{ end -}}
{{- end }}

{{/* Milliseconds of a duration as Prometheus writes it. */}}
{{- define "memstore.scrapeTime" -}}
{{- $total := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
  {{- $total = add $total (mul (regexFind "^[0-9]+" . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- $total -}}
{{- end }}
