"""Proxies alone: servers that run elsewhere, in one pool or several; and how clients come to proxies."""

import json
import re
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from rendering import ROOT, memstore, pick, pod_spec, pods, proxy_files, refused, rendered, told
from test_values import CLIENT_SIDE, CLUSTER, daemons, elsewhere, sentence, several

NETWORKS = {"networkPolicy": {"serversCIDRs": ["10.0.0.0/8"], "serversPorts": [6379]}}
AUTH = {"auth": {"enabled": True, "existingSecret": "s", "user": "app"}}


def config(resources):
    return yaml.safe_load(pick(resources, "ConfigMap", "-proxy")["data"]["memstore.yml"])["pools"]


def container(resources):
    proxies = [one for one in resources if one["kind"] in ("Deployment", "DaemonSet")]
    return pod_spec(proxies[0])["containers"][0]


def service(values):
    return pick(rendered(values), "Service", "cache-memstore")


class Alone(unittest.TestCase):
    """One pool of servers that run elsewhere."""

    WAYS = [
        ({"pool": {"servers": ["redis-a.example:6379:1 a", "redis-b.example:6379:2 b"]}}, "2 servers that run elsewhere (proxy.pool.servers)"),
        ({"pool": {"servers_dns": "redis-{}.example:6379", "servers_count": 2}}, "the servers named by proxy.pool.servers_dns"),
        ({"pool": {"servers_dns": "redis-{}.example", "servers_srv": "_redis._tcp.redis.example", "servers_count": 2}}, "proxy.pool.servers_dns"),
        ({"pool": {"cluster": {"seeds": ["node.example:6379"], "read_from": "nearest"}}}, "the Redis Cluster that proxy.pool.cluster names"),
        ({"serversConfigMap": {"name": "theirs", "key": "list"}}, "the servers listed in ConfigMap theirs"),
        ({"serversUrl": "http://lists.example/cache"}, "the servers listed at proxy.serversUrl"),
    ]

    def test_proxies_serve_them_and_nothing_else_runs(self):
        for proxy, words in self.WAYS:
            for more in [{}, AUTH, {"shards": {"enabled": False}}]:
                values = {"proxy": proxy} | NETWORKS | more
                with self.subTest(str(values)), tempfile.TemporaryDirectory() as folder:
                    resources = rendered(values)
                    self.assertEqual([one["kind"] for one in pods(resources)], ["Deployment", "Pod"])
                    self.assertFalse([one for one in resources if "shard" in one["metadata"]["name"] or "ring" in one["metadata"]["name"]])
                    for resource in resources:
                        kubernetes_validate.validate(resource, "1.34", strict=True)
                    done = memstore("check", "-c", proxy_files(resources, Path(folder)))
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertNotIn("warning", done.stdout)
                    said = told(values)
                    self.assertIn(words, said)
                    self.assertNotIn("WARNING", said)

    def test_settings_are_told_as_they_are_given(self):
        pool = config(rendered({"proxy": {"pool": {"cluster": {"seeds": ["a.example:1"]}, "timeout": "2s"}}} | NETWORKS | AUTH))["cache"]
        self.assertEqual(pool["cluster"], {"seeds": ["a.example:1"]})
        self.assertEqual((pool["redis_auth_file"], pool["redis_user"], pool["timeout"]), ("/etc/memstore/auth/password", "app", "2s"))
        self.assertFalse(pool.keys() & {"hash", "distribution", "shard_identity", "servers_file", "servers_peers"})
        self.assertEqual(config(rendered(elsewhere({"shards": {"type": "memcached"}})))["cache"]["redis"], False)

    def test_who_poses_as_a_cluster_announces_its_service(self):
        def announced(pool, **values):
            given = {"proxy": {"pool": {"cluster": {"seeds": ["a.example:1"]}} | pool} | values}
            return config(rendered(given | NETWORKS | AUTH))["cache"].get("cluster_facade_announce")

        self.assertIsNone(announced({}))
        host = "cache-memstore.ns.svc.cluster.local"
        self.assertEqual(announced({"cluster_facade": True}), f"{host}:6379")
        self.assertEqual(announced({"cluster_facade": "true"}, service={"port": 7000}), f"{host}:7000")
        self.assertEqual(announced({"cluster_facade": True, "cluster_facade_announce": "x:1"}), "x:1")
        self.assertIsNone(announced({"cluster_facade": True, "cluster_facade_nodes": ["x:1"]}))

    def test_the_list_of_a_config_map_is_mounted_as_a_folder(self):
        resources = rendered({"proxy": {"serversConfigMap": {"name": "theirs", "key": "list"}}} | NETWORKS)
        self.assertEqual(config(resources)["cache"]["servers_file"], "/etc/memstore/servers/servers.yml")
        self.assertIn({"name": "servers", "mountPath": "/etc/memstore/servers", "readOnly": True}, container(resources)["volumeMounts"])
        source = {"name": "theirs", "items": [{"key": "list", "path": "servers.yml"}]}
        self.assertIn({"name": "servers", "configMap": source}, pod_spec(pick(resources, "Deployment"))["volumes"])

    def test_mistakes_are_refused(self):
        servers = {"servers": ["10.0.0.1:6379:1"]}
        for values, words in [
            ({"shards": {"enabled": False}}, "set proxy.pool.servers, proxy.pool.servers_dns, proxy.pool.cluster"),
            (CLIENT_SIDE | {"shards": {"enabled": False}}, 'partitioning is "client-side", which consists of shards'),
            (CLUSTER | {"shards": {"enabled": False}}, 'partitioning is "redis-cluster", which consists of shards'),
            ({"shards": {"enabled": True}, "proxy": {"pool": servers}}, "shards.enabled is true, and proxy.pool.servers is set"),
            ({"proxy": {"pool": servers, "serversConfigMap": {"name": "x"}}}, "both say where servers are"),
            ({"proxy": {"pool": servers, "serversUrl": "http://x/"}}, "both say where servers are"),
            ({"proxy": {"pool": servers | {"cluster": {"seeds": ["a:1"]}}}}, "both say where servers are"),
            (several({}, pool=servers), "both say where servers are"),
            ({"proxy": {"pool": {"cluster": {"seeds": ["a:1"]}, "hash_tag": "{}"}}} | NETWORKS, "proxy.pool.hash_tag: a Redis Cluster decides"),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:6379"]}}}, "/proxy/pool/servers/0"),
            ({"proxy": {"pool": {"servers": []}}}, "/proxy/pool/servers"),
            ({"proxy": {"pool": {"cluster": {}}}}, "/proxy/pool/cluster"),
            ({"proxy": {"pool": {"cluster": {"seeds": ["a"]}}}}, "/proxy/pool/cluster/seeds/0"),
            ({"proxy": {"pool": {"servers_file": "/x"}}}, "servers_file"),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:0:1"]}}}, "has port 0, and ports are from 1 to 65535"),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:65536:1 a"]}}}, "has port 65536"),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:1:1", "10.0.0.2:1:0"]}}}, '"10.0.0.2:1:0" has weight 0'),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:1:1 a", "10.0.0.2:1:1 a"]}}}, '"10.0.0.1:1:1 a" and "10.0.0.2:1:1 a" have the same name'),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:1:1", "10.0.0.1:1:2"]}}}, "have the same name"),
            ({"proxy": {"pool": {"servers": ["10.0.0.1:1:1 a b"]}}}, "/proxy/pool/servers/0"),
            ({"proxy": {"pool": {"servers_dns": True}}}, "/proxy/pool/servers_dns"),
            ({"proxy": {"pool": {"servers_dns": "redis.example:6379"}}}, "/proxy/pool/servers_dns"),
            ({"proxy": {"serversUrl": "http://user:hush@lists.example/x"}}, "proxy.serversUrl has a user name or a password"),
            ({"proxy": {"pool": servers}, "networkPolicy": {"serversCIDRs": ["10.0.0.0/33"]}}, "/networkPolicy/serversCIDRs/0"),
            ({"proxy": {"pool": servers}, "networkPolicy": {"serversCIDRs": ["lists.example/8"]}}, "/networkPolicy/serversCIDRs/0"),
            ({"proxy": {"pool": {"keyless_scripts": "shard-3"}}}, "none of the 3 shards"),
        ]:
            with self.subTest(words):
                self.assertIn(words, sentence(refused(values)))
        # Whose names they are the chart need not know.
        rendered(elsewhere({"proxy": {"pool": servers | {"keyless_scripts": "10.0.0.1:6379", "pin": {"a:": "10.0.0.1:6379"}}}}))
        rendered({"shards": {"count": 1, "ringNames": ["old"]}, "proxy": {"pool": {"keyless_scripts": "old"}}})

    def test_shards_that_run_are_not_deleted_for_it(self):
        running = pick(rendered(), "StatefulSet")
        self.assertIn("proxy.pool.servers is set, and this release runs shards", sentence(refused(elsewhere({}), running=[running])))
        rendered(elsewhere({"shards": {"allowDataLoss": True}}), running=[running])


class Egress(unittest.TestCase):
    """Whom proxies may connect to follows from the values."""

    def rules(self, values):
        _, *rules = pick(rendered(values), "NetworkPolicy", "-proxy")["spec"]["egress"]
        return [([port["port"] for port in rule["ports"]], [peer["ipBlock"]["cidr"] for peer in rule["to"]]) for rule in rules]

    def servers(self, *servers, **policy):
        return {"proxy": {"pool": {"servers": list(servers)}}, "networkPolicy": policy}

    def test_addresses_are_allowed_one_by_one(self):
        found = self.rules(self.servers("10.0.0.1:6379:1 a", "10.0.0.2:6379:1", "10.0.0.1:6380:1", "[fd00::1]:6379:1 six", "10.0.0.2:6379:1 again"))
        self.assertEqual(found, [([6379], ["10.0.0.1/32", "10.0.0.2/32", "fd00::1/128"]), ([6380], ["10.0.0.1/32"])])

    def test_addresses_are_allowed_however_they_are_written(self):
        found = self.rules(self.servers("10.0.0.1:06379:1", "10.0.0.2:00777:1 a", "fd00::1:7000:1", "[::ffff:10.0.0.3]:7001:1", "[FD00::2]:7000:2 a:6380:1"))
        self.assertEqual(found, [
            ([6379], ["10.0.0.1/32"]), ([7000], ["fd00::1/128", "fd00::2/128"]), ([7001], ["10.0.0.3/32"]), ([777], ["10.0.0.2/32"]),
        ])
        # What Kubernetes would not take for an address.
        for host in ["999.0.0.1", "010.0.0.1", "[fe80::1%eth0]", "10.1"]:
            self.assertIn("set networkPolicy.serversCIDRs", sentence(refused(self.servers(f"{host}:6379:1"))))

    def test_what_stays_in_the_pod_needs_no_rule(self):
        self.assertEqual(self.rules(self.servers("127.0.0.1:6379:1", "/run/redis.sock:1 b", "localhost:6380:1", "[::1]:6381:1")), [])

    def test_names_need_networks(self):
        for servers in [("a.example:6379:1", "b.example:6380:1"), ("10.0.0.1:6379:1", "a.example:6380:1")]:
            self.assertIn("set networkPolicy.serversCIDRs", sentence(refused(self.servers(*servers))))
        networks = {"serversCIDRs": ["10.0.0.0/8", "fd00::/8"]}
        self.assertEqual(self.rules(self.servers("a.example:6379:1", "b.example:6380:1", **networks)), [([6379, 6380], networks["serversCIDRs"])])
        found = self.rules(self.servers("a.example:6379:1", serversPorts=[7000], **networks))
        self.assertEqual(found, [([7000], networks["serversCIDRs"])])
        rendered(self.servers("a.example:6379:1", enabled=False))
        rendered(self.servers("a.example:6379:1", proxyExtraEgress=[{}]))

    def test_nodes_of_a_cluster_need_networks_and_have_the_ports_of_seeds(self):
        pool = {"proxy": {"pool": {"cluster": {"seeds": ["10.0.0.1:7000", "10.0.0.2:7001"]}}}}
        self.assertIn("proxy.pool.cluster is set", sentence(refused(pool)))
        self.assertEqual(self.rules(pool | {"networkPolicy": {"serversCIDRs": ["10.0.0.0/8"]}}), [([7000, 7001], ["10.0.0.0/8"])])

    def test_lists_that_the_chart_does_not_know_need_ports(self):
        for proxy, name in [({"serversConfigMap": {"name": "x"}}, "proxy.serversConfigMap"), ({"serversUrl": "http://x/"}, "proxy.serversUrl")]:
            said = sentence(refused({"proxy": proxy, "networkPolicy": {"serversCIDRs": ["10.0.0.0/8"]}}))
            self.assertIn(f"{name} does not tell the ports", said)
            self.assertEqual(self.rules({"proxy": proxy} | NETWORKS), [([6379], ["10.0.0.0/8"])])

    def test_pools_are_allowed_together(self):
        values = several({"other": {"port": 7002, "redis": False, "servers": ["10.0.0.9:11211:1"]}})
        self.assertEqual(self.rules(values), [([11211], ["10.0.0.9/32"]), ([6379], ["10.0.0.1/32"])])


class Pools(unittest.TestCase):
    """Several of them, each with its port."""

    def values(self):
        return yaml.safe_load((ROOT / "examples" / "values" / "several-pools.yaml").read_text())

    def test_each_has_its_port_servers_and_password(self):
        resources = rendered(self.values())
        pools = config(resources)
        self.assertEqual(list(pools), ["pages", "search", "sessions"])
        self.assertEqual([pool["listen"] for pool in pools.values()], ["0.0.0.0:22121", "0.0.0.0:22123", "0.0.0.0:22122"])
        self.assertEqual((pools["pages"]["redis"], pools["pages"]["hash"], pools["pages"]["timeout"]), (False, "md5", "400ms"))
        self.assertEqual(pools["sessions"]["redis_auth_file"], "/etc/memstore/auth-sessions/password")
        self.assertEqual(pools["search"]["servers_file"], "/etc/memstore/servers-search/servers.yml")
        self.assertNotIn("redis_auth_file", pools["search"])
        ports = [(one["name"], one["port"], one["targetPort"]) for one in service(self.values())["spec"]["ports"]]
        self.assertEqual(ports, [("pages", 22121, "pages"), ("search", 22123, "search"), ("sessions", 22122, "sessions")])
        listens = {one["name"]: one["containerPort"] for one in container(resources)["ports"]}
        self.assertEqual(listens, {"pages": 22121, "search": 22123, "sessions": 22122, "metrics": 9121})
        mounted = {one["name"] for one in container(resources)["volumeMounts"]}
        self.assertEqual(mounted, {"config", "auth-sessions", "servers-search"})
        self.assertEqual(mounted, {one["name"] for one in pod_spec(pick(resources, "Deployment"))["volumes"]})
        ingress = pick(resources, "NetworkPolicy", "-proxy")["spec"]["ingress"][0]["ports"]
        self.assertEqual([one["port"] for one in ingress], [22121, 22123, 22122])

    def test_each_is_tried(self):
        spec = pod_spec(next(one for one in rendered(self.values()) if one["kind"] == "Pod"))
        tried = {one["name"]: one["args"][1:] for one in spec["containers"]}
        host = "cache-memstore.ns.svc.cluster.local."
        self.assertEqual(tried, {
            "try-pages": [f"{host}:22121", "--memcached"], "try-search": [f"{host}:22123"],
            "try-sessions": [f"{host}:22122", "--auth-file", "/etc/memstore/auth-sessions/password"],
        })
        self.assertEqual([one["name"] for one in spec["volumes"]], ["auth-sessions"])
        ports = pick(rendered(self.values()), "NetworkPolicy", "-jobs")["spec"]["egress"][1]["ports"]
        self.assertLessEqual({22121, 22122, 22123}, {one["port"] for one in ports})

    def test_notes_name_each_address(self):
        said = told(self.values())
        for address in ["memcached://memstore.ns.svc.cluster.local:22121", "redis://:PASSWORD@memstore.ns.svc.cluster.local:22122", "redis://memstore.ns.svc.cluster.local:22123"]:
            self.assertIn(address, said)
        said = told(self.values() | {"proxy": self.values()["proxy"] | {"service": {"type": "NodePort"}}})
        self.assertIn("in front of memcached (proxy.pools.pages)", said)
        self.assertIn("without a password (proxy.pools.search.auth)", said)
        self.assertNotIn("proxy.pools.sessions", said)

    def test_their_own_settings_come_first(self):
        given = {"port": 7002, "redis": True, "cluster": {"seeds": ["10.0.0.1:1"]}}
        values = several({"b": given, "c": {"port": 7003, "redis": True, "servers": ["10.0.0.1:1:1"], "tcpkeepalive": False}}, pool={"timeout": "3s"}) | NETWORKS
        pools = config(rendered(values))
        self.assertEqual([pool["timeout"] for pool in pools.values()], ["3s"] * 3)
        self.assertEqual([pool["tcpkeepalive"] for pool in pools.values()], [True, False, True])
        self.assertFalse(pools["b"].keys() & {"hash", "distribution"})
        with tempfile.TemporaryDirectory() as folder:
            done = memstore("check", "-c", proxy_files(rendered(values), Path(folder)))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_defaults_that_have_no_meaning_for_a_pool_are_left_out(self):
        pools = {
            "b": {"port": 7002, "redis": True, "cluster": {"seeds": ["10.0.0.1:1"]}},
            "c": {"port": 7003, "redis": False, "servers": ["10.0.0.1:1:1"]},
        }
        shared = {"hash": "md5", "auto_eject_hosts": True, "databases": 4, "miss_on_get_errors": True}
        resources = rendered(several(pools, pool=shared) | NETWORKS)
        found = config(resources)
        self.assertFalse(found["b"].keys() & shared.keys())
        self.assertEqual((found["right"]["hash"], found["right"]["databases"]), ("md5", 4))
        self.assertNotIn("miss_on_get_errors", found["right"])
        self.assertTrue(found["c"]["miss_on_get_errors"])
        with tempfile.TemporaryDirectory() as folder:
            done = memstore("check", "-c", proxy_files(resources, Path(folder)))
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_mistakes_are_refused(self):
        servers = {"servers": ["10.0.0.1:6379:1"]}
        pool = {"port": 7002, "redis": True} | servers
        for pools, words in [
            ({"b": pool | {"port": 7001}}, "proxy.pools.right.port is 7001, as is proxy.pools.b.port"),
            ({"b": pool | {"port": 9121}}, "proxy.pools.b.port is 9121, as is metrics.port"),
            ({"b": {"port": 7002, "redis": True}}, "proxy.pools.b does not say where its servers are"),
            ({"b": pool | {"serversConfigMap": {"name": "x"}}}, "proxy.pools.b.servers and proxy.pools.b.serversConfigMap both"),
            ({"b": {"port": 7002, "redis": False, "cluster": {"seeds": ["a:1"]}}}, "memcached has no cluster"),
            ({"b": pool | {"redis": False, "auth": {"existingSecret": "s"}}}, "no passwords"),
            ({"b": pool | {"nodePort": 30000}}, "proxy.pools.b.nodePort has no meaning"),
            ({"b": pool | {"servers": ["10.0.0.1:6379:0"]}}, "proxy.pools.b.servers"),
            ({"b": {"port": 7002, "redis": True, "servers_url": "http://u:p@x/"}}, "proxy.pools.b.servers_url has a user name or a password"),
            ({"b": {"port": 7002, "redis": True, "cluster": {"seeds": ["10.0.0.1:1"]}, "hash_tag": "{}"}}, "proxy.pools.b.hash_tag: a Redis Cluster decides"),
            ({"b": {"port": 7002} | servers}, "redis"),
            ({"b": {"redis": True} | servers}, "port"),
            ({"b": pool | {"port": 80}}, "/proxy/pools/b/port"),
            ({"b": pool | {"listen": "0.0.0.0:1"}}, "listen"),
            ({"b": pool | {"redis_auth": "hush"}}, "redis_auth"),
            ({"b": pool | {"auth": {"user": "x"}}}, "existingSecret"),
            ({"b": pool | {"timeout": "3x"}}, "/proxy/pools/b/timeout"),
            *(({name: pool}, f"proxy.pools.{name}: pools are also names of ports") for name in ["metrics", "B", "a--b", "a-", "1", "a" * 16]),
        ]:
            with self.subTest(words):
                self.assertIn(words, sentence(refused(several(pools) | {"networkPolicy": {"proxyExtraEgress": [{}]}})))
        twice = {name: pool | {"port": port, "nodePort": 30000} for name, port in [("b", 7002), ("c", 7003)]}
        self.assertIn("proxy.pools.c.nodePort is 30000, as is proxy.pools.b.nodePort", sentence(refused(several(twice, service={"type": "NodePort"}))))
        self.assertIn("proxy.pools is set, so that the release runs no shards", sentence(refused(several({}) | {"shards": {"count": 5}})))


class Reached(unittest.TestCase):
    """How clients come to proxies: the Service's fields, and where proxies run."""

    def test_the_service_has_what_is_given(self):
        given = {
            "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30001, "loadBalancerIP": "10.0.0.1", "loadBalancerClass": "c",
            "sessionAffinity": "ClientIP", "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"],
        }
        values = {"proxy": {"listenAddress": "[::]", "service": given | {"labels": {"a": "b"}, "annotations": {"c": "d"}, "sessionAffinityTimeoutSeconds": 60}}}
        found = service(values)
        self.assertEqual({name: found["spec"].get(name) for name in given}, given)
        self.assertEqual(found["spec"]["sessionAffinityConfig"], {"clientIP": {"timeoutSeconds": 60}})
        self.assertEqual((found["metadata"]["labels"]["a"], found["metadata"]["annotations"]), ("b", {"c": "d"}))
        resources = rendered(values)
        for resource in resources:
            kubernetes_validate.validate(resource, "1.34", strict=True)
        # Who is asked one by one needs no more than one address.
        self.assertEqual(pick(resources, "Service", "-proxy")["spec"]["ipFamilies"], ["IPv6"])
        self.assertEqual(pick(resources, "Service", "-shards")["spec"]["ipFamilies"], ["IPv6", "IPv4"])

    def test_pods_have_what_is_given(self):
        given = {"runtimeClassName": "gvisor", "dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"]}}
        more = {"extraEnvFrom": [{"secretRef": {"name": "s"}}], "lifecycle": {"postStart": {"httpGet": {"path": "/alive", "port": "metrics"}}}}
        resources = rendered({"proxy": given | more})
        spec = pod_spec(pick(resources, "Deployment"))
        self.assertEqual({name: spec.get(name) for name in given}, given)
        self.assertEqual(spec["containers"][0]["envFrom"], more["extraEnvFrom"])
        lifecycle = spec["containers"][0]["lifecycle"]
        self.assertEqual(lifecycle["postStart"], more["lifecycle"]["postStart"])
        self.assertEqual(lifecycle["preStop"]["exec"]["command"], ["/memstore", "drain"])
        kubernetes_validate.validate(pick(resources, "Deployment"), "1.34", strict=True)
        self.assertIn("preStop", refused({"proxy": {"lifecycle": {"preStop": {}}}}))
        self.assertIn("hostNetwork", refused({"proxy": {"hostNetwork": True}}))

    def test_there_may_be_a_proxy_on_each_node(self):
        for values in [{}, CLUSTER, elsewhere({})]:
            values = values | {"proxy": values.get("proxy", {}) | {"kind": "DaemonSet"}}
            resources = rendered(values)
            proxies = pick(resources, "DaemonSet", "-proxy")
            kubernetes_validate.validate(proxies, "1.29", strict=True)
            self.assertEqual(proxies["spec"]["updateStrategy"]["rollingUpdate"], {"maxUnavailable": 0, "maxSurge": 1})
            self.assertNotIn("replicas", proxies["spec"])
            self.assertNotIn("topologySpreadConstraints", pod_spec(proxies))
            self.assertFalse([one for one in resources if one["kind"] == "PodDisruptionBudget" and one["metadata"]["name"].endswith("-proxy")])
            deployment = pick(rendered(values | {"proxy": values["proxy"] | {"kind": "Deployment"}}), "Deployment", "-proxy")
            self.assertEqual(container(resources), container([deployment]))

    def test_nodes_without_a_proxy_are_told_of(self):
        local = {"service": {"internalTrafficPolicy": "Local"}}
        self.assertIn("WARNING: proxy.service.internalTrafficPolicy is Local", told({"proxy": local}))
        said = told(daemons(local))
        self.assertNotIn("WARNING", said)
        self.assertIn("NOTE: proxy.service.internalTrafficPolicy is Local", said)
        self.assertNotIn("internalTrafficPolicy", told(daemons(local | {"tolerations": [{"operator": "Exists"}]})))
        self.assertNotIn("internalTrafficPolicy", told({}))

    def test_families_of_addresses_are_those_that_proxies_listen_on(self):
        for families in [["IPv6"], ["IPv4", "IPv6"]]:
            self.assertIn('set proxy.listenAddress to "[::]"', sentence(refused({"proxy": {"service": {"ipFamilies": families}}})))
        rendered({"proxy": {"service": {"ipFamilies": ["IPv4"]}}})
        both = {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "SingleStack"}
        self.assertIn("use PreferDualStack", sentence(refused({"proxy": {"listenAddress": "[::]", "service": both}})))
        dual = {"service": {"ipFamilyPolicy": "PreferDualStack"}}
        self.assertIn("clients cannot connect over IPv6", told({"proxy": dual}))
        self.assertNotIn("over IPv6", told({"proxy": dual | {"listenAddress": "[::]"}}))

    def test_scrapes_end_before_the_next(self):
        for monitor in ["serviceMonitor", "podMonitor"]:
            def given(interval, timeout):
                return {"metrics": {monitor: {"enabled": True, "interval": interval, "scrapeTimeout": timeout}}}
            kind = monitor[0].upper() + monitor[1:]
            for interval, timeout in [("15s", "15s"), ("1m", "59s500ms"), ("1m30s", "90s")]:
                (endpoint,) = [one for name, found in pick(rendered(given(interval, timeout)), kind)["spec"].items() if name.lower().endswith("endpoints") for one in found]
                self.assertEqual(endpoint["scrapeTimeout"], timeout)
            for interval, timeout in [("15s", "16s"), ("1m", "1m1ms"), ("15s", "1m")]:
                self.assertIn("which Prometheus does not take", sentence(refused(given(interval, timeout))))
            self.assertIn("scrapeTimeout", refused(given("15s", "soon")))
        self.assertNotIn("scrapeTimeout", json.dumps(rendered({"metrics": {"serviceMonitor": {"enabled": True}}})))


class Words(unittest.TestCase):
    """Names that YAML would take for something else, all of which Kubernetes allows."""

    NAMES = ["123", "1e3", "true", "null", "on", "y", "0x1f", "10-30"]

    def accepted(self, values, name="cache"):
        resources = rendered(values, name=name)
        for resource in resources:
            if "monitoring.coreos.com" not in resource["apiVersion"]:
                kubernetes_validate.validate(resource, "1.34", strict=True)
        return resources

    def test_they_stay_names(self):
        for name in self.NAMES:
            auth = {"enabled": True, "existingSecret": name, "passwordKey": name, "previousPasswordKey": name}
            with self.subTest(name):
                resources = self.accepted({
                    "auth": auth, "serviceAccount": {"create": True, "name": name},
                    "shards": {"priorityClassName": name, "service": {"appProtocol": name}, "persistence": {"enabled": True, "storageClass": name}},
                    "proxy": {
                        "priorityClassName": name, "runtimeClassName": name,
                        "service": {"type": "LoadBalancer", "loadBalancerClass": name, "appProtocol": name},
                    },
                })
                spec = pod_spec(pick(resources, "Deployment"))
                self.assertEqual([spec[one] for one in ("priorityClassName", "runtimeClassName", "serviceAccountName")], [name] * 3)
                secrets = next(one for one in spec["volumes"] if one["name"] == "auth")["projected"]["sources"]
                self.assertEqual([(one["secret"]["name"], one["secret"]["items"][0]["key"]) for one in secrets], [(name, name)] * 2)
                given = pick(resources, "Service", "cache-memstore")["spec"]
                self.assertEqual((given["loadBalancerClass"], given["ports"][0]["appProtocol"]), (name, name))
                claim = pick(resources, "StatefulSet")["spec"]["volumeClaimTemplates"][0]
                self.assertEqual(claim["spec"]["storageClassName"], name)
                resources = self.accepted({"proxy": {"serversConfigMap": {"name": name, "key": name}}} | NETWORKS)
                listed = next(one for one in pod_spec(pick(resources, "Deployment"))["volumes"] if one["name"] == "servers")["configMap"]
                self.assertEqual((listed["name"], listed["items"][0]["key"]), (name, name))

    def test_so_do_those_of_resources_pools_and_images(self):
        for name in ["on", "null", "true", "y"]:
            with self.subTest(name):
                self.assertIn(name, [one["metadata"]["name"] for one in self.accepted({"fullnameOverride": name})])
                resources = self.accepted(several({name: {"port": 7002, "redis": True, "servers": ["10.0.0.1:6379:1"]}}))
                self.assertIn(name, [one["name"] for one in container(resources)["ports"]])
                self.assertIn(name, config(resources))
        # YAML of old took this for a number of base 60.
        spec = pod_spec(pick(rendered({"proxy": {"image": {"repository": "10", "tag": "30"}}}), "Deployment"))
        self.assertEqual(spec["containers"][0]["image"], "10:30")


class Sidecar(unittest.TestCase):
    """The recipe for a proxy in each pod of an application."""

    def test_it_is_valid_and_the_proxy_takes_it(self):
        (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sidecar.md").read_text(), re.S)
        configured, application = yaml.safe_load_all(block)
        for version in ["1.29", "1.34"]:
            for resource in (configured, application):
                kubernetes_validate.validate(resource, version, strict=True)
        spec = pod_spec(application)
        sidecar = spec["initContainers"][0]
        self.assertEqual(sidecar["image"], container(rendered())["image"])
        self.assertEqual({one["name"] for one in sidecar["volumeMounts"]}, {one["name"] for one in spec["volumes"]})
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "auth").mkdir()
            (Path(folder) / "auth" / "password").write_text("secret\n")
            path = Path(folder) / "memstore.yml"
            path.write_text(configured["data"]["memstore.yml"].replace("/etc/memstore/auth", "auth"))
            done = memstore("check", "-c", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("warning", done.stdout)
        # What it runs there is.
        for words in [sidecar["args"], sidecar["startupProbe"]["exec"]["command"][1:], sidecar["livenessProbe"]["exec"]["command"][1:]]:
            self.assertEqual(memstore(words[0], "--help").returncode, 0, words)
