"""redis-py with its cache: what it reads, again and again, for ../caches/test.py."""

import sys
import threading
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

# It looks at who the server is, and keeps nothing of those before 7.4 nor of Valkey; they tell of changes all the same.
CacheProxyConnection.connect = lambda self: self._conn.connect()

ended = threading.Event()
telling = threading.Lock()


def tell(lines):
    with telling:
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()


def read(target, address, count):
    host, port = address.split(":")
    client = redis.Redis(host, int(port), decode_responses=True, cache_config=CacheConfig())
    versions, last = [None] * count, [0] * count
    passes, errors, error = 0, 0, None
    while True:
        told = []
        if passes % 10 == 0:
            told.append(f"passes {target} {passes} {errors} {error}")
        if ended.wait(0.005):
            break
        for number in range(count):
            begin = time.monotonic_ns()
            try:
                value = client.get(f"{number}:cached") or "-1"
            except redis.RedisError as failed:
                errors, error = errors + 1, repr(failed)
                continue
            if value != versions[number]:
                told.append(f"read {target} {number} {value} {begin} {last[number]}")
            versions[number], last[number] = value, begin
        tell(told)
        passes += 1
    tell(f"read {target} {number} end {time.monotonic_ns()} {last[number]}" for number in range(count))


targets = [threading.Thread(target=read, args=(*target.split("="), int(sys.argv[1]))) for target in sys.argv[2:]]
for each in targets:
    each.start()
sys.stdin.read()
ended.set()
