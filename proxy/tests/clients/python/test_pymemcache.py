"""pymemcache with its defaults. It sends nothing on its own, and noreply with every change but cas, incr and decr."""

import os
import unittest

from pymemcache.client.base import Client, PooledClient
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)

ADDRESS = (os.environ["MEMSTORE_HOST"], int(os.environ["MEMSTORE_MEMCACHE_PORT"]))
BINARY = bytes(range(256)) + b"\r\nEND\r\nVALUE k 0 1\r\n"
# A server may hold no larger item than 1 MiB, its key and head included.
LARGE = os.urandom(900_000)
TOO_LARGE = bytes(1_100_000)


class Commands:
    """What every kind of client has to be able to do."""

    def setUp(self):
        self.client = self.kind(ADDRESS)
        self.addCleanup(self.client.close)

    def test_keys_of_all_shards(self):
        client = self.client
        values = {f"pymemcache:{number}": b"%d!" % number for number in range(300)}
        for key, value in values.items():
            self.assertTrue(client.set(key, value))
        for key, value in values.items():
            self.assertEqual(client.get(key), value)
        self.assertEqual(client.get_many([*values, "missing"]), values)
        self.assertEqual(client.get_many(["missing:1", "missing:2"]), {})
        self.assertEqual(client.set_many({key: b"x" for key in values}), [])
        self.assertEqual(client.get_many(list(values)), {key: b"x" for key in values})
        self.assertEqual(set(client.gets_many(list(values))), set(values))
        self.assertTrue(client.delete_many(list(values)[:200]))
        self.assertEqual(set(client.get_many(list(values))), set(list(values)[200:]))

    def test_changes(self):
        client = self.client
        # By default no reply is waited for, and everything is said to have gone well.
        for noreply in (False, None):
            with self.subTest(noreply=noreply):
                so = [noreply is None or each for each in (True, False)]
                client.delete("change")
                self.assertIs(client.replace("change", b"no", noreply=noreply), so[1])
                self.assertIs(client.append("change", b"no", noreply=noreply), so[1])
                self.assertIs(client.prepend("change", b"no", noreply=noreply), so[1])
                self.assertIs(client.touch("change", 100, noreply=noreply), so[1])
                self.assertIs(client.delete("change", noreply=noreply), so[1])
                self.assertIsNone(client.get("change"))
                self.assertIs(client.add("change", b"b", noreply=noreply), so[0])
                self.assertIs(client.add("change", b"no", noreply=noreply), so[1])
                self.assertIs(client.append("change", b"c", noreply=noreply), so[0])
                self.assertIs(client.prepend("change", b"a", noreply=noreply), so[0])
                self.assertEqual(client.get("change"), b"abc")
                self.assertIs(client.replace("change", b"new", expire=100, noreply=noreply), so[0])
                self.assertIs(client.touch("change", 1000, noreply=noreply), so[0])
                self.assertEqual(client.get("change"), b"new")
                self.assertIs(client.set("change", b"gone", expire=-1, noreply=noreply), so[0])
                self.assertIsNone(client.get("change"))

    def test_cas(self):
        client = self.client
        client.delete("cas")
        self.assertEqual(client.gets("cas"), (None, None))
        self.assertIsNone(client.cas("cas", b"new", b"1"))
        client.set("cas", b"old")
        value, unique = client.gets("cas")
        self.assertEqual(value, b"old")
        self.assertIs(client.cas("cas", b"new", unique), True)
        self.assertIs(client.cas("cas", b"newer", unique), False)
        self.assertEqual(client.gets_many(["cas"])["cas"], client.gets("cas"))
        self.assertEqual(client.get("cas"), b"new")

    def test_numbers(self):
        client = self.client
        client.delete("number")
        self.assertIsNone(client.incr("number", 1))
        client.set("number", b"10")
        self.assertEqual(client.incr("number", 32), 42)
        self.assertEqual(client.decr("number", 2), 40)
        self.assertEqual(client.decr("number", 100), 0)
        client.incr("number", 7, noreply=True)
        self.assertEqual(client.incr("number", 2**64 - 1), 6)
        client.set("number", b"text")
        with self.assertRaisesRegex(MemcacheClientError, "non-numeric"):
            client.incr("number", 1)

    def test_any_byte_is_kept(self):
        self.client.set("binary", BINARY)
        self.client.set("empty", b"")
        self.client.set("numbered", b"x", flags=2**32 - 1)
        self.assertEqual(self.client.get_many(["binary", "empty"]), {"binary": BINARY, "empty": b""})
        self.assertEqual(self.client.raw_command("get numbered", "END\r\n"), b"VALUE numbered 4294967295 1\r\nx\r\n")

    def test_large_values(self):
        client = self.client
        keys = [f"large:{number}" for number in range(10)]
        for key in keys:
            self.assertTrue(client.set(key, LARGE, noreply=False))
        self.assertEqual(client.get_many(keys), dict.fromkeys(keys, LARGE))
        with self.assertRaisesRegex(MemcacheServerError, "object too large for cache"):
            client.set(keys[0], TOO_LARGE, noreply=False)
        client.set(keys[1], b"small")
        # Nobody hears of this one; what comes next must not be taken for its value, nor its reply for the next one's.
        client.set(keys[2], TOO_LARGE)
        self.assertEqual(client.get_many(keys[:4]), {keys[1]: b"small", keys[3]: LARGE})
        client.delete_many(keys)

    def test_keys_that_cannot_be(self):
        for key in ("k" * 251, "two words", "line\r\nend", "nul\0", "schlüssel"):
            with self.subTest(key), self.assertRaises(MemcacheIllegalInputError):
                self.client.get(key)
        longest, longer = "k" * 250, "k" * 251
        self.client.set(longest, b"v")
        self.assertEqual(self.client.get_many([longest, "missing"]), {longest: b"v"})
        # Past the client's own check.
        for command in (f"get {longer}", f"get a {longer} b", f"touch {longer} 0", f"delete {longer}", f"incr {longer} 1"):
            with self.subTest(command), self.assertRaises(MemcacheClientError):
                self.client.raw_command(command)
        self.assertEqual(self.client.get(longest), b"v")

    def test_get_and_touch(self):
        # The client has no methods for these.
        for number in range(30):
            self.client.set(f"gat:{number}", b"v")
        keys = " ".join(f"gat:{number}" for number in range(30))
        values = b"".join(b"VALUE gat:%d 0 1\r\nv\r\n" % number for number in range(30))
        self.assertEqual(self.client.raw_command(f"gat 100 {keys} missing", "END\r\n"), values)
        self.assertRegex(self.client.raw_command("gats 100 gat:7 missing", "END\r\n"), rb"^VALUE gat:7 0 1 \d+\r\nv\r\n$")

    def test_all_shards(self):
        client = self.client
        keys = [f"flush:{number}" for number in range(100)]
        for options in ({}, {"noreply": False}):
            client.set_many(dict.fromkeys(keys, b"v"))
            self.assertEqual(len(client.get_many(keys)), 100)
            self.assertTrue(client.flush_all(**options))
            self.assertEqual(client.get_many(keys), {})
        self.assertRegex(client.version(), rb"^\d+\.\d+\.\d+$")

    def test_statistics(self):
        statistics = self.client.stats()
        self.assertEqual(statistics[b"pool"], b"pool")
        self.assertEqual(statistics[b"shards"], 3)
        self.assertGreaterEqual(statistics[b"curr_connections"], 1)
        shards = self.client.stats("shards")
        self.assertEqual({shards[b"shard-%d:curr_connections" % number] > 0 for number in (1, 2, 3)}, {True})
        self.assertEqual(self.client.stats("shards", "settings")[b"shard-2:udpport"], 0)

    def test_errors_leave_the_connection_usable(self):
        client = self.client
        with self.assertRaises(MemcacheUnknownCommandError):
            client.raw_command("nosuch x")
        with self.assertRaisesRegex(MemcacheClientError, "is refused"):
            client.raw_command("slabs reassign 1 2")
        with self.assertRaisesRegex(MemcacheClientError, "is refused"):
            client.shutdown()
        with self.assertRaises(MemcacheClientError):
            client.stats("extstore")
        with self.assertRaises(MemcacheClientError):
            client.set("k", b"v", expire=0, flags=2**32, noreply=False)
        client.set("usable", b"v")
        self.assertEqual(client.get("usable"), b"v")

    def test_quit(self):
        # Unanswered, it could be overtaken by the next connection's request.
        self.client.set("before", b"v", noreply=False)
        self.client.quit()
        self.assertEqual(self.client.get("before"), b"v")

    def test_as_a_mapping(self):
        self.client["mapped"] = b"v"
        self.assertEqual(self.client["mapped"], b"v")
        del self.client["mapped"]
        with self.assertRaises(KeyError):
            self.client["mapped"]


class Defaults(Commands, unittest.TestCase):
    kind = Client


class Pooled(Commands, unittest.TestCase):
    kind = PooledClient


class Unicode(unittest.TestCase):
    def test_keys(self):
        client = Client(ADDRESS, allow_unicode_keys=True)
        self.addCleanup(client.close)
        keys = [f"schlüssel:{number}" for number in range(30)]
        self.assertEqual(client.set_many(dict.fromkeys(keys, b"v")), [])
        self.assertEqual(client.get_many(keys), dict.fromkeys(keys, b"v"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
