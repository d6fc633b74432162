"""What the chart renders, refuses and says: with the real helm, the schemas of Kubernetes, and the proxy's own reading."""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from rendering import CHART, ROOT, helm, memstore, pick, pod_spec, pods, proxy_files, refused, rendered, selects, told

GOLDEN = CHART / "tests" / "golden"
EXAMPLES = sorted((ROOT / "examples" / "values").glob("*.yaml"))
KUBERNETES = ["1.29", "1.31", "1.33", "1.34", "1.35", "1.37"]

# The sample configurations of the chart before this one.
SHARDS = {
    "type": "redis", "isRedis": True, "count": 5, "service": {"port": 6379},
    "image": {"repository": "redis:5.0-alpine", "pullPolicy": "IfNotPresent"},
}
OLD_PROXY = {
    "enabled": True, "count": 2, "service": {"type": "LoadBalancer", "port": 6379},
    "image": {"repository": "softonic/twemproxy:0.4.1", "pullPolicy": "IfNotPresent"},
}
OLD = {
    "old-proxy": {"shards": SHARDS, "proxy": OLD_PROXY | {"image": {"pullPolicy": "IfNotPresent"}}},
    "old-client-side": {"shards": SHARDS, "proxy": {"enabled": False}},
    "old-redis-cluster": {"enableRedisCluster": True, "shards": SHARDS, "proxy": {"enabled": False}},
}

# What checkov asks for and the chart does not do, with the reason.
NOT_DONE = {
    "CKV_K8S_11": "CPU limits of shards and proxies: a server with one thread that is throttled makes everybody wait",
    "CKV_K8S_15": "pulling always: tags of releases do not change, and a registry that is away must not stop a restart",
    "CKV_K8S_43": "digests: whoever wants them gives image.digest",
}
# The same for pods that end by themselves, or that nobody connects to.
NOT_PROBED = {"CKV_K8S_8", "CKV_K8S_9"}


def golden(name, text):
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_text(text)
    return path.read_text() if path.exists() else ""


def without_blank_lines(text):
    """Versions of helm put different ones between the resources, and blanks where a template was empty."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines() if line.strip())


class Examples(unittest.TestCase):
    """Every values file a user starts from, and the samples of the chart before."""

    def cases(self):
        for path in EXAMPLES:
            yield path.stem, yaml.safe_load(path.read_text())
        yield from OLD.items()
        yield "default", {}

    def test_it_renders_what_it_rendered_before(self):
        for name, values in self.cases():
            with self.subTest(name):
                done = helm("template", "cache", str(CHART), "--namespace", "ns", values=values)
                self.assertEqual(done.returncode, 0, done.stderr)
                found = without_blank_lines(done.stdout)
                self.assertEqual(golden(name, found), found, "see run --update")

    def test_lint_finds_nothing(self):
        for name, values in self.cases():
            with self.subTest(name):
                done = helm("lint", str(CHART), "--strict", "--quiet", values=values)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_every_version_of_kubernetes_takes_it(self):
        for (name, values), version in itertools.product(self.cases(), KUBERNETES):
            with self.subTest(name, version=version):
                self.accepted(rendered(values, f"{version}.0"), version)

    # What has been found valid, by version. Most resources are the same whatever the values are.
    valid = set()

    def accepted(self, resources, version):
        for resource in resources:
            text = (version, json.dumps(resource, sort_keys=True))
            if text not in self.valid and resource["apiVersion"].split("/")[0] not in ("monitoring.coreos.com", "keda.sh", "cert-manager.io"):
                kubernetes_validate.validate(resource, version, strict=True)
                self.valid.add(text)

    def test_every_combination_of_modes_is_taken(self):
        modes = ["proxy", "client-side", "redis-cluster"]
        several = {
            "auth": [{}, {"auth": {"enabled": True, "existingSecret": "s", "user": "app"}}],
            "persistence": [{}, {"persistence": {"enabled": True, "storageClass": "fast"}}],
            "image": [{}, {"image": {"repository": "valkey/valkey:8.1-alpine"}}, {"image": {"repository": "redis:5.0"}}],
            "more": [
                {},
                {
                    "serviceAccount": {"create": True}, "networkPolicy": {"clientNamespaces": ["a"], "metricsNamespaces": ["m"], "allowExternal": False},
                    "commonLabels": {"team": "x"}, "commonAnnotations": {"a": "b"}, "imagePullSecrets": ["s", {"name": "t"}],
                    "metrics": {
                        "serviceMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboard": {"enabled": True},
                    },
                    "extraObjects": ["apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-extra'}"],
                    "proxy": {
                        "service": {"type": "NodePort", "nodePort": 30000, "trafficDistribution": "PreferClose"},
                        "autoscaling": {"enabled": True},
                    },
                },
            ],
        }
        count = 0
        # What is for proxies is refused where there are none.
        without_proxy = {"partitioning": "client-side", "metrics": {}, "proxy": {}, "networkPolicy": {"clientNamespaces": ["a"]}}
        for mode, auth, persistence, image, more in itertools.product(modes, *several.values()):
            if "user" in auth.get("auth", {}) and image.get("image", {}).get("repository") == "redis:5.0":
                continue
            values = {"shards": persistence | image} | auth | more | ({"partitioning": mode} if mode != "client-side" else without_proxy)
            with self.subTest(str(values)):
                self.accepted(rendered(values), "1.34")
                count += 1
        for mode in ["proxy", "client-side"]:
            self.accepted(rendered({"partitioning": mode, "shards": {"type": "memcached"}}), "1.34")
        self.assertGreater(count, 50)

    def test_the_proxy_understands_its_configuration(self):
        for name, values in self.cases():
            resources = rendered(values)
            if not any(one["metadata"]["name"] == "cache-memstore-proxy" for one in resources):
                continue
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                done = memstore("check", "-c", proxy_files(resources, Path(folder)))
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("warning", done.stdout)

    def test_checkov_finds_only_what_is_known(self):
        names = [name for name, _ in self.cases()]
        with tempfile.TemporaryDirectory() as folder:
            for name, values in self.cases():
                with open(Path(folder) / f"{name}.yaml", "w") as file:
                    yaml.safe_dump_all(rendered(values), file)
            # All together: most of its time is its start.
            done = subprocess.run(
                ["checkov", "-d", folder, "--framework", "kubernetes", "-o", "json", "--skip-download"],
                capture_output=True, text=True, check=False,
            )
        results = json.loads(done.stdout)["results"]
        for name in names:
            passed, failed = ([check for check in results[f"{how}_checks"] if check["file_path"] == f"/{name}.yaml"] for how in ("passed", "failed"))
            with self.subTest(name):
                self.assertGreater(len(passed), 100)
                for check in failed:
                    what = (check["check_id"], check["resource"])
                    if re.search(r"-test-[0-9a-f]{8}$|-reconcile$", check["resource"]) and check["check_id"] in NOT_PROBED:
                        continue
                    self.assertIn(check["check_id"], NOT_DONE, f"{what}: {check['check_name']}")
                    if check["check_id"] == "CKV_K8S_11":
                        self.assertRegex(check["resource"], r"-shards$|-proxy$")
        self.assertEqual({check["file_path"] for check in results["failed_checks"]} - {f"/{name}.yaml" for name in names}, set())

    def test_yamllint_finds_nothing(self):
        rules = "{extends: default, rules: {line-length: disable, document-start: disable, braces: disable, brackets: disable," \
            " indentation: {indent-sequences: whatever}, comments: {min-spaces-from-content: 1}, truthy: disable}}"
        files = [CHART / "Chart.yaml", CHART / "values.yaml", CHART / "files" / "rules.yaml", *EXAMPLES]
        done = subprocess.run(["yamllint", "-s", "-d", rules, *files], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        rules = rules.replace("document-start: disable", "document-start: disable, commas: disable, comments-indentation: disable")
        files = [GOLDEN / f"{name}.yaml" for name, _ in self.cases()]
        done = subprocess.run(["yamllint", "-s", "-d", rules, *files], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)


class Modes(unittest.TestCase):
    """Which kind of store it is."""

    def kinds(self, values):
        resources = rendered(values)
        names = {(one["kind"], one["metadata"]["name"]) for one in resources}
        return {
            "proxy": ("Deployment", "cache-memstore-proxy") in names,
            "topology": ("ConfigMap", "cache-memstore-topology") in names,
            "reconcile": ("Deployment", "cache-memstore-reconcile") in names,
        }

    def check(self, values, proxy=False, topology=False, reconcile=False):
        self.assertEqual(self.kinds(values), {"proxy": proxy, "topology": topology, "reconcile": reconcile}, values)

    def test_older_values_say_it_as_well(self):
        self.check({}, proxy=True)
        self.check({"proxy": {"enabled": True}}, proxy=True)
        self.check({"proxy": {"enabled": False}}, topology=True)
        self.check({"enableRedisCluster": True}, proxy=True, reconcile=True)
        self.check({"enableRedisCluster": True, "proxy": {"enabled": False}}, reconcile=True)
        self.check({"enableRedisCluster": False, "proxy": {"enabled": False}}, topology=True)
        self.check({"partitioning": "proxy"}, proxy=True)
        self.check({"partitioning": "client-side"}, topology=True)
        self.check({"partitioning": "redis-cluster"}, proxy=True, reconcile=True)
        self.check({"partitioning": "redis-cluster", "proxy": {"enabled": False}}, reconcile=True)

    def test_contradictions_are_refused(self):
        for values, words in [
            ({"partitioning": "proxy", "enableRedisCluster": True}, "remove enableRedisCluster"),
            ({"partitioning": "redis-cluster", "enableRedisCluster": False}, "remove enableRedisCluster"),
            ({"partitioning": "proxy", "proxy": {"enabled": False}}, 'set partitioning to "client-side"'),
            ({"partitioning": "client-side", "proxy": {"enabled": True}}, 'set partitioning to "proxy"'),
            ({"shards": {"type": "memcached", "isRedis": True}}, "remove shards.isRedis"),
            ({"shards": {"type": "redis", "isRedis": False}}, "remove shards.isRedis"),
        ]:
            with self.subTest(str(values)):
                self.assertIn(words, refused(values))

    def test_is_redis_alone_tells_the_type(self):
        image = pod_spec(pick(rendered({"shards": {"isRedis": False}}), "StatefulSet"))["containers"][0]["image"]
        self.assertEqual(image, "memcached:1.6-alpine")

    def test_masters_of_a_cluster_are_the_older_count(self):
        self.assertEqual(pick(rendered(OLD["old-redis-cluster"]), "StatefulSet")["spec"]["replicas"], 5)
        values = {"partitioning": "redis-cluster", "shards": {"count": 4}, "redisCluster": {"replicasPerPrimary": 2}}
        self.assertEqual(pick(rendered(values), "StatefulSet")["spec"]["replicas"], 12)


class Refusals(unittest.TestCase):
    """What would be a mistake is not rendered, and the sentence says what to do instead."""

    def test_each_has_its_sentence(self):
        cluster = {"partitioning": "redis-cluster"}
        for values, words in [
            ({"shards": SHARDS, "proxy": OLD_PROXY}, "remove that line, or use memstore/memstore"),
            (cluster | {"shards": {"type": "memcached"}}, "memcached, which has no cluster"),
            (cluster | {"shards": {"count": 2}}, "make it 3 or more"),
            (cluster | {"shards": {"ringNames": ["a", "b", "c"]}}, "maps keys to slots: remove it"),
            (cluster | {"proxy": {"pool": {"hash": "md5"}}}, "decides about that itself: remove it"),
            (cluster | {"shards": {"image": {"repository": "redis:6.2"}}, "redisCluster": {"announceHostnames": True}}, "needs Redis 7"),
            ({"auth": {"enabled": True}}, "kubectl create secret generic"),
            ({"auth": {"existingSecret": "s"}}, "set auth.enabled to true"),
            ({"auth": {"enabled": True, "existingSecret": "s"}, "shards": {"type": "memcached"}}, "no passwords"),
            (
                {"auth": {"enabled": True, "existingSecret": "s", "user": "u"}, "shards": {"image": {"repository": "redis:5.0"}}},
                "needs Redis 6.2",
            ),
            ({"shards": {"type": "memcached", "persistence": {"enabled": True}}}, "stores nothing on disk"),
            ({"shards": {"maxmemory": "2Gi"}}, "so that a full shard would be killed"),
            ({"shards": {"maxmemory": "120%"}}, "so that a full shard would be killed"),
            ({"shards": {"maxmemory": "100%"}}, "so that a full shard would be killed"),
            ({"shards": {"maxmemory": 0}}, "which means no limit"),
            ({"shards": {"resources": {"requests": {"memory": "4Gi"}}}}, "omit the request"),
            ({"proxy": {"autoscaling": {"enabled": True, "minReplicas": 20}}}, "is more than maxReplicas"),
            ({"proxy": {"autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": None}}}, "set one of them"),
            ({"proxy": {"autoscaling": {"enabled": True}, "resources": {"requests": None}}}, "requests.cpu is not set"),
            ({"proxy": {"service": {"type": "LoadBalancer", "clusterIP": "None"}}}, "ClusterIP only"),
            ({"proxy": {"service": {"port": 80, "clusterIP": "None"}}}, "set proxy.service.port to that"),
            ({"metrics": {"port": 6379}}, "choose another one"),
            ({"shards": {"maxmemory": "lots"}}, "write it as 6Gi"),
            ({"shards": {"maxmemory": 900}}, "write it with a unit"),
            ({"proxy": {"resources": {"limits": {"memory": "256m"}}}}, "proxy.resources.limits.memory"),
            ({"jobs": {"resources": {"requests": {"memory": "64m"}}}}, "jobs.resources.requests.memory"),
            ({"shards": {"config": "# x\nMaxMemory 5gb"}}, "shards.config sets maxmemory, which the chart configures itself: remove it, and set shards.maxmemory"),
            ({"shards": {"config": "port 7000"}}, "and set shards.service.port"),
            ({"shards": {"config": "dir /elsewhere"}}, "shards.config sets dir, which the chart configures itself: remove it"),
            ({"shards": {"extraArgs": ["--maxmemory-policy", "noeviction"]}}, "shards.extraArgs sets maxmemory-policy"),
            (cluster | {"shards": {"config": "cluster-node-timeout 1000"}}, "and set redisCluster.nodeTimeout"),
            ({"shards": {"type": "memcached", "extraArgs": ["-m", "9000"]}}, "and set shards.maxmemory"),
            ({"shards": {"type": "memcached", "extraArgs": ["--port=7000"]}}, "and set shards.service.port"),
            ({"metrics": {"rules": {"enabled": True, "disabled": ["MemstoreShardDwn"]}}}, "there is no alert MemstoreShardDwn"),
            ({"proxy": {"keda": {"enabled": True, "minReplicas": 20, "triggers": [{}]}}}, "proxy.keda.minReplicas 20 is more than maxReplicas 10"),
            ({"shards": {"maxmemory": "x%"}}, "write it as 75%"),
            ({"shards": {"maxmemory": "75%", "resources": {"limits": None, "requests": None}}}, "but there is no limit"),
            ({"shards": {"ringNames": ["a"]}}, "set one name for each shard"),
            ({"shards": {"image": {"repository": "redis:7.2", "tag": "7.4"}}}, "remove one of them"),
            ({"proxy": {"autoscaling": {"enabled": True}, "keda": {"enabled": True, "triggers": [{}]}}}, "enable one of them"),
            ({"proxy": {"keda": {"enabled": True}}}, "needs proxy.keda.triggers"),
            ({"proxy": {"service": {"nodePort": 30000}}}, "has no meaning with proxy.service.type ClusterIP"),
            ({"proxy": {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}}}, "only with proxy.service.type LoadBalancer"),
            ({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "enable one of them"),
            ({"partitioning": "client-side", "tests": {"memtier": {"enabled": True}}}, "needs the proxy"),
        ]:
            with self.subTest(words):
                self.assertIn(words, refused(values))

    def test_the_schema_knows_every_value(self):
        for values, words in [
            ({"shard": {"count": 3}}, "shard"),
            ({"shards": {"counts": 3}}, "counts"),
            ({"shards": {"count": "3"}}, "/shards/count"),
            ({"shards": {"count": 0}}, "/shards/count"),
            ({"shards": {"service": {"port": 60000}}}, "/shards/service/port"),
            ({"partitioning": "proxies"}, "/partitioning"),
            ({"proxy": {"service": {"type": "ExternalName"}}}, "/proxy/service/type"),
            ({"proxy": {"service": {"loadBalancerSourceRanges": ["10.0.0.1"]}}}, "loadBalancerSourceRanges"),
            ({"proxy": {"image": {"digest": "sha256:abc"}}}, "/proxy/image/digest"),
            ({"proxy": {"pool": {"timeouts": 1}}}, "timeouts"),
            ({"shards": {"resources": {"limits": {"memory": "lots"}}}}, "/shards/resources/limits/memory"),
            ({"commonLabels": {"a": 1}}, "/commonLabels/a"),
            ({"auth": {"user": "o'brien"}}, "/auth/user"),
            ({"auth": {"passwordKey": ""}}, "/auth/passwordKey"),
            ({"proxy": {"listenAddress": ""}}, "/proxy/listenAddress"),
            ({"proxy": {"listenAddress": "0.0.0.0:6379/x"}}, "/proxy/listenAddress"),
            ({"networkPolicy": {"dnsPorts": []}}, "/networkPolicy/dnsPorts"),
            ({"auth": {"user": "default"}}, "/auth/user"),
            ({"proxy": {"maxSurge": 0}}, "/proxy/maxSurge"),
            ({"fullnameOverride": "My_Cache"}, "/fullnameOverride"),
            ({"nameOverride": "shop cache"}, "/nameOverride"),
        ]:
            with self.subTest(str(values)):
                self.assertIn(words, refused(values))
        # Charts around this one bring these.
        rendered({"global": {"imageRegistry": "x"}, "enabled": True})

    def test_settings_of_the_pool_are_the_proxys(self):
        known = set(re.findall(r"^\| `(\w+)` \|", memstore("settings").stdout, re.M))
        schema = json.loads((CHART / "values.schema.json").read_text())
        allowed = set(schema["$defs"]["pool"]["properties"])
        self.assertGreater(len(allowed), 20)
        self.assertLessEqual(allowed, known)
        self.assertFalse(allowed & {"listen", "redis", "servers_file", "redis_auth", "redis_auth_file"})
        pools = set(schema["$defs"]["pools"]["additionalProperties"]["properties"])
        self.assertLessEqual(pools, known | {"port", "nodePort", "auth", "serversConfigMap", "serversTls"})
        self.assertFalse(pools & {"listen", "servers_file", "redis_auth", "redis_auth_file"})


class Ring(unittest.TestCase):
    """Who owns a key."""

    def plan(self, before, after):
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, values in enumerate((before, after)):
                if isinstance(values, str):
                    path = Path(folder) / f"{number}.yml"
                    path.write_text(values)
                else:
                    (Path(folder) / str(number)).mkdir()
                    path = proxy_files(rendered(values), Path(folder) / str(number))
                files.append(path)
            done = memstore("plan", "--from", files[0], "--to", files[1])
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

    def test_names_of_releases_and_domains_move_no_key(self):
        moved = {"fullnameOverride": "other", "cluster": {"domain": "example.org"}, "shards": {"service": {"port": 7000}}}
        self.assertIn("cache: 100.00 % of", self.plan({}, moved))

    def test_an_older_ring_is_kept_by_its_names(self):
        old = "cache:\n  listen: 127.0.0.1:6379\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  servers:\n" + "".join(
            f"   - cache-redis-{number}.cache-redis.default.svc.cluster.local:6379:1\n" for number in range(3)
        )
        names = [f"cache-redis-{number}.cache-redis.default.svc.cluster.local:6379" for number in range(3)]
        self.assertIn("cache: 100.00 % of", self.plan(old, {"shards": {"ringNames": names}}))
        # Without them most keys would move.
        self.assertNotIn("cache: 100.00 % of", self.plan(old, {}))

    def test_a_larger_count_changes_no_pod(self):
        for mode in ["proxy", "client-side", "redis-cluster"]:
            few, many = (rendered({"partitioning": mode, "shards": {"count": count}}) for count in (3, 5))
            kinds = ["StatefulSet"] + (["Deployment"] if mode == "proxy" else [])
            for kind in kinds:
                self.assertEqual(pod_spec(pick(few, kind)), pod_spec(pick(many, kind)))
                templates = [pick(some, kind)["spec"]["template"]["metadata"] for some in (few, many)]
                self.assertEqual(*templates)

    def test_what_a_proxy_reads_again_rolls_no_pod(self):
        one, other = rendered({}), rendered({"proxy": {"pool": {"timeout": "2s"}, "logLevel": "debug"}})
        self.assertNotEqual(pick(one, "ConfigMap", "-proxy"), pick(other, "ConfigMap", "-proxy"))
        self.assertEqual(pick(one, "Deployment"), pick(other, "Deployment"))
        self.assertNotEqual(pick(one, "Deployment"), pick(rendered({"proxy": {"workers": 3}}), "Deployment"))

    def test_folders_are_mounted_never_files(self):
        for values in [{}, {"partitioning": "redis-cluster"}, {"auth": {"enabled": True, "existingSecret": "s"}}]:
            self.assertNotIn("subPath", json.dumps(rendered(values)))

    def test_shards_that_go_are_left_before_anything_else_changes(self):
        resources = rendered({})
        coming = pick(resources, "ConfigMap", "-ring-next")
        # To proxies a list is another one with each revision.
        self.assertEqual(coming["data"]["servers.yml"], "# revision 1\n" + pick(resources, "ConfigMap", "-ring")["data"]["servers.yml"])
        wait = next(one for one in resources if one["kind"] == "Job")["metadata"]["annotations"]
        self.assertEqual(coming["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade,pre-rollback")
        self.assertGreater(int(wait["helm.sh/hook-weight"]), int(coming["metadata"]["annotations"]["helm.sh/hook-weight"]))
        volumes = pod_spec(pick(resources, "Deployment"))["volumes"]
        sources = [{"configMap": {"name": f"cache-memstore-ring-{name}", "optional": True}} for name in ["next", "attempt"]]
        self.assertIn({"name": "next", "projected": {"sources": sources}}, volumes)

    def test_the_same_operation_can_be_repeated(self):
        resources = rendered({})
        attempt, coming = pick(resources, "ConfigMap", "-ring-attempt"), pick(resources, "ConfigMap", "-ring-next")
        pool = yaml.safe_load(pick(resources, "ConfigMap", "-proxy")["data"]["memstore.yml"])["pools"]["cache"]
        self.assertEqual(pool["servers_within_attempt"], "/etc/memstore/next/attempt.yml")
        self.assertEqual(attempt["data"]["attempt.yml"], coming["data"]["servers.yml"])
        wait = next(one for one in resources if one["kind"] == "Job")
        weights = [int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in [coming, attempt, wait]]
        self.assertEqual(weights, sorted(set(weights)))
        # It is gone before the next operation, whatever becomes of this one.
        said = attempt["metadata"]["annotations"]
        self.assertEqual(said["helm.sh/hook"], wait["metadata"]["annotations"]["helm.sh/hook"])
        self.assertEqual(set(said["helm.sh/hook-delete-policy"].split(",")), {"before-hook-creation", "hook-succeeded", "hook-failed"})

    def test_they_are_left_after_every_other_hook(self):
        weights = [int(one["metadata"]["annotations"]["helm.sh/hook-weight"]) for one in rendered() if "ring-" in one["metadata"]["name"]]
        self.assertEqual(len(weights), 3)
        self.assertGreaterEqual(min(weights), 1000)

    def test_what_runs_once_can_be_applied_again_whatever_changes(self):
        changes = [
            {}, {"shards": {"count": 4}}, {"shards": {"count": 5}}, {"proxy": {"image": {"tag": "other"}, "tolerations": [{"operator": "Exists"}]}},
            {"proxy": {"nodeSelector": {"a": "b"}}}, {"imagePullSecrets": ["s"]}, {"podSecurityContext": {"runAsUser": 1000}},
            {"auth": {"enabled": True, "existingSecret": "s"}}, {"commonLabels": {"team": "x"}},
        ]
        for mode in ["proxy", "client-side", "redis-cluster"]:
            seen = {}
            for values in changes:
                for one in rendered({"partitioning": mode, "tests": {"memtier": {"enabled": mode != "client-side"}}} | values, name="r" * 53):
                    if one["kind"] in ("Job", "Pod"):
                        name = (one["kind"], one["metadata"]["name"])
                        self.assertLessEqual(len(name[1]), 63)
                        self.assertEqual(seen.setdefault(name, one["spec"]), one["spec"], f"{name}: its kind cannot be changed")
            self.assertGreater(len(seen), 1)

    def test_nothing_is_there_twice(self):
        # Argo CD and kustomize know a resource by its kind and name, hook or not.
        for mode in ["proxy", "client-side", "redis-cluster"]:
            names = [(one["kind"], one["metadata"]["name"]) for one in rendered({"partitioning": mode})]
            self.assertEqual(len(names), len(set(names)), mode)

    def test_applications_read_the_same_ring(self):
        plain = {"partitioning": "client-side"}
        document = json.loads(pick(rendered(plain), "ConfigMap", "-topology")["data"]["topology.json"])
        self.assertEqual(document["version"], 1)
        dealt = {"shards": {"count": 5}, "proxy": {"pool": {"hash_tag": "{}", "pin": {"rq:": "shard-3", "s:": "{user:1}"}}}}
        document = json.loads(pick(rendered(plain | dealt), "ConfigMap", "-topology")["data"]["topology.json"])
        # Who reads version 1 would take no notice of the pins.
        self.assertEqual(document["version"], 2)
        config = pick(rendered({"shards": {"count": 5}}), "ConfigMap", "-proxy")["data"]["memstore.yml"]
        pool = yaml.safe_load(config)["pools"]["cache"]
        self.assertEqual(document["pools"]["cache"]["hash"], pool["hash"])
        names = [shard["name"] for shard in document["pools"]["cache"]["shards"]]
        self.assertEqual(names, [f"shard-{number}" for number in range(5)])
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "topology.json"
            path.write_text(json.dumps(document))
            ring = ROOT / "examples" / "client-side" / "python" / "memstore_ring.py"
            keys = [f"{begin}{{user:{number}}}:name" for begin in ["", "rq:", "s:", "rq"] for number in range(15)]
            python = subprocess.run(
                [sys.executable, "-B", ring, path, "cache", *keys], capture_output=True, text=True, check=True
            ).stdout
            config = proxy_files(rendered(dealt), Path(folder))
            routed = memstore("route", "-c", config, "--format", "json", *keys).stdout
        owners = [json.loads(line)["shard"] for line in routed.splitlines()]
        self.assertEqual(len(owners), 60)
        for line, owner in zip(python.splitlines(), owners, strict=True):
            self.assertIn(owner, line.split())


class Posture(unittest.TestCase):
    """What holds with nothing turned on."""

    def test_every_pod_is_restricted(self):
        for mode in ["proxy", "client-side", "redis-cluster"]:
            for resource in pods(rendered({"partitioning": mode})):
                spec = pod_spec(resource)
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertEqual(spec["securityContext"]["runAsUser"], 65532)
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for container in spec["containers"] + spec.get("initContainers", []):
                    context = container["securityContext"]
                    self.assertIs(context["readOnlyRootFilesystem"], True)
                    self.assertIs(context["allowPrivilegeEscalation"], False)
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("memory", container["resources"]["limits"])

    def test_every_pod_has_a_policy_in_both_directions(self):
        for mode in ["proxy", "client-side", "redis-cluster"]:
            resources = rendered({"partitioning": mode})
            policies = [one for one in resources if one["kind"] == "NetworkPolicy"]
            for resource in pods(resources):
                meta = resource["metadata"] if resource["kind"] == "Pod" else resource["spec"]["template"]["metadata"]
                # Another one, the same, is there for a while before.
                matching = [
                    one for one in policies
                    if selects(one["spec"]["podSelector"], meta["labels"]) and "helm.sh/hook" not in one["metadata"].get("annotations", {})
                ]
                self.assertEqual(len(matching), 1, resource["metadata"]["name"])
                self.assertEqual(matching[0]["spec"]["policyTypes"], ["Ingress", "Egress"])

    def test_names_fit_where_they_are_carried(self):
        for name in ["a" * 60, "release-" * 7, "a-" * 22]:
            resources = rendered({"fullnameOverride": name})
            shards = pick(resources, "StatefulSet")["metadata"]["name"]
            self.assertLessEqual(len(shards), 52)
            for resource in resources:
                self.assertLessEqual(len(resource["metadata"]["name"]), 63)

    def test_memory_for_items_leaves_room(self):
        for values, bytes_ in [
            ({}, 912680550),
            ({"maxmemory": "512Mi"}, 536870912),
            ({"maxmemory": "512mb"}, 536870912),
            ({"maxmemory": 536870912}, 536870912),
            ({"maxmemory": "50%"}, 536870912),
            ({"persistence": {"enabled": True}}, 644245094),
            ({"resources": {"limits": {"memory": "64G"}}}, 54400000000),
            ({"resources": {"limits": {"memory": "1.5Ti"}}}, 1401877325414),
        ]:
            config = pick(rendered({"shards": values}), "ConfigMap", "-shards")["data"]["redis.conf"]
            self.assertIn(f"\nmaxmemory {bytes_}\n", config, values)
        values = {"shards": {"type": "memcached", "resources": {"limits": {"memory": "2Gi"}}}}
        args = pod_spec(pick(rendered(values), "StatefulSet"))["containers"][0]["args"]
        self.assertIn("--memory-limit=1740", args)

    def test_old_images_announce_addresses(self):
        for image, hostnames in [
            ("redis:5.0-alpine", False), ("redis:6.2", False), ("redis:7.0", True), ("redis:8-alpine", True), ("redis", True),
            ("valkey/valkey:8.1-alpine", True), ("registry:5000/redis:6", False), ("redis:latest", True),
            ("redis@sha256:" + "5" * 64, True), ("redis:6.2@sha256:" + "a" * 64, False),
        ]:
            values = {"partitioning": "redis-cluster", "shards": {"image": {"repository": image}}}
            args = pod_spec(pick(rendered(values), "StatefulSet"))["containers"][0]["args"]
            self.assertEqual("--cluster-announce-hostname" in args, hostnames, image)
            self.assertIn("--cluster-announce-ip", args)

    def test_values_that_are_taken_away_break_nothing(self):
        for values in [
            {"shards": {"resources": None}}, {"proxy": {"resources": None}}, {"proxy": {"pool": None}}, {"commonAnnotations": None},
            {"partitioning": "client-side", "proxy": {"pool": None}}, {"commonLabels": None}, {"shards": {"ringNames": None}}, {"shards": {"podLabels": None}},
        ]:
            with self.subTest(str(values)):
                rendered(values)
        few = {"shards": {"resources": {"limits": {"memory": "512Mi"}}}, "proxy": {"resources": {"limits": {"memory": "64Mi"}}}}
        for kind, memory in [("StatefulSet", "512Mi"), ("Deployment", "64Mi")]:
            resources = pod_spec(pick(rendered(few), kind))["containers"][0]["resources"]
            self.assertEqual(resources["requests"]["memory"], memory)

    def test_whose_it_is_cannot_be_labelled_away(self):
        theirs = {"commonLabels": {"app.kubernetes.io/part-of": "shop", "app.kubernetes.io/component": "x", "team": "a"}}
        labels = pick(rendered(theirs), "StatefulSet")["spec"]["template"]["metadata"]["labels"]
        self.assertEqual((labels["app.kubernetes.io/component"], labels["team"]), ("shard", "a"))
        for name in ["123", "true"]:
            for resource in rendered({}, name=name):
                self.assertEqual(resource["metadata"]["labels"]["app.kubernetes.io/instance"], name)

    def test_large_numbers_stay_numbers(self):
        values = {"partitioning": "redis-cluster", "redisCluster": {"nodeTimeout": 3000000}, "shards": {"terminationGracePeriodSeconds": 1000000}}
        resources = rendered(values)
        self.assertIn("cluster-node-timeout 3000000\n", pick(resources, "ConfigMap", "-shards")["data"]["redis.conf"])
        self.assertEqual(pod_spec(pick(resources, "StatefulSet"))["terminationGracePeriodSeconds"], 1000000)

    def test_a_cluster_with_replicas_takes_care_of_its_copies(self):
        def shard(replicas, persistence):
            values = {"partitioning": "redis-cluster", "redisCluster": {"replicasPerPrimary": replicas}}
            resources = rendered(values | {"shards": {"persistence": {"enabled": persistence}}})
            return pod_spec(pick(resources, "StatefulSet"))["containers"][0]
        self.assertNotIn("lifecycle", shard(0, False))
        for persistence in (False, True):
            self.assertIn("cluster failover", shard(1, persistence)["lifecycle"]["preStop"]["exec"]["command"][-1])
            self.assertIn("connected", shard(1, persistence)["readinessProbe"]["exec"]["command"][-1])
        self.assertIn("sleep 15", shard(1, False)["args"][0])
        self.assertEqual(shard(1, True)["command"], ["redis-server"])

    def test_images_are_named_as_they_are_given(self):
        digest = "sha256:" + "a" * 64
        for image, expected in [
            ({"repository": "redis:5.0-alpine"}, "redis:5.0-alpine"),
            ({"repository": "host:5000/redis", "tag": "7.2"}, "host:5000/redis:7.2"),
            ({"tag": "7.4-alpine"}, "redis:7.4-alpine"),
            ({"repository": "host:5000/redis:7.2", "digest": digest}, f"host:5000/redis@{digest}"),
            ({"digest": digest}, f"redis@{digest}"),
        ]:
            given = pod_spec(pick(rendered({"shards": {"image": image}}), "StatefulSet"))["containers"][0]["image"]
            self.assertEqual(given, expected)

    def test_new_fields_only_where_they_are_known(self):
        values = {"proxy": {"service": {"trafficDistribution": "PreferClose"}}}
        for version, known in [("1.29.0", False), ("1.30.0", True), ("1.34.0", True)]:
            services = [one for one in rendered(values, version) if one["metadata"]["name"] == "cache-memstore"]
            self.assertEqual("trafficDistribution" in services[0]["spec"], known, version)


class Notes(unittest.TestCase):
    """What is said after an installation."""

    def test_they_say_what_is_open(self):
        open_ = told({"proxy": {"service": {"type": "LoadBalancer"}}})
        self.assertIn("without a password", open_)
        self.assertIn("open to all networks", open_)
        closed = told({
            "auth": {"enabled": True, "existingSecret": "s"}, "tls": {"enabled": True, "existingSecret": "t"},
            "proxy": {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        })
        self.assertNotIn("WARNING", closed)
        self.assertNotIn("WARNING", told({}))
        self.assertIn("networkPolicy.enabled is false", told({"networkPolicy": {"enabled": False}}))
        self.assertIn("without replicas", told({"partitioning": "redis-cluster"}))

    def test_they_say_where_it_is(self):
        self.assertIn("redis://memstore.ns.svc.cluster.local:6379", told({}))
        self.assertIn("redis://app:PASSWORD@", told({"auth": {"enabled": True, "existingSecret": "s", "user": "app"}}))
        self.assertIn("topology.json", told({"partitioning": "client-side"}))
