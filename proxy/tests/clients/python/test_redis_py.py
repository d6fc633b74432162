"""redis-py with its defaults. It sends HELLO 3, CLIENT MAINT_NOTIFICATIONS and CLIENT SETINFO before anything else."""

import os
import threading
import time
import unittest

import redis
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

HOST = os.environ["MEMSTORE_HOST"]
PORT = int(os.environ["MEMSTORE_PORT"])
AUTH_PORT = int(os.environ["MEMSTORE_AUTH_PORT"])
PASSWORD = os.environ["MEMSTORE_PASSWORD"]
BINARY = bytes(range(256)) + b"\r\n$-1\r\n"


class Commands:
    """What every kind of connection has to be able to do."""

    options = {}

    def setUp(self):
        self.client = redis.Redis(HOST, PORT, **self.options)
        self.addCleanup(self.client.close)
        self.decoded = self.options.get("decode_responses", False)

    def seen(self, text):
        return text if self.decoded else text.encode()

    def test_keys_of_all_shards(self):
        keys = [f"py:{number}" for number in range(300)]
        for key in keys:
            self.assertTrue(self.client.set(key, key + "!"))
        self.assertEqual(self.client.get(keys[7]), self.seen("py:7!"))
        self.assertEqual(self.client.mget(keys + ["missing"]), [self.seen(key + "!") for key in keys] + [None])
        self.assertTrue(self.client.mset({key: "x" for key in keys}))
        self.assertEqual(self.client.exists(*keys), 300)
        self.assertEqual(self.client.touch(*keys), 300)
        self.assertEqual(self.client.delete(*keys[:200], "missing"), 200)
        self.assertEqual(self.client.unlink(*keys[200:250]), 50)

    def test_types(self):
        client = self.client
        client.delete("hash", "list", "zset", "set", "number")
        self.assertEqual(client.hset("hash", mapping={"f": "v", "n": 1}), 2)
        self.assertEqual(client.hgetall("hash"), {self.seen("f"): self.seen("v"), self.seen("n"): self.seen("1")})
        self.assertEqual(client.rpush("list", "a", "b", "c"), 3)
        self.assertEqual(client.lrange("list", 0, -1), [self.seen(each) for each in "abc"])
        self.assertEqual(client.zadd("zset", {"a": 1, "b": 2.5}), 2)
        scores = [(self.seen("a"), 1.0), (self.seen("b"), 2.5)]
        self.assertEqual([tuple(pair) for pair in client.zrange("zset", 0, -1, withscores=True)], scores)
        self.assertEqual(client.zscore("zset", "b"), 2.5)
        self.assertEqual(client.sadd("set", "x", "y"), 2)
        self.assertEqual(set(client.smembers("set")), {self.seen("x"), self.seen("y")})
        self.assertEqual(client.incrby("number", 41), 41)
        self.assertIsNone(client.get("missing"))
        self.assertEqual(sorted(client.hscan_iter("hash")), sorted(client.hgetall("hash").items()))

    def test_expiry(self):
        self.client.set("fleeting", "v", ex=100)
        self.assertTrue(0 < self.client.ttl("fleeting") <= 100)
        self.assertTrue(self.client.expire("fleeting", 1000, gt=True))
        self.assertTrue(self.client.persist("fleeting"))
        self.assertEqual(self.client.ttl("fleeting"), -1)

    def test_scripts(self):
        self.assertEqual(self.client.eval("return {KEYS[1], ARGV[1], 7}", 1, "k", "a"), [self.seen("k"), self.seen("a"), 7])
        with self.assertRaises(redis.ResponseError):
            self.client.eval("return redis.error_reply('mine')", 1, "k")

    def test_sharded_channels(self):
        names = [f"py-sharded-{number}" for number in range(6)]
        with self.client.pubsub() as listener:
            listener.ssubscribe(*names)
            for _ in names:
                self.assertEqual(listener.get_message(timeout=10)["type"], "ssubscribe")
            self.assertEqual(self.client.pubsub_shardnumsub(*names), [(self.seen(name), 1) for name in names])
            for name in names:
                self.assertEqual(self.client.spublish(name, name + "!"), 1)
            heard = [listener.get_message(timeout=10) for _ in names]
            self.assertEqual({each["type"] for each in heard}, {"smessage"})
            self.assertEqual(sorted(each["data"] for each in heard), [self.seen(name + "!") for name in names])
            listener.sunsubscribe()
            for _ in names:
                self.assertEqual(listener.get_message(timeout=10)["type"], "sunsubscribe")

    def test_events_of_keys(self):
        self.assertTrue(self.client.config_set("notify-keyspace-events", "E$"))
        self.assertLessEqual(set("E$"), set(self.client.config_get("notify-keyspace-events")["notify-keyspace-events"]))
        keys = [f"py-event-{number}" for number in range(20)]
        with self.client.pubsub() as listener:
            listener.psubscribe("__keyevent@*__:set")
            self.assertEqual(listener.get_message(timeout=10)["type"], "psubscribe")
            for key in keys:
                self.client.set(key, "x")
            heard = [listener.get_message(timeout=10)["data"] for _ in keys]
            self.assertEqual(sorted(heard), sorted(self.seen(key) for key in keys))

    def test_a_thousand_in_one_pipeline(self):
        with self.client.pipeline(transaction=False) as pipeline:
            for number in range(500):
                pipeline.set(f"pipe:{number}", number)
            for number in range(500):
                pipeline.get(f"pipe:{number}")
            replies = pipeline.execute()
        self.assertEqual(replies, [True] * 500 + [self.seen(str(number)) for number in range(500)])

    def test_transactions(self):
        self.client.delete("{tx}untouched")
        with self.client.pipeline() as pipeline:
            pipeline.set("{tx}touched", 1)
            pipeline.incr("{tx}touched")
            pipeline.get("{tx}untouched")
            self.assertEqual(pipeline.execute(), [True, 2, None])
        with self.client.pipeline() as pipeline:
            pipeline.set("{tx}untouched", 1)
            for number in range(20):
                pipeline.set(f"tx:{number}", number)
            with self.assertRaisesRegex(redis.RedisError, "CROSSSLOT|same shard"):
                pipeline.execute()
        self.assertIsNone(self.client.get("{tx}untouched"))

    def test_keys_that_are_watched(self):
        key = "{watch}counter"
        self.client.set(key, 0)
        with self.client.pipeline() as pipeline:
            pipeline.watch(key)
            value = int(pipeline.get(key))
            self.client.incr(key)
            pipeline.multi()
            pipeline.set(key, value + 1)
            with self.assertRaises(redis.WatchError):
                pipeline.execute()
            pipeline.watch(key)
            pipeline.unwatch()
            pipeline.watch(key, "{watch}other")
            pipeline.multi()
            pipeline.incr(key)
            self.assertEqual(pipeline.execute(), [2])
            with self.assertRaisesRegex(redis.RedisError, "CROSSSLOT|same shard"):
                pipeline.watch(*[f"tx:{number}" for number in range(20)])
            pipeline.unwatch()

        def count_up(pipeline):
            value = int(pipeline.get(key))
            pipeline.multi()
            pipeline.set(key, value + 1)

        def many():
            client = redis.Redis(HOST, PORT, **self.options)
            for _ in range(25):
                client.transaction(count_up, key)
            client.close()

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(int(self.client.get(key)), 102)

    def test_errors_of_shards_and_ours_leave_the_connection_usable(self):
        self.client.set("text", "x")
        with self.assertRaisesRegex(redis.ResponseError, "WRONGTYPE"):
            self.client.lpush("text", "y")
        with self.assertRaisesRegex(redis.ResponseError, "unknown command"):
            self.client.execute_command("NOSUCH", "x")
        with self.assertRaisesRegex(redis.ResponseError, "CROSSSLOT|same shard"):
            self.client.sinter([f"py:{number}" for number in range(300)])
        self.assertEqual(self.client.get("text"), self.seen("x"))

    def test_the_connection_itself(self):
        client = self.client
        self.assertTrue(client.ping())
        self.assertEqual(client.echo("hello"), self.seen("hello"))
        self.assertEqual(client.info()["redis_mode"], "standalone")
        self.assertEqual(client.info("server")["redis_version"].count("."), 2)
        self.assertEqual(client.info("replication")["role"], "master")
        self.assertGreater(client.client_id(), 0)
        self.assertTrue(client.client_setname("tester"))
        self.assertIn(client.client_getname(), ("tester", b"tester"))
        self.assertIn("tester", [each["name"] for each in client.client_list()])
        self.assertEqual(client.client_info()["lib-name"], "redis-py")
        self.assertEqual(client.config_get("databases"), {"databases": "16"})
        self.assertEqual(client.command_count(), len(client.command()))
        self.assertEqual(len(client.time()), 2)


class Defaults(Commands, unittest.TestCase):
    def test_any_byte_is_kept(self):
        self.client.set(BINARY, BINARY)
        self.assertEqual(self.client.get(BINARY), BINARY)
        self.assertEqual(self.client.mget([BINARY, b""]), [BINARY, None])


class Resp2(Commands, unittest.TestCase):
    options = {"protocol": 2}


class Resp3(Commands, unittest.TestCase):
    options = {"protocol": 3}

    def test_types_that_only_resp3_has(self):
        self.client.zadd("zset3", {"a": 1.5})
        self.client.sadd("set3", "x")
        self.client.hset("hash3", "f", "v")
        self.assertIsInstance(self.client.execute_command("ZSCORE", "zset3", "a"), float)
        self.assertIsInstance(self.client.hgetall("hash3"), dict)
        script = "redis.setresp(3); return redis.call('ZSCORE', KEYS[1], 'a')"
        self.assertEqual(self.client.eval(script, 1, "zset3"), 1.5)


class Decoded(Commands, unittest.TestCase):
    options = {"decode_responses": True}


class Databases(unittest.TestCase):
    def test_each_database_has_keys_of_its_own(self):
        first, fourth = (redis.Redis(HOST, PORT, db=number) for number in (0, 4))
        for number in range(30):
            fourth.set(f"db:{number}", "four")
        self.assertEqual(first.exists(*(f"db:{number}" for number in range(30))), 0)
        self.assertEqual(fourth.mget("db:1", "db:2"), [b"four"] * 2)
        with self.assertRaisesRegex(redis.ResponseError, "out of range"):
            redis.Redis(HOST, PORT, db=16).get("x")


class Caching(unittest.TestCase):
    """A cache of its own (`cache_config`), which it uses with servers from 7.4 on: every connection says CLIENT TRACKING ON."""

    def setUp(self):
        self.writer = redis.Redis(HOST, PORT, decode_responses=True)
        self.addCleanup(self.writer.close)
        until = time.monotonic() + 60
        # Once the shards have said who they are.
        while "used_memory" not in self.writer.info("memory") and time.monotonic() < until:
            time.sleep(0.1)
        version = self.writer.info("server")["redis_version"]
        if tuple(map(int, version.split(".")[:2])) < (7, 4):
            self.skipTest(f"redis-py keeps nothing that servers of version {version} have said")
        self.client = redis.Redis(HOST, PORT, decode_responses=True, cache_config=CacheConfig())
        self.addCleanup(self.client.close)
        self.keys = [f"cache:{number}" for number in range(60)]
        self.writer.mset({key: "old" for key in self.keys})

    def becomes(self, key, value):
        until = time.monotonic() + 10
        while self.client.get(key) != value:
            self.assertLess(time.monotonic(), until, key)

    def reads(self):
        return int(self.writer.info("stats")["total_commands_processed"])

    def test_what_it_has_read_is_read_once(self):
        self.assertEqual([self.client.get(key) for key in self.keys], ["old"] * 60)
        before = self.reads()
        self.assertEqual([self.client.get(key) for key in self.keys], ["old"] * 60)
        self.assertLess(self.reads() - before, 10)
        self.assertEqual(self.client.get_cache().size, 60)

    def test_it_is_told_of_changes(self):
        for key in self.keys:
            self.becomes(key, "old")
            self.writer.set(key, "new")
            self.becomes(key, "new")
            self.client.set(key, "own")
            self.becomes(key, "own")
        self.assertEqual(self.client.mget(self.keys), ["own"] * 60)
        self.writer.delete(*self.keys)
        self.becomes(self.keys[0], None)
        self.assertEqual(self.client.mget(self.keys), [None] * 60)

    def test_threads_share_what_was_read(self):
        ended = threading.Event()
        failed = []

        def read():
            while not ended.is_set():
                try:
                    self.client.mget(self.keys[:10])
                    self.client.get(self.keys[0])
                except Exception as error:  # told below
                    failed.append(error)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(200):
            self.writer.set(self.keys[number % 10], number)
        ended.set()
        for reader in readers:
            reader.join()
        self.assertEqual(failed, [])
        for place in range(10):
            self.becomes(self.keys[place], str(190 + place))


class Passwords(unittest.TestCase):
    def test_the_right_one(self):
        for options in ({}, {"username": "default"}, {"protocol": 2}, {"protocol": 2, "username": "default"}):
            with self.subTest(options):
                client = redis.Redis(HOST, AUTH_PORT, password=PASSWORD, **options)
                for number in range(30):
                    client.set(f"auth:{number}", number)
                self.assertEqual(client.get("auth:7"), b"7")

    def test_a_wrong_one_and_none(self):
        # It would try ten times, in growing intervals.
        once = {"retry": Retry(NoBackoff(), 0)}
        for options in (once, {"protocol": 2, **once}):
            with self.subTest(options):
                with self.assertRaises(redis.AuthenticationError):
                    redis.Redis(HOST, AUTH_PORT, password="wrong", **options).get("x")
                with self.assertRaises(redis.AuthenticationError):
                    redis.Redis(HOST, AUTH_PORT, username="nosuch", password=PASSWORD, **options).get("x")
                with self.assertRaisesRegex(redis.RedisError, "(?i)authentication required|already authenticated"):
                    redis.Redis(HOST, AUTH_PORT, **options).get("x")


if __name__ == "__main__":
    unittest.main(verbosity=2)
