"""The shard of a key, as memstore and Twemproxy choose it, from a topology document (version 1 or 2) or a list of servers.

Python's standard library is all it needs. It shows shards:

    python3 memstore_ring.py topology.json POOL KEY...
    python3 memstore_ring.py --servers servers.yml [--hash md5] [--distribution modula] [--hash-tag {}] KEY...
    python3 memstore_ring.py --template cache-{}.cache:6379 --count 3 KEY...
    python3 memstore_ring.py --url http://127.0.0.1:9121/topology POOL KEY...
"""

import argparse
import bisect
import hashlib
import http.client
import json
import os
import struct
import sys
import time
import urllib.parse
import zlib

MASK = 0xFFFFFFFF


def signed(byte):
    """Twemproxy reads keys as C `char`: bytes from 0x80 on are negative."""
    return byte if byte < 0x80 else byte | 0xFFFFFF00


def one_at_a_time(key):
    value = 0
    for byte in key:
        value = (value + signed(byte)) & MASK
        value = (value + (value << 10)) & MASK
        value ^= value >> 6
    value = (value + (value << 3)) & MASK
    value ^= value >> 11
    return (value + (value << 15)) & MASK


def fnv1(basis, prime):
    def value_of(key):
        value = basis
        for byte in key:
            value = (value * prime & MASK) ^ signed(byte)
        return value

    return value_of


def fnv1a(basis, prime):
    def value_of(key):
        value = basis
        for byte in key:
            value = (value ^ signed(byte)) * prime & MASK
        return value

    return value_of


def crc16(key):
    """CRC-16/XMODEM in a register of 32 bits that is never masked."""
    value = 0
    for byte in key:
        crc = (value >> 8 ^ byte) & 0xFF
        crc <<= 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
        value = (value << 8 & MASK) ^ crc
    return value


def hsieh(key):
    value = 0
    blocks = len(key) & ~3
    for low, high in struct.iter_unpack("<HH", key[:blocks]):
        value = (value + low) & MASK
        value = (value << 16 & MASK) ^ (high << 11 & MASK) ^ value
        value = (value + (value >> 11)) & MASK
    tail = key[blocks:]
    if len(tail) == 3:
        value = (value + (tail[0] | tail[1] << 8)) & MASK
        value ^= value << 16 & MASK
        value ^= signed(tail[2]) << 18 & MASK
        value = (value + (value >> 11)) & MASK
    elif len(tail) == 2:
        value = (value + (tail[0] | tail[1] << 8)) & MASK
        value ^= value << 11 & MASK
        value = (value + (value >> 17)) & MASK
    elif len(tail) == 1:
        value = (value + tail[0]) & MASK
        value ^= value << 10 & MASK
        value = (value + (value >> 1)) & MASK
    value ^= value << 3 & MASK
    value = (value + (value >> 5)) & MASK
    value ^= value << 4 & MASK
    value = (value + (value >> 17)) & MASK
    value ^= value << 25 & MASK
    return (value + (value >> 6)) & MASK


def murmur(key):
    multiplier = 0x5BD1E995
    value = (0xDEADBEEF * len(key) & MASK) ^ len(key)
    blocks = len(key) & ~3
    for (word,) in struct.iter_unpack("<I", key[:blocks]):
        word = word * multiplier & MASK
        word = (word ^ word >> 24) * multiplier & MASK
        value = (value * multiplier & MASK) ^ word
    if key[blocks:]:
        value = (value ^ int.from_bytes(key[blocks:], "little")) * multiplier & MASK
    value = (value ^ value >> 13) * multiplier & MASK
    return value ^ value >> 15


def rotate(value, by):
    return (value << by | value >> (32 - by)) & MASK


def jenkins(key):
    """lookup3 with Twemproxy's start."""
    state = [(0xDEADBEEF + len(key) + 13) & MASK] * 3
    end = max(0, (len(key) - 1) // 12 * 12)
    for start in range(0, end + 1, 12):
        words = struct.unpack("<III", key[start : start + 12].ljust(12, b"\0"))
        state = [(part + word) & MASK for part, word in zip(state, words)]
        a, b, c = state
        if start < end:
            for by in (4, 6, 8, 16, 19, 4):
                a = ((a - c) & MASK) ^ rotate(c, by)
                c = (c + b) & MASK
                a, b, c = b, c, a
            state = [a, b, c]
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - rotate(b, by)) & MASK
        a, b, c = b, c, a
    return b


HASHES = {
    "one_at_a_time": one_at_a_time,
    "md5": lambda key: int.from_bytes(hashlib.md5(key).digest()[:4], "little"),
    "crc16": crc16,
    "crc32": lambda key: zlib.crc32(key) >> 16 & 0x7FFF,
    "crc32a": zlib.crc32,
    "fnv1_64": fnv1(0x84222325, 0x1B3),
    "fnv1a_64": fnv1a(0x84222325, 0x1B3),
    "fnv1_32": fnv1(2166136261, 16777619),
    "fnv1a_32": fnv1a(2166136261, 16777619),
    "hsieh": hsieh,
    "murmur": murmur,
    "jenkins": jenkins,
}


def single(value):
    """Rounds to single precision, as Twemproxy's arithmetic does at every step."""
    return struct.unpack("f", struct.pack("f", value))[0]


class Ring:
    """Who owns which key in one pool of a topology document."""

    def __init__(self, pool):
        self.shards = sorted(pool["shards"], key=lambda shard: (len(shard["name"].encode()), shard["name"].encode()))
        self.tag = pool.get("hash_tag")
        self.hash = HASHES[pool["hash"]]
        self.distribution = pool["distribution"]
        live = [shard for shard in self.shards if not shard.get("ejected")]
        if not live:
            raise ValueError("every shard of the pool is ejected")
        self.live = live
        if self.distribution == "slots":
            raise NotImplementedError("slots belong to Redis Cluster; use a cluster client")
        # Prefixes of keys that share a shard, the longest first, which counts: the shard, if it is named and live, and the tag.
        # While the shard is ejected they go together where the prefix as a tag belongs.
        self.pins = []
        for prefix, to in sorted((pool.get("pin") or {}).items(), key=lambda pin: -len(pin[0].encode())):
            is_tag = to.startswith("{") and to.endswith("}")
            if not is_tag and to not in [shard["name"] for shard in self.shards]:
                raise ValueError(f"keys that begin with {prefix!r} are pinned to {to!r}, which is none of the shards")
            if is_tag and self.distribution == "random":
                raise ValueError(f"keys that begin with {prefix!r} are to follow a tag, but distribution random gives no key an owner")
            named = None if is_tag else next((shard for shard in live if shard["name"] == to), None)
            self.pins.append((prefix.encode(), named, to[1:-1].encode() if is_tag else prefix.encode()))
        total = sum(shard.get("weight", 1) for shard in live)
        if self.distribution == "ketama":
            points = []
            for shard in live:
                share = single(shard.get("weight", 1) / single(total))
                digests = single(single(single(share * 160.0) / 4.0) * len(live))
                for number in range(int(single(digests + 1e-10))):
                    digest = hashlib.md5(f"{shard['name']}-{number}".encode()[:272]).digest()
                    points += [(value, shard) for value in struct.unpack("<IIII", digest)]
            points.sort(key=lambda point: point[0])
            self.values = [value for value, _ in points]
            self.owners = [shard for _, shard in points]
        elif self.distribution == "modula":
            self.owners = [shard for shard in live for _ in range(shard.get("weight", 1))]

    def hashed_part(self, key):
        """What is between the two characters of the hash tag, or the whole key."""
        if self.tag:
            before, found, rest = key.partition(self.tag[0].encode())
            tag, closed, _ = rest.partition(self.tag[1].encode())
            if found and closed and tag:
                return tag
        return key

    def shard_for(self, key):
        """The shard that owns `key`, which is bytes."""
        pin = next((pin for pin in self.pins if key.startswith(pin[0])), None)
        if pin and pin[1]:
            return pin[1]
        if len(self.shards) == 1 or self.distribution == "single":
            return self.live[0]
        part = pin[2] if pin else self.hashed_part(key)
        value = self.hash(part) if part else 0
        if self.distribution == "modula":
            return self.owners[value % len(self.owners)]
        if self.distribution == "ketama":
            place = bisect.bisect_left(self.values, value)
            return self.owners[place % len(self.owners)]
        raise ValueError(f"distribution {self.distribution} gives no key an owner")


def server(line):
    """One server as nutcracker.yml has it: `host:port:weight [name]` or `/path:weight [name]`."""
    address, blank, name = line.rpartition(" ")
    if not blank:
        address, name = line, None
    rest, _, weight = address.rstrip().rpartition(":")
    if not (rest and weight.isascii() and weight.isdigit() and 1 <= int(weight) < 1 << 32):
        raise ValueError(f"server {line!r}: allowed is host:port:weight or /path:weight, optionally followed by a blank and a name")
    shard = {"name": name, "address": rest, "weight": int(weight)}
    if rest.startswith("/"):
        return shard if name is not None else {**shard, "name": rest + ":"}
    host, _, port = rest.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 1 <= int(port) < 1 << 16):
        raise ValueError(f"server {line!r}: host and port are missing")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    shard["address"] = f"[{bare}]:{int(port)}" if ":" in bare else f"{bare}:{int(port)}"
    if name is None:
        # Twemproxy hashes what is written, but leaves this port out.
        shard["name"] = bare if int(port) == 11211 else rest
    return shard


def servers(text):
    """The servers in a file that lists them: JSON, or YAML with one server in each line that begins with a dash."""
    if text.lstrip().startswith("["):
        lines = json.loads(text)
    else:
        lines = []
        for number, line in enumerate(text.splitlines(), 1):
            written = line.strip()
            if not written or written.startswith("#") or written == "---":
                continue
            dash, value = written[:2], written[2:].strip()
            if value[:1] in ("'", '"') and value.find(value[0], 1) > 0:
                end = value.find(value[0], 1)
                value, rest = value[1:end], value[end + 1 :].strip()
                good = dash == "- " and "\\" not in value and (not rest or rest.startswith("#"))
            else:
                value = value.partition(" #")[0].rstrip()
                good = dash == "- " and value[:1] not in tuple("'\"[{&*!|>%@`#") and ": " not in value
            if not good:
                raise ValueError(f"line {number}: this reads lines such as `- host:port:weight name`, or JSON")
            lines.append(value)
    if not lines or not all(isinstance(line, str) for line in lines):
        raise ValueError("a list of servers has at least one, and all of them are strings")
    shards = [server(line) for line in lines]
    names = [shard["name"] for shard in shards]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"two servers have the name {twice!r}; give one of them another name")
    return shards


def template(host, count, names="shard-{}"):
    """The servers that a template of host names stands for: `cache-{}.cache:6379`."""
    if "{}" not in host or "{}" not in names:
        raise ValueError("a template needs {} for the number")
    numbers = [str(number) for number in range(count)]
    return [server(f"{host.replace('{}', number)}:1 {names.replace('{}', number)}") for number in numbers]


def ring_of(shards, hash="fnv1a_64", distribution="ketama", hash_tag=None, pin=None):
    """The ring of a list of servers; the defaults are those of the proxy's pools."""
    return Ring({"shards": shards, "hash": hash, "distribution": distribution, "hash_tag": hash_tag, "pin": pin})


class Followed:
    """The ring of a file that may change: `read` makes it of the path, and is called again once the file is another.

    It starts no thread: call `refresh` now and then, which costs one look at the file's times and size. An error leaves
    the ring as it was.
    """

    def __init__(self, path, read):
        self.path, self.read = path, read
        self.seen = self.stamp()
        self.ring = read(path)

    def stamp(self):
        found = os.stat(self.path)
        return (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)

    def refresh(self):
        """Whether there is another ring by now."""
        now = self.stamp()
        if now == self.seen:
            return False
        self.ring = self.read(self.path)
        self.seen = now
        return True


# Longest document at a URL, in bytes, and how long reading one may take, in seconds: as in the proxy.
ANSWER_MAX = 4 << 20
POLL_LIMIT = 5


def poll(url, tag=None):
    """The document at a URL (plain HTTP), as text, and its ETag; None if it is still the one with this tag.

    Raises OSError if it cannot be read, ValueError if the answer cannot be used.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc:
        raise ValueError("allowed is http://host:port/path")
    until = time.monotonic() + POLL_LIMIT
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=POLL_LIMIT)
    try:
        headers = {"Accept": "application/json", "Connection": "close"}
        if tag is not None:
            headers["If-None-Match"] = tag
        connection.request("GET", urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, "")), headers=headers)
        answer = connection.getresponse()
        if answer.status == 304 and tag is not None:
            return None
        if answer.status != 200:
            raise ValueError(f"the response has status {answer.status}")
        body = bytearray()
        while piece := answer.read1(1 << 16):
            body += piece
            if len(body) > ANSWER_MAX:
                raise ValueError("the response is longer than 4 MiB")
            if time.monotonic() > until:
                raise TimeoutError("timed out")
        # A part of a list is no list: it would move keys. A connection that is lost is no error of `read1`.
        if str(len(body)) != (answer.headers["Content-Length"] or str(len(body))).strip():
            raise ValueError("the response is truncated")
        return body.decode("utf-8"), answer.headers["ETag"]
    except http.client.HTTPException as error:
        raise ValueError(f"the response is not HTTP: {error!r}") from error
    finally:
        connection.close()


class Polled:
    """The ring of a document at a URL: `read` makes it of the text, and is called again once the document is another.

    It starts no thread: call `refresh` every few seconds, which sends one request (`If-None-Match`). An error leaves the
    ring as it was.
    """

    def __init__(self, url, read):
        self.url, self.read = url, read
        self.tag = self.text = None
        self.refresh()

    def refresh(self):
        """Whether there is another ring by now."""
        # After an error the whole document is asked for.
        tag, self.tag = self.tag, None
        answer = poll(self.url, tag)
        if answer is None:
            self.tag = tag
            return False
        text, tag = answer
        has_changed = text != self.text
        if has_changed:
            self.ring = self.read(text)
        self.text, self.tag = text, tag
        return has_changed


def read_servers(path, **placement):
    """The ring of the list of servers in a file."""
    with open(path, encoding="utf-8") as file:
        return ring_of(servers(file.read()), **placement)


def read(path, pool):
    """The ring of one pool of the topology document in a file."""
    with open(path, encoding="utf-8") as file:
        return of_document(file.read(), pool)


def of_url(text, pool, **placement):
    """The ring of what is at a URL: a JSON list of servers, or a topology document, whose pool has its own placement.

    Which shards a proxy has ejected at the moment does not count.
    """
    if text.lstrip().startswith("["):
        return ring_of(servers(text), **placement)
    return of_document(text, pool, is_live=False)


def of_document(text, pool, is_live=True):
    """The ring of one pool of a topology document, with or without the ejections in it."""
    document = json.loads(text)
    if not isinstance(document, dict) or "version" not in document or "pools" not in document:
        raise ValueError("not a topology document; a proxy serves it at /topology")
    if document["version"] not in (1, 2):
        raise ValueError(f"this reads versions 1 and 2 of the topology document, not {document['version']}")
    if pool not in document["pools"]:
        raise ValueError(f"no such pool; there are {', '.join(document['pools']) or 'none'}")
    found = document["pools"][pool]
    if not is_live:
        found = {**found, "shards": [{**shard, "ejected": False} for shard in found["shards"]]}
    return Ring(found)


def main(arguments):
    """Prints who owns each key; returns the exit code."""
    parser = argparse.ArgumentParser(description="shows the shards of keys")
    parser.add_argument("--servers", metavar="FILE", help="a list of servers instead of a topology document")
    parser.add_argument("--template", metavar="HOST:PORT", help="a template of host names instead of one, with {} in the host")
    parser.add_argument("--url", metavar="URL", help="a list of servers, or a topology document, at a URL; followed by the pool")
    parser.add_argument("--count", type=int, default=1, help="number of servers of the template")
    parser.add_argument("--hash", choices=sorted(HASHES), default="fnv1a_64")
    parser.add_argument("--distribution", choices=["ketama", "modula", "single"], default="ketama")
    parser.add_argument("--hash-tag", metavar="TWO")
    parser.add_argument("words", nargs="*", metavar="TOPOLOGY POOL KEY")
    asked = parser.parse_args(arguments)
    placement = {"hash": asked.hash, "distribution": asked.distribution, "hash_tag": asked.hash_tag}
    listed = asked.servers or asked.template
    words = asked.words if listed else ([asked.url] if asked.url else []) + asked.words
    if not listed and len(words) < 2:
        parser.error("a topology document and a pool are needed, or a list of servers")
    path, keys = (listed, words) if listed else (words[0], words[2:])
    where = path if listed else f"{path}: pool {words[1]}"
    try:
        if asked.servers:
            ring = read_servers(path, **placement)
        elif asked.template:
            ring = ring_of(template(path, asked.count), **placement)
        elif asked.url:
            ring = Polled(path, lambda text: of_url(text, words[1], **placement)).ring
        else:
            ring = read(path, words[1])
        for key in keys:
            shard = ring.shard_for(key.encode("utf-8", "surrogateescape"))
            print(f"{key} -> {shard['name']} ({shard['address']})")
    except OSError as error:
        print(f"{path}: {error.strerror or error}", file=sys.stderr)
    except (ValueError, NotImplementedError) as error:  # also JSON that is none
        print(f"{where}: {error}", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
