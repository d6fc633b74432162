"""One container of a pod: its process, its restarts, its hooks and its probes."""

import datetime
import http.client
import re
import signal
import socket
import ssl
import threading
import time
import traceback

import runtime
from volumes import NotYet, Refused, contents, field

RESTART_DELAYS = (0, 1, 2, 4, 8)
RESTART_DELAY_FORGOTTEN = 60


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


class Container:
    """One container of a pod: its process, its restarts and its probes."""

    def __init__(self, worker, spec, first=False):
        self.worker, self.spec, self.first = worker, spec, first
        self.node = worker.node
        self.name = spec["name"]
        self.sidecar = first and spec.get("restartPolicy") == "Always"
        self.image = self.node.images.of(spec["image"])
        self.log = worker.logs / f"{self.name}.log"
        self.task = None
        self.state = {"waiting": {"reason": "PodInitializing" if worker.pod["spec"].get("initContainers") and not first else "ContainerCreating"}}
        self.last_state = {}
        self.restarts = 0
        self.has_run = False
        self.ended = False
        self.succeeded = False
        self.started = False
        self.probed_ready = False
        self.exit_code = None
        self.stopping = threading.Event()
        self.thread = None
        self.since = None
        self.launched = None

    def begin(self):
        self.thread = threading.Thread(target=self.run, name=f"{self.worker.name} {self.name}", daemon=True)
        self.thread.start()

    @property
    def running(self):
        return "running" in self.state

    @property
    def ready(self):
        return self.running and self.started and self.probed_ready

    def restart_policy(self):
        if self.sidecar:
            return "Always"
        policy = self.worker.pod["spec"].get("restartPolicy", "Always")
        return "OnFailure" if self.first and policy == "Always" else policy

    def run(self):
        delays = list(RESTART_DELAYS)
        while not self.stopping.is_set() and not self.worker.ending.is_set():
            began = time.monotonic()
            try:
                self.run_once()
            except NotYet as reason:
                self.state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(reason)}}
                self.worker.changed()
                self.worker.ending.wait(0.5)
                continue
            except Refused as refusal:
                say(f"{self.worker.full_name} {self.name}: {refusal}")
                self.state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(refusal)}}
                self.worker.changed()
                self.worker.ending.wait()
                break
            except Exception:
                say(f"{self.worker.full_name} {self.name}: {traceback.format_exc()}")
                self.state = {"waiting": {"reason": "CreateContainerError", "message": "the tests' node failed"}}
                self.worker.changed()
                self.worker.ending.wait()
                break
            policy = self.restart_policy()
            if policy == "Never" or (policy == "OnFailure" and self.exit_code == 0) or self.worker.ending.is_set():
                self.ended = True
                self.succeeded = self.exit_code == 0
                break
            if time.monotonic() - began > RESTART_DELAY_FORGOTTEN:
                delays = list(RESTART_DELAYS)
            delay = delays.pop(0) if len(delays) > 1 else delays[0]
            self.last_state = self.state
            if delay:
                self.state = {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {delay}s restarting failed container"}}
            self.worker.changed()
            if self.worker.ending.wait(delay):
                break
            self.restarts += 1
        self.ended = True
        self.worker.changed()

    def run_once(self):
        request = self.request()
        self.since = now()
        self.started = self.spec.get("startupProbe") is None
        self.probed_ready = self.spec.get("readinessProbe") is None
        over = threading.Event()
        mark = self.log.stat().st_size if self.log.exists() else 0
        task = self.node.runtime.start("container", **request)
        self.task, self.launched = task, request
        # Whoever ends the pod has either seen this task or said so before.
        if self.stopping.is_set():
            task.kill()
        self.has_run = True
        self.state = {"running": {"startedAt": self.since}}
        self.worker.changed()
        try:
            hook = (self.spec.get("lifecycle") or {}).get("postStart")
            if hook and not self.call_hook(hook, 60):
                self.kill(5)
            else:
                for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                    if self.spec.get(kind):
                        Probe(self, kind, task, over).start()
            task.exited.wait()
        finally:
            over.set()
        self.exit_code = task.exit_code
        self.started = self.probed_ready = False
        self.succeeded = self.exit_code == 0
        ended = {
            "exitCode": self.exit_code,
            "reason": "Completed" if self.exit_code == 0 else "Error",
            "startedAt": self.since,
            "finishedAt": now(),
            "containerID": self.container_id(),
        }
        if task.error:
            ended |= {"reason": "StartError", "message": task.error}
            with open(self.log, "a") as log:
                log.write(f"not started: {task.error}\n")
        elif self.exit_code != 0:
            ended["message"] = self.last_words(mark)
        self.state = {"terminated": ended}
        say(f"{self.worker.full_name} {self.name}: ended with {self.exit_code} {task.error or ''}")

    def last_words(self, mark):
        message = self.worker.folder / f"{self.name}.termination"
        text = message.read_text(errors="replace") if message.exists() else ""
        if not text and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            with open(self.log, errors="replace") as log:
                log.seek(mark)
                text = "\n".join(log.read().splitlines()[-80:])[-2048:]
        return text or None

    def container_id(self):
        return f"tests://{self.worker.uid}-{self.name}-{self.restarts}"

    def status(self):
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": self.spec["image"],
            "restartCount": self.restarts,
            "ready": self.succeeded if self.first and not self.sidecar else self.ready,
            "started": self.running and self.started,
            # The two others have to be taken away, for the change is merged into what was there.
            "state": {"waiting": None, "running": None, "terminated": None} | self.state,
            "lastState": {"waiting": None, "running": None, "terminated": None} | self.last_state,
            "containerID": self.container_id() if self.task else "",
        }

    # --- what the runtime is asked for

    def request(self):
        if self.image is None:
            raise Refused(f"no image {self.spec['image']} on the tests' node")
        pod, image = self.worker.pod, self.image
        of_pod = pod["spec"].get("securityContext") or {}
        security = of_pod | (self.spec.get("securityContext") or {})
        uid, gid = self.user(security)
        groups = sorted({*of_pod.get("supplementalGroups", []), *([of_pod["fsGroup"]] if "fsGroup" in of_pod else [])})
        change = security.get("capabilities") or {}
        dropped = {each.removeprefix("CAP_") for each in change.get("drop") or []}
        capabilities = set() if "ALL" in dropped else runtime.DEFAULT_CAPABILITIES - dropped
        capabilities |= {each.removeprefix("CAP_") for each in change.get("add") or []}
        environment = self.environment()
        command = [expand(each, environment) for each in self.spec.get("command") or []]
        arguments = [expand(each, environment) for each in self.spec.get("args") or []]
        mounts = []
        for mount in self.spec.get("volumeMounts", []):
            if mount.get("subPath") or mount.get("subPathExpr"):
                raise Refused(f"subPath of {mount['name']}: files behind it would never be updated, so the tests' node refuses it")
            volumes = self.worker.volumes
            mounts.append(
                {
                    "source": volumes.path(pod, mount["name"]),
                    "target": mount["mountPath"],
                    "read_only": mount.get("readOnly", False) or volumes.read_only(mount["name"]),
                }
            )
        termination = self.worker.folder / f"{self.name}.termination"
        termination.write_text("")
        termination.chmod(0o666)
        mounts.append({"source": str(termination), "target": self.spec.get("terminationMessagePath", "/dev/termination-log"), "read_only": False})
        return {
            "sandbox": self.worker.sandbox.pid,
            "root": str(self.node.folder / "root"),
            "log": str(self.log),
            "etc": self.worker.etc,
            "argv": image.command_line(command, arguments),
            "environment": environment,
            "workdir": self.spec.get("workingDir") or image.workdir,
            "uid": uid,
            "gid": gid,
            "groups": groups,
            "capabilities": sorted(capabilities),
            "mounts": mounts,
            "no_new_privileges": security.get("allowPrivilegeEscalation") is False,
            "read_only": security.get("readOnlyRootFilesystem", False),
            "system": image.system,
            "programs": image.programs,
        }

    def user(self, security):
        """As kubelet decides, with its words where it refuses."""
        user, _, group = self.image.user.partition(":")
        if security.get("runAsUser") is not None:
            uid = security["runAsUser"]
            if security.get("runAsNonRoot") and uid == 0:
                raise Refused("container's runAsUser breaks non-root policy")
        else:
            if security.get("runAsNonRoot"):
                if user in ("", "0"):
                    raise Refused("container has runAsNonRoot and image will run as root")
                if not user.isdigit():
                    raise Refused(f"container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root")
            uid = int(user) if user.isdigit() else 0
        return uid, security.get("runAsGroup", int(group or 0))

    def environment(self):
        pod, namespace = self.worker.pod, self.worker.pod["metadata"]["namespace"]
        environment = {"PATH": runtime.PATH, "HOSTNAME": self.worker.hostname(), "HOME": "/"}
        environment |= service_links(self.node.services.all(), namespace, pod["spec"].get("enableServiceLinks", True))
        for source in self.spec.get("envFrom") or []:
            for kind, informer in (("configMap", self.node.configmaps), ("secret", self.node.secrets)):
                reference = source.get(f"{kind}Ref")
                if reference:
                    thing = informer.get(namespace, reference["name"])
                    if thing is None and not reference.get("optional"):
                        raise NotYet(f"{kind} {reference['name']} is not there")
                    for key, value in contents(thing or {}, kind).items():
                        environment[source.get("prefix", "") + key] = value.decode()
        own = dict(pod, status=dict(pod.get("status", {}), podIP=self.worker.ip))
        for variable in self.spec.get("env") or []:
            source = variable.get("valueFrom")
            if not source:
                environment[variable["name"]] = expand(variable.get("value", ""), environment)
            elif "fieldRef" in source:
                environment[variable["name"]] = field(own, source, self.node)
            elif "resourceFieldRef" in source:
                reference = {"containerName": self.name} | source["resourceFieldRef"]
                environment[variable["name"]] = field(own, {"resourceFieldRef": reference}, self.node)
            else:
                kind = "secret" if "secretKeyRef" in source else "configMap"
                reference = source.get("secretKeyRef") or source["configMapKeyRef"]
                thing = (self.node.secrets if kind == "secret" else self.node.configmaps).get(namespace, reference["name"])
                content = contents(thing or {}, kind)
                if reference["key"] in content:
                    environment[variable["name"]] = content[reference["key"]].decode()
                elif not reference.get("optional"):
                    raise NotYet(f"{kind} {reference['name']} has no key {reference['key']}")
        return environment

    # --- the end of a process

    def stop(self, grace):
        """With preStop and SIGTERM, and with SIGKILL once `grace` seconds are over. Returns when the container has ended."""
        self.stopping.set()
        self.kill(grace)
        if self.thread:
            self.thread.join()

    def kill(self, grace):
        task = self.task
        if task is None or task.exited.is_set():
            return
        deadline = time.monotonic() + grace
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            self.call_hook(hook, grace)
        # At least this long, whatever the hook has used up.
        deadline = max(deadline, time.monotonic() + 2)
        name = (self.spec.get("lifecycle") or {}).get("stopSignal", "SIGTERM")
        task.kill(getattr(signal, name))
        if not task.exited.wait(max(0, deadline - time.monotonic())):
            say(f"{self.worker.full_name} {self.name}: did not end within {grace} s, killed")
            task.kill()
            task.exited.wait()

    def call_hook(self, hook, seconds):
        """Whether it succeeded."""
        if "exec" in hook:
            fine, words = self.execute(hook["exec"]["command"], seconds)
        elif "sleep" in hook:
            self.task.exited.wait(min(seconds, hook["sleep"]["seconds"]))
            return True
        elif "httpGet" in hook:
            fine, words = self.http_get(hook["httpGet"], seconds)
        else:
            raise Refused(f"hook {sorted(hook)} is not known to the tests' node")
        if not fine:
            say(f"{self.worker.full_name} {self.name}: hook failed: {words}")
        return fine

    def execute(self, command, seconds):
        """Runs a command in the container: whether it ended with 0, and what it said."""
        task = self.task
        output = self.worker.folder / f"exec-{threading.get_ident()}-{time.monotonic_ns()}"
        asked = self.node.runtime.start("exec", **{**self.launched, "target": task.pid, "argv": command, "log": str(output)})
        in_time = asked.exited.wait(seconds)
        if not in_time:
            asked.kill()
            asked.exited.wait(5)
        words = output.read_text(errors="replace")[-500:] if output.exists() else ""
        output.unlink(missing_ok=True)
        if not in_time:
            return False, f"{command[0]}: not done within {seconds} s: {words}"
        return asked.exit_code == 0, asked.error or words

    def port(self, port):
        if isinstance(port, int):
            return port
        for each in self.spec.get("ports", []):
            if each.get("name") == port:
                return each["containerPort"]
        if str(port).isdigit():
            return int(port)
        raise Refused(f"no port is called {port}")

    def http_get(self, action, seconds):
        host, port = action.get("host") or self.worker.ip, self.port(action["port"])
        if action.get("scheme", "HTTP") == "HTTPS":
            connection = http.client.HTTPSConnection(host, port, timeout=seconds, context=ssl._create_unverified_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=seconds)
        headers = {"User-Agent": "kube-probe/1.34", "Accept": "*/*", "Connection": "close"}
        headers |= {each["name"]: each["value"] for each in action.get("httpHeaders") or []}
        try:
            connection.request("GET", action.get("path", "/"), headers=headers)
            response = connection.getresponse()
            words = response.read(1024).decode(errors="replace")
            return 200 <= response.status < 400, f"{response.status}: {words}"
        except (OSError, http.client.HTTPException) as error:
            return False, str(error)
        finally:
            connection.close()

    def tcp_connect(self, action, seconds):
        try:
            socket.create_connection((action.get("host") or self.worker.ip, self.port(action["port"])), seconds).close()
            return True, ""
        except OSError as error:
            return False, str(error)


class Probe(threading.Thread):
    """One probe of one run of a container."""

    def __init__(self, container, kind, task, over):
        super().__init__(name=f"{container.worker.name} {kind}", daemon=True)
        self.container, self.kind, self.task, self.over = container, kind, task, over
        self.spec = container.spec[kind]

    def run(self):
        container = self.container
        period, seconds = self.spec.get("periodSeconds", 10), self.spec.get("timeoutSeconds", 1)
        enough = {True: self.spec.get("successThreshold", 1), False: self.spec.get("failureThreshold", 3)}
        due = time.monotonic() + self.spec.get("initialDelaySeconds", 0)
        last, run = None, 0
        while not self.over.wait(max(0, due - time.monotonic())):
            due = time.monotonic() + period
            if self.kind != "startupProbe" and not container.started:
                # Asked at once when the container has started.
                due = time.monotonic() + 0.1
                continue
            if self.kind != "readinessProbe" and container.worker.ending.is_set():
                return
            try:
                fine, words = self.ask(seconds)
            except Exception as error:
                fine, words = False, repr(error)
            if self.over.is_set():
                return
            run = run + 1 if fine == last else 1
            if not fine and (run == 1 or run == enough[False]):
                say(f"{container.worker.full_name} {container.name}: {self.kind} failed {run}x: {words.strip()[:200]}")
            last = fine
            if run < enough[fine]:
                continue
            if self.kind == "readinessProbe":
                if container.probed_ready != fine:
                    container.probed_ready = fine
                    container.worker.report()
            elif not fine:
                say(f"{container.worker.full_name} {container.name}: killed because of its {self.kind}")
                grace = self.spec.get("terminationGracePeriodSeconds", container.worker.pod["spec"].get("terminationGracePeriodSeconds", 30))
                container.kill(grace)
                return
            elif self.kind == "startupProbe":
                container.started = True
                container.worker.report()
                return

    def ask(self, seconds):
        if "exec" in self.spec:
            # Only by what the pod itself says, not by what it refers to.
            fixed = {each["name"]: each["value"] for each in self.container.spec.get("env") or [] if "value" in each}
            return self.container.execute([expand(each, fixed) for each in self.spec["exec"]["command"]], seconds)
        if "httpGet" in self.spec:
            return self.container.http_get(self.spec["httpGet"], seconds)
        if "tcpSocket" in self.spec:
            return self.container.tcp_connect(self.spec["tcpSocket"], seconds)
        raise Refused(f"{self.kind} of a kind that the tests' node does not know")


def expand(text, environment):
    """$(NAME) as Kubernetes expands it; what is not known stays, $$ is a dollar."""
    return re.sub(
        r"\$(\$|\(([^()]*)\))",
        lambda found: "$" if found[1] == "$" else environment.get(found[2], found[0]),
        text,
    )


def service_links(services, namespace, all_of_them):
    """The variables that tell of Services. They are in the way of settings that have such names, so they have to be there."""
    variables = {}
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        master = (metadata["namespace"], metadata["name"]) == ("default", "kubernetes")
        if not master and not (all_of_them and metadata["namespace"] == namespace):
            continue
        if spec.get("clusterIP") in (None, "", "None"):
            continue
        prefix = metadata["name"].upper().replace("-", "_")
        address, ports = spec["clusterIP"], spec.get("ports", [])
        if not ports:
            continue
        variables[f"{prefix}_SERVICE_HOST"] = address
        variables[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            link = f"{protocol.lower()}://{address}:{port['port']}"
            if port.get("name"):
                variables[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
            if index == 0:
                variables[f"{prefix}_PORT"] = link
            each = f"{prefix}_PORT_{port['port']}_{protocol}"
            variables |= {each: link, f"{each}_PROTO": protocol.lower(), f"{each}_PORT": str(port["port"]), f"{each}_ADDR": address}
    return variables
