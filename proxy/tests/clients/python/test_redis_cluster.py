"""RedisCluster of redis-py with its defaults, where the proxy poses as a cluster: over plain shards, and over a Redis Cluster."""

import os
import threading
import time
import unittest

from redis.cluster import ClusterNode, RedisCluster

HOST = os.environ["MEMSTORE_HOST"]
PLAIN = int(os.environ["MEMSTORE_FACADE_PORT"])
CLUSTER = int(os.environ["MEMSTORE_FACADE_CLUSTER_PORT"])


class Commands:
    port = 0
    options = {}

    def setUp(self):
        self.client = RedisCluster(host=HOST, port=self.port, **self.options)
        self.addCleanup(self.client.close)

    def test_there_is_one_node(self):
        self.assertEqual([(node.host, node.port, node.server_type) for node in self.client.get_nodes()], [(HOST, self.port, "primary")])
        self.assertEqual(self.client.cluster_info()["cluster_state"], "ok")
        self.assertEqual(self.client.info("server")["redis_mode"], "cluster")
        [(address, line)] = self.client.cluster_nodes().items()
        self.assertEqual((address, line["slots"]), (f"{HOST}:{self.port}", [["0", "16383"]]))

    def test_keys_of_all_slots(self):
        keys = [f"pycluster:{number}" for number in range(300)]
        for key in keys:
            self.assertTrue(self.client.set(key, key + "!"))
            self.assertEqual(self.client.get(key), (key + "!").encode())
        self.assertTrue(all(self.client.mset_nonatomic({key: "x" for key in keys})))
        self.assertEqual(self.client.mget_nonatomic(keys), [b"x"] * 300)
        self.assertEqual(self.client.exists(*keys), 300)
        self.assertEqual(self.client.delete(*keys[:200], "missing"), 200)
        found = set(self.client.scan_iter("pycluster:*", count=50))
        self.assertEqual(found, {key.encode() for key in keys[200:]})
        self.assertEqual(sorted(self.client.keys("pycluster:*")), sorted(found))
        self.assertGreaterEqual(self.client.dbsize(), 100)

    def test_pipelines(self):
        with self.client.pipeline() as pipeline:
            for number in range(200):
                pipeline.set(f"pypipe:{number}", number)
            for number in range(200):
                pipeline.get(f"pypipe:{number}")
            replies = pipeline.execute()
        self.assertEqual(replies, [True] * 200 + [str(number).encode() for number in range(200)])
        with self.client.pipeline(transaction=True) as pipeline:
            pipeline.set("{py}a", 1).incr("{py}a").get("{py}a")
            # What it makes of OK in a transaction is its own.
            self.assertEqual(pipeline.execute()[1:], [2, b"2"])

    def test_scripts(self):
        double = self.client.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
        for number in range(20):
            self.client.set(f"pyscript:{number}", 1)
            self.assertEqual(double(keys=[f"pyscript:{number}"], args=[2]), 3)

    def test_channels(self):
        with self.client.pubsub() as listener:
            listener.subscribe("pychannel")
            self.assertEqual(listener.get_message(timeout=10)["type"], "subscribe")
            self.client.publish("pychannel", "hello")
            self.assertEqual(listener.get_message(timeout=10)["data"], b"hello")

    def test_sharded_channels(self):
        names = [f"pysharded:{number}" for number in range(6)]
        with self.client.pubsub() as listener:
            for name in names:
                listener.ssubscribe(name)
            self.next_of(listener, "ssubscribe", len(names))
            for name in names:
                self.client.spublish(name, name)
            told = self.next_of(listener, "smessage", len(names))
            self.assertEqual(sorted(message["data"].decode() for message in told), names)

    def next_of(self, listener, kind, count):
        messages, end = [], time.monotonic() + 10
        while len(messages) < count and time.monotonic() < end:
            message = listener.get_sharded_message(timeout=1)
            if message:
                self.assertEqual(message["type"], kind)
                messages.append(message)
        self.assertEqual(len(messages), count)
        return messages

    def test_clients_that_wait(self):
        popped = []
        waiting = threading.Thread(target=lambda: popped.append(self.client.blpop("pylist", timeout=10)))
        waiting.start()
        self.client.rpush("pylist", "x")
        waiting.join()
        self.assertEqual([element for _, element in popped], [b"x"])

    def test_reads_from_replicas(self):
        client = RedisCluster(startup_nodes=[ClusterNode(HOST, self.port)], read_from_replicas=True)
        self.addCleanup(client.close)
        client.set("pyread", 1)
        self.assertEqual(client.get("pyread"), b"1")


class OverPlainShards(Commands, unittest.TestCase):
    port = PLAIN


class OverPlainShardsInResp2(Commands, unittest.TestCase):
    port = PLAIN
    options = {"protocol": 2}


class OverACluster(Commands, unittest.TestCase):
    port = CLUSTER

    def test_keys_of_slots(self):
        self.client.set("{slot}a", 1)
        self.client.set("{slot}b", 1)
        slot = self.client.cluster_keyslot("slot")
        self.assertEqual(self.client.cluster_countkeysinslot(slot), 2)
        self.assertEqual(sorted(self.client.cluster_get_keys_in_slot(slot, 10)), ["{slot}a", "{slot}b"])


if __name__ == "__main__":
    unittest.main()
