"""A Kubernetes control plane out of its real parts: etcd, kube-apiserver, kube-controller-manager and CoreDNS, with a
node agent of our own (see node.py) in kubelet's, the scheduler's and kube-proxy's place.

It lives in namespaces that `run` makes: network, mounts, processes. Ports are fixed because nobody else is there, and
nothing is left of it when its first process ends, however that ends.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import network
from api import Api, ApiError

TOKEN = "administrator"
API_PORT = 6443

# As kubeadm writes it, with answers that age sooner, and without another name server to ask.
COREFILE = """cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }
    cache 30 {
        disable success cluster.local
        disable denial cluster.local
    }
    loadbalance
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""


class Failed(Exception):
    """A scenario did not see what it was to see."""


class Plane:
    def __init__(self, programs, logs, memstore):
        self.programs, self.logs, self.memstore = pathlib.Path(programs), pathlib.Path(logs), memstore
        self.folder = pathlib.Path(os.environ["PLANE_FOLDER"])
        self.processes = {}
        self.namespaces = []
        self.faults = []
        self.api = None
        self.kubeconfig = self.folder / "kubeconfig"

    def start(self):
        network.prepare_node()
        # As they are now, whoever builds or edits meanwhile.
        self.memstore = shutil.copy(self.memstore, self.folder / "memstore")
        self.chart = shutil.copytree(os.environ["CHART"], self.folder / "chart")
        subprocess.run(["openssl", "genrsa", "-out", self.folder / "accounts.key", "2048"], check=True, capture_output=True)
        (self.folder / "tokens").write_text(f'{TOKEN},administrator,administrator,"system:masters"\n')
        self.run(
            "etcd",
            [
                self.programs / "etcd",
                "--data-dir",
                self.folder / "etcd",
                "--listen-client-urls",
                "http://127.0.0.1:2379",
                "--advertise-client-urls",
                "http://127.0.0.1:2379",
                "--listen-peer-urls",
                "http://127.0.0.1:2380",
                # On a tmpfs there is nothing to wait for.
                "--unsafe-no-fsync",
            ],
        )
        certificates = self.folder / "certificates"
        accounts = self.folder / "accounts.key"
        self.run(
            "kube-apiserver",
            [
                self.programs / "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                f"--advertise-address={network.NODE}",
                f"--secure-port={API_PORT}",
                f"--cert-dir={certificates}",
                f"--token-auth-file={self.folder / 'tokens'}",
                "--authorization-mode=RBAC",
                f"--service-cluster-ip-range={network.SERVICES}",
                "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
                f"--service-account-key-file={accounts}",
                f"--service-account-signing-key-file={accounts}",
            ],
        )
        # It signs its certificate itself.
        authority = certificates / "apiserver.crt"
        self.wait(lambda: authority.exists() and (certificates / "apiserver.key").exists(), 60, "the API server to make its certificate")
        self.api = Api(network.NODE, API_PORT, str(authority), TOKEN)
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "tests",
                    "clusters": [
                        {"name": "tests", "cluster": {"server": f"https://{network.NODE}:{API_PORT}", "certificate-authority": str(authority)}}
                    ],
                    "users": [{"name": "tests", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
                }
            )
        )
        self.wait(self.api_ready, 60, "the API server")
        self.run(
            "kube-controller-manager",
            [
                self.programs / "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                f"--service-account-private-key-file={accounts}",
                f"--root-ca-file={authority}",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                # There are no metrics to scale by.
                "--controllers=*,-horizontal-pod-autoscaler-controller",
            ],
        )
        self.run(
            "node",
            [
                sys.executable,
                pathlib.Path(__file__).with_name("node.py"),
                "--certificates",
                authority,
                "--token",
                TOKEN,
                "--folder",
                self.folder / "node",
                "--logs",
                self.logs / "pods",
                "--memstore",
                self.memstore,
                "--coredns",
                self.programs / "coredns",
            ],
        )
        self.wait(lambda: self.api.get("serviceaccounts", "default", "default"), 60, "the controllers")
        self.start_dns()
        self.use_dns()

    def run(self, name, command):
        with open(self.logs / f"{name}.log", "w") as log:
            self.processes[name] = subprocess.Popen(
                [str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def api_ready(self):
        try:
            self.api.call("GET", "readyz")
            return self.api.get("namespaces", "kube-system")
        except (OSError, ApiError):
            return False

    def start_dns(self):
        namespace, name = "kube-system", "coredns"
        meta = {"metadata": {"name": name}}
        labels = {"k8s-app": "kube-dns"}
        self.api.create("serviceaccounts", meta, namespace)
        rules = [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ]
        self.api.create("clusterroles", {**meta, "rules": rules})
        self.api.create(
            "clusterrolebindings",
            {
                **meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            },
        )
        self.api.create("configmaps", {**meta, "data": {"Corefile": COREFILE}}, namespace)
        self.api.create(
            "deployments",
            {
                **meta,
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "serviceAccountName": name,
                            "containers": [
                                {
                                    "name": name,
                                    "image": "coredns",
                                    "args": ["-conf", "/etc/coredns/Corefile"],
                                    "ports": [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}],
                                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
                                    "securityContext": {
                                        "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                                        "readOnlyRootFilesystem": True,
                                    },
                                    "volumeMounts": [{"name": "corefile", "mountPath": "/etc/coredns", "readOnly": True}],
                                }
                            ],
                            "volumes": [{"name": "corefile", "configMap": {"name": name}}],
                        },
                    },
                },
            },
            namespace,
        )
        ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
        self.api.create(
            "services", {"metadata": {"name": "kube-dns"}, "spec": {"clusterIP": network.DNS, "selector": labels, "ports": ports}}, namespace
        )
        self.wait(lambda: self.api.get("deployments", name, namespace).get("status", {}).get("readyReplicas"), 60, "CoreDNS")

    def use_dns(self):
        """Names resolve for the tests themselves as they do in a pod of the namespace `default`, without its search list."""
        own = self.folder / "resolv.conf"
        own.write_text(f"nameserver {network.DNS}\noptions timeout:1 attempts:2\n")
        subprocess.run(["mount", "--bind", own, os.path.realpath("/etc/resolv.conf")], check=True)

    def wait(self, condition, seconds, what):
        """What `condition` returns, once that is something."""
        deadline = time.monotonic() + seconds
        while True:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Failed(f"{name} has ended with {process.returncode}")
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise Failed(f"waited {seconds} s in vain for {what}")
            time.sleep(0.05)

    # --- what scenarios ask

    def say(self, line):
        print(f"  {time.strftime('%H:%M:%S')} {line}", flush=True)

    def expect(self, holds, what):
        if not holds:
            raise Failed(f"not so: {what}")

    def check(self, holds, what):
        """Like expect, but the scenario goes on, for it may have more to show. It has failed at its end."""
        if not holds:
            self.say(f"FAULT: {what}")
            self.faults.append(what)

    def namespace(self, name):
        """A new namespace whose pods have to be restricted."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"}
        self.api.create("namespaces", {"metadata": {"name": name, "labels": labels}})
        self.namespaces.append(name)
        self.wait(lambda: self.api.get("serviceaccounts", "default", name), 30, f"namespace {name}")
        return name

    def remove_namespace(self, name):
        """Without waiting: the next scenario has another, and the plane's end ends all."""
        self.api.delete("namespaces", name)
        self.namespaces.remove(name)

    def remove_namespaces(self):
        for name in list(self.namespaces):
            self.remove_namespace(name)

    def close_nodes(self, closed):
        """Whether new pods find a node."""
        for node in self.api.list("nodes"):
            self.api.patch("nodes", node["metadata"]["name"], {"spec": {"unschedulable": closed}})

    def pods(self, namespace, labels=None):
        return self.api.list("pods", namespace, labels)

    def ready(self, pods):
        """How many of them are, and stay."""
        return sum(is_ready(pod) for pod in pods)

    def show_objects(self):
        for name in self.namespaces:
            for pod in self.pods(name):
                states = [
                    f"{each['name']} {json.dumps(each['state'])} restarts {each['restartCount']}"
                    for each in pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
                ]
                print(f"  pod {pod['metadata']['name']} {pod['status'].get('phase')} ready={is_ready(pod)} {pod['status'].get('podIP')} {states}")
            for event in sorted(self.api.list("events", name), key=lambda each: each.get("lastTimestamp") or "")[-15:]:
                if event.get("type") == "Warning":
                    print(f"  event {event['involvedObject'].get('name')}: {event.get('message', '')[:300]}")

    def tails(self, since=0.0, lines=8):
        """The ends of the logs that were written to since then, youngest last."""
        for path in sorted(self.logs.rglob("*.log"), key=lambda each: each.stat().st_mtime):
            kept = path.read_text(errors="replace").splitlines()[-lines:]
            if kept and path.stat().st_mtime >= since:
                print(f"--- {path.relative_to(self.logs)}")
                print("\n".join(line[:300] for line in kept))


def is_ready(pod):
    conditions = {each["type"]: each["status"] for each in pod.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp")
