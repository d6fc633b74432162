"""The node agent: a small kubelet and scheduler. It runs the containers of pods as real processes, asks their probes,
and tells the API server what became of them, in kubelet's order and words (see pod.py and container.py).

What it leaves out: limits of CPU and memory, eviction, images (see runtime.py), exec and attach, gRPC probes, host
network and host paths, subPath. Pods that ask for what it leaves out and cannot do without are not started, and say so.
"""

import argparse
import datetime
import os
import pathlib
import shutil
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import network
import runtime
from api import Api, ApiError, Informer, path_of
from container import now, say
from pod import Worker
from volumes import ALLOCATABLE

# Several, so that rules about spreading have something to spread over. All are this machine.
NODES = ("node-a", "node-b", "node-c")
HEARTBEAT = 10
# kubelet's are up to a minute, which would only make tests wait.
VOLUME_REFRESH = 1.5


class Node:
    address = network.NODE

    def __init__(self, api, folder, logs, images):
        self.api, self.folder, self.logs, self.images = api, folder, logs, images
        # First, for it forks.
        self.runtime = runtime.Runtime()
        self.cables = network.Cables()
        self.workers = {}
        self.placed = {}
        self.waiting = threading.Event()
        self.hands = ThreadPoolExecutor(8, "hands")
        self.forwarding = network.Rules("forwarding", lambda: network.service_rules(self.services.all(), self.slices.all()), network.SERVICE_PERIOD)
        self.filtering = network.Rules(
            "filtering", lambda: network.policy_rules(self.policies.all(), self.pods.all(), self.namespaces.all()), network.POLICY_PERIOD
        )
        self.configmaps = Informer(api, "configmaps", self.files_changed)
        self.secrets = Informer(api, "secrets", self.files_changed)
        self.claims = Informer(api, "persistentvolumeclaims", self.claim_changed)
        self.disks = Informer(api, "persistentvolumes", self.disk_changed)
        self.services = Informer(api, "services", self.forwarding.changed)
        self.slices = Informer(api, "endpointslices", self.forwarding.changed)
        self.policies = Informer(api, "networkpolicies", self.filtering.changed)
        self.namespaces = Informer(api, "namespaces", self.filtering.changed)
        self.machines = self.pods = None

    def run(self):
        self.register()
        for informer in (self.configmaps, self.secrets, self.claims, self.disks, self.services, self.slices, self.policies, self.namespaces):
            informer.synced.wait()
        self.machines = Informer(self.api, "nodes", self.machine_changed)
        self.machines.synced.wait()
        self.pods = Informer(self.api, "pods", self.pod_changed)
        self.pods.synced.wait()
        self.forwarding.start()
        self.filtering.start()
        threading.Thread(target=self.refresh_files, daemon=True).start()
        say("ready")
        while True:
            self.heartbeat()
            time.sleep(HEARTBEAT)

    # --- what the API server sees of the nodes

    def register(self):
        for name in NODES:
            self.api.create("nodes", {"metadata": {"name": name, "labels": labels_of(name)}})
            conditions = [
                {
                    "type": kind,
                    "status": status,
                    "reason": "Tests",
                    "message": "",
                    "lastHeartbeatTime": now(),
                    "lastTransitionTime": now(),
                }
                for kind, status in (("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"))
            ]
            status = {
                "conditions": conditions,
                "addresses": [{"type": "InternalIP", "address": self.address}, {"type": "Hostname", "address": name}],
                "capacity": ALLOCATABLE,
                "allocatable": ALLOCATABLE,
                "nodeInfo": {
                    "machineID": "",
                    "systemUUID": "",
                    "bootID": "",
                    "kernelVersion": os.uname().release,
                    "osImage": "tests",
                    "kubeletVersion": "v1.34.4",
                    "containerRuntimeVersion": "tests://1",
                    "kubeProxyVersion": "",
                    "operatingSystem": "linux",
                    "architecture": "amd64",
                },
            }
            self.api.patch("nodes", name, {"status": status}, part="status")
            lease = {"metadata": {"name": name}, "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro()}}
            self.api.create("leases", lease, "kube-node-lease")

    def heartbeat(self):
        for name in NODES:
            self.api.patch("leases", name, {"spec": {"renewTime": micro()}}, "kube-node-lease")

    # --- pods

    def pod_changed(self, event, pod):
        self.filtering.changed()
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if event == "DELETED":
            self.placed.pop(uid, None)
            if worker:
                worker.vanished()
        elif worker:
            worker.update(pod)
        elif not pod["spec"].get("nodeName"):
            if uid not in self.placed and not pod["metadata"].get("deletionTimestamp"):
                chosen = self.choose(pod)
                if chosen:
                    self.placed[uid] = chosen, owner_of(pod)
                    self.hand_over(self.bind, pod, chosen)
        elif pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            worker = self.workers[uid] = Worker(self, pod)
            worker.start()

    def machine_changed(self, event, machine):
        """Pods that found no node may find one now."""
        for pod in self.pods.all() if self.pods else []:
            self.pod_changed("MODIFIED", pod)

    def choose(self, pod):
        """The scheduler: of the nodes that are open and that nodeSelector allows, that with the fewest pods of the same owner."""
        wanted = pod["spec"].get("nodeSelector") or {}
        allowed = [
            machine["metadata"]["name"]
            for machine in sorted(self.machines.all(), key=lambda each: each["metadata"]["name"])
            if not machine["spec"].get("unschedulable") and all(machine["metadata"]["labels"].get(key) == value for key, value in wanted.items())
        ]
        if not allowed or pod["spec"].get("schedulingGates"):
            say(f"{pod['metadata']['name']}: no node for it")
            return None
        return min(allowed, key=lambda name: list(self.placed.values()).count((name, owner_of(pod))))

    def bind(self, pod, chosen):
        metadata = pod["metadata"]
        binding = {"metadata": {"name": metadata["name"], "uid": metadata["uid"]}, "target": {"kind": "Node", "name": chosen}}
        try:
            self.api.call("POST", path_of("pods", metadata["namespace"], metadata["name"], "binding"), binding)
        except ApiError as error:
            say(f"{metadata['name']}: not bound: {error}")

    def hand_over(self, work, *arguments):
        """To another thread, so that changes go on to be heard of."""

        def done():
            try:
                work(*arguments)
            except Exception:
                say(traceback.format_exc())

        self.hands.submit(done)

    # --- files out of the API

    def files_changed(self, event, thing):
        self.waiting.set()

    def refresh_files(self):
        while True:
            self.waiting.wait()
            time.sleep(VOLUME_REFRESH)
            self.waiting.clear()
            for worker in list(self.workers.values()):
                worker.refresh_files()

    # --- disks

    def claim_changed(self, event, claim):
        if event != "DELETED" and claim.get("status", {}).get("phase") == "Pending" and not claim["spec"].get("volumeName"):
            self.hand_over(self.provide_disk, claim)

    def provide_disk(self, claim):
        metadata, spec = claim["metadata"], claim["spec"]
        name = f"disk-{metadata['uid']}"
        pathlib.Path(self.disk(name)).mkdir(parents=True, exist_ok=True)
        # Like the root of a fresh file system: what may write there comes by fsGroup.
        os.chmod(self.disk(name), 0o755)
        disk = {
            "metadata": {"name": name},
            "spec": {
                "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                "accessModes": spec["accessModes"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": spec.get("storageClassName", ""),
                "local": {"path": self.disk(name)},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": list(NODES)}]}]
                    }
                },
                "claimRef": {
                    "kind": "PersistentVolumeClaim",
                    "apiVersion": "v1",
                    "namespace": metadata["namespace"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                },
            },
        }
        try:
            self.api.create("persistentvolumes", disk)
        except ApiError as error:
            if error.status != 409:
                say(f"no disk for {metadata['name']}: {error}")

    def disk_changed(self, event, disk):
        if event != "DELETED" and disk.get("status", {}).get("phase") == "Released":
            self.hand_over(self.discard_disk, disk["metadata"]["name"])

    def discard_disk(self, name):
        self.api.delete("persistentvolumes", name)
        shutil.rmtree(self.disk(name), ignore_errors=True)

    def disk(self, name):
        return str(self.folder / "disks" / name)


def labels_of(name):
    return {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "topology.kubernetes.io/zone": f"zone-{name[-1]}"}


def owner_of(pod):
    return (pod["metadata"].get("ownerReferences") or [{}])[0].get("uid")


def micro():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for option in ("--certificates", "--token", "--folder", "--logs", "--memstore", "--coredns"):
        parser.add_argument(option, required=True)
    options = parser.parse_args()
    folder = pathlib.Path(options.folder)
    (folder / "root").mkdir(parents=True)
    images = runtime.Images(options.memstore, options.coredns, pathlib.Path(__file__).parent)
    Node(Api(network.NODE, 6443, options.certificates, options.token), folder, pathlib.Path(options.logs), images).run()
