"""Python, and the proxy's `memstore route` (MEMSTORE, else target/debug/memstore), agree with placements recorded from nutcracker.

The Rust library is held against the same recordings by tests of its own.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from memstore_ring import HASHES, Ring

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


if __name__ == "__main__":
    unittest.main()
