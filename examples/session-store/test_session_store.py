"""The application over real Redis servers and the proxy; and the rules of its sessions with a store of this file's own."""

import contextlib
import http.cookies
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.parse
import urllib.request

import redis
from sessions import ENDED, ID, Sessions, key

HERE = pathlib.Path(__file__).parent
MEMSTORE = os.environ["MEMSTORE"]
REDIS = os.environ.get("TEST_REDIS", "redis-server")
# A loopback address of this run's own, so that nobody else takes a port between its choice and its use.
HOST = f"127.{192 + (os.getpid() >> 16 & 31)}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
# An answer takes no longer, whatever became of the store: the application's timeout and some for a busy machine.
DEADLINE = 8.0
STORE_TIMEOUT = 2.0
# Shorter than the application's, so that it is the proxy who says which shard is slow.
SHARD_TIMEOUT_MS = 1000
# Longer than one request takes between its first question to the store and its last.
RETRY_AFTER = 2.0


def until(what, attempt, seconds=60):
    """What `attempt` returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, redis.RedisError):
            result = attempt()
            if result:
                return result
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds} s")
        time.sleep(0.02)


@contextlib.contextmanager
def connected(port):
    """A client that leaves: the proxy waits for those that do not, when it drains."""
    client = redis.Redis(HOST, port, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def answers(port):
    with connected(port) as client:
        return client.ping()


class Processes:
    """What a test has started; all of it ends with the test."""

    def __init__(self, fresh_seconds=0):
        self.fresh_seconds = fresh_seconds
        self.folder = tempfile.TemporaryDirectory()
        self.running = []
        # All at once: a port given back could be handed out again.
        sockets = [socket.create_server((HOST, 0)) for _ in range(4)]
        *self.ports, self.proxy_port = [each.getsockname()[1] for each in sockets]
        for each in sockets:
            each.close()
        self.shards = [self.shard(index) for index in range(3)]
        self.proxy = self.start_proxy()
        self.replicas = [self.start_replica(name) for name in "ab"]

    def start(self, command, **options):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True, **options)
        self.running.append(process)
        return process

    def log(self, name):
        return open(pathlib.Path(self.folder.name) / f"{name}.log", "a")

    def shard(self, index):
        with self.log(f"shard-{index}") as log:
            command = [REDIS, "--bind", HOST, "--port", str(self.ports[index]), "--dir", self.folder.name]
            process = self.start([*command, "--save", "", "--appendonly", "no"], stdout=log, stderr=log)
        until(f"the start of shard-{index}", lambda: answers(self.ports[index]))
        return process

    def has(self, index, id):
        """Whether a shard has a session."""
        with connected(self.ports[index]) as client:
            return client.exists(key(id))

    def start_proxy(self):
        config = pathlib.Path(self.folder.name) / "memstore.yml"
        servers = "".join(f"     - {HOST}:{port}:1 shard-{index}\n" for index, port in enumerate(self.ports))
        config.write_text(
            f"stats_port: 0\nadmin_port: 0\npools:\n  sessions:\n    listen: {HOST}:{self.proxy_port}\n    redis: true\n"
            f"    timeout: {SHARD_TIMEOUT_MS}ms\n    on_gap: close\n    servers:\n{servers}"
        )
        with self.log("proxy") as log:
            process = self.start([MEMSTORE, "serve", "-c", str(config)], stdout=log, stderr=log)
        until("the start of the proxy", lambda: answers(self.proxy_port))
        return process

    def start_replica(self, name):
        environment = {
            **os.environ,
            "REDIS_URL": f"redis://{HOST}:{self.proxy_port}",
            "STORE_TIMEOUT": str(STORE_TIMEOUT),
            "RETRY_AFTER": str(RETRY_AFTER),
            "FRESH_SECONDS": str(self.fresh_seconds),
            "REPLICA": name,
            "HOST": HOST,
            "PORT": "0",
        }
        with self.log(name) as log:
            process = self.start([sys.executable, HERE / "app.py"], stdout=subprocess.PIPE, stderr=log, env=environment)
        line = process.stdout.readline()
        process.stdout.close()
        return f"http://{HOST}:{int(line.rsplit(' ', 1)[1])}"

    def end(self):
        for process in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in reversed(self.running):
            process.wait(60)
        self.folder.cleanup()


class Browser:
    """One visitor, with a cookie."""

    def __init__(self):
        self.id = None
        self.slowest = 0.0

    def ask(self, replica, path="/", form=None):
        headers = {"Cookie": f"session={self.id}"} if self.id else {}
        content = None if form is None else urllib.parse.urlencode(form).encode()
        begin = time.monotonic()
        with urllib.request.urlopen(urllib.request.Request(replica + path, content, headers), timeout=60) as answer:
            page = json.load(answer)
            cookie = http.cookies.SimpleCookie(answer.headers.get("Set-Cookie", "")).get("session")
        taken = time.monotonic() - begin
        self.slowest = max(self.slowest, taken)
        assert taken < DEADLINE, f"{path} was answered after {taken:.2f} s: {page}"
        if cookie:
            self.id = cookie.value or None
        return page

    def visit(self, replica):
        return self.ask(replica)

    def say(self, replica, **form):
        return self.ask(replica, form=form)


class OverRealShards(unittest.TestCase):
    def setUp(self):
        self.processes = Processes()
        self.addCleanup(self.processes.end)
        self.a, self.b = self.processes.replicas

    def browsers_by_shard(self):
        """Visitors known to both replicas, by the shard that has their session: at least 15, and two at each."""
        by_shard = [[], [], []]
        while sum(map(len, by_shard)) < 15 or min(map(len, by_shard)) < 2:
            browser = Browser()
            self.assertEqual(browser.visit(self.a)["source"], "store")
            self.assertEqual(browser.visit(self.b)["session"], {"visits": 2})
            owners = [index for index in range(3) if self.processes.has(index, browser.id)]
            self.assertEqual(len(owners), 1)
            by_shard[owners[0]].append(browser)
        return by_shard

    def others(self, by_shard, index):
        return [browser for other, browsers in enumerate(by_shard) if other != index for browser in browsers]

    def test_replicas_share_sessions(self):
        browser = Browser()
        page = browser.say(self.a, basket="apples", note="x")
        self.assertEqual((page["replica"], page["source"], page["unsaved"]), ("a", "store", False))
        page = browser.visit(self.b)
        self.assertEqual((page["replica"], page["source"]), ("b", "store"))
        self.assertEqual(page["session"], {"basket": "apples", "note": "x", "visits": 1})
        browser.say(self.b, note="")
        self.assertEqual(browser.visit(self.a)["session"], {"basket": "apples", "visits": 2})
        self.assertEqual(Browser().visit(self.a)["session"], {"visits": 1})
        with connected(self.processes.proxy_port) as client:
            self.assertTrue(1700 < client.ttl(key(browser.id)) <= 1800)

    def test_a_session_that_is_ended_is_over_everywhere(self):
        browser = Browser()
        browser.say(self.a, basket="apples")
        id = browser.id
        self.assertFalse(browser.ask(self.b, "/logout", {})["unsaved"])
        self.assertIsNone(browser.id)
        browser.id = id
        self.assertEqual(browser.visit(self.a)["session"], {"visits": 1})
        self.assertNotEqual(browser.id, id)

    def test_only_sessions_of_a_dead_shard_fall_back_and_what_they_wrote_is_stored_when_it_is_back(self):
        by_shard = self.browsers_by_shard()
        ids = {browser: browser.id for browsers in by_shard for browser in browsers}
        self.processes.shards[1].kill()
        self.processes.shards[1].wait()
        for browser in by_shard[1]:
            page = browser.say(self.a, basket="pears")
            self.assertEqual((page["source"], page["unsaved"]), ("fallback", True))
            # The other replica knows what it saw last, not what was written here.
            page = browser.visit(self.b)
            self.assertEqual((page["source"], page["unsaved"], page["session"]), ("fallback", True, {"visits": 3}))
            self.assertIn("shard-1", page["store"]["last_error"])
        for browser in self.others(by_shard, 1):
            page = browser.visit(self.a)
            self.assertEqual((page["source"], page["unsaved"], page["session"]), ("store", False, {"visits": 3}))
        # New ones take ids of the other shards.
        for _ in range(6):
            self.assertEqual(Browser().visit(self.a)["source"], "store")
        self.assertGreaterEqual(Browser().visit(self.a)["store"]["unsaved"], len(by_shard[1]))

        self.processes.shards[1] = self.processes.shard(1)
        for browser in by_shard[1]:
            until("a session in the store", lambda: browser.visit(self.a)["source"] == "store")
            page = until("the same at the other replica", lambda: stored(browser.visit(self.b)))
            self.assertEqual(page["session"]["basket"], "pears")
            self.assertTrue(self.processes.has(1, browser.id))
        self.assertEqual(Browser().visit(self.a)["store"]["unsaved"], 0)
        self.assertEqual({browser: browser.id for browser in ids}, ids)

    def test_a_shard_that_hangs_holds_up_one_request_per_session_and_no_other_session(self):
        by_shard = self.browsers_by_shard()
        self.processes.shards[2].send_signal(signal.SIGSTOP)
        before = Browser().visit(self.a)["store"]
        first = by_shard[2][0]
        page = first.visit(self.a)
        self.assertEqual(page["source"], "fallback")
        # The first waited, and then neither it nor the write after it asked again.
        self.assertGreater(page["store"]["put_off"], before["put_off"])
        for browser in self.others(by_shard, 2):
            self.assertEqual(browser.visit(self.a)["source"], "store")
        for browser in by_shard[2]:
            self.assertEqual(browser.visit(self.a)["source"], "fallback")
        self.processes.shards[2].send_signal(signal.SIGCONT)
        for browser in by_shard[2]:
            until("a session in the store", lambda: stored(browser.visit(self.a)))

    def test_a_proxy_that_hangs_is_not_waited_for_either(self):
        browsers = [Browser() for _ in range(3)]
        for browser in browsers:
            browser.visit(self.a)
        self.processes.proxy.send_signal(signal.SIGSTOP)
        for browser in [*browsers, Browser()]:
            self.assertEqual(browser.visit(self.a)["source"], "fallback")
        self.processes.proxy.send_signal(signal.SIGCONT)
        for browser in browsers:
            until("a session in the store", lambda: stored(browser.visit(self.a)))

    def test_without_the_proxy_all_falls_back_and_nothing_is_lost(self):
        browsers = [Browser() for _ in range(9)]
        for browser in browsers:
            self.assertEqual(browser.visit(self.a)["source"], "store")
            self.assertEqual(browser.visit(self.b)["session"], {"visits": 2})
        self.processes.proxy.kill()
        self.processes.proxy.wait()
        for browser in browsers:
            self.assertEqual(browser.say(self.b, basket="plums")["source"], "fallback")
        fresh = Browser()
        self.assertTrue(fresh.visit(self.b)["unsaved"])
        id = fresh.id
        # What is put off costs nothing: far fewer errors than requests.
        status = fresh.visit(self.b)["store"]
        self.assertGreater(status["put_off"], len(browsers))
        self.processes.proxy = self.processes.start_proxy()
        for browser in [*browsers, fresh]:
            until("a session in the store", lambda: stored(browser.visit(self.b)))
        for browser in browsers:
            page = until("the same at the other replica", lambda: stored(browser.visit(self.a)))
            self.assertEqual(page["session"]["basket"], "plums")
        self.assertEqual(fresh.id, id)

    def test_what_is_no_request_of_ours_is_refused(self):
        for path, form, status in [("/other", None, 404), ("/", {"visits": "many"}, 400), ("/", {"x": "x" * 5000}, 413)]:
            with self.assertRaises(urllib.error.HTTPError) as refused:
                Browser().ask(self.a, path, form)
            refused.exception.close()
            self.assertEqual(refused.exception.code, status)
        self.assertEqual(Browser().ask(self.a, "/healthz"), {"replica": "a"})


class WithEvents(unittest.TestCase):
    """Replicas that use what they know until an event says otherwise."""

    def setUp(self):
        # Longer than a test takes.
        self.processes = Processes(fresh_seconds=3600)
        self.addCleanup(self.processes.end)
        self.a, self.b = self.processes.replicas
        for replica in self.processes.replicas:
            until("a subscription", lambda: status(replica)["listening"])

    def known_by_both(self, count):
        browsers = [Browser() for _ in range(count)]
        for browser in browsers:
            browser.say(self.a, basket="apples")
        # Else these events come after what the other replica writes next, and end its trust in that.
        until("the events of one", lambda: status(self.b)["events"]["received"] == count)
        for browser in browsers:
            self.assertEqual(browser.visit(self.b)["session"], {"basket": "apples", "visits": 1})
        return browsers

    def shard_of(self, browser):
        return next(index for index in range(3) if self.processes.has(index, browser.id))

    def test_what_one_replica_changes_or_ends_the_other_asks_for_again(self):
        browsers = self.known_by_both(30)
        self.assertEqual({self.shard_of(browser) for browser in browsers}, {0, 1, 2})
        until("the events of both", lambda: status(self.a)["events"]["invalidated"] == len(browsers))
        used = status(self.b)["copies"]["used"]
        for browser in browsers:
            browser.say(self.b, basket="pears")
        # It has written the last change of each, and heard so: nothing had to be asked.
        self.assertEqual(status(self.b)["copies"]["used"], used + len(browsers))
        until("the events of the other", lambda: status(self.a)["events"]["invalidated"] == 2 * len(browsers))
        for browser in browsers:
            self.assertEqual(browser.visit(self.a)["session"], {"basket": "pears", "visits": 2})
        for browser in browsers:
            browser.ask(self.a, "/logout", {})
        until("the ends", lambda: status(self.b)["copies"]["known"] == 0)
        self.assertEqual(status(self.b)["queue"], {"waiting": 0, "oldest_seconds": 0.0})

    def test_what_waits_for_a_shard_is_told_when_it_is_back_and_nothing_before_is_trusted(self):
        browsers = self.known_by_both(30)
        away = [browser for browser in browsers if self.shard_of(browser) == 1]
        ids = [browser.id for browser in away]
        self.processes.shards[1].kill()
        self.processes.shards[1].wait()
        until("the loss", lambda: status(self.b)["events"]["gaps"] >= 1)
        for browser in away:
            browser.say(self.a, basket="pears")
        queue = status(self.a)["queue"]
        self.assertEqual(queue["waiting"], len(away))
        self.assertGreater(queue["oldest_seconds"], 0)
        # Nobody visits; what waits is written all the same, and the other replica does not use what it knew.
        self.processes.shards[1] = self.processes.shard(1)
        until("an empty queue", lambda: status(self.a)["queue"]["waiting"] == 0)
        for browser, id in zip(away, ids):
            self.assertTrue(self.processes.has(1, id))
            self.assertEqual(until("the store", lambda: not_fallen_back(browser.visit(self.b)))["session"]["basket"], "pears")
        # All hear of all again.
        for replica in self.processes.replicas:
            until("a subscription", lambda: status(replica)["listening"])
        browser = Browser()
        browser.say(self.a, basket="plums")
        browser.visit(self.b)
        heard = status(self.a)["events"]["invalidated"]
        browser.visit(self.b)
        until("an event", lambda: status(self.a)["events"]["invalidated"] > heard or status(self.a)["copies"]["known"] == 0)
        self.assertEqual(browser.visit(self.a)["session"], {"basket": "plums", "visits": 3})

    def test_a_proxy_that_hangs_ends_trust(self):
        self.known_by_both(3)
        self.processes.proxy.send_signal(signal.SIGSTOP)
        until("the silence", lambda: not status(self.b)["listening"])
        self.assertEqual(status(self.b)["copies"]["fresh"], 0)
        self.processes.proxy.send_signal(signal.SIGCONT)
        until("a subscription", lambda: status(self.b)["listening"])


def status(replica):
    return Browser().ask(replica, "/cache/status")


def not_fallen_back(page):
    return page if page["source"] != "fallback" and not page["unsaved"] else None


def stored(page):
    return page if page["source"] == "store" and not page["unsaved"] else None


class Store:
    """A store that fails as it is told."""

    def __init__(self):
        self.content, self.failing, self.asked = {}, {}, 0
        # Events that nobody has heard yet.
        self.events = []

    def check(self, name):
        self.asked += 1
        error = self.failing.get(name) or self.failing.get("all")
        if error:
            raise error

    def get(self, name):
        self.check(name)
        return self.content.get(name)

    def set(self, name, value, ex):
        self.check(name)
        self.content[name] = value

    def delete(self, name):
        self.check(name)
        self.content.pop(name, None)

    def publish(self, name, event):
        self.events.append((name, event))

    def pipeline(self):
        # Changes come one by one here.
        return contextlib.nullcontext(Transaction(self))


class Transaction:
    def __init__(self, store):
        self.store, self.commands = store, []

    def __getattr__(self, command):
        return lambda *arguments, **named: self.commands.append((command, arguments, named))

    def execute(self):
        for command, arguments, named in self.commands:
            getattr(self.store, command)(*arguments, **named)


class Rules(unittest.TestCase):
    def setUp(self):
        self.store = Store()
        self.now = 100.0
        self.sessions = Sessions(self.store, ttl=60, copies_max=3, retry_after=2, clock=lambda: self.now)

    def stored(self, **fields):
        session = self.sessions.save(self.sessions.open(None), fields)
        self.assertEqual(session.source, "store")
        return session.id

    def test_ids_that_were_not_given_out_are_not_taken(self):
        for id in [None, "", "x", "A" * 32, "../" * 11]:
            session = self.sessions.open(id)
            self.assertTrue(session.fresh)
            self.assertNotEqual(session.id, id)
            self.assertTrue(ID.fullmatch(session.id))

    def test_a_copy_does_not_bring_back_what_is_over(self):
        id = self.stored(basket="apples")
        self.store.content.clear()
        self.assertEqual(self.sessions.open(id).fields, {})

    def test_the_error_of_a_shard_puts_off_one_session(self):
        mine, other = self.stored(basket="apples"), self.stored()
        self.store.failing[key(mine)] = redis.ResponseError("shard shard-1: connection refused")
        self.assertEqual(self.sessions.open(mine).source, "fallback")
        asked = self.store.asked
        self.assertEqual(self.sessions.open(mine).fields, {"basket": "apples"})
        self.assertEqual(self.store.asked, asked)
        self.assertEqual(self.sessions.open(other).source, "store")
        self.store.failing.clear()
        self.now += 1.9
        self.assertEqual(self.sessions.open(mine).source, "fallback")
        self.now += 0.2
        self.assertEqual(self.sessions.open(mine).source, "store")

    def test_so_does_one_that_loads_or_is_slow_but_an_address_without_an_answer_puts_off_all(self):
        for error, all_wait in [(redis.BusyLoadingError(), False), (redis.TimeoutError(), False), (redis.ConnectionError(), True)]:
            mine, other = self.stored(), self.stored()
            self.store.failing[key(mine)] = error
            self.sessions.open(mine)
            self.assertEqual(self.sessions.open(other).source, "fallback" if all_wait else "store", error)
            self.now += 5

    def test_a_new_session_tries_ids_until_a_shard_answers_or_its_patience_is_over(self):
        refused = 0

        def most_refuse(name):
            nonlocal refused
            if refused < 12:
                refused += 1
                raise redis.ResponseError("shard shard-1: connection refused")

        self.store.check = most_refuse
        self.stored()
        self.assertEqual(refused, 12)

        def all_hang(name):
            self.now += 0.3
            raise redis.ResponseError("shard shard-1: timeout")

        self.store.check = all_hang
        before = self.now
        self.assertEqual(self.sessions.save(self.sessions.open(None), {}).source, "fallback")
        self.assertAlmostEqual(self.now - before, 0.6)

    def test_changes_are_laid_over_what_the_store_has(self):
        id = self.stored(basket="apples", note="x")
        self.store.failing["all"] = redis.ResponseError("shard shard-1: connection refused")
        session = self.sessions.save(self.sessions.open(id), {"note": None, "colour": "red"})
        self.assertEqual((session.source, session.unsaved), ("fallback", True))
        self.assertTrue(self.sessions.open(id).unsaved)
        # Meanwhile another replica reached the store.
        self.store.content[key(id)] = json.dumps({"basket": "pears", "note": "y"})
        self.store.failing.clear()
        self.now += 3
        session = self.sessions.open(id)
        self.assertEqual((session.source, session.unsaved), ("store", False))
        self.assertEqual(session.fields, {"basket": "pears", "colour": "red"})
        self.assertEqual(json.loads(self.store.content[key(id)]), session.fields)

    def test_an_end_that_the_store_was_not_told_is_told_later(self):
        id = self.stored(basket="apples")
        self.store.failing["all"] = redis.ResponseError("shard shard-1: timeout")
        self.assertFalse(self.sessions.end(self.sessions.open(id)))
        self.assertTrue(self.sessions.open(id).fresh)
        self.assertIn(key(id), self.store.content)
        self.store.failing.clear()
        self.now += 3
        self.assertTrue(self.sessions.open(id).fresh)
        self.assertNotIn(key(id), self.store.content)

    def test_copies_are_bounded_and_what_goes_with_them_is_counted(self):
        self.store.failing["all"] = redis.ConnectionError()
        ids = [self.sessions.save(self.sessions.open(None), {"n": n}).id for n in range(5)]
        self.assertEqual(self.sessions.open(ids[0]).fields, {})
        self.assertEqual(self.sessions.open(ids[4]).fields, {"n": 4})
        status = self.sessions.status()
        self.assertEqual((status["copies"], status["unsaved_lost"]), (3, 3))

    def test_a_copy_lives_no_longer_than_its_session(self):
        id = self.stored(basket="apples")
        self.store.failing["all"] = redis.ConnectionError()
        self.now += 59
        self.assertEqual(self.sessions.open(id).fields, {"basket": "apples"})
        self.now += 2
        self.assertEqual(self.sessions.open(id).fields, {})


class RulesOfEvents(unittest.TestCase):
    def setUp(self):
        self.store = Store()
        self.now = 100.0
        self.a, self.b = (Sessions(self.store, ttl=60, retry_after=2, fresh_for=10, clock=lambda: self.now) for _ in range(2))
        for sessions in self.a, self.b:
            sessions.listening(True)
        self.id = self.a.save(self.a.open(None), {"basket": "apples"}).id
        self.deliver()

    def deliver(self):
        events, self.store.events = self.store.events, []
        for name, event in events:
            for sessions in self.a, self.b:
                sessions.invalidate(name.removeprefix(key("")), event)

    def source(self, sessions):
        return sessions.open(self.id).source

    def test_a_copy_is_used_until_an_event_or_its_time_ends_it(self):
        self.assertEqual([self.source(self.a), self.source(self.b), self.source(self.b)], ["copy", "store", "copy"])
        self.a.save(self.a.open(self.id), {"basket": "pears"})
        self.deliver()
        self.assertEqual(self.source(self.a), "copy")
        session = self.b.open(self.id)
        self.assertEqual((session.source, session.fields), ("store", {"basket": "pears"}))
        self.now += 10
        self.assertEqual([self.source(self.a), self.source(self.b)], ["store", "store"])

    def test_a_reading_that_an_event_overtakes_is_not_trusted(self):
        asked = self.store.get

        def overtaken(name):
            value = asked(name)
            self.b.invalidate(self.id, "a change")
            return value

        self.store.get = overtaken
        self.assertEqual([self.source(self.b), self.source(self.b)], ["store", "store"])
        self.store.get = asked
        self.assertEqual([self.source(self.b), self.source(self.b)], ["store", "copy"])

    def test_nor_is_a_change_of_our_own_that_was_not_the_last(self):
        first, second = self.a.open(self.id), self.a.open(self.id)
        self.a.save(first, {"basket": "pears"})
        self.a.save(second, {"note": "x"})
        # The shard had them the other way round.
        self.store.events.reverse()
        self.deliver()
        self.assertEqual(self.source(self.a), "store")

    def test_without_a_subscription_each_request_asks(self):
        self.assertEqual(self.source(self.a), "copy")
        self.a.listening(False)
        self.assertEqual([self.source(self.a), self.source(self.a)], ["store", "store"])
        self.a.listening(True)
        self.assertEqual([self.source(self.a), self.source(self.a)], ["store", "copy"])
        self.assertEqual(self.a.invalidations()["events"]["gaps"], 1)

    def test_a_session_that_another_replica_has_ended_does_not_come_back_while_its_shard_is_away(self):
        self.b.open(self.id)
        self.a.end(self.a.open(self.id))
        self.assertEqual(self.store.events, [(key(self.id), ENDED)])
        self.deliver()
        self.store.failing["all"] = redis.ResponseError("shard shard-1: timeout")
        self.assertEqual(self.b.open(self.id).fields, {})

    def test_what_waits_is_written_without_a_request_for_it(self):
        self.store.failing["all"] = redis.ResponseError("shard shard-1: timeout")
        self.a.save(self.a.open(self.id), {"basket": "pears"})
        self.now += 1
        self.assertEqual(self.a.invalidations()["queue"], {"waiting": 1, "oldest_seconds": 1.0})
        self.store.failing.clear()
        asked = self.store.asked
        self.a.tell()
        self.assertEqual(self.store.asked, asked, "not before it is asked again")
        self.now += 2
        self.a.tell()
        self.assertEqual(self.a.invalidations()["queue"], {"waiting": 0, "oldest_seconds": 0.0})
        self.assertEqual(json.loads(self.store.content[key(self.id)]), {"basket": "pears"})
        self.deliver()
        self.assertEqual(self.b.open(self.id).fields, {"basket": "pears"})

        self.store.failing["all"] = redis.ResponseError("shard shard-1: timeout")
        self.assertFalse(self.a.end(self.a.open(self.id)))
        self.store.failing.clear()
        self.now += 3
        self.a.tell()
        self.assertEqual(self.store.content, {})
        self.assertEqual(self.a.invalidations()["queue"]["waiting"], 0)


if __name__ == "__main__":
    unittest.main()
