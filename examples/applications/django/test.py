"""Two processes of the application share sessions; both caches do what Django asks of a cache."""

import contextlib
import http.cookies
import json
import os
import pathlib
import subprocess
import sys
import threading
import urllib.request

HERE = pathlib.Path(__file__).parent
import app  # noqa: E402, F401
from django.core.cache import caches  # noqa: E402
from django.core.cache.backends.redis import RedisCache  # noqa: E402
from django_redis import get_redis_connection  # noqa: E402
from django_redis.cache import RedisCache as DjangoRedisCache  # noqa: E402

HOST = os.environ["MEMSTORE_HOST"]


@contextlib.contextmanager
def process():
    environment = {**os.environ, "HOST": HOST, "PORT": "0"}
    with open(os.devnull, "w") as nowhere:
        started = subprocess.Popen([sys.executable, "-B", HERE / "app.py"], env=environment, text=True, stdout=subprocess.PIPE, stderr=nowhere)
    try:
        yield f"http://{HOST}:{int(started.stdout.readline())}"
    finally:
        started.terminate()
        started.communicate()


def visit(address, cookie):
    request = urllib.request.Request(address, headers={"Cookie": f"sessionid={cookie}"} if cookie else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        given = http.cookies.SimpleCookie(answer.headers.get("Set-Cookie", "")).get("sessionid")
        return json.load(answer)["visits"], given.value if given else cookie


def check_sessions(one, two):
    for _ in range(20):
        visits, cookie = visit(one, None)
        assert visits == 1
        assert visit(two, cookie) == (2, cookie)
        visits, changed = visit(f"{one}/login", cookie)
        assert visits == 3 and changed != cookie
        assert visit(two, changed) == (4, changed)
        visits, fresh = visit(two, cookie)
        assert visits == 1 and fresh != cookie, "the old name of a session is forgotten"


def check_cache(cache):
    values = {f"key-{number}": {"number": number} for number in range(100)}
    assert not cache.set_many(values, timeout=600)
    assert cache.get_many([*values, "missing"]) == values
    cache.set("count", 1, 600)
    assert cache.incr("count", 4) == 5 and cache.decr("count") == 4
    assert cache.add("lock", "mine", 600) and not cache.add("lock", "theirs", 600)
    assert cache.touch("key-1", 900) and not cache.touch("missing", 900)
    assert cache.get_or_set("made", lambda: "once", 600) == "once" == cache.get("made")
    cache.delete_many([f"key-{number}" for number in range(50)])
    assert len(cache.get_many(values)) == 50


def check_lock(cache):
    """A lock is held by one thread at a time."""
    held, most, total = 0, 0, 0

    def work():
        nonlocal held, most, total
        for _ in range(10):
            with cache.lock("the-lock", timeout=60, sleep=0.001):
                held += 1
                most = max(most, held)
                total += 1
                held -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, total) == (1, 40)


def refused(command, attempt):
    try:
        print(f"refused: {command}: works: {attempt()}")
    except Exception as error:
        # What the server said, without the words of both libraries around it.
        said = str(error.__cause__ or error)
        print(f"refused: {command}: {said.partition('caused error: ')[2] or said}")


check_cache(caches["default"])
caches["default"].clear()
assert caches["default"].get("key-99") is None and not get_redis_connection("django-redis").keys("*")
with process() as one, process() as two:
    check_sessions(one, two)
for name in "default", "django-redis":
    caches[name].set("gone", 1)
    caches[name].clear()
    assert not get_redis_connection("django-redis").keys("*")
    check_cache(caches[name])
check_cache(app.Cache(os.environ["DEFAULTS_URL"], {"KEY_PREFIX": "defaults"}))
check_lock(caches["django-redis"])
assert caches["django-redis"].ttl("key-99") > 500
assert get_redis_connection("django-redis").exists("other:1:key-99")
assert caches["django-redis"].delete_pattern("key-*") > 0 and not list(caches["django-redis"].iter_keys("key-*"))
many = {f"key-{number}": number for number in range(100)}
refused("MSET", lambda: RedisCache(os.environ["REDIS_URL"], {}).set_many(many))
refused("MULTI", lambda: DjangoRedisCache(os.environ["DEFAULTS_URL"], {}).set_many(many, timeout=600))
