# RQ: jobs, dependent and delayed jobs. All keys of RQ have to be on one shard. The setting of memstore's pool:
#
#     pin: {"rq:": shard-1}
#
# pip install rq, then REDIS_URL=redis://... rq worker -u "$REDIS_URL" --with-scheduler high low
import os

import redis
from rq import Queue

store = redis.Redis.from_url(os.environ["REDIS_URL"])
high, low = (Queue(name, connection=store) for name in ("high", "low"))


def square(number):
    store.incr(f"{number}:executed")
    return number * number


def count_executed(numbers):
    return sum(map(int, store.mget([f"{number}:executed" for number in numbers])))
