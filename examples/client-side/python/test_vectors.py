"""Python, and the proxy's `memstore route` (MEMSTORE, else target/debug/memstore), agree with placements recorded from nutcracker.

The Rust library is held against the same recordings by tests of its own.
"""

import contextlib
import http.server
import io
import json
import os
import pathlib
import subprocess
import tempfile
import threading
import unittest

from memstore_ring import ANSWER_MAX, HASHES, Followed, Polled, Ring, main, of_url, poll, read_servers, ring_of, server, servers, template

ROOT = pathlib.Path(__file__).resolve().parents[3]
VECTORS = ROOT / "shard-discovery/tests/vectors"
MEMSTORE = os.environ.get("MEMSTORE") or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/memstore"


def load(name):
    return json.loads((VECTORS / name).read_text())


KEYS = [bytes.fromhex(key) for key in load("keys.json")["keys"]]


class Vectors(unittest.TestCase):
    def test_every_hash(self):
        hashes = load("hashes.json")["hashes"]
        self.assertEqual(sorted(hashes), sorted(HASHES))
        for name, digits in hashes.items():
            recorded = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
            for key, expected in zip(KEYS, recorded, strict=True):
                self.assertEqual(HASHES[name](key) if key else 0, expected, (name, key))

    def test_every_placement(self):
        compared = 0
        for path in sorted(VECTORS.glob("*.json")):
            recording = load(path.name)
            if "pools" not in recording:
                continue
            shards = [
                {"name": server["ring_name"], "address": "h:1", "weight": server["weight"], "ejected": at in recording["ejected"]}
                for at, server in enumerate(recording["servers"])
            ]
            for pool in recording["pools"]:
                if pool["distribution"] == "random":
                    continue
                ring = Ring({**pool, "shards": shards})
                for letter, key in zip(pool["map"], KEYS, strict=True):
                    if letter != ".":
                        expected = shards[recording["alphabet"].index(letter)]["name"]
                        self.assertEqual(ring.shard_for(key)["name"], expected, (path.name, pool["hash"], pool["hash_tag"], key))
                        compared += 1
        self.assertGreater(compared, 100_000)

    def test_every_placement_of_the_proxy(self):
        # One a line.
        numbered = [(at, key) for at, key in enumerate(KEYS) if key and not set(key) & {10, 13}]
        compared = 0
        for path in sorted(VECTORS.glob("*.json")):
            recording = load(path.name)
            if "pools" not in recording or recording["ejected"]:
                continue
            pools = [pool for pool in recording["pools"] if pool["distribution"] != "random"]
            lines = ["pools:"]
            for number, pool in enumerate(pools):
                lines += [f" pool-{number:04}:", f"  listen: 127.0.0.1:{number + 1}", f"  redis: {str(recording['redis']).lower()}"]
                lines += [f"  hash: {pool['hash']}", f"  distribution: {pool['distribution']}"]
                if pool["hash_tag"]:
                    lines.append(f"  hash_tag: {json.dumps(pool['hash_tag'])}")
                lines.append("  servers:")
                for at, server in enumerate(recording["servers"]):
                    lines.append(f"   - {json.dumps('127.0.0.2:%d:%d %s' % (at + 1, server['weight'], server['ring_name']))}")
            with tempfile.NamedTemporaryFile("w", suffix=".yml") as config:
                config.write("\n".join(lines) + "\n")
                config.flush()
                routed = subprocess.run(
                    [MEMSTORE, "route", "--format", "json", "-c", config.name, "-"],
                    input=b"\n".join(key for _, key in numbered), stdout=subprocess.PIPE, check=True,
                ).stdout.decode().splitlines()
            self.assertEqual(len(routed), len(pools) * len(numbered))
            answers = iter(routed)
            for pool in pools:
                for at, key in numbered:
                    answer, letter = json.loads(next(answers)), pool["map"][at]
                    if letter != ".":
                        expected = recording["servers"][recording["alphabet"].index(letter)]["ring_name"]
                        self.assertEqual(answer["shard"], expected, (path.name, pool["hash"], pool["hash_tag"], key))
                        compared += 1
        self.assertGreater(compared, 100_000)


class Sources(unittest.TestCase):
    """As the tests of shard-discovery/src/source."""

    def test_servers_are_taken_apart_from_the_right(self):
        for line, address, weight, name in [
            ("127.0.0.1:6379:1", "127.0.0.1:6379", 1, "127.0.0.1:6379"),
            ("127.0.0.1:6379:3 alpha", "127.0.0.1:6379", 3, "alpha"),
            ("cache:11211:1", "cache:11211", 1, "cache"),
            ("h:07002:1", "h:7002", 1, "h:07002"),
            ("h:011211:1", "h:11211", 1, "h"),
            ("::1:6379:1", "[::1]:6379", 1, "::1:6379"),
            ("[::1]:6379:1 six", "[::1]:6379", 1, "six"),
            ("/run/a.sock:2 ua", "/run/a.sock", 2, "ua"),
            ("/run/a.sock:2", "/run/a.sock", 2, "/run/a.sock:"),
        ]:
            self.assertEqual(server(line), {"name": name, "address": address, "weight": weight}, line)
        for line in ["127.0.0.1:6379", "127.0.0.1:6379:0", "h:1:x", "h:99999:1", ":6379:1", "nonsense"]:
            with self.assertRaises(ValueError, msg=line):
                server(line)

    def test_lists_are_read_or_refused(self):
        names = lambda text: [shard["name"] for shard in servers(text)]
        for text in ["# two\n- h:1:1 a\n- 'h:2:1 b' # blank\n", '["h:1:1 a", "h:2:1 b"]', '---\n- "h:1:1 a"\n  - h:2:1 b # c\n']:
            self.assertEqual(names(text), ["a", "b"], text)
        for text in ["", "h:1:1 a", "- [h:1:1 a]", "- h:1:1 a\n- h:2:1 a", "- {a: b}", "- 'h", "- \"h:1:1 \\x61\"", "- a: b", "[1]", "-h:1:1"]:
            with self.assertRaises(ValueError, msg=text):
                servers(text)

    def test_a_template_stands_for_its_servers(self):
        shards = template("cache-{}.cache:6379", 11)
        self.assertEqual(shards[10], {"name": "shard-10", "address": "cache-10.cache:6379", "weight": 1})
        with self.assertRaises(ValueError):
            template("cache:6379", 3)

    def test_a_list_has_the_placements_of_the_same_pool(self):
        recording = load("named5_equal.json")
        pool = next(pool for pool in recording["pools"] if (pool["hash"], pool["distribution"], pool["hash_tag"]) == ("md5", "ketama", None))
        listed = servers("\n".join(f"- h:1:{one['weight']} {one['ring_name']}" for one in recording["servers"]))
        ring = ring_of(listed, hash="md5")
        for letter, key in zip(pool["map"], KEYS, strict=True):
            if letter != ".":
                self.assertEqual(ring.shard_for(key)["name"], recording["servers"][recording["alphabet"].index(letter)]["ring_name"])

    def test_prefixes_are_pinned_to_shards_or_to_tags(self):
        shards = servers("- h:1:1 b\n- h:2:1 c\n- h:3:1 {a}\n")
        plain, pin = ring_of(shards), {"rq:": "b", "rq:x": "c", "s:": "{a}"}
        pinned = ring_of(shards, pin=pin)
        for key, owner in [
            (b"rq:1", "b"), (b"rq:x1", "c"), (b"k", plain.shard_for(b"k")["name"]),
            # What is in braces is a tag, also where a shard has that name.
            (b"s:1", plain.shard_for(b"a")["name"]),
        ]:
            self.assertEqual(pinned.shard_for(key)["name"], owner, key)
        self.assertNotEqual(plain.shard_for(b"a")["name"], "{a}")
        # Without their shard they are where their prefix is.
        left = [{**shard, "ejected": shard["name"] == "b"} for shard in shards]
        self.assertEqual(ring_of(left, pin=pin).shard_for(b"rq:1"), ring_of(left).shard_for(b"rq:"))
        for target, distribution in [("d", "ketama"), ("{a}", "random")]:
            with self.assertRaises(ValueError):
                ring_of(shards, distribution=distribution, pin={"rq:": target})

    def test_a_file_is_followed_and_a_broken_one_changes_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            path, beside = pathlib.Path(folder, "servers.yml"), pathlib.Path(folder, "beside")

            def put(text):
                beside.write_text(text)
                beside.rename(path)

            put("- h:1:1 a\n")
            followed = Followed(path, lambda path: read_servers(path, distribution="modula"))
            self.assertFalse(followed.refresh())
            put("- h:1:1 a\n- broken\n")
            with self.assertRaises(ValueError):
                followed.refresh()
            self.assertEqual(len(followed.ring.shards), 1)
            put("- h:1:1 a\n- h:2:1 b\n")
            self.assertTrue(followed.refresh())
            self.assertEqual(len(followed.ring.shards), 2)


class Web(http.server.BaseHTTPRequestHandler):
    """Serves `server.document` under its ETag, or `server.raw`, which is sent as it is."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers["If-None-Match"]))
        if self.server.raw is not None:
            self.wfile.write(self.server.raw)
            return
        tag = f'"{hash(self.server.document)}"'
        is_same = self.headers["If-None-Match"] == tag
        self.send_response(304 if is_same else 200)
        if self.server.has_tags:
            self.send_header("ETag", tag)
        body = b"" if is_same else self.server.document.encode()
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


class AtAUrl(unittest.TestCase):
    """As the tests of shard-discovery/src/source/http.rs."""

    def setUp(self):
        self.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
        self.web.document, self.web.raw, self.web.has_tags, self.web.asked = '["h:1:1 a"]', None, True, []
        self.url = f"http://127.0.0.1:{self.web.server_port}/list?token=1"
        thread = threading.Thread(target=self.web.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.web.server_close)
        self.addCleanup(self.web.shutdown)

    def polled(self):
        return Polled(self.url, lambda text: of_url(text, "cache", distribution="modula"))

    def test_a_list_is_polled_with_its_tag_and_a_broken_one_changes_nothing(self):
        polled = self.polled()
        self.assertEqual([shard["name"] for shard in polled.ring.shards], ["a"])
        first = polled.tag
        self.assertFalse(polled.refresh())
        self.assertEqual(self.web.asked, [("/list?token=1", None), ("/list?token=1", first)])
        self.web.document = '["h:1:1 a", "broken"]'
        for _ in range(2):
            with self.assertRaises(ValueError):
                polled.refresh()
            self.assertEqual(len(polled.ring.shards), 1)
        self.assertEqual([tag for _, tag in self.web.asked[2:]], [first, None])
        self.web.document = '["h:1:1 a", "h:2:1 b"]'
        self.assertTrue(polled.refresh())
        self.assertEqual(len(polled.ring.shards), 2)

    def test_the_same_list_without_a_tag_is_no_change(self):
        self.web.has_tags = False
        polled = self.polled()
        self.assertFalse(polled.refresh())
        self.web.document = '["h:2:1 b"]'
        self.assertTrue(polled.refresh())

    def test_a_topology_document_says_how_keys_are_dealt_and_ejections_do_not_count(self):
        shards = [{"name": name, "address": "h:1", "ejected": name == "a"} for name in "ab"]
        pool = {"protocol": "redis", "hash": "md5", "distribution": "modula", "shards": shards}
        self.web.document = json.dumps({"version": 1, "pools": {"cache": pool}})
        ring = self.polled().ring
        self.assertEqual((ring.distribution, len(ring.live)), ("modula", 2))
        with self.assertRaises(ValueError):
            of_url(self.web.document, "other")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            self.assertEqual(main(["--url", self.url, "cache", "k"]), 0)
        self.assertIn("k -> ", printed.getvalue())

    def test_answers_that_are_none_are_refused(self):
        for raw in [
            b"HTTP/1.0 500 x\r\n\r\n[]", b"HTTP/1.0 304 x\r\n\r\n", b'HTTP/1.0 200 x\r\nContent-Length: 99\r\n\r\n["h:1:1"]', b"nonsense\r\n\r\n",
            b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]", b"HTTP/1.0 200 x\r\n\r\n\xff",
            b"HTTP/1.0 200 x\r\n\r\n" + b" " * (ANSWER_MAX + 1),
        ]:
            self.web.raw = raw
            with self.assertRaises(ValueError, msg=raw[:60]):
                poll(self.url)
        for url in ["https://127.0.0.1/", "127.0.0.1:1", "http://user:word@127.0.0.1/", "http://:80/"]:
            with self.assertRaises(ValueError, msg=url):
                poll(url)
        self.web.raw = b""
        with self.assertRaises((OSError, ValueError)):
            poll(self.url)


if __name__ == "__main__":
    unittest.main()
