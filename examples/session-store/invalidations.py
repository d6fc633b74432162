"""Hears of sessions that other replicas have changed, and writes what has waited for its shard: two threads beside the requests.

One subscription to a pattern stands for the sessions of all shards. Whoever is subscribed anew may have missed something, so nothing
that was known before is used without asking. With `on_gap: close` in the pool this is so as well if the proxy has lost a shard.
"""

import threading
import time

import redis
from sessions import key

# Whoever has heard nothing for three of them is not subscribed any more.
PULSE = 1.0


class Invalidations:
    def __init__(self, sessions, store):
        self.sessions = sessions
        self.store = store
        self.over = threading.Event()
        self.threads = [threading.Thread(target=each, daemon=True) for each in (self.listen, self.tell)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()

    def listen(self):
        while not self.over.is_set():
            try:
                with self.store.pubsub() as subscription:
                    subscription.psubscribe(key("*"))
                    self.follow(subscription)
            except redis.RedisError:
                self.sessions.listening(False)
                self.over.wait(PULSE)

    def follow(self, subscription):
        heard = time.monotonic()
        while not self.over.is_set():
            message = subscription.get_message(timeout=PULSE)
            if message is None:
                if time.monotonic() - heard > 3 * PULSE:
                    raise redis.TimeoutError("the subscription is silent")
                subscription.ping()
                continue
            heard = time.monotonic()
            if message["type"] == "psubscribe":
                # The first time, and when the library has connected again on its own.
                self.sessions.listening(True)
            elif message["type"] == "pmessage":
                self.sessions.invalidate(message["channel"].decode().removeprefix(key("")), message["data"].decode())

    def tell(self):
        while not self.over.wait(self.sessions.retry_after):
            self.sessions.tell()
