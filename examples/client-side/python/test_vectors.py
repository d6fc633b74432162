"""Python, and the proxy's `memstore route` (MEMSTORE, else target/debug/memstore), agree with placements recorded from nutcracker.

The Rust library is held against the same recordings by tests of its own.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from memstore_ring import HASHES, Followed, Ring, read_servers, ring_of, server, servers, template

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


if __name__ == "__main__":
    unittest.main()
