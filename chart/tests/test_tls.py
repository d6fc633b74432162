"""TLS: who speaks it with which certificate, in all kinds of stores; and passwords that change while shards run."""

import itertools
import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from rendering import memstore, pick, pod_spec, pods, proxy_files, refused, rendered, told
from test_values import CLIENT_SIDE, CLUSTER, MEMCACHED, elsewhere, sentence, several

TLS = {"tls": {"enabled": True, "existingSecret": "certs"}}
MUTUAL = {"tls": TLS["tls"] | {"clientAuth": "required"}}
ISSUED = {"tls": {"enabled": True, "certManager": {"issuerRef": {"name": "ca", "kind": "ClusterIssuer"}}}}
AUTH = {"auth": {"enabled": True, "existingSecret": "s"}}
SHARDS = "cache-memstore-shards.ns.svc.cluster.local"


def pool(values):
    return yaml.safe_load(pick(rendered(values), "ConfigMap", "-proxy")["data"]["memstore.yml"])["pools"]["cache"]


def shard(values):
    return pod_spec(pick(rendered(values), "StatefulSet"))["containers"][0]


class Everywhere(unittest.TestCase):
    """All kinds of stores, with and without certificates of clients."""

    def test_kubernetes_and_the_proxy_take_it(self):
        kinds = [{}, CLIENT_SIDE, CLUSTER, CLUSTER | {"proxy": {"enabled": False}}, MEMCACHED, CLIENT_SIDE | MEMCACHED, elsewhere({}), several({})]
        count = 0
        for kind, way, auth in itertools.product(kinds, [TLS, MUTUAL, ISSUED], [{}, AUTH]):
            if auth and ("pools" in kind.get("proxy", {}) or "memcached" in str(kind)):
                continue
            values = kind | way | auth
            with self.subTest(str(values)), tempfile.TemporaryDirectory() as folder:
                resources = rendered(values)
                for resource in resources:
                    if resource["kind"] != "Certificate":
                        kubernetes_validate.validate(resource, "1.34", strict=True)
                for one in pods(resources):
                    spec = pod_spec(one)
                    named = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
                    for container in spec["containers"]:
                        for mount in container.get("volumeMounts", []):
                            self.assertIn(mount["name"], named)
                            self.assertNotIn("subPath", mount)
                if any(one["metadata"]["name"] == "cache-memstore-proxy" for one in resources):
                    done = memstore("check", "-c", proxy_files(resources, Path(folder)))
                    self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue(told(values))
                count += 1
        self.assertGreater(count, 30)

    def test_scripts_are_scripts(self):
        copies = {"redisCluster": {"replicasPerPrimary": 1}}
        for values in (TLS, AUTH, TLS | AUTH, MUTUAL | MEMCACHED, CLUSTER | copies | TLS | AUTH, CLUSTER | copies | {"auth": AUTH["auth"] | {"user": "app"}}):
            container = shard(values)
            scripts = [container["args"][0], container["readinessProbe"].get("exec", {}).get("command", [""])[-1]]
            scripts.append(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])[-1])
            for script in scripts:
                done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
                self.assertEqual(done.returncode, 0, f"{done.stderr}\n{script}")


class Sides(unittest.TestCase):
    """Each by its own switch."""

    def test_clients_and_shards(self):
        both, clients, shards = pool(TLS), pool({"tls": TLS["tls"] | {"shards": False}}), pool({"tls": TLS["tls"] | {"clients": False}})
        for one in (both, clients):
            self.assertEqual(one["tls"], {"certificate": "/etc/memstore/tls/tls.crt", "key": "/etc/memstore/tls/tls.key"})
        for one in (both, shards):
            self.assertEqual(one["servers_tls"], {"ca": "/etc/memstore/tls-shards/ca.crt", "server_name": SHARDS})
        self.assertNotIn("servers_tls", clients)
        self.assertNotIn("tls", shards)
        self.assertNotIn("tls-port", pick(rendered({"tls": TLS["tls"] | {"shards": False}}), "ConfigMap", "-shards")["data"]["redis.conf"])

    def test_certificates_of_clients(self):
        mutual = pool(MUTUAL)
        self.assertEqual((mutual["tls"]["client_ca"], mutual["tls"]["client_auth"]), ("/etc/memstore/tls/ca.crt", "required"))
        self.assertEqual(mutual["servers_tls"]["certificate"], "/etc/memstore/tls-shards/tls.crt")
        for auth, said in [("none", "no"), ("optional", "optional"), ("required", "yes")]:
            config = pick(rendered({"tls": TLS["tls"] | {"clientAuth": auth}}), "ConfigMap", "-shards")["data"]["redis.conf"]
            self.assertIn(f"\ntls-auth-clients {said}\n", config)
        # Whoever needs no key has none.
        keys = {volume["name"]: volume["secret"]["items"] for volume in pod_spec(pick(rendered(TLS), "Deployment", "-proxy"))["volumes"] if "secret" in volume}
        self.assertEqual([one["key"] for one in keys["tls-shards"]], ["ca.crt"])
        self.assertEqual([one["key"] for one in keys["tls"]], ["tls.crt", "tls.key"])

    def test_shards_may_have_another_certificate(self):
        values = {"tls": TLS["tls"] | {"shardsSecret": "inner"}}
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod_spec(pick(rendered(values), "Deployment", "-proxy"))["volumes"] if "secret" in volume}
        self.assertEqual(secrets, {"tls": "certs", "tls-shards": "inner"})
        self.assertIn("inner", str(pod_spec(pick(rendered(values), "StatefulSet"))["volumes"]))

    def test_a_cluster_speaks_it_everywhere(self):
        resources = rendered(CLUSTER | MUTUAL)
        config = pick(resources, "ConfigMap", "-shards")["data"]["redis.conf"]
        for line in ("port 0", "tls-port 6379", "tls-cluster yes", "tls-replication yes"):
            self.assertIn(line, config.splitlines())
        wanted = ["--tls", "--tls-ca", "/etc/memstore/tls-shards/ca.crt", "--tls-certificate", "/etc/memstore/tls-shards/tls.crt"]
        wanted += ["--tls-key", "/etc/memstore/tls-shards/tls.key", "--tls-server-name", SHARDS]
        reconcilers = [one for one in pods(resources) if one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "reconcile"]
        self.assertEqual(len(reconcilers), 3)
        for one in reconcilers:
            args = pod_spec(one)["containers"][0]["args"]
            self.assertEqual(args[-len(wanted):], wanted)

    def test_client_side_it_is_published(self):
        document = json.loads(pick(rendered(CLIENT_SIDE | TLS), "ConfigMap", "-topology")["data"]["topology.json"])
        self.assertIs(document["pools"]["cache"]["tls"], True)
        self.assertNotIn("tls", json.loads(pick(rendered(CLIENT_SIDE), "ConfigMap", "-topology")["data"]["topology.json"])["pools"]["cache"])

    def test_it_is_tried(self):
        def tried(values):
            return pod_spec(pick(rendered(values), "Pod"))["containers"][0]["args"]
        self.assertEqual(tried(TLS)[2:], ["--tls", "--tls-ca", "/etc/memstore/tls/ca.crt"])
        self.assertIn("--tls-key", tried(MUTUAL))
        self.assertEqual(tried({"tls": TLS["tls"] | {"serverName": "cache.example"}})[-2:], ["--tls-server-name", "cache.example"])
        self.assertIn("/etc/memstore/tls-shards/ca.crt", tried(CLIENT_SIDE | TLS))
        self.assertNotIn("--tls", tried({"tls": TLS["tls"] | {"clients": False}}))
        memtier = pick(rendered(MUTUAL | {"tests": {"memtier": {"enabled": True}}}), "Job", pick_memtier(MUTUAL))
        self.assertLessEqual({"--tls", "--cacert=/etc/memstore/tls/ca.crt", "--key=/etc/memstore/tls/tls.key"}, set(pod_spec(memtier)["containers"][0]["args"]))

    def test_servers_elsewhere_have_authorities_of_their_own(self):
        values = elsewhere({"proxy": {"pool": {"servers": ["10.0.0.1:6379:1 a"], "servers_tls": {"verify": "ca"}}, "serversTls": {"existingSecret": "theirs"}}})
        self.assertEqual(pool(values)["servers_tls"], {"ca": "/etc/memstore/tls-servers/ca.crt", "verify": "ca"})
        one = {"port": 7002, "redis": True, "servers": ["10.0.0.1:6379:1"], "serversTls": {"existingSecret": "theirs", "clientCertificate": True}}
        resources = rendered(several({"other": one}))
        config = yaml.safe_load(pick(resources, "ConfigMap", "-proxy")["data"]["memstore.yml"])["pools"]["other"]
        self.assertEqual(config["servers_tls"]["key"], "/etc/memstore/tls-other/tls.key")
        self.assertIn("tls-other", {volume["name"] for volume in pod_spec(pick(resources, "Deployment", "-proxy"))["volumes"]})


def pick_memtier(values):
    found = [one["metadata"]["name"] for one in rendered(values | {"tests": {"memtier": {"enabled": True}}}) if "memtier" in one["metadata"]["name"]]
    return found[0]


class Issued(unittest.TestCase):
    """By cert-manager."""

    def spec(self, values):
        return pick(rendered(values), "Certificate")["spec"]

    def test_it_is_asked_for_all_names(self):
        spec = self.spec(ISSUED)
        self.assertEqual((spec["secretName"], spec["issuerRef"]), ("cache-memstore-tls", {"name": "ca", "kind": "ClusterIssuer"}))
        host = "cache-memstore.ns.svc.cluster.local"
        self.assertLessEqual({host, "cache-memstore", "cache-memstore.ns.svc", SHARDS, f"*.{SHARDS}"}, set(spec["dnsNames"]))
        self.assertLessEqual({"server auth", "client auth"}, set(spec["usages"]))
        self.assertEqual((spec["duration"], spec["renewBefore"]), ("2160h", "720h"))
        self.assertNotIn("commonName", spec)

    def test_names_follow_the_values(self):
        more = {"certManager": ISSUED["tls"]["certManager"] | {"dnsNames": ["cache.example"], "ipAddresses": ["10.0.0.9"]}}
        spec = self.spec({"tls": ISSUED["tls"] | more | {"serverName": "outer.example"}})
        self.assertLessEqual({"cache.example", "outer.example"}, set(spec["dnsNames"]))
        self.assertEqual(spec["ipAddresses"], ["10.0.0.9"])
        self.assertFalse([name for name in self.spec({"tls": ISSUED["tls"] | {"shardsSecret": "x"}})["dnsNames"] if "shards" in name])
        self.assertFalse([name for name in self.spec(CLIENT_SIDE | ISSUED)["dnsNames"] if "shards" not in name])
        self.assertFalse([name for name in self.spec(elsewhere(ISSUED))["dnsNames"] if "shards" in name])
        self.assertFalse([one for one in rendered(TLS) if one["kind"] == "Certificate"])


class Mistakes(unittest.TestCase):
    """Each has its sentence."""

    def test_they_are_refused(self):
        for values, words in [
            ({"tls": {"enabled": True}}, "tls.enabled needs a certificate"),
            ({"tls": {"enabled": True, "existingSecret": "s", "clients": False, "shards": False}}, "neither clients nor shards would speak TLS"),
            ({"tls": {"existingSecret": "s"}}, "tls.existingSecret is set and tls.enabled is false"),
            ({"tls": {"certManager": {"issuerRef": {"name": "x"}}}}, "tls.certManager.issuerRef is set and tls.enabled is false"),
            ({"tls": ISSUED["tls"] | {"existingSecret": "s"}}, "both say where the certificate comes from"),
            ({"tls": {"enabled": True, "certManager": {"issuerRef": {"kind": "Issuer"}}}}, "has no name"),
            (TLS | {"shards": {"image": {"repository": "redis:5.0"}}}, "tls.shards needs Redis 6.0"),
            ({"tls": TLS["tls"] | {"clientAuth": "optional"}, "shards": {"image": {"repository": "redis:6.0"}}}, "needs Redis 6.2"),
            (TLS | {"shards": {"config": "tls-port 7000"}}, "shards.config sets tls-port, which the chart configures itself"),
            (TLS | {"shards": {"config": "tls-auth-clients no"}}, "set tls.clientAuth"),
            (TLS | {"proxy": {"pool": {"tls": {"certificate": "/x", "key": "/y"}}}}, "certificates are those of tls.enabled"),
            ({"proxy": {"pool": {"tls": {"version_min": "1.3"}}}}, "proxy.pool.tls needs a certificate"),
            (TLS | {"proxy": {"pool": {"servers_tls": {"ca": "/x"}}}}, "certificates of shards are those of tls.shards"),
            (elsewhere({"proxy": {"pool": {"servers": ["10.0.0.1:1:1"], "servers_tls": {"ca": "/x"}}, "serversTls": {"existingSecret": "s"}}}), "both say where certificates are"),
            ({"tls": TLS["tls"] | {"clientAuth": "perhaps"}}, "/tls/clientAuth"),
            ({"tls": {"enabled": True, "certManager": {"issuerRef": {"nmae": "x"}}}}, "/tls/certManager/issuerRef"),
        ]:
            with self.subTest(words):
                self.assertIn(words, sentence(refused(values)))
        self.assertEqual(pool(TLS | {"proxy": {"pool": {"tls": {"version_min": "1.3"}}}})["tls"]["version_min"], "1.3")
        rendered({"proxy": {"pool": {"tls": {"certificate": "/x", "key": "/y"}}}})

    def test_shards_that_run_do_not_begin_or_end_to_speak_it(self):
        for before, after in ((TLS, {}), ({}, TLS)):
            running = pick(rendered(before | {"shards": {"persistence": {"enabled": True}}}), "StatefulSet")
            words = sentence(refused(after | {"shards": {"persistence": {"enabled": True}}}, running=[running]))
            self.assertIn("install another release beside it", words)
        rendered({"tls": TLS["tls"] | {"shards": False}}, running=[pick(rendered(), "StatefulSet")])


class Notes(unittest.TestCase):
    """The address to connect to, and what it is verified by."""

    def test_they_say_it(self):
        said = told(TLS | AUTH)
        self.assertIn("rediss://:PASSWORD@memstore.ns.svc.cluster.local:6379", said)
        self.assertIn(r"get secret certs -o jsonpath='{.data.ca\.crt}' | base64 -d > ca.crt", said)
        self.assertIn("have to present one", told(MUTUAL))
        self.assertIn("rediss://outer.example:6379", told({"tls": TLS["tls"] | {"serverName": "outer.example"}}))
        self.assertIn("describe certificate memstore-tls", told(ISSUED))
        self.assertIn("The shards speak TLS", told(CLIENT_SIDE | TLS))
        self.assertIn("redis://memstore", told({"tls": TLS["tls"] | {"clients": False}}))
        open_ = {"proxy": {"service": {"type": "LoadBalancer"}}}
        self.assertIn("without TLS", told(open_ | AUTH))
        self.assertNotIn("without TLS", told(open_ | AUTH | TLS))


class Changes(unittest.TestCase):
    """What of the Secrets changes while shards run reaches them."""

    def test_shards_have_the_previous_password_too(self):
        volumes = {volume["name"]: volume for volume in pod_spec(pick(rendered(AUTH), "StatefulSet"))["volumes"]}
        paths = [item["path"] for source in volumes["auth"]["projected"]["sources"] for item in source["secret"]["items"]]
        self.assertEqual(paths, ["password", "previous"])
        self.assertIn("acl setuser default resetpass", shard(AUTH)["args"][0])
        old = AUTH | {"shards": {"image": {"repository": "redis:5.0"}}}
        self.assertIn("config set requirepass", shard(old)["args"][0])
        self.assertNotIn("acl setuser", shard(old)["args"][0])

    def test_what_has_no_secret_starts_as_before(self):
        self.assertEqual(shard({})["command"], ["redis-server"])
        self.assertEqual(shard(MEMCACHED)["command"], ["memcached"])


class Users(unittest.TestCase):
    """Users of a Secret, for proxies and shards alike."""

    USERS = {"auth": AUTH["auth"] | {"users": {"existingSecret": "u", "key": "acl"}}}

    def test_both_have_them(self):
        resources = rendered(self.USERS)
        self.assertEqual(pool(self.USERS)["users_file"], "/etc/memstore/users/users.acl")
        for kind, suffix in (("Deployment", "-proxy"), ("StatefulSet", "")):
            spec = pod_spec(pick(resources, kind, suffix))
            self.assertIn({"name": "users", "mountPath": "/etc/memstore/users", "readOnly": True}, spec["containers"][0]["volumeMounts"])
            source = {"secretName": "u", "defaultMode": 0o440, "items": [{"key": "acl", "path": "users.acl"}]}
            self.assertIn({"name": "users", "secret": source}, spec["volumes"])
        self.assertIn("aclfile /run/redis/users.acl", shard(self.USERS)["args"][0])
        for resource in resources:
            kubernetes_validate.validate(resource, "1.34", strict=True)

    def test_the_user_of_the_password_is_the_charts(self):
        """What the shell makes of a file."""
        text = "# ours\n\nuser app on >a ~app:* +@read\r\n  user other off\nuser application on nopass\nuser default on nopass ~* +@all\n"
        for user, expected in (
            ("app", ["user other off", "user application on nopass", "user default on nopass ~* +@all", "user app on #HASH ~* &* +@all"]),
            ("", ["user app on >a ~app:* +@read", "user other off", "user application on nopass", "user default on #HASH ~* &* +@all"]),
            ("x", ["user app on >a ~app:* +@read", "user other off", "user application on nopass", "user default on nopass ~* +@all", "user x on #HASH ~* &* +@all"]),
        ):
            script = shard({"auth": self.USERS["auth"] | {"user": user}})["args"][0]
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "users.acl").write_text(text)
                begin = script.index("hashed()")
                part = script[begin : script.index("users > /run/redis/users.acl")].replace("/etc/memstore/users", folder)
                done = subprocess.run(["sh", "-ec", f"password=secret\n{part}\nusers"], capture_output=True, text=True, check=True)
            digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
            self.assertEqual([line for line in done.stdout.splitlines() if line], [line.replace("HASH", digest) for line in expected])
        script = shard({"auth": self.USERS["auth"] | {"user": "x"}})["args"][0]
        self.assertIn("echo 'user default off'", script)

    def test_mistakes_are_refused(self):
        for values, words in (
            ({"auth": {"users": {"existingSecret": "u"}}}, "need a password beside these users"),
            (self.USERS | {"shards": {"config": "user x on nopass"}}, "Redis takes users from one place only"),
            (self.USERS | {"shards": {"image": {"repository": "redis:6.0"}}}, "auth.users needs Redis 6.2"),
            ({"auth": AUTH["auth"] | {"users": {"key": "k"}}}, "auth.users.key has no effect"),
        ):
            with self.subTest(words):
                self.assertIn(words, sentence(refused(values)))


if __name__ == "__main__":
    unittest.main()
