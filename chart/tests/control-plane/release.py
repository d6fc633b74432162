"""A release of the chart: what helm does with it, and what of it runs."""

import json
import os
import re
import subprocess
import time
import urllib.request

from api import GROUPS
from clients import Redis
from plane import Failed

# Kinds that helm's own notes and Kubernetes itself leave in every namespace.
NOT_OF_A_RELEASE = {("configmaps", "kube-root-ca.crt"), ("serviceaccounts", "default")}


class Release:
    """A release of the chart in a namespace of its own."""

    def __init__(self, plane, name, **values):
        self.plane, self.name = plane, name
        self.api = plane.api
        self.namespace = plane.namespace(f"chart-{name}")
        self.values = values

    # --- helm

    def helm(self, *arguments):
        """What helm says; raises Failed with that where it fails."""
        environment = os.environ | {
            "KUBECONFIG": str(self.plane.kubeconfig),
            "HELM_CACHE_HOME": f"{self.plane.folder}/helm",
            "HELM_CONFIG_HOME": f"{self.plane.folder}/helm",
            "HELM_DATA_HOME": f"{self.plane.folder}/helm",
        }
        command = [os.environ["HELM"], "--namespace", self.namespace, *arguments]
        begin = time.monotonic()
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        self.took = time.monotonic() - begin
        with open(self.plane.logs / "helm.log", "a") as log:
            log.write(f"--- {' '.join(arguments)}: {finished.returncode}, {self.took:.1f} s\n{finished.stdout}{finished.stderr}\n")
        if finished.returncode != 0:
            raise Failed(f"helm {arguments[0]}: {finished.stderr.strip()}")
        return finished.stdout

    def apply(self, verb, **changes):
        """`changes` are values by their paths, with _ for dots."""
        for path, value in changes.items():
            place = self.values
            *above, last = path.split("_")
            for part in above:
                place = place.setdefault(part, {})
            place[last] = value
        file = self.plane.folder / f"{self.name}-values.json"
        file.write_text(json.dumps(self.values))
        return self.helm(verb, self.name, str(self.plane.chart), "--values", str(file), "--wait", "--wait-for-jobs", "--timeout", "3m")

    def install(self):
        self.apply("install")
        self.plane.say(f"helm install --wait: {self.took:.1f} s")

    def upgrade(self, **changes):
        self.apply("upgrade", **changes)
        self.plane.say(f"helm upgrade with {changes}: {self.took:.1f} s")

    def refuse(self, words, **changes):
        """An upgrade that helm has to refuse with these words; the values stay as they were."""
        before = json.dumps(self.values)
        try:
            self.apply("upgrade", **changes)
        except Failed as error:
            self.values = json.loads(before)
            self.plane.say(f"refused: {str(error).splitlines()[0][-330:]}")
            self.plane.expect(words in str(error), f"the refusal says {words!r}: {error}")
            return
        raise Failed(f"helm upgrade with {changes} was not refused")

    def rollback(self, revision):
        self.helm("rollback", self.name, str(revision), "--wait", "--wait-for-jobs", "--timeout", "3m")
        self.plane.say(f"helm rollback to {revision}: {self.took:.1f} s")

    def test(self):
        try:
            self.helm("test", self.name, "--timeout", "90s")
        except Failed as failure:
            logs = [log.read_text() for log in self.plane.logs.glob(f"pods/{self.namespace}_*test*/*.log")]
            raise Failed(f"{failure}; its log: {logs}") from failure
        self.plane.say(f"helm test: {self.took:.1f} s")

    def uninstall(self):
        """And nothing is left but claims, and the hook that an upgrade puts in place first, which Helm does not count to the release."""
        self.helm("uninstall", self.name, "--wait", "--timeout", "3m")
        self.plane.say(f"helm uninstall --wait: {self.took:.1f} s")
        left = []

        def nothing_left():
            left[:] = self.leftovers()
            return not left

        try:
            # What Kubernetes itself removes afterwards may take a moment.
            self.plane.wait(nothing_left, 20, "nothing to be left")
        except Failed:
            self.plane.check(False, f"after helm uninstall there are still {left}")
        self.plane.remove_namespace(self.namespace)

    def leftovers(self):
        found = []
        for kind in GROUPS:
            if kind in ("namespaces", "nodes", "persistentvolumes", "persistentvolumeclaims", "events") or kind.startswith("cluster"):
                continue
            found += [
                f"{kind}/{thing['metadata']['name']}"
                for thing in self.api.list(kind, self.namespace)
                if (kind, thing["metadata"]["name"]) not in NOT_OF_A_RELEASE and not thing["metadata"]["name"].endswith("-ring-next")
            ]
        return found

    # --- what runs

    def full_name(self):
        return self.name if "memstore" in self.name else f"{self.name}-memstore"

    def pods(self, component):
        labels = {"app.kubernetes.io/instance": self.name, "app.kubernetes.io/component": component}
        return sorted(self.plane.pods(self.namespace, labels), key=lambda pod: (len(pod["metadata"]["name"]), pod["metadata"]["name"]))

    def uids(self, component):
        return [pod["metadata"]["uid"] for pod in self.pods(component)]

    def addresses(self, component):
        return [pod["status"]["podIP"] for pod in self.pods(component) if pod["status"].get("podIP") and not pod["metadata"].get("deletionTimestamp")]

    def shard_port(self):
        return next(port["containerPort"] for port in self.pods("shard")[0]["spec"]["containers"][0]["ports"] if port["name"] == "shard")

    def restarts(self):
        return sum(each["restartCount"] for pod in self.plane.pods(self.namespace) for each in pod["status"].get("containerStatuses", []))

    def address(self):
        """Of the Service in front of the proxies."""
        spec = self.api.get("services", self.full_name(), self.namespace)["spec"]
        return spec["clusterIP"], spec["ports"][0]["port"]

    def rings(self):
        """The shards that each proxy has now, as its admin port tells."""
        rings = {}
        for pod in self.pods("proxy"):
            if pod["status"].get("podIP") and not pod["metadata"].get("deletionTimestamp"):
                rings[pod["metadata"]["name"]] = [shard["name"] for shard in topology(pod["status"]["podIP"])["pools"]["cache"]["shards"]]
        return rings

    def digests(self):
        """Of the configuration of each proxy."""
        found = []
        for address in self.addresses("proxy"):
            with urllib.request.urlopen(f"http://{address}:9121/metrics", timeout=3) as answer:
                found += re.findall(r'^memstore_config_info\{.*digest="([^"]*)"', answer.read().decode(), re.MULTILINE)
        return found

    def await_ring(self, count, seconds=100):
        return self.plane.wait(lambda: all(len(ring) == count for ring in self.rings().values()), seconds, f"all proxies to have {count} shards")

    def owners(self):
        """Which of the shards' pods holds which key."""
        owners = {}
        for pod in self.pods("shard"):
            with Redis(pod["status"]["podIP"], 6379) as shard:
                for key in shard.call("KEYS", "*"):
                    if key in owners:
                        raise Failed(f"{key} is on {owners[key]} and on {pod['metadata']['name']}")
                    owners[key] = pod["metadata"]["name"]
        return owners

    def delete_pod(self, pod):
        self.api.delete("pods", pod["metadata"]["name"], self.namespace)


def topology(address):
    with urllib.request.urlopen(f"http://{address}:9121/topology", timeout=3) as answer:
        return json.load(answer)
