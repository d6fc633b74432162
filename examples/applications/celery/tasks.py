# Celery: tasks, results, groups and chords. Its broker needs a pool of its own with one of the shards, because its workers load scripts; results
# are on all shards, and need no settings. Chords need the pool of one shard for results, too.
#
# pip install 'celery[redis]', then QUEUE_URL=redis://... REDIS_URL=redis://... celery -A tasks worker
import os

import redis
from celery import Celery

url = os.environ["REDIS_URL"]
app = Celery("tasks", broker=os.environ["QUEUE_URL"], backend=os.environ.get("RESULT_URL", url))

store = redis.Redis.from_url(url)


@app.task
def square(number):
    store.incr(f"{number}:executed")
    return number * number


@app.task
def total(numbers):
    return sum(numbers)
