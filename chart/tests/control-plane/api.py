"""The Kubernetes API with Python's standard library: requests, and a copy of each kind of object that follows the server."""

import http.client
import json
import socket
import ssl
import threading
import time

MERGE_PATCH = "application/merge-patch+json"

# Where objects of a kind are found; what is not here has no namespace or is not needed.
GROUPS = {
    "pods": "api/v1",
    "services": "api/v1",
    "configmaps": "api/v1",
    "secrets": "api/v1",
    "serviceaccounts": "api/v1",
    "persistentvolumeclaims": "api/v1",
    "persistentvolumes": "api/v1",
    "namespaces": "api/v1",
    "nodes": "api/v1",
    "events": "api/v1",
    "statefulsets": "apis/apps/v1",
    "deployments": "apis/apps/v1",
    "replicasets": "apis/apps/v1",
    "controllerrevisions": "apis/apps/v1",
    "jobs": "apis/batch/v1",
    "cronjobs": "apis/batch/v1",
    "leases": "apis/coordination.k8s.io/v1",
    "endpointslices": "apis/discovery.k8s.io/v1",
    "networkpolicies": "apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "apis/policy/v1",
    "horizontalpodautoscalers": "apis/autoscaling/v2",
    "roles": "apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "apis/rbac.authorization.k8s.io/v1",
    "clusterroles": "apis/rbac.authorization.k8s.io/v1",
    "clusterrolebindings": "apis/rbac.authorization.k8s.io/v1",
}


class ApiError(Exception):
    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Requests to the API server. Every thread has a connection of its own."""

    def __init__(self, address, port, certificates, token):
        self.address, self.port, self.token = address, port, token
        self.tls = ssl.create_default_context(cafile=certificates)
        self.connections = threading.local()

    def connect(self, timeout):
        return http.client.HTTPSConnection(self.address, self.port, context=self.tls, timeout=timeout)

    def headers(self, content_type="application/json"):
        return {"Authorization": f"Bearer {self.token}", "Content-Type": content_type, "Accept": "application/json"}

    def call(self, method, path, body=None, content_type="application/json"):
        payload = None if body is None else json.dumps(body).encode()
        for attempt in (1, 2):
            connection = getattr(self.connections, "mine", None)
            fresh = connection is None
            if fresh:
                connection = self.connections.mine = self.connect(30)
            try:
                connection.request(method, "/" + path, payload, self.headers(content_type))
                response = connection.getresponse()
                answer = response.read()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.connections.mine = None
                # A connection kept from before may have been closed meanwhile; one that is new tells the truth.
                if fresh or attempt == 2:
                    raise
        try:
            document = json.loads(answer) if answer else {}
        except ValueError:
            document = {"message": answer.decode(errors="replace")}
        if response.status >= 400:
            raise ApiError(response.status, document.get("message", ""))
        return document

    def get(self, kind, name, namespace=None):
        """The object, or None."""
        try:
            return self.call("GET", path_of(kind, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind, namespace=None, selector=None):
        path = path_of(kind, namespace)
        if selector:
            path += "?labelSelector=" + ",".join(f"{key}%3D{value}" for key, value in selector.items())
        return self.call("GET", path)["items"]

    def create(self, kind, manifest, namespace=None):
        return self.call("POST", path_of(kind, namespace), manifest)

    def patch(self, kind, name, change, namespace=None, part=None):
        return self.call("PATCH", path_of(kind, namespace, name, part), change, MERGE_PATCH)

    def apply(self, manifest, namespace):
        """Makes the object what the manifest says, as kubectl apply --server-side does."""
        kind = next(kind for kind in GROUPS if kind in (f"{manifest['kind'].lower()}s", f"{manifest['kind'].lower()[:-1]}ies"))
        path = path_of(kind, namespace, manifest["metadata"]["name"])
        # JSON is YAML as well.
        return self.call("PATCH", f"{path}?fieldManager=tests&force=true", manifest, "application/apply-patch+yaml")

    def delete(self, kind, name, namespace=None, **options):
        """What is gone already is as good as deleted."""
        try:
            self.call("DELETE", path_of(kind, namespace, name), options)
        except ApiError as error:
            if error.status != 404:
                raise


def path_of(kind, namespace=None, name=None, part=None):
    path = GROUPS[kind]
    if namespace:
        path += f"/namespaces/{namespace}"
    path += f"/{kind}"
    if name:
        path += f"/{name}"
    if part:
        path += f"/{part}"
    return path


class Informer(threading.Thread):
    """All objects of a kind, as the server told last. `changed(event, object)` is called for every change, by one thread."""

    def __init__(self, api, kind, changed=None):
        super().__init__(name=f"informer of {kind}", daemon=True)
        self.api, self.kind = api, kind
        self.changed = changed or (lambda event, thing: None)
        self.objects = {}
        self.synced = threading.Event()
        self.start()

    def get(self, namespace, name):
        return self.objects.get((namespace, name))

    def all(self, namespace=None):
        return [thing for thing in list(self.objects.values()) if namespace in (None, thing["metadata"].get("namespace"))]

    def run(self):
        while True:
            try:
                self.follow(self.relist())
            except (OSError, ApiError, http.client.HTTPException, ValueError) as error:
                print(f"{self.name}: {error!r}; listed again", flush=True)
                time.sleep(0.5)

    def relist(self):
        listing = self.api.call("GET", path_of(self.kind))
        present = {key_of(thing): thing for thing in listing["items"]}
        for key, thing in list(self.objects.items()):
            if key not in present:
                del self.objects[key]
                self.changed("DELETED", thing)
        for key, thing in present.items():
            self.objects[key] = thing
            self.changed("MODIFIED", thing)
        self.synced.set()
        return listing["metadata"]["resourceVersion"]

    def follow(self, version):
        connection = self.api.connect(None)
        try:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.request("GET", f"/{path_of(self.kind)}?watch=1&allowWatchBookmarks=true&resourceVersion={version}", headers=self.api.headers())
            for line in connection.getresponse():
                event = json.loads(line)
                thing = event["object"]
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "ERROR":
                    raise ApiError(thing.get("code", 0), thing.get("message", ""))
                if event["type"] == "DELETED":
                    self.objects.pop(key_of(thing), None)
                else:
                    self.objects[key_of(thing)] = thing
                self.changed(event["type"], thing)
        finally:
            connection.close()


def key_of(thing):
    return thing["metadata"].get("namespace"), thing["metadata"]["name"]


def selects(selector, labels):
    """Whether a label selector of the API matches; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    labels = labels or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or []:
        key, values = term["key"], term.get("values") or []
        match term["operator"]:
            case "In" if labels.get(key) not in values or key not in labels:
                return False
            case "NotIn" if key in labels and labels[key] in values:
                return False
            case "Exists" if key not in labels:
                return False
            case "DoesNotExist" if key in labels:
                return False
    return True
