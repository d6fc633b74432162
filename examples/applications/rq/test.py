"""Two workers execute the jobs of two queues, each once."""

import contextlib
import os
import pathlib
import subprocess
import sys

import redis

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from jobs import count_executed, high, low, square, store  # noqa: E402
from rq import Queue  # noqa: E402
from rq.scheduler import RQScheduler  # noqa: E402

WAIT = 60


@contextlib.contextmanager
def worker(name):
    command = [pathlib.Path(sys.executable).parent / "rq", "worker", "-u", os.environ["REDIS_URL"], "-n", name]
    process = subprocess.Popen([*command, "high", "low"], cwd=HERE, env={**os.environ, "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"})
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

refused("SCRIPT LOAD", RQScheduler([high, low], connection=store).acquire_locks)
defaults = redis.Redis.from_url(os.environ["DEFAULTS_URL"])
# The keys of one job can be on one shard by chance.
refused("MULTI", lambda: [Queue("high", connection=defaults).enqueue(square, number) for number in range(30)])
