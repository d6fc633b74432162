"""Values that are refused, defaults that depend on others, and upgrades: what runs keeps its name, its port and its number."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import jsonschema
import yaml

from rendering import CHART, MEMSTORE, memstore, pick, pod_spec, pods, proxy_files, refused, rendered, told

CLIENT_SIDE, CLUSTER, MEMCACHED = {"partitioning": "client-side"}, {"partitioning": "redis-cluster"}, {"shards": {"type": "memcached"}}
TLS = {"tls": {"enabled": True, "existingSecret": "s"}}


def sentence(error):
    """What helm says, on one line."""
    return " ".join(error.split())


def listed(values):
    """Values of a release whose servers are listed at a URL, with these besides."""
    merged = {"proxy": {"serversUrl": "http://lists:8080/cache"}, "networkPolicy": {"proxyExtraEgress": [{}]}}
    for section, given in values.items():
        merged[section] = merged.get(section, {}) | given
    return merged


def elsewhere(values):
    """Values of a release whose servers run elsewhere, with these besides."""
    merged = {"proxy": {"pool": {"servers": ["10.0.0.1:6379:1 a", "10.0.0.2:6379:1 b"]}}}
    for section, given in values.items():
        merged[section] = merged.get(section, {}) | given
    return merged


def several(pools, **proxy):
    """Values of a release of several pools: these besides one that is right."""
    return {"proxy": {"pools": {"right": {"port": 7001, "redis": True, "servers": ["10.0.0.1:6379:1"]}} | pools} | proxy}


def daemons(proxy):
    return {"proxy": {"kind": "DaemonSet"} | proxy}


def named(values, *path):
    """The values with one more."""
    *path, last, value = path
    below = values
    for part in path:
        below = below.setdefault(part, {})
    below[last] = value
    return values


class Effects(unittest.TestCase):
    """What would have no effect is refused."""

    def test_each_has_its_sentence(self):
        proxy = "there is no proxy"
        for values, name, why in [
            (CLIENT_SIDE | {"metrics": {"serviceMonitor": {"enabled": True}}}, "metrics.serviceMonitor.enabled", proxy),
            (CLIENT_SIDE | {"metrics": {"podMonitor": {"enabled": True}}}, "metrics.podMonitor.enabled", proxy),
            (CLIENT_SIDE | {"metrics": {"rules": {"enabled": True}}}, "metrics.rules.enabled", proxy),
            (CLIENT_SIDE | {"metrics": {"dashboard": {"enabled": True}}}, "metrics.dashboard.enabled", proxy),
            ({"proxy": {"enabled": False}, "metrics": {"dashboard": {"enabled": True}}}, "metrics.dashboard.enabled", proxy),
            (CLIENT_SIDE | {"proxy": {"autoscaling": {"enabled": True}}}, "proxy.autoscaling.enabled", proxy),
            (CLIENT_SIDE | {"proxy": {"keda": {"enabled": True, "triggers": [{}]}}}, "proxy.keda.enabled", proxy),
            (CLIENT_SIDE | {"proxy": {"service": {"type": "LoadBalancer"}}}, "proxy.service.type", proxy),
            (CLIENT_SIDE | {"proxy": {"pool": {"timeout": "2s"}}}, "proxy.pool.timeout", proxy),
            (CLIENT_SIDE | {"proxy": {"pool": {"server_connections": 2}}}, "proxy.pool.server_connections", proxy),
            (CLIENT_SIDE | {"proxy": {"count": 5}}, "proxy.count", proxy),
            (CLIENT_SIDE | {"proxy": {"service": {"port": 7000}}}, "proxy.service.port", proxy),
            (CLIENT_SIDE | {"proxy": {"resources": {"limits": {"memory": "1Gi"}}}}, "proxy.resources.limits.memory", proxy),
            (CLIENT_SIDE | {"networkPolicy": {"proxyExtraEgress": [{}]}}, "networkPolicy.proxyExtraEgress", proxy),
            (CLIENT_SIDE | {"networkPolicy": {"allowExternal": True}}, "networkPolicy.allowExternal", proxy),
            (CLIENT_SIDE | {"tests": {"enabled": False}, "jobs": {"podLabels": {"a": "b"}}}, "jobs.podLabels", "tests.enabled"),
            (CLUSTER | {"proxy": {"enabled": False}, "redisCluster": {"readFrom": "nearest"}}, "redisCluster.readFrom", proxy),
            (CLUSTER | {"proxy": {"shardIdentity": False}}, "proxy.shardIdentity", "by their node IDs"),
            ({"redisCluster": {"nodeTimeout": 9000}}, "redisCluster.nodeTimeout", "Redis Cluster"),
            ({"redisCluster": {"reconcile": {"interval": "9s"}}}, "redisCluster.reconcile.interval", "Redis Cluster"),
            (CLUSTER | {"redisCluster": {"reconcile": {"enabled": False, "limit": "9m"}}}, "redisCluster.reconcile.limit", "set that to true"),
            (
                CLUSTER | {"shards": {"persistence": {"enabled": True}}, "redisCluster": {"nodesVolume": {"size": "2Gi"}}},
                "redisCluster.nodesVolume.size", "shards.persistence.size",
            ),
            ({"shards": {"persistence": {"appendOnly": False}}}, "shards.persistence.appendOnly", "set that to true"),
            ({"shards": {"persistence": {"whenDeleted": "Delete"}}}, "shards.persistence.whenDeleted", "set that to true"),
            (CLUSTER | {"shards": {"persistence": {"appendOnly": False}}}, "shards.persistence.appendOnly", "set that to true"),
            ({"shards": {"pdb": {"enabled": False, "maxUnavailable": 2}}}, "shards.pdb.maxUnavailable", "set that to true"),
            ({"shards": {"livenessProbe": {"enabled": False, "periodSeconds": 9}}}, "shards.livenessProbe.periodSeconds", "set that to true"),
            (
                {"shards": {"readinessProbe": {"custom": {"tcpSocket": {"port": "shard"}}, "periodSeconds": 9}}},
                "shards.readinessProbe.periodSeconds", "set it there",
            ),
            ({"proxy": {"startupProbe": {"enabled": False, "failureThreshold": 9}}}, "proxy.startupProbe.failureThreshold", "set that to true"),
            ({"proxy": {"pdb": {"enabled": False, "maxUnavailable": 2}}}, "proxy.pdb.maxUnavailable", "set that to true"),
            ({"proxy": {"autoscaling": {"minReplicas": 4}}}, "proxy.autoscaling.minReplicas", "set that to true"),
            ({"proxy": {"autoscaling": {"behavior": {"scaleUp": {"x": 1}}}}}, "proxy.autoscaling.behavior.scaleUp", "set that to true"),
            ({"proxy": {"keda": {"maxReplicas": 4}}}, "proxy.keda.maxReplicas", "set that to true"),
            ({"proxy": {"pool": {"reauth": "keep"}}}, "proxy.pool.reauth", "set that to true"),
            ({"proxy": {"pool": {"distribution": "slots", "hash": "md5"}}}, "proxy.pool.hash", "another distribution"),
            ({"auth": {"passwordKey": "word"}}, "auth.passwordKey", "set that to true"),
            ({"networkPolicy": {"enabled": False, "dnsPorts": [5353]}}, "networkPolicy.dnsPorts", "everybody may connect"),
            ({"networkPolicy": {"metricsPeers": [{}]}}, "networkPolicy.metricsPeers", "networkPolicy.metricsNamespaces"),
            (
                {"networkPolicy": {"clientNamespaces": ["shop"]}, "proxy": {"service": {"type": "NodePort"}}},
                "networkPolicy.clientNamespaces", "NodePort, whose clients are not pods, so that everybody may connect",
            ),
            ({"networkPolicy": {"clientPeers": [{}], "allowExternal": True}}, "networkPolicy.clientPeers", "allowExternal is true"),
            ({"metrics": {"serviceMonitor": {"interval": "1m"}}}, "metrics.serviceMonitor.interval", "set that to true"),
            ({"metrics": {"rules": {"disabled": ["x"]}}}, "metrics.rules.disabled", "set that to true"),
            ({"metrics": {"dashboard": {"labels": {"a": "b"}}}}, "metrics.dashboard.labels.a", "set that to true"),
            ({"tests": {"memtier": {"args": ["-x"]}}}, "tests.memtier.args", "set that to true"),
            (MEMCACHED | {"proxy": {"shardIdentity": False}}, "proxy.shardIdentity", "for Redis"),
            ({"redisCluster": {"replicasPerPrimary": 1}}, "redisCluster.replicasPerPrimary", "Redis Cluster"),
            (CLIENT_SIDE | {"redisCluster": {"requireFullCoverage": True}}, "redisCluster.requireFullCoverage", "Redis Cluster"),
            ({"redisCluster": {"announceHostnames": False}}, "redisCluster.announceHostnames", "Redis Cluster"),
            ({"redisCluster": {"readFrom": "nearest"}}, "redisCluster.readFrom", "Redis Cluster"),
            ({"shards": {"persistence": {"storageClass": "fast"}}}, "shards.persistence.storageClass", "set that to true"),
            ({"shards": {"persistence": {"annotations": {"a": "b"}}}}, "shards.persistence.annotations", "set that to true"),
            ({"shards": {"persistence": {"size": "9Gi"}}}, "shards.persistence.size", "set that to true"),
            (CLUSTER | {"shards": {"persistence": {"size": "9Gi"}}}, "shards.persistence.size", "set that to true"),
            ({"proxy": {"pool": {"miss_on_get_errors": True}}}, "proxy.pool.miss_on_get_errors", "for memcached"),
            ({"shards": {"type": "memcached", "config": "x y"}}, "shards.config", "for Redis"),
            ({"shards": {"type": "memcached", "maxmemoryPolicy": "noeviction"}}, "shards.maxmemoryPolicy", "for Redis"),
            (MEMCACHED | {"proxy": {"pool": {"redis_db": 1}}}, "proxy.pool.redis_db", "for Redis"),
            ({"proxy": {"service": {"externalTrafficPolicy": "Local"}}}, "proxy.service.externalTrafficPolicy", "ClusterIP"),
            ({"proxy": {"service": {"loadBalancerClass": "x"}}}, "proxy.service.loadBalancerClass", "LoadBalancer"),
            ({"proxy": {"autoscaling": {"metrics": [{}]}}}, "proxy.autoscaling.metrics", "set that to true"),
            ({"proxy": {"keda": {"triggers": [{}]}}}, "proxy.keda.triggers", "set that to true"),
            ({"networkPolicy": {"enabled": False, "clientNamespaces": ["a"]}}, "networkPolicy.clientNamespaces", "everybody may connect"),
            ({"networkPolicy": {"enabled": False, "metricsNamespaces": ["a"]}}, "networkPolicy.metricsNamespaces", "everybody may connect"),
            ({"networkPolicy": {"enabled": False}, "jobs": {"extraEgress": [{}]}}, "jobs.extraEgress", "everybody may connect"),
            ({"auth": {"user": "app"}}, "auth.user", "set that to true"),
            ({"tls": {"clientAuth": "required"}}, "tls.clientAuth", "set that to true"),
            (CLIENT_SIDE | TLS | {"tls": TLS["tls"] | {"clients": False}}, "tls.clients", proxy),
            ({"tls": TLS["tls"] | {"clients": False, "serverName": "x"}}, "tls.serverName", "tls.clients is false"),
            ({"tls": TLS["tls"] | {"shards": False, "shardsSecret": "x"}}, "tls.shardsSecret", "tls.shards is false"),
            (elsewhere(TLS | {"tls": TLS["tls"] | {"shards": False}}), "tls.shards", "the release runs no shards"),
            ({"tls": TLS["tls"] | {"certManager": {"dnsNames": ["x"]}}}, "tls.certManager.dnsNames", "tls.certManager.issuerRef is empty"),
            (elsewhere({"proxy": {"serversTls": {"clientCertificate": True}}}), "proxy.serversTls.clientCertificate", "proxy.serversTls.existingSecret is empty"),
            ({"proxy": {"serversTls": {"existingSecret": "x"}}}, "proxy.serversTls.existingSecret", "no servers that run elsewhere are named"),
            (several({}, serversTls={"existingSecret": "x"}), "proxy.serversTls.existingSecret", "each of proxy.pools has its own"),
            ({"serviceAccount": {"annotations": {"a": "b"}}}, "serviceAccount.annotations", "set that to true"),
            ({"tests": {"enabled": False, "memtier": {"enabled": True}}}, "tests.memtier.enabled", "set that to true"),
            (listed({"shards": {"count": 5}}), "shards.count", "the release runs no shards"),
            (listed({"shards": {"persistence": {"enabled": True}}}), "shards.persistence.enabled", "the release runs no shards"),
            (listed({"networkPolicy": {"shardsExtraEgress": [{}]}}), "networkPolicy.shardsExtraEgress", "the release runs no shards"),
            (listed({"tests": {"enabled": False}, "jobs": {"podLabels": {"a": "b"}}}), "jobs.podLabels", "tests.enabled"),
            ({"proxy": {"serversUrlRefresh": "9s"}}, "proxy.serversUrlRefresh", "proxy.serversUrl is empty"),
            (elsewhere({"proxy": {"serversUrlRefresh": "9s"}}), "proxy.serversUrlRefresh", "proxy.serversUrl is empty"),
            ({"proxy": {"serversConfigMap": {"key": "x"}}}, "proxy.serversConfigMap.key", "proxy.serversConfigMap.name is empty"),
            (elsewhere({"shards": {"count": 5}}), "shards.count", "proxy.pool.servers is set, so that the release runs no shards"),
            (elsewhere({"shards": {"resources": {"limits": {"memory": "2Gi"}}}}), "shards.resources.limits.memory", "the release runs no shards"),
            (elsewhere({"proxy": {"shardIdentity": False}}), "proxy.shardIdentity", "the release runs no shards"),
            (elsewhere({"networkPolicy": {"serversPorts": [1]}}), "networkPolicy.serversPorts", "networkPolicy.serversCIDRs is empty"),
            ({"networkPolicy": {"serversCIDRs": ["10.0.0.0/8"]}}, "networkPolicy.serversCIDRs", "no servers that run elsewhere are named"),
            ({"proxy": {"pool": {"servers_srv": "x"}}}, "proxy.pool.servers_srv", "proxy.pool.servers_dns is not set"),
            (several({}, pool={"servers_count": 2}), "proxy.pool.servers_count", "proxy.pool.servers_dns is not set"),
            (CLIENT_SIDE | {"networkPolicy": {"serversCIDRs": ["10.0.0.0/8"]}}, "networkPolicy.serversCIDRs", proxy),
            (CLIENT_SIDE | {"proxy": {"pool": {"servers": ["a:1:1"]}}}, "proxy.pool.servers", proxy),
            (CLIENT_SIDE | {"proxy": {"kind": "DaemonSet"}}, "proxy.kind", proxy),
            (CLUSTER | {"proxy": {"pool": {"servers": ["a:1:1"]}}}, "proxy.pool.servers", "the list of its nodes itself"),
            (CLUSTER | {"proxy": {"pool": {"cluster": {"seeds": ["a:1"]}}}}, "proxy.pool.cluster", "the list of its nodes itself"),
            (CLUSTER | {"proxy": {"serversConfigMap": {"name": "x"}}}, "proxy.serversConfigMap.name", "the list of its nodes itself"),
            (CLUSTER | {"proxy": {"pools": {"a": {"port": 7000, "redis": True}}}}, "proxy.pools", "the list of its nodes itself"),
            (several({}) | {"auth": {"enabled": True, "existingSecret": "s"}}, "auth.enabled", "each of proxy.pools has its own"),
            (several({}) | MEMCACHED, "shards.type", "each of proxy.pools has its own"),
            (several({}, service={"port": 7000}), "proxy.service.port", "each of proxy.pools has its own port"),
            (several({}, service={"type": "NodePort", "nodePort": 30000}), "proxy.service.nodePort", "each of proxy.pools has its own"),
            (several({}) | {"tests": {"memtier": {"enabled": True}}}, "tests.memtier.enabled", "several pools"),
            (daemons({"count": 5}), "proxy.count", "one proxy on each node"),
            (daemons({"autoscaling": {"enabled": True}}), "proxy.autoscaling.enabled", "one proxy on each node"),
            (daemons({"keda": {"enabled": True, "triggers": [{}]}}), "proxy.keda.enabled", "one proxy on each node"),
            (daemons({"spread": "DoNotSchedule"}), "proxy.spread", "one proxy on each node"),
            (daemons({"topologySpreadConstraints": [{}]}), "proxy.topologySpreadConstraints", "one proxy on each node"),
            (daemons({"pdb": {"maxUnavailable": 2}}), "proxy.pdb.maxUnavailable", "one proxy on each node"),
            ({"proxy": {"service": {"loadBalancerIP": "10.0.0.1"}}}, "proxy.service.loadBalancerIP", "LoadBalancer"),
            (
                {"proxy": {"service": {"type": "LoadBalancer", "healthCheckNodePort": 30001}}},
                "proxy.service.healthCheckNodePort", "externalTrafficPolicy is not Local",
            ),
            ({"proxy": {"service": {"sessionAffinityTimeoutSeconds": 60}}}, "proxy.service.sessionAffinityTimeoutSeconds", "sessionAffinity is not ClientIP"),
            ({"metrics": {"serviceMonitor": {"scrapeTimeout": "5s"}}}, "metrics.serviceMonitor.scrapeTimeout", "set that to true"),
            (CLIENT_SIDE | {"proxy": {"serversUrl": "http://lists/cache"}}, "proxy.serversUrl", proxy),
            (CLUSTER | {"proxy": {"serversUrl": "http://lists/cache"}}, "proxy.serversUrl", "the list of its nodes itself"),
        ]:
            with self.subTest(name):
                said = sentence(refused(values))
                self.assertIn(f"{name} has no effect, since ", said)
                self.assertIn(why, said)

    def test_what_has_one_is_taken(self):
        for values in [
            CLUSTER | {"shards": {"persistence": {"storageClass": "fast"}}},
            CLUSTER | {"redisCluster": {"replicasPerPrimary": 1, "readFrom": "nearest"}},
            CLIENT_SIDE | {"proxy": {"pool": {"hash": "md5", "hash_tag": "{}"}, "nodeSelector": {"a": "b"}, "image": {"tag": "1"}}},
            CLUSTER | {"shards": {"persistence": {"annotations": {"a": "b"}, "whenScaled": "Delete"}}, "redisCluster": {"nodesVolume": {"size": "2Gi"}}},
            # What is written as it is anyway, and what is taken away, is nobody's mistake.
            {"proxy": {"autoscaling": {"minReplicas": 2, "metrics": None}}, "tests": {"memtier": {"args": None}}, "metrics": {"rules": {"labels": {}}}},
            {"networkPolicy": {"clientNamespaces": ["shop"], "allowExternal": False}, "proxy": {"service": {"type": "NodePort"}}},
            CLUSTER | {"networkPolicy": {"clientNamespaces": ["shop"]}, "proxy": {"service": {"type": "NodePort"}}},
            {"networkPolicy": {"metricsPeers": [{}]}, "metrics": {"podMonitor": {"enabled": True, "interval": "1m"}}},
            # Whoever switches the proxy off says that the rest of its values means nothing.
            {"proxy": {"enabled": False, "autoscaling": {"enabled": True}, "service": {"type": "LoadBalancer"}, "pool": {"timeout": "2s"}}},
            MEMCACHED | {"proxy": {"pool": {"miss_on_get_errors": True}}},
            {"metrics": {"dashboard": {"enabled": True}}},
            {"shards": {"enabled": True}}, CLUSTER | {"shards": {"enabled": True}}, CLIENT_SIDE | {"proxy": {"service": {"ipFamilies": ["IPv6"]}}},
            daemons({"pdb": {"enabled": False}}),
        ]:
            with self.subTest(str(values)):
                rendered(values)


class Passwords(unittest.TestCase):
    """They come from a Secret, or not at all."""

    def test_others_are_refused(self):
        for values, name, word in [
            ({"config": "maxclients 10\nrequirepass hush"}, "shards.config", "requirepass"),
            ({"config": "  MASTERAUTH hush"}, "shards.config", "MASTERAUTH"),
            ({"config": "\"requirepass\" hush"}, "shards.config", "requirepass"),
            ({"config": "'MasterAuth' hush"}, "shards.config", "MasterAuth"),
            ({"config": "primaryauth hush"}, "shards.config", "primaryauth"),
            ({"config": "user app on \">hush\" ~* +@all"}, "shards.config", "user"),
            ({"extraArgs": ["--primaryauth", "hush"]}, "shards.extraArgs", "primaryauth"),
            ({"config": "user app on >hush ~* +@all"}, "shards.config", "user"),
            ({"config": "user app on #9f86d081 ~* +@all"}, "shards.config", "user"),
            ({"config": "tls-key-file-pass hush"}, "shards.config", "tls-key-file-pass"),
            ({"extraArgs": ["--requirepass", "hush"]}, "shards.extraArgs", "requirepass"),
            ({"extraArgs": ["--io-threads", "2", "--requirepass=hush"]}, "shards.extraArgs", "requirepass"),
            ({"extraArgs": ["--user", "app on >hush ~* +@all"]}, "shards.extraArgs", "user"),
        ]:
            with self.subTest(str(values)):
                said = sentence(refused({"shards": values}))
                self.assertIn(f"{name} has a password ({word})", said)
                self.assertIn("auth.existingSecret", said)
                self.assertNotIn("hush", said)
        self.assertIn("redis_auth", refused({"proxy": {"pool": {"redis_auth": "x"}}}))

    def test_what_is_none_is_taken(self):
        for values in [
            {"config": "user default on nopass ~* -@dangerous\n#requirepass x\nusers-are-fine yes"},
            {"extraArgs": ["--io-threads", "2", "--maxclients", "20000"]},
            {"type": "memcached", "extraArgs": ["-u", "nobody", "--auth-file=/x"]},
        ]:
            with self.subTest(str(values)):
                rendered({"shards": values})

    def test_who_is_open_to_others_without_one_is_warned(self):
        for kind in ["NodePort", "LoadBalancer"]:
            service = {"proxy": {"service": {"type": kind}}}
            self.assertIn(f"WARNING: a {kind} without a password", told(service))
            self.assertIn(f"WARNING: a {kind} in front of memcached", told(service | MEMCACHED))
            self.assertNotIn("a password", told(service | {"auth": {"enabled": True, "existingSecret": "s"}}))


class Pool(unittest.TestCase):
    """Settings of the proxy among the values."""

    def test_mistakes_are_told_with_their_place(self):
        for setting, value, words in [
            ("timeout", "3x", "does not match pattern"),
            ("timeout", -1, "minimum"),
            ("distribution", "ketamo", "value must be one of"),
            ("hash", "md6", "value must be one of"),
            ("server_connections", 0, "minimum"),
            ("server_connections", 70000, "maximum"),
            ("preconnect", "yes", "value must be one of"),
            ("hash_tag", ["{", "}"], "got array, want "),
            ("pin", "shard-0", "got string, want object"),
            ("request_bytes_max", "1TiB", "does not match pattern"),
            ("hash_tag", "{", "does not match pattern"),
            ("hash_tag", "{}}", "does not match pattern"),
            ("hash_tag", 100, "maximum"),
            ("eject_max_share", "101%", "does not match pattern"),
            ("eject_max_share", 50, "got number, want string"),
            ("timeout", "8761h", "does not match pattern"),
            ("timeout", 31536000001, "maximum"),
            ("connect_timeout", "0s", "does not match pattern"),
            ("arguments_max", "0", "does not match pattern"),
            ("databases", "0", "does not match pattern"),
            ("in_flight_max", "1048577", "does not match pattern"),
            ("request_bytes_max", "1000000GiB", "does not match pattern"),
            ("request_bytes_max", 10**15, "maximum"),
        ]:
            with self.subTest(f"{setting}: {value}"):
                said = sentence(refused({"proxy": {"pool": {setting: value}}}))
                self.assertIn(f"/proxy/pool/{setting}': ", said)
                self.assertIn(words, said)
        said = sentence(refused({"proxy": {"pool": {"timeouts": 1, "hash": "md5"}}}))
        self.assertIn("at '/proxy/pool': additional properties 'timeouts' not allowed", said)
        # What no schema can tell, the chart does.
        self.assertIn('distribution is "single"', refused({"proxy": {"pool": {"distribution": "single"}}}))
        self.assertIn('distribution is "single"', refused(CLIENT_SIDE | {"proxy": {"pool": {"distribution": "single"}}}))
        rendered({"shards": {"count": 1}, "proxy": {"pool": {"distribution": "single"}}})
        for pool, words in [
            ({"pin": {"rq:": "shard-3"}}, '"rq:" are to go to "shard-3", which is none of the 3 shards (shard-0, shard-1, shard-2)'),
            ({"pin": {"rq:": "{user}"}, "distribution": "random"}, '"rq:" are to follow a hash tag'),
        ]:
            for values in ({}, CLIENT_SIDE):
                self.assertIn(words, refused(values | {"proxy": {"pool": pool}}))
        rendered({"shards": {"count": 4}, "proxy": {"pool": {"pin": {"rq:": "shard-3", "s:": "{user}"}}}})
        self.assertIn("servers_within_limit: a Redis Cluster", refused(CLUSTER | {"proxy": {"pool": {"servers_within_limit": "1h"}}}))

    def test_the_most_of_everything_comes_to_the_proxy(self):
        pool = {
            "hash_tag": 12, "eject_max_share": "100%", "timeout": 31536000000, "adopt_wait": "8760h", "queue_wait": "525600m", "info_refresh": "0",
            "request_bytes_max": 10**15 - 1, "client_output_max": "999999GiB", "shard_queue_bytes_max": "1 kb", "arguments_max": 2147483647,
            "in_flight_max": "01048576", "client_connections": 4294967295, "server_failure_limit": "0", "redis_db": 4294967294, "backlog": 0,
        }
        drain = {"graceSeconds": 31536000, "limitSeconds": 31536000}
        with tempfile.TemporaryDirectory() as folder:
            done = memstore("check", "-c", proxy_files(rendered({"proxy": {"pool": pool, "drain": drain}}), Path(folder)))
        self.assertEqual(done.returncode, 0, done.stderr)
        topology = pick(rendered(CLIENT_SIDE | {"proxy": {"pool": {"hash_tag": 12}}}), "ConfigMap", "-topology")
        self.assertEqual(json.loads(topology["data"]["topology.json"])["pools"]["cache"]["hash_tag"], "12")

    def test_other_texts_are_checked_as_well(self):
        for place, value in [
            ("proxy/readyMinHealthy", "500%"), ("proxy/maxSurge", "0%"), ("proxy/maxSurge", "some"), ("proxy/pdb/maxUnavailable", "one"),
            ("shards/pdb/maxUnavailable", "-1"), ("redisCluster/reconcile/interval", "5x"), ("redisCluster/reconcile/interval", "0s"),
            ("metrics/serviceMonitor/interval", "often"),
        ]:
            with self.subTest(f"{place}: {value}"):
                self.assertIn(f"/{place}': ", refused(named({}, *place.split("/"), value)))
        for place, value in [("proxy/readyMinHealthy", "100%"), ("proxy/maxSurge", "25%"), ("proxy/maxSurge", 1), ("metrics/podMonitor/interval", "1m30s")]:
            rendered(named({"metrics": {"podMonitor": {"enabled": True}}}, *place.split("/"), value))

    def test_the_schema_and_the_proxy_read_the_same(self):
        """Each setting at and around each limit of any, as a number and as a text: both take it, or neither does."""
        schema = json.loads((CHART / "values.schema.json").read_text())["$defs"]["pool"]["properties"]
        # Where servers are, and names of theirs, depend on other settings, and so does what is told of the proxies. Certificates are files.
        schema = {name: one for name, one in schema.items() if name not in ("cluster", "tls", "keyless_scripts") and not re.match("cluster_facade|servers(_|$)(?!within_limit)", name)}
        limits = {most for one in schema.values() for most in (one.get("minimum", 0), one.get("maximum", 0))}
        limits |= {0, 10, 100, 999, 8760, 525600, 31536000, 10**6, 10**9, 10**12, 2**16, 2**20, 2**31, 2**32, 2**63, 2**64, 10**20}
        numbers = sorted({limit + step for limit in limits for step in (-1, 0, 1)})
        units = ["ms", "s", "m", "h", " s", "s ", "b", "B", "k", "KiB", "kb", "M", "miB", "MB", "G", "gib", "GB", "T", "kk", "d", "%", " %"]
        words = ["", "none", "auto", "true", "false", True, False, "yes", "3x", "1.5", 1.5, "-1", "+1", "1e3", "ketama", "md5", "keep", "nearest", "0x10"]
        words += ["all", "proxy", "hash_keys", "refuse", "any", "one-shard", "{}", "{", "{}}", "  ", "\u00e9", "\u00e9\u00e9", "$$", "00", "ab", "0100%", "100%", "101%", "100", "%", "0 s", "s", " 1", "1 "]
        taken = 0
        for name, one in schema.items():
            values = words + [number for number in numbers if number < 2**53] + [f"{zeros}{number}" for number in numbers for zeros in ("", "00")]
            has_units = re.search("ms|kK|%", one.get("pattern", ""))
            values += [f"{number}{unit}" for number in numbers if number >= 0 for unit in (units if has_units else units[:1])]
            if one.get("type") == "object":
                values += [{}, {"rq:": "{user}"}, {"rq:": "127.0.0.1:1", "p" * 250: "{1}"}]
                values += [{"": "{user}"}, {"p" * 251: "{user}"}, {"rq:": ""}, {"rq:": 5}, {"rq:": ["{user}"]}, {"rq:": {}}]
            reads = self.read_by_the_proxy(name, values)
            conforms = jsonschema.Draft7Validator(one).is_valid
            for value, reading in zip(values, reads, strict=True):
                self.assertEqual(conforms(value), reading, f"{name}: {value!r}: the schema and the proxy differ")
            taken += sum(reads)
            self.assertTrue(any(reads) and not all(reads), name)
        self.assertGreater(taken, 1000)

    def read_by_the_proxy(self, name, values):
        """Whether it takes each of these for the setting, written as the chart writes it."""
        lines = []
        for number, value in enumerate(values):
            redis = "false" if name == "miss_on_get_errors" else "true"
            lines.append(f"p{number}:\n  listen: /s{number}\n  redis: {redis}\n  servers: ['127.0.0.1:1:1']\n  {name}: {json.dumps(value)}\n")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "memstore.yml"
            path.write_text("".join(lines))
            wrong = set(re.findall(r"pool p(\d+): ", memstore("check", "-c", path).stderr))
        return [str(number) not in wrong for number in range(len(values))]

    def test_an_editor_is_given_a_whole_schema(self):
        schema = json.loads(memstore("settings", "--format", "json-schema").stdout)
        self.assertIn("log_format", schema["then"]["properties"])
        self.assertIn("read_from", schema["definitions"]["cluster"]["properties"])
        for one in [*schema["then"]["properties"].values(), *schema["definitions"]["pool"]["properties"].values()]:
            self.assertIn("description", one)
        taken = [yaml.safe_load(path.read_text()) for path in (CHART.parent / "examples" / "compose").glob("*/memstore.yml")]
        auth = {"auth": {"enabled": True, "existingSecret": "s", "user": "app"}}
        taken += [yaml.safe_load(pick(rendered(values), "ConfigMap", "-proxy")["data"]["memstore.yml"]) for values in [MEMCACHED, CLUSTER, auth]]
        taken.append({"alpha": {"listen": "127.0.0.1:1", "redis": True, "timeout": 400, "servers": ["127.0.0.1:2:1 a"]}})
        self.assertGreater(len(taken), 5)
        for config in taken:
            jsonschema.validate(config, schema)
        for place, value in [("log_levels", "info"), ("log_level", "loud"), ("pools", {"a": {"listen": "x", "timeot": 1}})]:
            with self.assertRaises(jsonschema.ValidationError):
                jsonschema.validate(taken[-2] | {place: value}, schema)

    def test_the_schema_refers_to_what_it_has(self):
        text = (CHART / "values.schema.json").read_text()
        defined = json.loads(text)["$defs"]
        for name in re.findall(r'"\$ref": "([^"]*)"', text):
            self.assertIn(name.removeprefix("#/$defs/"), defined, name)

    def test_clients_have_limits_by_default(self):
        for values in [{}, MEMCACHED, CLUSTER]:
            pool = yaml.safe_load(pick(rendered(values), "ConfigMap", "-proxy")["data"]["memstore.yml"])["pools"]["cache"]
            self.assertEqual((pool["client_connections"], pool["tcpkeepalive"]), (10000, True))


class Listed(unittest.TestCase):
    """Servers that run elsewhere, listed at a URL."""

    def test_proxies_poll_the_list_and_nothing_else_runs(self):
        for values in [{}, MEMCACHED, {"proxy": {"pool": {"distribution": "single"}, "serversUrlRefresh": "1m"}, "auth": {"enabled": True, "existingSecret": "s"}}]:
            if "proxy" in values:
                values = values | {"proxy": values["proxy"] | {"serversUrl": "http://lists:8080/cache"}}
            resources = rendered(listed(values))
            self.assertEqual({one["kind"] for one in pods(resources)}, {"Deployment", "Pod"})
            self.assertFalse([one for one in resources if "shard" in one["metadata"]["name"] or "ring" in one["metadata"]["name"]])
            with tempfile.TemporaryDirectory() as folder:
                done = memstore("check", "-c", proxy_files(resources, Path(folder)))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("shards listed at lists:8080", done.stdout)
            mounted = {one["name"] for one in pod_spec(pick(resources, "Deployment", "-proxy"))["volumes"]}
            self.assertLessEqual(mounted, {"config", "auth"})
        self.assertIn("the servers listed at proxy.serversUrl", told(listed({})))
        self.assertNotIn("WARNING", told(listed({})))

    def test_it_needs_a_way_to_the_servers(self):
        values = {"proxy": {"serversUrl": "http://lists:8080/cache"}}
        self.assertIn("set networkPolicy.proxyExtraEgress", sentence(refused(values)))
        networks = {"networkPolicy": {"serversCIDRs": ["10.0.0.0/8"]}}
        self.assertIn("set networkPolicy.serversPorts", sentence(refused(values | networks)))
        rendered(values | {"networkPolicy": {"enabled": False}})
        for url in ["https://lists/cache", "lists/cache", "http://lists/a b"]:
            self.assertIn("/proxy/serversUrl", refused({"proxy": {"serversUrl": url}}))

    def test_shards_that_run_are_not_deleted_for_it(self):
        running = pick(rendered(), "StatefulSet")
        self.assertIn("would be deleted with their keys", sentence(refused(listed({}), running=[running])))
        rendered(listed({"shards": {"allowDataLoss": True}}), running=[running])


class Ports(unittest.TestCase):
    """What clients expect, and what they have already."""

    def ports(self, values, running=()):
        services = {one["metadata"]["name"]: one for one in rendered(values, running=running) if one["kind"] == "Service"}
        return [services[name]["spec"]["ports"][0]["port"] for name in ["cache-memstore", "cache-memstore-shards"]]

    def service(self, name, port):
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "ns"}, "spec": {"ports": [{"port": port}]}}

    def test_each_server_has_its_own(self):
        self.assertEqual(self.ports({}), [6379, 6379])
        self.assertEqual(self.ports(MEMCACHED), [11211, 11211])
        both = {"shards": {"type": "memcached", "service": {"port": 7000}}, "proxy": {"service": {"port": 7001}}}
        self.assertEqual(self.ports(both), [7001, 7000])
        self.assertIn("memcached://memstore.ns.svc.cluster.local:11211", told(MEMCACHED))

    def test_a_release_keeps_what_it_has(self):
        running = [self.service("cache-memstore", 6379), self.service("cache-memstore-shards", 6379)]
        self.assertEqual(self.ports(MEMCACHED, running), [6379, 6379])
        self.assertEqual(self.ports(MEMCACHED | {"proxy": {"service": {"port": 11211}}}, running), [11211, 6379])
        # Redis has always been where it is: who takes a port out of the values wants the usual one.
        self.assertEqual(self.ports({}, [self.service("cache-memstore", 7000)]), [6379, 6379])


class Replicas(unittest.TestCase):
    """How many proxies there are while an autoscaler is switched on."""

    AUTOSCALING = {"proxy": {"count": 5, "autoscaling": {"enabled": True, "minReplicas": 4}}}
    KEDA = {"proxy": {"count": 5, "keda": {"enabled": True, "minReplicas": 4, "triggers": [{"type": "cpu"}]}}}

    def replicas(self, values, running=None):
        found = []
        if running is not None:
            metadata = {"name": "cache-memstore-proxy", "namespace": "ns"}
            found = [{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": running}}]
        return pick(rendered(values, running=found), "Deployment", "-proxy")["spec"].get("replicas")

    def test_those_that_run_stay(self):
        for values in [self.AUTOSCALING, self.KEDA]:
            self.assertEqual(self.replicas(values, running=5), 5)
            self.assertEqual(self.replicas(values, running=9), 9)
            self.assertEqual(self.replicas(values, running=2), 4)

    def test_there_are_never_fewer_than_the_least(self):
        for values in [self.AUTOSCALING, self.KEDA]:
            self.assertEqual(self.replicas(values), 4)

    def test_without_it_they_are_counted(self):
        self.assertEqual(self.replicas({"proxy": {"count": 5}}, running=9), 5)
        self.assertEqual(self.replicas({"proxy": {"count": 0}}), 0)

    def test_who_applies_renders_again_and_again_may_leave_it_out(self):
        self.assertIsNone(self.replicas(named(json.loads(json.dumps(self.AUTOSCALING)), "proxy", "count", None)))


class Names(unittest.TestCase):
    """What Kubernetes takes, and no other release has."""

    def test_every_name_of_a_release_is_one_of_resources(self):
        for name in ["123", "my.app", "a" * 53, "x.y-z.0"]:
            for mode in ["proxy", "client-side", "redis-cluster"]:
                for resource in rendered({"partitioning": mode}, name=name):
                    called = resource["metadata"]["name"]
                    self.assertRegex(called, r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", f"{name}: {resource['kind']}")

    def test_two_releases_never_have_one_name(self):
        for one, other in [("a" * 45 + "-one", "a" * 45 + "-two"), ("my.app", "my-app"), ("123", "m123"), ("a.b-c", "a-b.c")]:
            names = [pick(rendered({}, name=name), "StatefulSet")["metadata"]["name"] for name in (one, other)]
            self.assertNotEqual(*names)

    def test_what_fits_is_called_as_before(self):
        self.assertEqual(pick(rendered({}, name="a" * 35), "StatefulSet")["metadata"]["name"], "a" * 35 + "-memstore-shards")
        self.assertEqual(pick(rendered({}, name="memstore"), "StatefulSet")["metadata"]["name"], "memstore-shards")

    def test_shards_with_a_name_that_was_only_cut_are_not_left(self):
        name = "b" * 50
        metadata = {"name": "b" * 44 + "-shards", "namespace": "ns", "labels": {"app.kubernetes.io/instance": name}}
        running = [{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": {"replicas": 3}}]
        self.assertIn(f"set fullnameOverride to {'b' * 44}", sentence(refused({}, name=name, running=running)))
        kept = rendered({"fullnameOverride": "b" * 44}, name=name, running=running)
        self.assertEqual(pick(kept, "StatefulSet")["metadata"]["name"], "b" * 44 + "-shards")


class Images(unittest.TestCase):
    """Where they come from, and which."""

    def images(self, values):
        return {container["image"] for one in pods(rendered(values)) for container in pod_spec(one)["containers"]}

    def test_none_is_the_latest_without_a_word(self):
        for repository, image in [("reg/redis", "reg/redis:8.2-alpine"), ("reg:5000/a/redis", "reg:5000/a/redis:8.2-alpine"), ("redis", "redis:8.2-alpine")]:
            self.assertIn(image, self.images({"shards": {"image": {"repository": repository}}}))
        self.assertIn("reg/memcached:1.6-alpine", self.images({"shards": {"type": "memcached", "image": {"repository": "reg/memcached"}}}))
        for image in [{"repository": "reg/valkey"}, {"repository": "valkey/valkey"}]:
            self.assertIn("has no tag", refused({"shards": {"image": image}}))
        self.assertIn("redis:latest", self.images({"shards": {"image": {"repository": "redis:latest"}}}))
        digest = "sha256:" + "a" * 64
        self.assertIn(f"valkey/valkey@{digest}", self.images({"shards": {"image": {"repository": "valkey/valkey", "digest": digest}}}))

    def test_all_of_them_come_from_one_registry(self):
        tests = {"tests": {"memtier": {"enabled": True}}}
        for mode in ["proxy", "redis-cluster"]:
            images = self.images({"partitioning": mode, "global": {"imageRegistry": "reg.example.org/mirror/"}} | tests)
            self.assertEqual({image.split("/")[0] for image in images}, {"reg.example.org"})
            self.assertIn("reg.example.org/mirror/redis:8.2-alpine", images)
        own = {"global": {"imageRegistry": "reg.example.org"}, "shards": {"image": {"repository": "localhost/redis:7"}}}
        self.assertIn("localhost/redis:7", self.images(own))
        self.assertIn("reg.example.org/memstore/memstore:0.1.0", self.images(own))
        self.images({"global": {"imageRegistry": None, "imagePullSecrets": None}})

    def test_secrets_of_all_charts_are_used(self):
        values = {"imagePullSecrets": ["own"], "global": {"imagePullSecrets": [{"name": "theirs"}]}}
        for one in pods(rendered(values)):
            self.assertEqual(pod_spec(one)["imagePullSecrets"], [{"name": "own"}, {"name": "theirs"}])


class Upgrades(unittest.TestCase):
    """With --reuse-values helm takes all values of the older chart, defaults included, and none of those that came since."""

    def test_values_of_an_older_chart_are_enough(self):
        for mode in ["proxy", "client-side", "redis-cluster"]:
            with self.subTest(mode), tempfile.TemporaryDirectory() as folder:
                chart = shutil.copytree(CHART, Path(folder) / "memstore", ignore=lambda folder, _: ["tests"] if Path(folder) == CHART else [])
                values = yaml.safe_load((CHART / "values.yaml").read_text())
                # What came after the first version, and a part of everything else: no value may be needed.
                for name in ["jobs", "global", "defaultsDigest", "tests", "metrics"]:
                    del values[name]
                del values["redisCluster"]["reconcile"]["podLabels"], values["proxy"]["autoscaling"], values["networkPolicy"]["metricsPeers"]
                del values["shards"]["enabled"], values["proxy"]["lifecycle"]
                for name in ["kind", "pools", "serversConfigMap"]:
                    del values["proxy"][name]
                values["partitioning"] = mode
                (chart / "values.yaml").write_text(yaml.safe_dump(values))
                self.assertEqual(rendered(chart=chart), rendered({"partitioning": mode}))
                # A default of that time is nobody's wish, whatever it is below.
                of_old = {"tests": {"memtier": {"image": "older:1"}}}
                rendered(of_old, chart=chart)
                self.assertIn("tests.memtier.image has no effect", refused(of_old))

    def test_a_section_that_is_taken_away_is_the_default(self):
        kinds = [one["kind"] for one in rendered()]
        for name, value in yaml.safe_load((CHART / "values.yaml").read_text()).items():
            if isinstance(value, dict):
                with self.subTest(name):
                    self.assertEqual([one["kind"] for one in rendered({name: None})], kinds)

    def test_a_section_below_another_is_switched_off(self):
        for values, off in [
            (named({}, "shards", "pdb", None), named({}, "shards", "pdb", {"enabled": False})),
            (named({}, "shards", "livenessProbe", None), named({}, "shards", "livenessProbe", {"enabled": False})),
            (named({}, "proxy", "startupProbe", None), named({}, "proxy", "startupProbe", {"enabled": False})),
            (CLUSTER | {"redisCluster": {"reconcile": None}}, CLUSTER | {"redisCluster": {"reconcile": {"enabled": False}}}),
            *(({above: {below: None}}, {}) for above, below in [
                ("shards", "persistence"), ("shards", "image"), ("shards", "service"), ("proxy", "service"), ("proxy", "drain"), ("proxy", "image"),
                ("proxy", "autoscaling"), ("proxy", "keda"), ("metrics", "rules"), ("metrics", "serviceMonitor"), ("tests", "memtier"),
            ]),
        ]:
            with self.subTest(str(values)):
                # The test's pod has a name by what is given.
                found = [[one for one in rendered(each) if one["kind"] != "Pod"] for each in (values, off)]
                self.assertEqual(*found)
        self.assertEqual(rendered({"cluster": {"domain": None}})[0]["kind"], rendered()[0]["kind"])
        for name, part in [("shards", "count"), ("metrics", "port")]:
            self.assertIn(f"{name}.{part} is null", refused({name: {part: None}}))

    def test_every_template_takes_its_values_from_one_place(self):
        for path in (CHART / "templates").rglob("*"):
            if path.is_file() and not path.name.startswith("_"):
                first = path.read_text().splitlines()[0]
                self.assertEqual(first, '{{- include "memstore.values" . -}}', path.name)


class Metrics(unittest.TestCase):
    """Who may read them, and what they are shown as."""

    def readers(self, values):
        policy = pick(rendered(values), "NetworkPolicy", "-proxy")
        return [rule["from"] for rule in policy["spec"]["ingress"] if rule["ports"][0]["port"] == 9121][0]

    def test_nobody_may_who_does_not_need_them(self):
        def components(peers):
            return [peer["podSelector"]["matchExpressions"][0]["values"] for peer in peers]
        # Those that wait for the ring, and proxies, which start with the ring that the others use.
        self.assertEqual(components(self.readers({})), [["proxy", "ring"]])
        for monitor in ["serviceMonitor", "podMonitor"]:
            _, *others = self.readers({"metrics": {monitor: {"enabled": True}}})
            self.assertEqual(others, [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}])
        _, *others = self.readers({"networkPolicy": {"metricsNamespaces": ["m"]}})
        self.assertEqual(others[0]["namespaceSelector"]["matchExpressions"][0]["values"], ["m"])
        self.assertEqual(len(self.readers({"metrics": {"serviceMonitor": {"enabled": True}}, "networkPolicy": {"metricsPeers": []}})), 1)

    def targets(self):
        def below(panels):
            for panel in panels:
                yield panel
                yield from below(panel.get("panels", []))
        dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
        self.assertTrue(dashboard["uid"])
        for panel in below(dashboard["panels"]):
            for target in panel.get("targets", []):
                yield panel, target

    def test_shards_of_different_pools_are_not_added_up(self):
        count = 0
        for panel, target in self.targets():
            for labels in re.findall(r"by \(([^)]*)\)", target["expr"]):
                labels = {label.strip() for label in labels.split(",")}
                if "shard" in labels:
                    count += 1
                    self.assertLessEqual({"service", "pool"}, labels, panel["title"])
                    if panel["type"] == "timeseries":
                        for label in ["service", "pool", "shard"]:
                            self.assertIn("{{%s}}" % label, target["legendFormat"], panel["title"])
        self.assertGreater(count, 10)

    def test_proxies_outside_of_kubernetes_have_their_own_lines(self):
        count = 0
        for panel, target in self.targets():
            for labels in re.findall(r"by \(([^)]*)\)", target["expr"]):
                if "pod" in {label.strip() for label in labels.split(",")}:
                    count += 1
                    self.assertIn("instance", labels, panel["title"])
            if "{{pod}}" in target.get("legendFormat", ""):
                self.assertIn("{{instance}}", target["legendFormat"], panel["title"])
            # Of all that Prometheus knows `up` is of everybody, where nothing selects.
            self.assertNotRegex(target["expr"], r"\bup\{")
        self.assertGreater(count, 10)


class Pages(unittest.TestCase):
    """What is told can be done."""

    def test_the_comparison_of_rings_works_as_it_is_told(self):
        page = (CHART / "MIGRATION.md").read_text()
        blocks = re.findall(r"(?:^    .*\n|^\n)+", page, re.M)
        block = next(block for block in blocks if "helm template cache ./chart -f values.yaml" in block)
        script = "\n".join(line[4:] for line in block.splitlines())
        old = "alpha:\n  listen: 127.0.0.1:2\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  servers:\n   - 10.0.0.1:6379:1\n   - 10.0.0.2:6379:1 beta\n"
        with tempfile.TemporaryDirectory() as folder:
            here, tools = Path(folder), Path(folder) / "bin"
            tools.mkdir()
            (here / "nutcracker.yml").write_text(old)
            (here / "values.yaml").write_text('shards: {count: 2, ringNames: ["10.0.0.1:6379", "beta"]}\n')
            (here / "chart").symlink_to(CHART)
            (tools / "memstore").symlink_to(Path(MEMSTORE).resolve())
            (tools / "helm").symlink_to(Path(shutil.which(os.environ["HELM"])).resolve())
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, check=False,
                env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
            )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("alpha: 100.00 % of", done.stdout)

    def test_values_for_a_mesh_are_taken(self):
        blocks = re.findall(r"```yaml\n(.*?)```", (CHART / "MESH.md").read_text(), re.S)
        self.assertGreater(len(blocks), 2)
        for block in blocks:
            values = yaml.safe_load(block)
            for mode in ["proxy", "redis-cluster"]:
                # What is for a Redis Cluster stands there as such.
                also = {} if mode == "redis-cluster" else {"redisCluster": {}}
                rendered(values | {"partitioning": mode} | also)
