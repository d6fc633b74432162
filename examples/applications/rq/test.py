"""Two workers execute the jobs of two queues, each once, and delayed ones when it is time."""

import contextlib
import datetime
import os
import pathlib
import subprocess
import sys

import redis

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from jobs import count_executed, high, low, square, store  # noqa: E402
from rq import Queue  # noqa: E402

WAIT = 60


@contextlib.contextmanager
def worker(name):
    command = [pathlib.Path(sys.executable).parent / "rq", "worker", "-u", os.environ["REDIS_URL"], "-n", name]
    process = subprocess.Popen([*command, "--with-scheduler", "high", "low"], cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        yield
    finally:
        process.terminate()
        process.wait(WAIT)


def result(job):
    ended = job.latest_result(timeout=WAIT)
    assert ended and ended.type == ended.Type.SUCCESSFUL, ended
    return ended.return_value


def refused(command, attempt):
    try:
        print(f"refused: {command}: works: {attempt()}")
    except redis.RedisError as error:
        # Without the library's words about the place in the pipeline.
        print(f"refused: {command}: {str(error).partition('caused error: ')[2] or error}")


with worker("one"), worker("two"):
    numbers = range(30)
    jobs = [(high if number % 2 else low).enqueue(square, number) for number in numbers]
    dependent = low.enqueue(count_executed, list(numbers), depends_on=jobs)
    assert [result(job) for job in jobs] == [number**2 for number in numbers]
    assert result(dependent) == len(jobs)
    executed = store.mget([f"{number}:executed" for number in numbers])
    assert executed == [b"1"] * len(jobs), executed
    assert not high.count and not low.count
    later = [queue.enqueue_in(datetime.timedelta(seconds=1), square, number) for number, queue in ((100, high), (101, low))]
    assert [result(job) for job in later] == [100**2, 101**2]
    assert store.mget(["100:executed", "101:executed"]) == [b"1", b"1"]

defaults = redis.Redis.from_url(os.environ["DEFAULTS_URL"])
# The keys of one job can be on one shard by chance.
refused("MULTI", lambda: [Queue("high", connection=defaults).enqueue(square, number) for number in range(30)])
