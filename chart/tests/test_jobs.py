"""Pods that run for a moment: what can be said of them, and that nothing around them keeps them from ending."""

import unittest

from rendering import pick, pod_spec, pods, rendered, selects

MODES = ["proxy", "client-side", "redis-cluster"]
EVERYTHING = {"tests": {"memtier": {"enabled": True}}}


def jobs(resources):
    """Pods of hooks, with their metadata."""
    for one in pods(resources):
        if one["kind"] in ("Pod", "Job"):
            meta = one["metadata"] if one["kind"] == "Pod" else one["spec"]["template"]["metadata"]
            yield one["metadata"]["name"], meta, pod_spec(one)


def hook(resource):
    annotations = resource["metadata"].get("annotations", {})
    return annotations.get("helm.sh/hook", "").split(","), int(annotations.get("helm.sh/hook-weight", 0))


class Jobs(unittest.TestCase):
    """Jobs of hooks, and the pods of `helm test`."""

    def all_of(self, values=None):
        found = []
        for mode in MODES:
            more = EVERYTHING if mode != "client-side" else {}
            found += [(f"{mode} {name}", meta, spec) for name, meta, spec in jobs(rendered({"partitioning": mode} | more | (values or {})))]
        names = " ".join(name for name, _, _ in found)
        for name in ["-ring-wait-", "-drain-", "-join-", "-test-", "-memtier-"]:
            self.assertIn(name, names)
        return found

    def test_they_run_where_and_as_the_values_say(self):
        own = {
            "podLabels": {"team": "a"}, "podAnnotations": {"note": "b"}, "nodeSelector": {"pool": "small"}, "priorityClassName": "low",
            "tolerations": [{"key": "spot", "operator": "Exists"}], "affinity": {"nodeAffinity": {}},
        }
        for name, meta, spec in self.all_of({"jobs": own, "commonAnnotations": {"common": "c"}}):
            with self.subTest(name):
                self.assertEqual(meta["labels"]["team"], "a")
                self.assertEqual((meta["annotations"]["note"], meta["annotations"]["common"]), ("b", "c"))
                for field in ["nodeSelector", "priorityClassName", "tolerations", "affinity"]:
                    self.assertEqual(spec[field], own[field])

    def test_where_nothing_is_said_they_run_beside_the_proxies(self):
        proxy = {"nodeSelector": {"pool": "memory"}, "tolerations": [{"key": "memory", "operator": "Exists"}]}
        for name, _, spec in self.all_of({"proxy": proxy}):
            with self.subTest(name):
                self.assertEqual({field: spec[field] for field in proxy}, proxy)

    def test_a_quota_that_asks_for_everything_is_satisfied(self):
        for name, _, spec in self.all_of():
            with self.subTest(name):
                for container in spec["containers"]:
                    for part in ["requests", "limits"]:
                        self.assertEqual(set(container["resources"][part]), {"cpu", "memory"})

    def test_resources_of_each_can_be_set(self):
        asked = {"requests": {"cpu": "33m", "memory": "33Mi"}, "limits": {"cpu": "44m", "memory": "44Mi"}}
        values = {"jobs": {"resources": asked}, "tests": {"memtier": {"enabled": True, "resources": asked}}}
        cluster = {"partitioning": "redis-cluster", "redisCluster": {"reconcile": {"resources": asked}}}
        for more in [{}, cluster]:
            for name, _, spec in jobs(rendered(values | more)):
                self.assertEqual([container["resources"] for container in spec["containers"]], [asked], name)

    def test_no_mesh_puts_a_sidecar_into_them(self):
        for name, meta, _ in self.all_of():
            with self.subTest(name):
                # Istio looks at the label first, Linkerd and Consul at annotations only.
                self.assertEqual(meta["labels"]["sidecar.istio.io/inject"], "false")
                self.assertEqual(meta["annotations"]["sidecar.istio.io/inject"], "false")
                self.assertEqual(meta["annotations"]["linkerd.io/inject"], "disabled")
                self.assertEqual(meta["annotations"]["consul.hashicorp.com/connect-inject"], "false")
                self.assertEqual(meta["labels"]["kuma.io/sidecar-injection"], "disabled")
        theirs = {"jobs": {"podLabels": {"sidecar.istio.io/inject": "true"}, "podAnnotations": {"linkerd.io/inject": "enabled"}}}
        for _, meta, _ in self.all_of(theirs):
            self.assertEqual(meta["labels"]["sidecar.istio.io/inject"], "true")
            self.assertEqual(meta["annotations"]["linkerd.io/inject"], "enabled")

    def test_other_pods_are_left_to_the_mesh(self):
        for mode in MODES:
            for one in pods(rendered({"partitioning": mode})):
                if one["kind"] in ("Deployment", "StatefulSet"):
                    self.assertNotIn("inject", str(one["spec"]["template"]["metadata"]))

    def test_what_cares_for_a_cluster_can_be_labelled_and_annotated(self):
        own = {"podLabels": {"team": "a"}, "podAnnotations": {"note": "b"}, "priorityClassName": "high"}
        values = {"partitioning": "redis-cluster", "redisCluster": {"reconcile": own}}
        template = pick(rendered(values), "Deployment", "-reconcile")["spec"]["template"]
        self.assertEqual(template["metadata"]["labels"]["team"], "a")
        self.assertEqual(template["metadata"]["annotations"], {"note": "b"})
        self.assertEqual(template["spec"]["priorityClassName"], "high")


class Policies(unittest.TestCase):
    """Whom they may talk to, and when that is allowed."""

    def test_hooks_may_ask_for_names_before_anything_else_is_there(self):
        for mode in ["proxy", "redis-cluster"]:
            resources = rendered({"partitioning": mode})
            early = [one for one in resources if one["kind"] == "NetworkPolicy" and "pre-upgrade" in hook(one)[0]]
            for one in resources:
                events, weight = hook(one)
                if one["kind"] != "Job" or not any(event.startswith("pre-") for event in events):
                    continue
                with self.subTest(one["metadata"]["name"]):
                    labels = one["spec"]["template"]["metadata"]["labels"]
                    before = [
                        policy for policy in early
                        if selects(policy["spec"]["podSelector"], labels) and hook(policy)[1] < weight and set(events) <= set(hook(policy)[0])
                    ]
                    self.assertEqual(len(before), 1)
                    ports = [port["port"] for rule in before[0]["spec"]["egress"] for port in rule["ports"]]
                    self.assertIn(53, ports)
            # Argo CD runs it in a first sync as well, which is an installation to nobody but Helm.
            self.assertEqual([hook(one)[0] for one in early], [["pre-install", "pre-upgrade", "pre-rollback"]])
        off = rendered({"networkPolicy": {"enabled": False}})
        self.assertNotIn("NetworkPolicy", [one["kind"] for one in off])

    def test_more_can_be_reached_if_the_values_say_so(self):
        rule = {"ports": [{"port": 15012, "protocol": "TCP"}]}
        policies = [one for one in rendered({"jobs": {"extraEgress": [rule]}}) if one["metadata"]["name"].endswith(("-jobs", "-hooks"))]
        self.assertEqual(len(policies), 2)
        for policy in policies:
            self.assertIn(rule, policy["spec"]["egress"])


class Services(unittest.TestCase):
    """What a mesh takes connections for."""

    def test_services_say_what_they_carry(self):
        for values in [{}, {"shards": {"type": "memcached"}}, {"partitioning": "redis-cluster"}, {"partitioning": "client-side"}]:
            for service in [one for one in rendered(values) if one["kind"] == "Service"]:
                for port in service["spec"]["ports"]:
                    self.assertEqual(port["appProtocol"], "http" if port["name"] == "metrics" else "tcp")
        values = {"proxy": {"service": {"appProtocol": "redis"}}, "shards": {"service": {"appProtocol": ""}}}
        said = {one["metadata"]["name"]: one["spec"]["ports"][0].get("appProtocol") for one in rendered(values) if one["kind"] == "Service"}
        self.assertEqual(said, {"cache-memstore": "redis", "cache-memstore-shards": None, "cache-memstore-proxy": "http"})
