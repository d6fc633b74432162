"""Two workers execute tasks, groups, delayed tasks and chords, each once."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from tasks import app, square, store, total  # noqa: E402

import redis  # noqa: E402
from celery import Celery, chord, group  # noqa: E402
from kombu.exceptions import OperationalError  # noqa: E402

CELERY = [sys.executable, "-B", "-m", "celery"]
WAIT = 60


@contextlib.contextmanager
def worker(name):
    command = [*CELERY, "-A", "tasks", "worker", "-c", "2", "-n", name, "--loglevel", "info"]
    process = subprocess.Popen(command, cwd=HERE)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WAIT)


def executed(numbers):
    return [int(count or 0) for count in store.mget([f"{number}:executed" for number in numbers])]


def check_tasks():
    results = [square.delay(number) for number in range(50)]
    assert [result.get(WAIT) for result in results] == [number**2 for number in range(50)]

    results = group(square.s(number) for number in range(50, 100)).apply_async()
    assert results.get(WAIT) == [number**2 for number in range(50, 100)]

    begin = time.monotonic()
    assert square.apply_async((100,), countdown=1).get(WAIT) == 100**2
    assert time.monotonic() - begin >= 1
    assert square.apply_async((101,), priority=9).get(WAIT) == 101**2
    assert executed(range(102)) == [1] * 102, "each task is executed once"


def check_chords():
    for first in 300, 320, 340:
        numbers = range(first, first + 20)
        assert chord(square.s(number) for number in numbers)(total.s()).get(WAIT) == sum(number**2 for number in numbers)
        assert executed(numbers) == [1] * 20, "each task is executed once"


def check_remote_control():
    deadline = time.monotonic() + WAIT
    while len(answers := app.control.ping(timeout=2)) < 2:
        assert time.monotonic() < deadline, answers
    # What it was told before a task came, each worker knows when the task comes.
    revoked = square.apply_async((200,), countdown=2)
    revoked.revoke()
    until = time.monotonic() + WAIT
    while revoked.state != "REVOKED":
        assert time.monotonic() < until, revoked.state
    assert executed([200]) == [0]


def refused(command, attempt):
    try:
        print(f"refused: {command}: it works: {attempt()}")
    except (redis.RedisError, OperationalError) as error:
        # Without the library's words about the place in the pipeline.
        print(f"refused: {command}: {str(error).partition('caused error: ')[2] or error}")


def check_refusals():
    """What a client is told whose broker has several shards, without that setting."""
    plain = Celery("plain", broker=os.environ["DEFAULTS_URL"])
    refused("MULTI", lambda: plain.send_task("tasks.square", (400,)))
    script = redis.Redis.from_url(os.environ["DEFAULTS_URL"]).register_script("return 1")
    refused("EVALSHA", lambda: script(keys=["_kombu.binding-deadlines", *(f"_kombu.binding.{name}" for name in range(30))]))


with worker("one@here"), worker("two@here"):
    check_tasks()
    check_remote_control()
    check_chords()
check_refusals()
