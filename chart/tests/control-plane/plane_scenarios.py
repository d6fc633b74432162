"""What the plane itself must do before anything on it proves something, with plain manifests."""

import socket
import time

from clients import Redis
from plane import Failed

SECURE = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
SECURE_POD = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


def pod_spec(*containers, **more):
    return {"securityContext": SECURE_POD, "containers": [{"securityContext": SECURE, **each} for each in containers], **more}


def resolved(name):
    try:
        return sorted({entry[4][0] for entry in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)})
    except socket.gaierror:
        return []


def stateful_pods(plane):
    """A StatefulSet's pods have names, keep their disks, and come back with other addresses, which the names follow."""
    api, namespace = plane.api, plane.namespace("self-stateful")
    labels = {"app": "store"}
    api.create(
        "services",
        {
            "metadata": {"name": "store"},
            "spec": {
                "clusterIP": "None",
                "selector": labels,
                "publishNotReadyAddresses": True,
                "ports": [{"name": "redis", "port": 6379}],
            },
        },
        namespace,
    )
    api.create(
        "statefulsets",
        {
            "metadata": {"name": "store"},
            "spec": {
                "serviceName": "store",
                "replicas": 3,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": pod_spec(
                        {
                            "name": "redis",
                            "image": "docker.io/library/redis:7-alpine",
                            "args": ["redis-server", "--appendonly", "yes", "--protected-mode", "no"],
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                            "ports": [{"name": "redis", "containerPort": 6379}],
                            "readinessProbe": {"exec": {"command": ["redis-cli", "PING"]}, "periodSeconds": 1},
                            "livenessProbe": {"tcpSocket": {"port": "redis"}, "periodSeconds": 2},
                        }
                    ),
                },
                "volumeClaimTemplates": [
                    {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
                ],
            },
        },
        namespace,
    )
    plane.wait(lambda: api.get("statefulsets", "store", namespace)["status"].get("readyReplicas") == 3, 60, "three stores")
    name = f"store-1.store.{namespace}.svc.cluster.local"
    old = plane.wait(lambda: resolved(name), 10, name)
    with Redis(old[0], 6379) as store:
        store.call("SET", "kept", "1")
    uid = api.get("pods", "store-1", namespace)["metadata"]["uid"]
    begin = time.monotonic()
    api.delete("pods", "store-1", namespace)
    plane.wait(lambda: (api.get("pods", "store-1", namespace) or {"metadata": {"uid": uid}})["metadata"]["uid"] != uid, 60, "another store-1")
    new = plane.wait(lambda: [each for each in resolved(name) if each not in old], 30, "another address")
    plane.say(f"a pod deleted has another address after {time.monotonic() - begin:.1f} s")
    plane.wait(lambda: plane.ready(plane.pods(namespace, labels)) == 3, 30, "three stores again")
    with Redis(new[0], 6379) as store:
        plane.expect(store.call("GET", "kept") == b"1", "the disk of store-1 came back with it")
    plane.expect(len(resolved(f"store.{namespace}.svc.cluster.local")) == 3, "the Service's own name stands for all pods")
    plane.remove_namespace(namespace)


def services(plane):
    """A Service has an address, used by nodes and pods alike, behind which only ready pods are; a full Job succeeds."""
    api, namespace = plane.api, plane.namespace("self-services")
    labels = {"app": "web"}
    server = "import http.server, os, socket; os.chdir('/page'); http.server.ThreadingHTTPServer(('', 8000), http.server.SimpleHTTPRequestHandler).serve_forever()"
    api.create(
        "deployments",
        {
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": pod_spec(
                        {
                            "name": "web",
                            "image": "tests",
                            "command": ["sh", "-c"],
                            "args": [f"echo '$(NAME)$$(NAME)' > /page/name; exec python3 -c \"{server}\""],
                            "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                            "volumeMounts": [{"name": "page", "mountPath": "/page"}],
                            "readinessProbe": {"exec": {"command": ["test", "!", "-e", "/page/unready"]}, "periodSeconds": 1, "failureThreshold": 1},
                            "ports": [{"name": "http", "containerPort": 8000}],
                        },
                        volumes=[{"name": "page", "emptyDir": {"medium": "Memory"}}],
                        terminationGracePeriodSeconds=1,
                    ),
                },
            },
        },
        namespace,
    )
    api.create("services", {"metadata": {"name": "web"}, "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]}}, namespace)
    address = api.get("services", "web", namespace)["spec"]["clusterIP"]
    plane.wait(lambda: plane.ready(plane.pods(namespace, labels)) == 2, 30, "two pods")

    def names():
        found = set()
        for _ in range(20):
            try:
                with socket.create_connection((address, 80), 3) as connection:
                    connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
                    found.add(connection.makefile("rb").read().split(b"\r\n\r\n")[1].decode().split("$")[0].strip())
            except OSError:
                pass
        return found

    plane.wait(lambda: len(names()) == 2, 10, "both pods behind the Service")
    job(
        plane,
        namespace,
        "asks",
        [
            "sh",
            "-c",
            "set -e; for i in 1 2 3 4 5 6; do python3 -c 'import urllib.request as r; print(r.urlopen(\"http://web/name\", timeout=5).read())'; done; "
            "getent hosts web.$NAMESPACE; for file in /usr/x /x /tmp/x; do if touch $file; then exit 1; fi; done; test $(id -u) = 65532; grep -q 'CapBnd:.0000000000000000' /proc/self/status; "
            "grep -q 'NoNewPrivs:.1' /proc/self/status; test $$$$ = 1; test $(hostname) = $NAME",
        ],
    )
    replicas = {"spec": {"replicas": 0}}
    api.patch("deployments", "web", replicas, namespace)
    plane.wait(lambda: not plane.pods(namespace, labels), 60, "no pods")

    def refused():
        try:
            socket.create_connection((address, 80), 3).close()
        except ConnectionRefusedError:
            return True
        except TimeoutError:
            return False

    plane.wait(refused, 10, "a Service without pods to refuse connections")
    plane.remove_namespace(namespace)


def job(plane, namespace, name, command, succeeds=True, labels=None, **more):
    """Runs a command in a pod of the tests to its end."""
    environment = [
        {"name": key, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.{value}"}}} for key, value in (("NAME", "name"), ("NAMESPACE", "namespace"))
    ]
    plane.api.create(
        "jobs",
        {
            "metadata": {"name": name},
            "spec": {
                "backoffLimit": 0,
                "template": {
                    "metadata": {"labels": labels or {}},
                    "spec": pod_spec(
                        {"name": "job", "image": "tests", "command": command, "env": environment, **more.pop("container", {})},
                        restartPolicy="Never",
                        **more,
                    ),
                },
            },
        },
        namespace,
    )
    wanted = "succeeded" if succeeds else "failed"

    def done():
        status = plane.api.get("jobs", name, namespace)["status"]
        if status.get("failed" if succeeds else "succeeded"):
            raise Failed(f"job {name} has not {wanted}")
        return status.get(wanted)

    plane.wait(done, 60, f"job {name}")


def files(plane):
    """A changed ConfigMap reaches a running pod all at once, and a preStop hook runs before SIGTERM."""
    api, namespace = plane.api, plane.namespace("self-files")
    api.create("configmaps", {"metadata": {"name": "settings"}, "data": {"a": "1", "b": "1"}}, namespace)
    api.create("secrets", {"metadata": {"name": "password"}, "stringData": {"password": "secret"}}, namespace)
    api.create(
        "persistentvolumeclaims",
        {"metadata": {"name": "kept"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        namespace,
    )
    script = (
        "trap 'echo term >> /kept/log; exit 0' TERM; cp /init/made /kept/made; test -r /secret/password; test ! -e /optional/x; "
        "while true; do echo $(cat /settings/a)$(cat /settings/b) > /kept/seen; sleep 0.1; done"
    )
    api.create(
        "pods",
        {
            "metadata": {"name": "reader", "labels": {"app": "reader"}},
            "spec": pod_spec(
                {
                    "name": "reader",
                    "image": "tests",
                    "command": ["sh", "-c", script],
                    "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "sleep 1; echo hook >> /kept/log"]}}},
                    "volumeMounts": [
                        {"name": "settings", "mountPath": "/settings"},
                        {"name": "kept", "mountPath": "/kept"},
                        {"name": "secret", "mountPath": "/secret"},
                        {"name": "optional", "mountPath": "/optional"},
                        {"name": "init", "mountPath": "/init"},
                    ],
                },
                initContainers=[
                    {
                        "name": "init",
                        "image": "tests",
                        "command": ["sh", "-c", "echo made > /init/made"],
                        "securityContext": SECURE,
                        "volumeMounts": [{"name": "init", "mountPath": "/init"}],
                    }
                ],
                volumes=[
                    {"name": "settings", "configMap": {"name": "settings"}},
                    {"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}},
                    {"name": "secret", "projected": {"sources": [{"secret": {"name": "password"}}], "defaultMode": 0o440}},
                    {"name": "optional", "configMap": {"name": "absent", "optional": True}},
                    {"name": "init", "emptyDir": {}},
                ],
            ),
        },
        namespace,
    )
    plane.wait(lambda: plane.ready(plane.pods(namespace, {"app": "reader"})), 30, "the reader")
    disk = plane.folder / "node/disks" / api.get("persistentvolumeclaims", "kept", namespace)["spec"]["volumeName"]
    plane.wait(lambda: (disk / "seen").exists() and (disk / "seen").read_text() == "11\n", 10, "the reader to read")
    begin = time.monotonic()
    api.patch("configmaps", "settings", {"data": {"a": "2", "b": "2"}}, namespace)
    plane.wait(lambda: (disk / "seen").read_text() == "22\n", 10, "the change to arrive")
    plane.say(f"a changed ConfigMap is seen in the pod after {time.monotonic() - begin:.1f} s")
    api.delete("pods", "reader", namespace)
    plane.wait(lambda: not api.get("pods", "reader", namespace), 40, "the reader to end")
    plane.expect((disk / "log").read_text() == "hook\nterm\n", "preStop first, then SIGTERM")
    plane.remove_namespace(namespace)


def restarts(plane):
    """A container that ends is started again in its pod; one whose liveness probe fails, too; a startup probe holds the others back."""
    api, namespace = plane.api, plane.namespace("self-restarts")
    api.create(
        "pods",
        {
            "metadata": {"name": "both"},
            "spec": pod_spec(
                {"name": "ends", "image": "tests", "command": ["sh", "-c", "sleep 1; exit 3"]},
                {
                    "name": "hangs",
                    "image": "tests",
                    "command": ["sh", "-c", "sleep 2; touch /state/up; sleep 3; rm /state/up; exec sleep 1000"],
                    "volumeMounts": [{"name": "state", "mountPath": "/state"}],
                    "startupProbe": {"exec": {"command": ["test", "-e", "/state/up"]}, "periodSeconds": 1, "failureThreshold": 10},
                    "livenessProbe": {
                        "exec": {"command": ["test", "-e", "/state/up"]},
                        "periodSeconds": 1,
                        "failureThreshold": 2,
                        "terminationGracePeriodSeconds": 1,
                    },
                },
                volumes=[{"name": "state", "emptyDir": {}}],
                terminationGracePeriodSeconds=2,
            ),
        },
        namespace,
    )

    def statuses():
        return {each["name"]: each for each in api.get("pods", "both", namespace)["status"].get("containerStatuses", [])}

    plane.wait(lambda: statuses().get("ends", {}).get("restartCount", 0) >= 2, 30, "two restarts of what ends")
    plane.expect(statuses()["ends"]["lastState"]["terminated"]["exitCode"] == 3, "its exit code is told")
    plane.wait(lambda: statuses()["hangs"]["started"], 30, "what hangs to have started")
    plane.wait(lambda: statuses()["hangs"]["restartCount"] >= 1, 30, "a restart of what hangs")
    ip = api.get("pods", "both", namespace)["status"]["podIP"]
    plane.expect(ip, "restarts leave the pod its address")
    plane.remove_namespace(namespace)


def policies(plane):
    """What a NetworkPolicy does not allow is dropped."""
    api, namespace = plane.api, plane.namespace("self-policies")
    labels = {"app": "guarded"}
    api.create(
        "pods",
        {
            "metadata": {"name": "guarded", "labels": labels},
            "spec": pod_spec(
                {
                    "name": "redis",
                    "image": "redis",
                    "args": ["--protected-mode", "no", "--save", ""],
                    "ports": [{"name": "redis", "containerPort": 6379}],
                    "readinessProbe": {"tcpSocket": {"port": 6379}, "periodSeconds": 1},
                }
            ),
        },
        namespace,
    )
    api.create("services", {"metadata": {"name": "guarded"}, "spec": {"selector": labels, "ports": [{"port": 6379}]}}, namespace)
    api.create(
        "networkpolicies",
        {
            "metadata": {"name": "guarded"},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"may": "yes"}}}], "ports": [{"port": "redis"}]}],
            },
        },
        namespace,
    )
    plane.wait(lambda: plane.ready(plane.pods(namespace, labels)), 30, "the guarded pod")
    ask = ["sh", "-c", "timeout 5 redis-cli -h guarded PING | grep PONG"]
    job(plane, namespace, "allowed", ask, labels={"may": "yes"})
    job(plane, namespace, "not-allowed", ask, succeeds=False)
    plane.remove_namespace(namespace)


def posture(plane):
    """The API server refuses pods that are not restricted where the namespace says so."""
    namespace = plane.namespace("self-posture")
    try:
        plane.api.create("pods", {"metadata": {"name": "lax"}, "spec": {"containers": [{"name": "lax", "image": "tests"}]}}, namespace)
    except Exception as error:
        plane.expect("violates PodSecurity" in str(error), f"refused for its posture: {error}")
    else:
        raise Failed("a pod without any security context was accepted")
    plane.remove_namespace(namespace)


SCENARIOS = {
    "plane-stateful-pods": stateful_pods,
    "plane-services": services,
    "plane-files": files,
    "plane-restarts": restarts,
    "plane-policies": policies,
    "plane-posture": posture,
}
