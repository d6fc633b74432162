"""Containers out of the machine's own programs. Each has its mount and PID namespace, and shares network, host name and
IPC with its pod's sandbox, as under a container runtime; what an image would bring is put together from the machine.

A process with one thread forks them all, because a process with threads must not. It is asked over a socket; what
becomes of a container comes back over another, from the process that waits for it.

Left out: seccomp, cgroups (limits of memory and CPU are not enforced) and layers that can be written to, other than
volumes: a root that is not read-only is a fresh tmpfs.
"""

import ctypes
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading

libc = ctypes.CDLL(None, use_errno=True)

NEWNS, NEWUTS, NEWIPC, NEWPID, NEWNET = 0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN "
    "NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
    "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()
# What container runtimes leave to a container that asks for nothing.
DEFAULT_CAPABILITIES = set(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
)
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclasses.dataclass
class Image:
    """What stands for an image: its metadata, and which programs it holds."""

    entrypoint: list
    command: list
    user: str
    workdir: str = "/"
    # With a shell and the machine's /usr; without it holds `programs` and the libraries they need, and nothing else.
    system: bool = False
    # Path in the image: path on the machine.
    programs: dict = dataclasses.field(default_factory=dict)
    # The entrypoint script of such images puts the server's name before arguments that begin with a dash or end like this.
    server: str | None = None
    settings_suffix: str | None = None

    def command_line(self, command, args):
        """What runs for `command` and `args` of a container, by the rules of Kubernetes."""
        if command:
            return command + args
        args = args or self.command
        if self.server and args and (args[0].startswith("-") or (self.settings_suffix and args[0].endswith(self.settings_suffix))):
            args = [self.server, *args]
        return self.entrypoint + args


class Images:
    """Which of them a container's image is, by the last part of its repository."""

    def __init__(self, memstore, coredns, tests):
        redis = {"user": "", "workdir": "/data", "system": True, "settings_suffix": ".conf"}
        self.known = {
            "memstore": Image(["/memstore"], [], "65532:65532", programs={"/memstore": memstore}),
            "coredns": Image(["/coredns"], [], "", programs={"/coredns": coredns}),
            "redis": Image([], ["redis-server"], server="redis-server", **redis),
            # The machine's Redis under Valkey's name, for the chart to be tried with either image.
            "valkey": Image(
                [],
                ["valkey-server"],
                server="valkey-server",
                programs={"/usr/local/bin/valkey-server": "/usr/bin/redis-server", "/usr/local/bin/valkey-cli": "/usr/bin/redis-cli"},
                **redis,
            ),
            # By name, not number, as the official image has it: a pod that says runAsNonRoot has to name the number itself.
            "memcached": Image([], ["memcached"], "memcache", system=True, server="memcached"),
            # Not an image that exists: a shell and Python for the pods of the tests themselves.
            "tests": Image([], ["sh"], "65532", system=True, programs={"/tests": str(tests)}),
        }
        for image in self.known.values():
            if not image.system:
                image.programs |= {library: library for program in image.programs.values() for library in libraries(program)}

    def of(self, reference):
        """None for an image that the tests have not got."""
        repository = reference.split("@")[0].split("/")[-1].split(":")[0]
        if repository in self.known:
            return self.known[repository]
        return next((image for name, image in self.known.items() if repository.endswith(name)), None)


def libraries(program):
    """The shared libraries of a program and the loader, by their paths on the machine; none for a static one."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True)
    words = [word for line in listing.stdout.splitlines() for word in line.split()]
    return sorted({word for word in words if word.startswith("/")})


class Runtime:
    """The asking side: starts sandboxes, containers and commands in them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.tasks = {}
        self.count = 0
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.events, reports = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            self.requests.close()
            self.events.close()
            serve(theirs, reports)
        theirs.close()
        reports.close()
        threading.Thread(target=self.listen, name="runtime events", daemon=True).start()

    def start(self, kind, **spec):
        with self.lock:
            self.count += 1
            task = self.tasks[self.count] = Task()
            # Sent under the lock, because requests must not overtake each other's numbers.
            self.requests.send(json.dumps({"id": self.count, "kind": kind, **spec}).encode())
        if not task.started.wait(30):
            raise RuntimeError(f"the runtime did not start a {kind}")
        return task

    def listen(self):
        while message := self.events.recv(1 << 20):
            event = json.loads(message)
            task = self.tasks[event["id"]]
            if "error" in event:
                task.error = event["error"]
            if "pid" in event:
                task.pid = event["pid"]
                task.started.set()
            if "code" in event:
                task.code, task.signal = event["code"], event["signal"]
                task.started.set()
                task.exited.set()
                del self.tasks[event["id"]]


class Task:
    """A process that the runtime has started."""

    def __init__(self):
        self.started, self.exited = threading.Event(), threading.Event()
        self.pid = self.code = self.signal = self.error = None

    @property
    def exit_code(self):
        return 128 + self.signal if self.signal else self.code

    def kill(self, number=signal.SIGKILL):
        if self.pid and not self.exited.is_set():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


# --- the forking process ---------------------------------------------------------------------------------------------


def serve(requests, events):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nobody waits here: the kernel takes the dead away.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while message := requests.recv(1 << 20):
        if os.fork() == 0:
            request = json.loads(message)
            try:
                requests.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                {"sandbox": sandbox, "container": container, "exec": execute}[request["kind"]](request, events)
            except BaseException as error:
                tell(events, request, error=f"{error}", code=128, signal=0)
            os._exit(0)
    os._exit(0)


def tell(events, request, **what):
    events.send(json.dumps({"id": request["id"], **what}).encode())


def sandbox(request, events):
    checked(libc.unshare(NEWNET | NEWUTS | NEWIPC), "unshare")
    name = request["hostname"].encode()
    checked(libc.sethostname(name, len(name)), "sethostname")
    tell(events, request, pid=os.getpid())
    while True:
        signal.pause()


def container(request, events):
    join(request["sandbox"], ("net", "uts", "ipc"))
    checked(libc.unshare(NEWNS | NEWPID), "unshare")
    run(request, events, lambda: build_root(request))


def execute(request, events):
    output(request)
    join(request["target"], ("ipc", "uts", "net", "pid", "mnt"))
    run(request, events, lambda: None)


def join(pid, kinds):
    for descriptor in [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]:
        checked(libc.setns(descriptor, 0), "setns")
        os.close(descriptor)


def run(request, events, prepare):
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            if request["kind"] == "container":
                output(request)
            prepare()
            become(request)
        except BaseException as error:
            tell(events, request, error=f"{request['argv'][0]}: {error}")
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    tell(events, request, pid=child)
    _, status = os.waitpid(child, 0)
    code, number = (0, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (os.WEXITSTATUS(status), 0)
    tell(events, request, code=code, signal=number)


def output(request):
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    # Else a server that opens /dev/stdout for its log could not, where it does not run as root.
    os.fchown(log, request["uid"], -1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(nothing)


def become(request):
    """Turns into the program, with no more rights than it is given."""
    os.umask(0o022)
    os.chdir(request["workdir"])
    for number, capability in enumerate(CAPABILITIES):
        if capability not in request["capabilities"]:
            # Fails for those that the machine itself has not got.
            libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    os.setgroups(request["groups"])
    os.setgid(request["gid"])
    os.setuid(request["uid"])
    if request["no_new_privileges"]:
        checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    # Python ignores these, and what is ignored stays so in the next program.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.execvpe(request["argv"][0], request["argv"], request["environment"])


def build_root(request):
    """Puts the container's file system together and makes it the root."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    root = pathlib.Path(request["root"])
    mount("tmpfs", root, "tmpfs", 0, "mode=0755")
    for name in ("dev", "proc", "sys", "etc"):
        (root / name).mkdir()
    if request["system"]:
        system_files(root)
    for inside, outside in request["programs"].items():
        bind(outside, root / inside[1:], read_only=True)
    for name, text in request["etc"].items():
        (root / "etc" / name).write_text(text)
    devices(root / "dev")
    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # The machine's, cgroups included: there a server reads how many processors it may use.
    mount("/sys", root / "sys", None, MS_BIND | MS_REC)
    mount(None, root / "sys", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    (root / request["workdir"][1:]).mkdir(parents=True, exist_ok=True)
    # Shorter paths first, for one may lie in another.
    for volume in sorted(request["mounts"], key=lambda each: len(each["target"])):
        bind(volume["source"], root / volume["target"][1:], volume["read_only"])
    os.chdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount")
    os.chdir("/")
    if request["read_only"]:
        mount(None, "/", None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def system_files(root):
    (root / "usr").mkdir()
    mount("/usr", root / "usr", None, MS_BIND | MS_REC)
    mount(None, root / "usr", None, MS_BIND | MS_REMOUNT | MS_RDONLY)
    # Programs that an image adds go here, and the rest of the machine's own is nobody's business.
    mount("tmpfs", root / "usr/local", "tmpfs", 0, "mode=0755")
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        if os.path.islink(f"/{name}"):
            os.symlink(os.readlink(f"/{name}"), root / name)
        elif os.path.isdir(f"/{name}"):
            bind(f"/{name}", root / name, read_only=True)
    for name in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "services", "protocols", "localtime"):
        if os.path.exists(f"/etc/{name}"):
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    if os.path.isdir("/etc/alternatives"):
        bind("/etc/alternatives", root / "etc/alternatives", read_only=True)
    for name, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("run", 0o755), ("root", 0o700), ("home", 0o755), ("data", 0o755)):
        (root / name).mkdir(parents=True)
        (root / name).chmod(mode)
    # The images of Redis and Valkey leave their data to this user.
    os.chown(root / "data", 999, 999)


def devices(folder):
    mount("tmpfs", folder, "tmpfs", MS_NOSUID, "mode=0755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (folder / name).touch()
        mount(f"/dev/{name}", folder / name, None, MS_BIND)
    (folder / "shm").mkdir()
    mount("tmpfs", folder / "shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2")):
        os.symlink(target, folder / name)


def bind(source, target, read_only):
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, None, MS_BIND | MS_REC)
    if read_only:
        mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def mount(source, target, kind, flags, options=None):
    encoded = [None if part is None else os.fsencode(part) for part in (source, target, kind)]
    checked(libc.mount(*encoded, ctypes.c_ulong(flags), None if options is None else options.encode()), f"mount {target}")


def checked(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
