"""One pod on the node, from its binding to its end: volumes, network, containers in their order, and what the API server
is told of them.
"""

import shutil
import threading
import traceback

import network
from api import ApiError, path_of
from container import Container, now, say
from volumes import NotYet, Refused, Volumes


class Worker(threading.Thread):
    def __init__(self, node, pod):
        super().__init__(name=pod["metadata"]["name"], daemon=True)
        self.node, self.pod = node, pod
        self.uid = pod["metadata"]["uid"]
        self.folder = node.folder / "pods" / self.uid
        self.logs = node.logs / f"{pod['metadata']['namespace']}_{pod['metadata']['name']}_{self.uid[:8]}"
        self.volumes = Volumes(pod, self.folder / "volumes", node)
        self.volumes_lock = threading.Lock()
        self.sandbox = None
        self.ip = None
        self.files_ready = False
        self.ending = threading.Event()
        self.gone = False
        self.wake = threading.Event()
        self.reported = None
        self.report_lock = threading.Lock()
        self.failure = None
        spec = pod["spec"]
        self.first = [Container(self, each, first=True) for each in spec.get("initContainers", [])]
        self.main = [Container(self, each) for each in spec["containers"]]
        if pod["metadata"].get("deletionTimestamp"):
            self.ending.set()

    @property
    def full_name(self):
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    def update(self, pod):
        self.pod = pod
        if pod["metadata"].get("deletionTimestamp"):
            self.ending.set()
        self.wake.set()

    def vanished(self):
        """The object is gone, by force: so must be the processes."""
        self.gone = True
        self.ending.set()
        self.wake.set()

    def refresh_files(self):
        if self.files_ready and not self.ending.is_set():
            with self.volumes_lock:
                try:
                    self.volumes.refresh(self.pod)
                except (NotYet, ApiError, OSError):
                    # As in kubelet: what is mounted stays as it was.
                    pass

    def run(self):
        try:
            self.live()
        except Refused as refusal:
            self.failure = str(refusal)
            say(f"{self.full_name}: {refusal}")
            self.report()
            self.ending.wait()
        except Exception:
            self.failure = "the tests' node failed"
            say(f"{self.full_name}: {traceback.format_exc()}")
            self.ending.wait()
        try:
            self.end()
        except Exception:
            say(f"{self.full_name}: {traceback.format_exc()}")
        finally:
            self.node.workers.pop(self.uid, None)

    def live(self):
        if self.ending.is_set():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.report()
        if not self.prepare():
            return
        for container in self.first:
            container.begin()
            # One with restartPolicy Always goes on beside the others; it only has to have started.
            self.watch(lambda each=container: each.ended or (each.sidecar and each.started))
            if self.ending.is_set():
                return
            if container.ended and container.exit_code != 0:
                self.report()
                return
        for container in self.main:
            container.begin()
        self.watch(lambda: all(container.ended for container in self.main))

    def watch(self, done):
        """Reports whatever changes, until then or until the pod is to end."""
        while not self.ending.is_set() and not done():
            self.report()
            self.wake.wait(5)
            self.wake.clear()
        self.report()

    def prepare(self):
        """Volumes and network. False if the pod is to end before."""
        told = None
        while True:
            try:
                with self.volumes_lock:
                    self.volumes.prepare(self.pod)
                break
            except (NotYet, ApiError) as reason:
                if str(reason) != told:
                    told = str(reason)
                    say(f"{self.full_name}: waits: {reason}")
                if self.ending.wait(0.3):
                    return False
        self.files_ready = True
        spec = self.pod["spec"]
        self.sandbox = self.node.runtime.start("sandbox", hostname=self.hostname())
        if self.sandbox.error:
            raise RuntimeError(self.sandbox.error)
        self.ip = self.node.cables.connect(self.sandbox.pid)
        say(f"{self.full_name}: {self.ip}")
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
        names = [self.hostname()]
        if spec.get("subdomain"):
            names.insert(0, f"{self.hostname()}.{spec['subdomain']}.{self.pod['metadata']['namespace']}.svc.cluster.local")
        lines.append(f"{self.ip}\t" + "\t".join(names))
        lines += [f"{each['ip']}\t" + "\t".join(each["hostnames"]) for each in spec.get("hostAliases") or []]
        self.etc = {"hosts": "\n".join(lines) + "\n", "hostname": self.hostname() + "\n", "resolv.conf": self.resolver()}
        # Others see the address before containers start, and containers may ask for it.
        self.report()
        return True

    def hostname(self):
        return (self.pod["spec"].get("hostname") or self.pod["metadata"]["name"])[:63]

    def resolver(self):
        spec = self.pod["spec"]
        own = spec.get("dnsConfig") or {}
        servers, searches, options = [], [], {}
        policy = spec.get("dnsPolicy", "ClusterFirst")
        if policy == "ClusterFirst":
            servers = [network.DNS]
            searches = [f"{self.pod['metadata']['namespace']}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
            options = {"ndots": "5"}
        servers += own.get("nameservers", [])
        searches += own.get("searches", [])
        options |= {each["name"]: each.get("value") for each in own.get("options", [])}
        lines = ["search " + " ".join(searches)] if searches else []
        lines += [f"nameserver {server}" for server in servers]
        if options:
            lines.append("options " + " ".join(name if value is None else f"{name}:{value}" for name, value in options.items()))
        return "\n".join(lines) + "\n"

    # --- the end

    def end(self):
        """Stops what runs, tells so, and lets the object go."""
        grace = self.pod["metadata"].get("deletionGracePeriodSeconds", self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        if self.gone:
            grace = 1
        self.stop_all(self.main, grace)
        self.stop_all(list(reversed(self.first)), grace)
        if self.sandbox:
            # Its network namespace goes with the last process that has it.
            self.sandbox.kill()
        self.report(final=True)
        say(f"{self.full_name}: ended")
        while not self.ending.is_set():
            self.ending.wait()
        if not self.gone:
            try:
                path = path_of("pods", self.pod["metadata"]["namespace"], self.pod["metadata"]["name"])
                self.node.api.call("DELETE", path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_all(self, containers, grace):
        threads = [threading.Thread(target=container.stop, args=(grace,)) for container in containers]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                self.report()
                thread.join(0.2)

    # --- what the API server sees

    def changed(self):
        self.wake.set()

    def report(self, final=False):
        with self.report_lock:
            status = self.status(final)
            if status == self.reported or self.gone:
                return
            metadata = self.pod["metadata"]
            try:
                self.node.api.patch("pods", metadata["name"], {"metadata": {"uid": self.uid}, "status": status}, metadata["namespace"], "status")
                self.reported = status
            except ApiError as error:
                # Gone, or another of that name: the informer will tell.
                if error.status not in (404, 409):
                    say(f"{self.full_name}: not reported: {error}")

    def status(self, final):
        initialized = all(each.succeeded or (each.sidecar and each.started) for each in self.first)
        ready = initialized and bool(self.main) and all(each.ready for each in self.main) and not final
        phase = self.phase(initialized)
        why = {"reason": "PodCompleted"} if phase == "Succeeded" else {"reason": "ContainersNotReady"}
        conditions = [
            condition("PodReadyToStartContainers", self.ip is not None and not final),
            condition("Initialized", initialized, {"reason": "ContainersNotInitialized"}),
            condition("Ready", ready, why),
            condition("ContainersReady", ready, why),
            condition("PodScheduled", True),
        ]
        before = {each["type"]: each for each in (self.reported or self.pod.get("status", {})).get("conditions", [])}
        for each in conditions:
            same = before.get(each["type"], {}).get("status") == each["status"]
            each["lastTransitionTime"] = before[each["type"]]["lastTransitionTime"] if same else now()
        others = [each for each in self.pod.get("status", {}).get("conditions", []) if each["type"] not in {own["type"] for own in conditions}]
        status = {
            "phase": phase,
            "conditions": conditions + others,
            "hostIP": self.node.address,
            "hostIPs": [{"ip": self.node.address}],
            "startTime": (self.reported or {}).get("startTime") or self.pod.get("status", {}).get("startTime") or now(),
            "containerStatuses": [each.status() for each in self.main],
            "message": self.failure,
        }
        if self.first:
            status["initContainerStatuses"] = [each.status() for each in self.first]
        if self.ip:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        return status

    def phase(self, initialized):
        if any(each.ended and each.exit_code != 0 for each in self.first if not each.sidecar):
            return "Failed"
        if not initialized:
            return "Pending"
        if all(each.ended for each in self.main):
            return "Failed" if any(each.exit_code != 0 for each in self.main) else "Succeeded"
        return "Running" if any(each.has_run for each in self.main) else "Pending"


def condition(kind, holds, otherwise=None):
    return {"type": kind, "status": "True"} if holds else {"type": kind, "status": "False", **(otherwise or {})}
