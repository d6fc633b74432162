"""Who looks on while something is done to a release, and what must not be seen."""

import threading
import time

from clients import Closed, Redis, Refusal
from plane import Failed


def write_all(connection, count, prefix="key", salt=""):
    replies = connection.pipeline([("SET", f"{prefix}:{number}", f"value {salt}{number}") for number in range(count)])
    wrong = [reply for reply in replies if reply != "OK"]
    if wrong:
        raise Failed(f"{len(wrong)} of {count} writes failed: {wrong[0]}")


def read_all(connection, count, prefix="key", salt=""):
    """How many are missing; a wrong value or an error fails."""
    replies = connection.pipeline([("GET", f"{prefix}:{number}") for number in range(count)])
    for number, reply in enumerate(replies):
        if reply is not None and reply != f"value {salt}{number}".encode():
            raise Failed(f"{prefix}:{number} is {reply!r}")
    return replies.count(None)


def read_all_or_none(connection, count):
    """How many of the keys are missing, in a list that is never empty; None where one of them is an error."""
    replies = connection.pipeline([("GET", f"key:{number}") for number in range(count)])
    if any(isinstance(reply, Refusal) for reply in replies):
        return None
    return [replies.count(None)]


def judge(plane, seen, *allowed):
    """Prints what the clients saw; what was not to be seen is a fault."""
    examples = seen.pop("examples")
    plane.say(f"clients saw {seen}")
    fine = {"written", "read", "misses", "not there", "slowest ms", *allowed}
    bad = {what: (count, examples.get(what)) for what, count in seen.items() if what not in fine}
    plane.check(not bad, f"clients saw {bad}")
    plane.expect(seen.get("written", 0) > 100 and seen.get("read", 0) > 100, "the clients were served at all")


def summed(errors):
    """The errors without the shards' names, which are long."""
    total = {}
    for words, count in errors.items():
        brief = words.rsplit(": ", 1)[-1]
        total[brief] = total.get(brief, 0) + count
    return total


def settle(seconds):
    """Lets clients go on for a while: what is watched for is that nothing happens."""
    time.sleep(seconds)


class Outage(threading.Thread):
    """Asks for one key again and again, on one connection, and notes the errors and how long each took."""

    def __init__(self, host, port, key):
        super().__init__(daemon=True)
        self.host, self.port, self.key = host, port, key
        self.errors, self.slowest, self.over = {}, 0.0, threading.Event()
        self.first = self.last = None
        self.connections = self.served = 0
        self.start()

    def run(self):
        connection = None
        while not self.over.is_set():
            begin = time.monotonic()
            try:
                if connection is None:
                    connection = Redis(self.host, self.port, 20)
                    self.connections += 1
                connection.call("GET", self.key)
                self.served += 1
                self.over.wait(0.005)
                continue
            except Refusal as refusal:
                words = str(refusal)
            except (Closed, OSError) as error:
                words, connection = f"connection: {error!r}", None
            self.last = time.monotonic()
            self.first = self.first or begin
            self.slowest = max(self.slowest, self.last - begin)
            self.errors[words] = self.errors.get(words, 0) + 1
            self.over.wait(0.005)

    def stop(self):
        self.over.set()
        self.join()

    def seconds(self):
        return self.last - self.first if self.first else 0.0


class Shrinking(threading.Thread):
    """When all proxies had the smaller ring, and when a shard's pod was told to end."""

    def __init__(self, release, pod, count):
        super().__init__(daemon=True)
        self.release, self.pod_name, self.count = release, pod, count
        self.ring = self.pod = None
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            pod = self.release.api.get("pods", self.pod_name, self.release.namespace)
            if not self.pod and (pod is None or pod["metadata"].get("deletionTimestamp")):
                self.pod = time.monotonic()
            try:
                if not self.ring and all(len(ring) == self.count for ring in self.release.rings().values()):
                    self.ring = time.monotonic()
            except OSError:
                pass
            self.over.wait(0.05)

    def stop(self):
        self.over.set()
        self.join()
