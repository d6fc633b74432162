"""Python agrees with placements recorded from nutcracker, which the proxy and the Rust library are held against too."""

import json
import pathlib
import unittest

from memstore_ring import HASHES, Ring

VECTORS = pathlib.Path(__file__).resolve().parents[3] / "shard-discovery/tests/vectors"


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


if __name__ == "__main__":
    unittest.main()
