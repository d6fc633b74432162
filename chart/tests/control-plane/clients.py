"""Clients of stores that believe nothing: for Redis and memcached, and one that keeps asking and checks every reply."""

import argparse
import collections
import json
import random
import select
import socket
import ssl
import subprocess
import sys
import threading
import time


class Closed(Exception):
    """The other side has closed the connection."""


class Refusal(Exception):
    """An error reply."""


class Tls:
    """How a client verifies a server, which has to have this name, and what it presents itself: files."""

    def __init__(self, name, authority, certificate=None, key=None):
        self.options = {"tls_name": name, "tls_authority": authority, "tls_certificate": certificate or "", "tls_key": key or ""}
        self.name = name
        self.context = ssl.create_default_context(cafile=authority)
        if certificate:
            self.context.load_cert_chain(certificate, key)

    def wrap(self, connection):
        return self.context.wrap_socket(connection, server_hostname=self.name)


class Connection:
    def __init__(self, host, port, seconds=10, tls=None):
        self.socket = socket.create_connection((host, port), seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""
        if tls:
            try:
                self.socket = tls.wrap(self.socket)
            except ssl.SSLError as error:
                self.socket.close()
                raise Closed(str(error)) from error

    def send(self, data):
        try:
            self.socket.sendall(data)
        except ConnectionError as error:
            raise Closed(str(error)) from error

    def fill(self):
        try:
            more = self.socket.recv(1 << 16)
        except (ConnectionError, ssl.SSLError) as error:
            raise Closed(str(error)) from error
        if not more:
            raise Closed("end of file")
        self.unread += more

    def line(self):
        while b"\r\n" not in self.unread:
            self.fill()
        line, self.unread = self.unread.split(b"\r\n", 1)
        return line

    def exactly(self, length):
        while len(self.unread) < length:
            self.fill()
        part, self.unread = self.unread[:length], self.unread[length:]
        return part

    def is_over(self):
        """Whether the other side has hung up while nothing was asked."""
        if not select.select([self.socket], [], [], 0)[0]:
            return False
        if not isinstance(self.socket, ssl.SSLSocket):
            return True
        # It may have been a ticket for the next session.
        before = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            self.unread += self.socket.recv(1)
            return True
        except ssl.SSLWantReadError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(before)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Redis(Connection):
    def call(self, *words):
        self.send(encoded(words))
        return self.reply()

    def pipeline(self, commands):
        """All replies, errors among them as values."""
        self.send(b"".join(encoded(command) for command in commands))
        replies = []
        for _ in commands:
            try:
                replies.append(self.reply())
            except Refusal as refusal:
                replies.append(refusal)
        return replies

    def reply(self):
        line = self.line()
        kind, rest = line[:1], line[1:]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                raise Refusal(rest.decode())
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self.exactly(int(rest) + 2)[:-2]
            case b"*":
                return [self.reply() for _ in range(int(rest))]
        raise Refusal(f"not RESP: {line!r}")


def encoded(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Memcached(Connection):
    def set(self, key, value):
        self.send(f"set {key} 0 0 {len(value)}\r\n".encode() + value + b"\r\n")
        answer = self.line().decode()
        if answer != "STORED":
            raise Refusal(answer)

    def get(self, key):
        self.send(f"get {key}\r\n".encode())
        line = self.line().decode()
        if line == "END":
            return None
        if not line.startswith("VALUE "):
            raise Refusal(line)
        value = self.exactly(int(line.split()[3]) + 2)[:-2]
        assert self.line() == b"END"
        return value

    def stat(self, name):
        self.send(b"stats\r\n")
        found = None
        while (line := self.line().decode()) != "END":
            if line.startswith(f"STAT {name} "):
                found = line.split()[2]
        return found


# --- load ------------------------------------------------------------------------------------------------------------


class Load:
    """Clients in a process of their own that write and read, one request at a time, until they are told to stop."""

    count = 0

    def __init__(self, host, port, **options):
        # Keys that nobody has used: on shards that had left a ring are older values of others.
        Load.count += 1
        command = [sys.executable, __file__, "--host", host, "--port", str(port), "--prefix", f"load-{Load.count}"]
        for name, value in options.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "connected\n":
            raise RuntimeError("the clients did not connect")

    def stop(self):
        """What they have seen."""
        out, _ = self.process.communicate("stop\n", timeout=60)
        return json.loads(out)


class Seen:
    def __init__(self):
        self.counts = collections.Counter()
        self.examples = {}
        self.slowest = 0.0
        self.lock = threading.Lock()

    def count(self, what, example=None):
        with self.lock:
            self.counts[what] += 1
            if example is not None:
                self.examples.setdefault(what, f"{time.strftime('%H:%M:%S')} {example}")


def client(options, number, seen, connected, over):
    """Its keys are its own, so that it knows what each is worth."""
    written = {}
    choice = random.Random(number)
    tls = Tls(options.tls_name, options.tls_authority, options.tls_certificate, options.tls_key) if options.tls_name else None

    def connect():
        fresh = Redis(options.host, options.port, tls=tls)
        if options.password:
            fresh.call("AUTH", options.password)
        return fresh

    connection = connect()
    connected.wait()
    turn = 0
    pending = None
    while not over.is_set():
        turn += 1
        key = f"{options.prefix}:{number}:{choice.randrange(options.keys)}"
        asked = pending or (("SET", key, f"{number}-{turn}") if turn % 2 else ("GET", key))
        pending = None
        began = time.monotonic()
        try:
            if connection and connection.is_over():
                seen.count("closed idle")
                connection.close()
                connection = None
            if connection is None:
                connection = connect()
                seen.count("reconnects")
            reply = connection.call(*asked)
        except (Closed, OSError) as error:
            partly = connection is not None and connection.unread
            if connection:
                connection.close()
            seen.count("connects failed" if connection is None else "cut inside a reply" if partly else "closed unanswered", f"{asked[0]}: {error!r}")
            connection = None
            # Sent again on the next connection, as client libraries do.
            pending = asked
            continue
        except Refusal as refusal:
            seen.count("errors", f"{asked}: {refusal}")
            # Whether it was written is not known.
            written.pop(asked[1], None)
            time.sleep(options.pause)
            continue
        seen.slowest = max(seen.slowest, time.monotonic() - began)
        if asked[0] == "SET":
            seen.count("written" if reply == "OK" else "wrong", f"{asked}: {reply!r}")
            written[asked[1]] = asked[2].encode()
        elif reply is None:
            seen.count("misses" if asked[1] in written else "not there", asked[1])
            written.pop(asked[1], None)
        elif asked[1] in written and reply != written[asked[1]]:
            # Its own from before is a fault of another kind than what it has never written.
            stale = reply.startswith(f"{number}-".encode()) and int(reply.split(b"-")[1]) < turn
            seen.count("stale" if stale else "wrong", f"{asked[1]}: {reply!r} for {written[asked[1]]!r}")
        else:
            seen.count("read")
        time.sleep(options.pause)
    if connection:
        connection.close()


def load():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=12)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--pause", type=float, default=0.01)
    for name in ("password", "tls-name", "tls-authority", "tls-certificate", "tls-key"):
        parser.add_argument(f"--{name}", default="")
    options = parser.parse_args()
    seen, over = Seen(), threading.Event()
    connected = threading.Barrier(options.connections + 1)
    threads = [threading.Thread(target=client, args=(options, number, seen, connected, over), daemon=True) for number in range(options.connections)]
    for thread in threads:
        thread.start()
    connected.wait()
    print("connected", flush=True)
    sys.stdin.readline()
    over.set()
    for thread in threads:
        thread.join(15)
    if any(thread.is_alive() for thread in threads):
        seen.count("hang")
    print(json.dumps({**seen.counts, "slowest ms": round(seen.slowest * 1000), "examples": seen.examples}))


if __name__ == "__main__":
    load()
