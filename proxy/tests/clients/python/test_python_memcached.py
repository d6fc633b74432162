"""python-memcached with its defaults. It sends nothing on its own, and marks what type a value has in its flags."""

import os
import unittest

import memcache

ADDRESS = f"{os.environ['MEMSTORE_HOST']}:{os.environ['MEMSTORE_MEMCACHE_PORT']}"


class Defaults(unittest.TestCase):
    def setUp(self):
        self.client = memcache.Client([ADDRESS])
        self.addCleanup(self.client.disconnect_all)

    def test_keys_of_all_shards(self):
        client = self.client
        values = {f"python-memcached:{number}": f"{number}!" for number in range(300)}
        for key, value in values.items():
            self.assertTrue(client.set(key, value))
        for key, value in values.items():
            self.assertEqual(client.get(key), value)
        self.assertEqual(client.get_multi([*values, "missing"]), values)
        self.assertEqual(client.set_multi(dict.fromkeys(values, "x")), [])
        self.assertEqual(client.get_multi(values), dict.fromkeys(values, "x"))
        self.assertEqual(client.delete_multi(list(values)[:200]), 1)
        self.assertEqual(set(client.get_multi(values)), set(list(values)[200:]))
        self.assertEqual(client.set_multi({"1": "one", "2": "two"}, key_prefix="prefix:"), [])
        self.assertEqual(client.get_multi(["1", "2", "3"], key_prefix="prefix:"), {"1": "one", "2": "two"})

    def test_types(self):
        values = {
            "bytes": bytes(range(256)) + b"\r\nEND\r\n",
            "text": "…",
            "number": 42,
            "negative": -1,
            "pickled": {"a": [1, None, ("b",)]},
            "empty": "",
        }
        for key, value in values.items():
            self.assertTrue(self.client.set(key, value))
            self.assertEqual(self.client.get(key), value)
        self.assertEqual(self.client.get_multi(values), values)

    def test_changes(self):
        client = self.client
        client.delete("change")
        self.assertIsNone(client.get("change"))
        self.assertFalse(client.replace("change", "no"))
        self.assertFalse(client.append("change", "no"))
        self.assertFalse(client.prepend("change", "no"))
        self.assertFalse(client.touch("change", 100))
        self.assertFalse(client.delete("change"))
        self.assertTrue(client.add("change", "b"))
        self.assertFalse(client.add("change", "no"))
        self.assertTrue(client.append("change", "c"))
        self.assertTrue(client.prepend("change", "a"))
        self.assertEqual(client.get("change"), "abc")
        self.assertTrue(client.replace("change", "new", time=100))
        self.assertTrue(client.touch("change", 1000))
        self.assertEqual(client.get("change"), "new")
        self.assertTrue(client.set("change", "unheard", noreply=True))
        self.assertEqual(client.get("change"), "unheard")
        self.assertTrue(client.delete("change", noreply=True))
        self.assertIsNone(client.get("change"))

    def test_numbers(self):
        client = self.client
        client.delete("count")
        self.assertIsNone(client.incr("count"))
        self.assertTrue(client.set("count", "10"))
        self.assertEqual(client.incr("count"), 11)
        self.assertEqual(client.incr("count", 31), 42)
        self.assertEqual(client.decr("count", 2), 40)
        self.assertEqual(client.decr("count", 100), 0)
        self.assertIsNone(client.incr("count", 7, noreply=True))
        self.assertEqual(client.incr("count", 0), 7)

    def test_large_values(self):
        large = os.urandom(900_000)
        keys = [f"large:{number}" for number in range(10)]
        for key in keys:
            self.assertTrue(self.client.set(key, large))
        self.assertEqual(self.client.get_multi(keys), dict.fromkeys(keys, large))
        self.assertTrue(self.client.delete_multi(keys))

    def test_too_large_a_value(self):
        # Beyond the client's own limit it does not ask the server.
        self.client.server_max_value_length = 0
        self.assertFalse(self.client.set("large", bytes(1_100_000)))
        self.assertTrue(self.client.set("small", "v"))
        self.assertEqual(self.client.get("small"), "v")

    def test_all_shards(self):
        client = self.client
        keys = [f"flush:{number}" for number in range(100)]
        self.assertEqual(client.set_multi(dict.fromkeys(keys, "v")), [])
        self.assertEqual(len(client.get_multi(keys)), 100)
        client.flush_all()
        self.assertEqual(client.get_multi(keys), {})

    def test_statistics(self):
        [(_, statistics)] = self.client.get_stats()
        self.assertEqual(statistics["pool"], "pool")
        self.assertEqual(statistics["shards"], "3")
        [(_, statistics)] = self.client.get_stats("shards")
        self.assertEqual(sum(name.endswith(":pid") for name in statistics), 3)

    def test_quit(self):
        self.client.set("before", "v")
        self.client.quit_all()
        self.assertEqual(self.client.get("before"), "v")


class Cas(unittest.TestCase):
    def test_one_changes_what_the_other_has_read(self):
        # Only then does the client keep the unique numbers it gets.
        client, other = (memcache.Client([ADDRESS], cache_cas=True) for _ in range(2))
        for each in (client, other):
            self.addCleanup(each.disconnect_all)
        for number in range(30):
            key = f"cas:{number}"
            self.assertTrue(client.set(key, "old"))
            self.assertEqual([client.gets(key), other.gets(key)], ["old", "old"])
            self.assertTrue(client.cas(key, "new"))
            self.assertFalse(other.cas(key, "newer"))
            self.assertEqual(other.gets(key), "new")
            self.assertTrue(other.cas(key, "newest"))
            self.assertEqual(client.get(key), "newest")


if __name__ == "__main__":
    unittest.main(verbosity=2)
