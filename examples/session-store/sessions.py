"""Sessions that live in the store, and in this process while their shard is away.

The store is one address, but many shards: the error of one says nothing about the others. So an error puts off only the session
it came for, and just an address that nobody answers at puts off all. Put off means not asked for `retry_after` seconds: a session
waits for a broken shard once, not with every request.

What could not be written is kept field by field and laid over what the store has as soon as that answers again.

Each change publishes an event on a channel by the name of the session's key. Names are hashed as keys are, so the shard that has the
session is the one that tells of it, in one transaction with the change: there is no change without its event. What other replicas do
with it is in `invalidate`; `invalidations` listens.
"""

import collections
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ID = re.compile(r"[A-Za-z0-9_-]{32}")
# A new session may take any id, and another is likely to belong to another shard: with one of three away, one session in 40 million
# finds none. `patience` ends it sooner where the shards do not refuse, but hang.
ATTEMPTS_AT_NEW = 16
# The event of a session that is over; those of changes are random.
ENDED = "ended"


def connect(url, password=None, timeout=0.5):
    """A client that would rather fail than wait: somebody sits in front of the page."""
    return redis.Redis.from_url(
        url,
        password=password,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        # Once, for a connection that was closed while it lay in the pool. The library's own retries may take seconds.
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )


@dataclass
class Session:
    id: str
    fields: dict
    # Where the fields are from, or went to: "store", "copy" (which no event has ended) or "fallback".
    source: str = "store"
    # There are changes that the store does not have.
    unsaved: bool = False
    # Nobody has been told the id yet.
    fresh: bool = False


@dataclass
class Copy:
    """What this process remembers of a session."""

    expires: float
    fields: dict = field(default_factory=dict)
    # What the store does not have yet; None stands for a field that was removed.
    changes: dict = field(default_factory=dict)
    # It is over, which the store does not know yet.
    ended: bool = False
    # Before this moment the store is not asked for it.
    retry: float = 0.0
    # Before this moment it is what the store has, unless an event says otherwise.
    fresh_until: float = 0.0
    # Counts what makes a reading or writing that is under way no longer the last: events of others, and lost ones.
    doubts: int = 0
    # The last change of this process, by the name that its event has.
    written: str = ""
    # Since when it has changes, or an end, that the store does not know.
    waits_since: float | None = None


class PutOff(redis.RedisError):
    """The store was not asked."""


class Sessions:
    def __init__(self, store, ttl=1800, copies_max=10_000, retry_after=2.0, patience=0.5, fresh_for=0.0, clock=time.monotonic):
        self.store = store
        self.ttl = ttl
        self.copies_max = copies_max
        self.retry_after = retry_after
        # How long new ids are tried for a new session.
        self.patience = patience
        # How long a copy is used without asking the store, while this process hears of the changes of others; 0: it never is.
        self.fresh_for = fresh_for
        self.hears = False
        self.clock = clock
        # By id, what was used last at the end. The guard is never held while the store is asked.
        self.copies = collections.OrderedDict()
        self.guard = threading.Lock()
        # Before this moment the store is not asked for anything.
        self.retry = 0.0
        self.counters = collections.Counter(hits=0, misses=0, errors=0, put_off=0, unsaved_lost=0)
        self.heard = collections.Counter(received=0, own=0, invalidated=0, gaps=0)
        self.copies_used = 0
        self.last_error = None

    def open(self, id):
        """The session of a cookie; a new one if there is none, or it is over."""
        if id is None or not ID.fullmatch(id):
            return new()
        copy = self._copy(id)
        if copy.ended:
            self._delete(id, copy)
            return new()
        with self.guard:
            if self.hears and not copy.changes and self.clock() < copy.fresh_until:
                self.copies_used += 1
                return Session(id, dict(copy.fields), "copy")
            doubts = copy.doubts
        try:
            stored = self._ask(copy, lambda: self.store.get(key(id)))
        except redis.RedisError:
            return Session(id, dict(copy.fields), "fallback", bool(copy.changes))
        self._count("misses" if stored is None else "hits")
        with self.guard:
            unsaved = dict(copy.changes)
            if stored is not None:
                copy.fields = merged(json.loads(stored), unsaved)
                self._trust(copy, doubts)
            fields = dict(copy.fields)
        if unsaved:
            return self.save(Session(id, fields), {})
        if stored is None:
            # Copies do not bring it back: somebody may have logged out at another replica.
            self._forget(id)
            return new()
        return Session(id, fields)

    def save(self, session, changes):
        """The session with fields changed, or removed where they are None. Its time to live begins anew."""
        fields = merged(session.fields, changes)
        if not session.fresh:
            return self._write(session.id, self._copy(session.id), fields, changes)
        begin = self.clock()
        for _ in range(ATTEMPTS_AT_NEW):
            id = new().id
            copy = Copy(self.clock() + self.ttl)
            session = self._write(id, copy, fields, changes)
            if session.source == "store" or self.clock() < self.retry or self.clock() - begin > self.patience:
                break
        self._copy(id, copy)
        return session

    def end(self, session):
        """Ends a session. False if the store could not be told: other replicas know it until it can be, or until it expires."""
        copy = self._copy(session.id)
        with self.guard:
            copy.fields, copy.changes, copy.ended = {}, {}, True
            self._waits(copy)
        return self._delete(session.id, copy)

    def invalidate(self, id, event):
        """Another process, or this one, has changed a session, or ended it: the event is the name of the change, or ENDED."""
        with self.guard:
            self.heard["received"] += 1
            copy = self.copies.get(id)
            if copy is None:
                return
            if event == copy.written:
                self.heard["own"] += 1
                return
            self.heard["invalidated"] += 1
            # A reading that is under way may have been before the change.
            copy.doubts += 1
            copy.fresh_until = 0.0
            if event == ENDED:
                del self.copies[id]

    def listening(self, hears):
        """Events are heard from now on, or no longer; those before may have been missed."""
        with self.guard:
            if self.hears:
                self.heard["gaps"] += 1
            self.hears = hears
            for copy in self.copies.values():
                copy.doubts += 1
                copy.fresh_until = 0.0

    def tell(self):
        """Writes what waits for its shard, without a visitor who asks for it."""
        with self.guard:
            now = self.clock()
            waiting = [id for id, copy in self.copies.items() if copy.waits_since is not None and copy.retry <= now]
        for id in waiting:
            self.open(id)

    def invalidations(self):
        """How it stands with the events: heard ones, and those that wait because a shard does not answer."""
        with self.guard:
            now = self.clock()
            waits = [now - copy.waits_since for copy in self.copies.values() if copy.waits_since is not None]
            fresh = sum(1 for copy in self.copies.values() if now < copy.fresh_until)
            return {
                "listening": self.hears,
                "events": dict(self.heard),
                "copies": {"known": len(self.copies), "fresh": fresh, "used": self.copies_used},
                # No ids: who has one has the session.
                "queue": {"waiting": len(waits), "oldest_seconds": round(max(waits, default=0.0), 3)},
            }

    def status(self):
        with self.guard:
            unsaved = sum(1 for copy in self.copies.values() if copy.changes or copy.ended)
            return {**self.counters, "copies": len(self.copies), "unsaved": unsaved, "last_error": self.last_error}

    def _write(self, id, copy, fields, changes):
        with self.guard:
            copy.fields = fields
            copy.changes = unsaved = {**copy.changes, **changes}
            copy.expires = self.clock() + self.ttl
            copy.fresh_until = 0.0
            copy.written = written = secrets.token_hex(8)
            doubts = copy.doubts
            self._waits(copy)

        def write():
            with self.store.pipeline() as transaction:
                transaction.set(key(id), json.dumps(fields), ex=self.ttl)
                transaction.publish(key(id), written)
                transaction.execute()

        try:
            self._ask(copy, write)
        except redis.RedisError:
            return Session(id, fields, "fallback", True)
        with self.guard:
            # Unless another request has changed more meanwhile.
            if copy.changes is unsaved:
                copy.changes = {}
                copy.waits_since = None
                self._trust(copy, doubts)
        return Session(id, fields)

    def _delete(self, id, copy):
        def delete():
            with self.store.pipeline() as transaction:
                transaction.delete(key(id))
                transaction.publish(key(id), ENDED)
                transaction.execute()

        try:
            self._ask(copy, delete)
        except redis.RedisError:
            return False
        self._forget(id)
        return True

    def _ask(self, copy, command):
        if self.clock() < max(self.retry, copy.retry):
            self._count("put_off")
            raise PutOff
        try:
            return command()
        except redis.RedisError as error:
            self._count("errors")
            self.last_error = str(error)
            until = self.clock() + self.retry_after
            # A shard that loads its file is reported by the same class as an address that nobody answers at.
            if isinstance(error, redis.ConnectionError) and not isinstance(error, redis.BusyLoadingError):
                self.retry = until
            else:
                copy.retry = until
            raise

    def _copy(self, id, made=None):
        """The copy of a session, which has just been used; a new one if there is none."""
        with self.guard:
            now = self.clock()
            copy = made or self.copies.pop(id, None)
            if copy is None or copy.expires <= now:
                copy = Copy(now + self.ttl)
            self.copies[id] = copy
            if len(self.copies) > self.copies_max:
                _, lost = self.copies.popitem(last=False)
                self.counters["unsaved_lost"] += bool(lost.changes or lost.ended)
            return copy

    def _trust(self, copy, doubts):
        """The copy is what the store had after `doubts` events. The caller holds the guard."""
        if copy.doubts == doubts:
            copy.fresh_until = self.clock() + self.fresh_for

    def _waits(self, copy):
        if copy.waits_since is None:
            copy.waits_since = self.clock()

    def _forget(self, id):
        with self.guard:
            self.copies.pop(id, None)

    def _count(self, what):
        with self.guard:
            self.counters[what] += 1


def new():
    return Session(secrets.token_urlsafe(24), {}, fresh=True)


def key(id):
    return f"session:{id}"


def merged(fields, changes):
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}
