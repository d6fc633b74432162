"""Clients that write versions which only grow, and judge every reply."""

import random
import socket
import threading
import time

CLIENTS = 6
KEYS_AT_THE_SHARD = 4
KEYS_ELSEWHERE = 2
REPLY_LIMIT = 8.0


def encoded(*words):
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word if isinstance(word, bytes) else word.encode()
        out.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(out)


class ErrorReply(bytes):
    pass


def read_reply(file):
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("closed")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+" or kind == b":":
        return rest
    if kind == b"-":
        return ErrorReply(rest)
    if kind == b"$":
        if rest == b"-1":
            return None
        value = file.read(int(rest) + 2)
        if len(value) != int(rest) + 2:
            raise ConnectionError("closed")
        return value[:-2]
    if kind == b"*":
        return [read_reply(file) for _ in range(int(rest))]
    raise ValueError(f"no reply begins with {line[:20]!r}")


def connect(host, port):
    connection = socket.create_connection((host, port), timeout=REPLY_LIMIT)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Result:
    def __init__(self, may_lose):
        self.may_lose = may_lose
        self.replies = self.errors = self.errors_elsewhere = self.closed = 0
        self.wrong, self.overwritten, self.lost = [], [], 0
        self.back_after = 0.0
        self.words = {}

    def add(self, other):
        for name in ["replies", "errors", "errors_elsewhere", "closed", "lost"]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.wrong += other.wrong
        self.overwritten += other.overwritten
        back = [self.back_after, other.back_after]
        self.back_after = None if None in back else max(back)
        for word, count in other.words.items():
            self.words[word] = self.words.get(word, 0) + count

    def row(self, fault, proxy):
        back = "never" if self.back_after is None else f"{self.back_after * 1000:.0f} ms"
        cells = [fault, proxy, self.replies, self.errors, self.errors_elsewhere, self.closed]
        cells += [len(self.wrong), len(self.overwritten), self.lost, back]
        return "| " + " | ".join(str(cell) for cell in cells) + " |"

    def complaints(self, fault):
        found = [f"{fault}: wrong reply: {what}" for what in self.wrong[:5]]
        found += [f"{fault}: an acknowledged write was overwritten: {what}" for what in self.overwritten[:5]]
        if self.back_after is None:
            found.append(f"{fault}: the shard is not served again")
        if self.lost and not self.may_lose:
            found.append(f"{fault}: {self.lost} acknowledged values are gone")
        return found


class Key:
    """What one key may hold, as its only writer knows it."""

    def __init__(self, name, is_at_the_shard):
        self.name, self.is_at_the_shard = name, is_at_the_shard
        self.version, self.acknowledged, self.written = 0, 0, set()

    def next_value(self):
        self.version += 1
        self.written.add(self.version)
        return f"{self.name}={self.version}"

    def judge(self, value, result, may_lose):
        if value is None:
            if self.acknowledged:
                result.lost += 1
                # Said once for each loss.
                self.acknowledged = 0
            return
        name, _, version = value.decode(errors="replace").partition("=")
        if name != self.name or not version.isdigit() or int(version) not in self.written:
            result.wrong.append(f"GET {self.name} -> {value!r}")
        elif int(version) < self.acknowledged:
            result.overwritten.append(f"{self.name}: {version} after {self.acknowledged} was acknowledged")
            self.acknowledged = int(version)


class Client(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.result = load, Result(load.may_lose)
        self.random = random.Random(number)
        mine = lambda names, count: names[number * count : (number + 1) * count]
        self.keys = [Key(name, True) for name in mine(load.at_the_shard, KEYS_AT_THE_SHARD)]
        self.keys += [Key(name, False) for name in mine(load.elsewhere, KEYS_ELSEWHERE)]
        self.connection = None
        self.back_at = None

    def run(self):
        while not self.load.stopped:
            self.pipeline([self.random.choice(self.keys) for _ in range(self.random.choice([1, 1, 2, 8]))])
        # Nothing is written any more: what is there now has to be the last that was acknowledged, or newer.
        for key in self.keys:
            for _ in range(50):
                if self.ask([(key, None)]):
                    break
                time.sleep(0.05)

    def pipeline(self, keys):
        requests = []
        for key in keys:
            if self.random.random() < 0.5:
                requests.append((key, key.next_value()))
            requests.append((key, None))
        if not self.ask(requests):
            time.sleep(0.01)

    def ask(self, requests):
        """Whether all of them were served."""
        served = True
        try:
            if self.connection is None:
                self.connection = connect(self.load.host, self.load.port)
                self.file = self.connection.makefile("rb")
            sent = [encoded("GET", key.name) if value is None else encoded("SET", key.name, value) for key, value in requests]
            self.connection.sendall(b"".join(sent))
            for key, value in requests:
                reply = read_reply(self.file)
                self.result.replies += 1
                if isinstance(reply, ErrorReply):
                    self.count_error(key, reply)
                    served = False
                    continue
                if key.is_at_the_shard and self.back_at is None and self.load.healed_at is not None:
                    self.back_at = time.monotonic()
                if value is None:
                    if isinstance(reply, list) or reply == b"OK" and key.acknowledged:
                        self.result.wrong.append(f"GET {key.name} -> {reply!r}")
                    else:
                        key.judge(reply, self.result, self.load.may_lose)
                elif reply == b"OK":
                    key.acknowledged = int(value.partition("=")[2])
                else:
                    self.result.wrong.append(f"SET {key.name} -> {reply!r}")
            return served
        except (OSError, ValueError) as error:
            if isinstance(error, ValueError):
                self.result.wrong.append(str(error))
            if isinstance(error, TimeoutError):
                self.result.wrong.append(f"no reply within {REPLY_LIMIT} s")
            self.result.closed += 1
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return False

    def count_error(self, key, reply):
        if key.is_at_the_shard:
            self.result.errors += 1
        else:
            self.result.errors_elsewhere += 1
        self.result.words[bytes(reply)] = self.result.words.get(bytes(reply), 0) + 1


class Load:
    """All clients of one proxy."""

    def __init__(self, host, port, homes, shard, may_lose):
        self.host, self.port, self.may_lose = host, port, may_lose
        self.at_the_shard = [name for name, home in homes.items() if home == shard]
        self.elsewhere = [name for name, home in homes.items() if home != shard]
        self.stopped, self.healed_at = False, None
        self.clients = [Client(self, number) for number in range(CLIENTS)]

    def start(self):
        for client in self.clients:
            client.start()

    def begin_fault(self):
        pass

    def end_fault(self):
        self.healed_at = time.monotonic()

    def finish(self):
        self.stopped = True
        result = Result(self.may_lose)
        for client in self.clients:
            client.join(30)
            back = client.back_at
            client.result.back_after = None if back is None else back - self.healed_at
            result.add(client.result)
        return result
