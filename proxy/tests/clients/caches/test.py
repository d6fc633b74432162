"""What clients with caches of their own read while a writer checks every one of them, and shards, the proxy and its configuration
change. Beside it the same over one plain server, to which the same is done: no read through the proxy may be older than the worst at that server allows.

    test.py NAME=COMMAND ...    COMMAND KEYS TARGET=HOST:PORT ... reads all keys again and again until its input ends, and prints
        read TARGET KEY VERSION BEGIN LAST    a version that is another than the one before: when this read began, and the last of the one before
        passes TARGET COUNT ERRORS LAST-ERROR
"""

import collections
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HOST = os.environ["MEMSTORE_HOST"]
KEYS = 20
NEVER = -1
# Whatever has not come about by then never will.
PATIENCE = 30
# Beyond what was seen at the plain server: this machine has other things to do as well.
SLACK = 0.5


class Connection:
    """A client that says one thing after the other."""

    def __init__(self, port):
        self.socket = socket.create_connection((HOST, port), timeout=5)
        self.replies = self.socket.makefile("rb")

    def ask(self, *words):
        words = [str(word).encode() for word in words]
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
        line = self.replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        if line[:1] == b"$" and line != b"$-1\r\n":
            return self.replies.read(int(line[1:]) + 2)[:-2].decode()
        if line[:1] == b"-":
            raise ConnectionError(line.decode())
        return line.decode().strip()

    def close(self):
        self.replies.close()
        self.socket.close()


def once(port, *words):
    with contextlib.closing(Connection(port)) as connection:
        return connection.ask(*words)


def eventually(what, is_so):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if is_so():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise SystemExit(f"it does not come about: {what}")
        time.sleep(0.005)


class Process:
    def __init__(self, port, command, log):
        self.port, self.command, self.log = port, command, log
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(f"{self.command} answers", lambda: once(self.port, "PING") == "+PONG")

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait(PATIENCE)

    def again(self, number):
        self.end(number)
        self.start()


class Writer(threading.Thread):
    """Sets one key after the other to one number after the other."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.number = 0
        # Of each key: the number, when it was sent, and when it was acknowledged.
        self.acknowledged = [[] for _ in range(KEYS)]
        self.goes = threading.Event()
        self.stands = threading.Event()
        self.ended = False

    def run(self):
        connection = None
        while not self.ended:
            if not self.goes.is_set():
                self.stands.set()
                self.goes.wait()
                self.stands.clear()
            for key in range(KEYS):
                self.number += 1
                begin = time.monotonic_ns()
                try:
                    connection = connection or Connection(self.port)
                    assert connection.ask("SET", f"{key}:cached", self.number) == "+OK"
                    self.acknowledged[key].append((self.number, begin, time.monotonic_ns()))
                except OSError:
                    if connection:
                        connection.close()
                    connection = None
                time.sleep(0.002)

    def has_written_all(self, since):
        """The first number of each key that was sent after this time and is acknowledged, once there is one of all."""
        first = [next((number for number, begin, _ in reversed_since(each, since)), None) for each in self.acknowledged]
        return None if None in first else first


def reversed_since(acknowledged, since):
    """What was sent after this time, the first first."""
    place = len(acknowledged)
    while place > 0 and acknowledged[place - 1][1] > since:
        place -= 1
    return acknowledged[place:]


class Readers:
    """A process of a client, which reads from all targets."""

    def __init__(self, name, command, targets, folder):
        self.name = name
        self.log = folder / f"{name}.log"
        with open(self.log, "wb") as log:
            words = [*command.split(), str(KEYS), *(f"{target}={HOST}:{port}" for target, port in targets.items())]
            self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.versions = {target: [None] * KEYS for target in targets}
        self.passes = dict.fromkeys(targets, 0)
        self.errors = dict.fromkeys(targets, (0, ""))
        # Of each target: key, version, when the last read of it began.
        self.seen = {target: [] for target in targets}
        threading.Thread(target=self.listen, daemon=True).start()
        self.done = threading.Event()

    def listen(self):
        for line in self.process.stdout:
            kind, target, *words = line.decode().split()
            if kind == "passes":
                self.passes[target], self.errors[target] = int(words[0]), (int(words[1]), " ".join(words[2:]).strip())
                continue
            key, last = int(words[0]), int(words[3])
            if self.versions[target][key] is not None:
                self.seen[target].append((key, self.versions[target][key], last))
            self.versions[target][key] = None if words[1] == "end" else int(words[1])
        self.done.set()

    def end(self):
        self.process.stdin.close()
        if not self.done.wait(PATIENCE) or self.process.wait(PATIENCE) != 0:
            raise SystemExit(f"{self.name}: {self.log.read_text()}")


def ages(seen, acknowledged, losses, flushes):
    """For each of what was seen: when the last read of it began, and for how long it had been older than an acknowledged write (ns)."""
    for key, version, last in seen:
        # Whatever was written before keys were lost is not looked for afterwards; while they are being lost, nothing is.
        begun = [loss for loss in losses if loss[0] <= last]
        kept_since = max((end for _, end in begun), default=0)
        due = [acked for number, begin, acked in acknowledged[key] if number > version and begin > kept_since and acked <= last]
        # FLUSHALL is a write of every key.
        written = next((acked for number, _, acked in acknowledged[key] if number == version), None)
        due += [end for begin, end in flushes if written is not None and written < begin and end <= last]
        yield last, last - min(due, default=last)


def main(folder, clients):
    ports = [socket.create_server((HOST, 0)) for _ in range(6)]
    plain_port, proxy_port, *shard_ports = [each.getsockname()[1] for each in ports]
    for each in list(zip(ports)):
        each[0].close()
    program = os.environ.get("TEST_REDIS", "redis-server")

    def redis(port):
        words = [program, "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no", "--dir", str(folder)]
        return Process(port, words, folder / f"redis-{port}.log")

    plain, shards = redis(plain_port), [redis(port) for port in shard_ports]
    configuration = folder / "memstore.yml"

    def configure(count, timeout="5s"):
        lines = "".join(f"   - {HOST}:{port}:1 shard-{number}\n" for number, port in enumerate(shard_ports[:count]))
        configuration.write_text(f"pool:\n  listen: {HOST}:{proxy_port}\n  redis: true\n  timeout: {timeout}\n  servers:\n{lines}")

    configure(3)
    words = [os.environ["MEMSTORE"], "serve", "-c", str(configuration), "-s", "0", "--admin-port", "0", "--workers", "2"]
    proxy = Process(proxy_port, words, folder / "memstore.log")
    started = [plain, *shards, proxy]
    readers, writers = [], {}
    try:
        for each in started:
            each.start()
        targets = {"plain": plain_port, "proxy": proxy_port}
        writers = {target: Writer(port) for target, port in targets.items()}
        for writer in writers.values():
            writer.goes.set()
            writer.start()
        readers = [Readers(*client.split("=", 1), targets, folder) for client in clients]
        check(plain, shards, proxy, configure, readers, writers)
    except BaseException:
        print(proxy.log.read_text()[-4000:])
        for each in readers:
            print(each.name, each.passes, each.errors, each.versions, each.log.read_text()[-2000:])
        raise
    finally:
        for writer in writers.values():
            writer.ended = True
            writer.goes.set()
        for each in readers:
            each.process.kill()
        for each in started:
            if each.process:
                each.end(signal.SIGKILL)


def check(plain, shards, proxy, configure, readers, writers):
    losses = {target: [] for target in writers}
    flushes = {target: [] for target in writers}
    steps = []

    def lost(target, does, kept=losses):
        begin = time.monotonic_ns()
        does()
        kept[target].append((begin, time.monotonic_ns()))

    def settle(since):
        """Until every reader has seen something of every key that was written after this time."""
        for target, writer in writers.items():
            eventually(f"writes at {target}", lambda: writer.has_written_all(since))
            first = writer.has_written_all(since)
            for each in readers:
                have = lambda: all((seen or NEVER) >= number for seen, number in zip(each.versions[target], first))
                eventually(f"{each.name} at {target} sees what was written", have)

    def flush(target, port):
        lost(target, lambda: once(port, "FLUSHALL"), flushes)
        losses[target].append(flushes[target][-1])

    def reload():
        reloads = lambda: proxy.log.read_text().count("configuration reloaded")
        before = reloads()
        proxy.process.send_signal(signal.SIGHUP)
        eventually("the reload", lambda: reloads() > before)

    def moved(count):
        configure(count)
        lost("proxy", reload)
        flush("plain", plain.port)

    def both(*each):
        threads = [threading.Thread(target=does) for does in each]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    cut = lambda server: once(server.port, "CLIENT", "KILL", "TYPE", "normal")
    again = lambda server, number: lambda: server.again(number)
    plain_dies = lambda: lost("plain", again(plain, signal.SIGKILL))

    def shards_die():
        for shard in shards[:3]:
            shard.end(signal.SIGKILL)
        for shard in shards[:3]:
            shard.start()

    def reloaded():
        configure(3, "6s")
        reload()

    what = {
        "nothing": lambda: None,
        "a shard is killed": lambda: both(lambda: lost("proxy", again(shards[0], signal.SIGKILL)), plain_dies),
        "a shard's connections are cut": lambda: both(lambda: cut(shards[1]), lambda: cut(plain)),
        "all shards are killed": lambda: both(lambda: lost("proxy", shards_die), plain_dies),
        "all keys are flushed": lambda: both(lambda: flush("proxy", proxy.port), lambda: flush("plain", plain.port)),
        "the configuration is reloaded": reloaded,
        "keys are moved": lambda: moved(4),
        "and back": lambda: moved(3),
        "the proxy is killed": lambda: both(again(proxy, signal.SIGKILL), plain_dies),
        "the proxy is stopped": lambda: both(again(proxy, signal.SIGTERM), plain_dies),
    }
    eventually("they read", lambda: all(all(each.passes.values()) for each in readers))
    eventually("keys at all shards", lambda: all(once(shard.port, "DBSIZE") != ":0" for shard in shards[:3]))
    for name, does in what.items():
        begin = time.monotonic_ns()
        does()
        end = time.monotonic_ns()
        if name == "keys are moved":
            eventually("keys at the new shard", lambda: once(shards[3].port, "DBSIZE") != ":0")
        settle(end)
        # Again: what nobody was told of the first time stays.
        settle(time.monotonic_ns())
        steps.append((name, begin))

    # What is read once is asked for once.
    for writer in writers.values():
        writer.goes.clear()
        writer.stands.wait(PATIENCE)

    def asked(ports):
        lines = [line for port in ports for line in once(port, "INFO", "commandstats").splitlines()]
        return sum(int(line.split("calls=")[1].split(",")[0]) for line in lines if line.startswith("cmdstat_get:"))

    def more_passes(count):
        before = [dict(each.passes) for each in readers]
        eventually("more reads", lambda: all(each.passes[t] >= b[t] + count for each, b in zip(readers, before) for t in writers))

    more_passes(20)
    places = {"plain": [plain.port], "proxy": [shard.port for shard in shards]}
    before = {target: asked(ports) for target, ports in places.items()}
    more_passes(40)
    failed = []
    for target, ports in places.items():
        count, reads = asked(ports) - before[target], 40 * KEYS * len(readers)
        if count > reads / 20:
            failed.append(f"{target}: {count} of more than {reads} reads were asked of servers")
    for each in readers:
        each.end()

    worst = collections.defaultdict(int)
    for each in readers:
        for target, writer in writers.items():
            for last, age in ages(each.seen[target], writer.acknowledged, losses[target], flushes[target]):
                step = next((name for name, begin in reversed(steps) if begin <= last), "before")
                worst[each.name, target, step] = max(worst[each.name, target, step], age)
    print(f"{'oldest read, ms: plain / proxy':32}", *(f"{each.name:>16}" for each in readers))
    for name, _ in steps:
        figures = (f"{worst[each.name, 'plain', name] / 1e6:.0f} / {worst[each.name, 'proxy', name] / 1e6:.0f}" for each in readers)
        print(f"{name:32}", *(f"{each:>16}" for each in figures))
    print(f"{'errors, while servers were away':32}", *(f"{each.errors['plain'][0]} / {each.errors['proxy'][0]}".rjust(16) for each in readers))
    for each in readers:
        bound = 2 * max(worst[each.name, "plain", name] for name, _ in steps) / 1e9 + SLACK
        for name, _ in steps:
            if worst[each.name, "proxy", name] / 1e9 > bound:
                failed.append(f"{each.name}: {name}: a read was {worst[each.name, 'proxy', name] / 1e9:.3f} s old, the bound is {bound:.3f} s")
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(pathlib.Path(folder), sys.argv[1:])
