# Celery: tasks, results, groups and chords. The settings of memstore's pool, for transactions of the broker, and for scripts with
# several keys that Celery cannot be told to give a tag:
#
#     transactions: per-shard
#     pin: {"_kombu.": shard-1, "celery-taskset-meta-": shard-1}
#
# pip install 'celery[redis]', then REDIS_URL=redis://... celery -A tasks worker
import os

import redis
from celery import Celery

url = os.environ["REDIS_URL"]
app = Celery("tasks", broker=url, backend=url)

store = redis.Redis.from_url(url)


@app.task
def square(number):
    store.incr(f"{number}:executed")
    return number * number


@app.task
def total(numbers):
    return sum(numbers)
