"""As much of the API of Kubernetes as `lookup` in a template asks: what kinds there are, and one resource by its name."""

import contextlib
import json
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# By the path of their version: kinds by the names that paths have for them.
KINDS = {
    "/api/v1": {"services": "Service", "configmaps": "ConfigMap", "secrets": "Secret"},
    "/apis/apps/v1": {"deployments": "Deployment", "statefulsets": "StatefulSet"},
}


def answer(path, resources):
    """What is said to a request, and its status."""
    if path in KINDS:
        version = path.removeprefix("/apis/").removeprefix("/api/")
        kinds = [{"name": name, "kind": kind, "namespaced": True, "verbs": ["get", "list"]} for name, kind in KINDS[path].items()]
        return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}
    for prefix, kinds in KINDS.items():
        parts = path.removeprefix(f"{prefix}/namespaces/").split("/")
        if path.startswith(prefix) and len(parts) == 2 and parts[1] in kinds:
            items = [one for one in resources if one["kind"] == kinds[parts[1]]]
            version = prefix.removeprefix("/apis/").removeprefix("/api/")
            return 200, {"kind": f"{kinds[parts[1]]}List", "apiVersion": version, "metadata": {}, "items": items}
        if path.startswith(prefix) and len(parts) == 3 and parts[1] in kinds:
            for one in resources:
                if (one["kind"], one["metadata"]["name"]) == (kinds[parts[1]], parts[2]):
                    return 200, one
    return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": f"{path} not found"}


@contextlib.contextmanager
def cluster(resources):
    """A cluster in which these resources run: the environment by which helm finds it. None without any."""
    if not resources:
        yield {}
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802, the name that http.server looks for
            status, said = answer(self.path.split("?")[0], resources)
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        try:
            yield {"KUBECONFIG": file.name}
        finally:
            server.shutdown()
            server.server_close()
