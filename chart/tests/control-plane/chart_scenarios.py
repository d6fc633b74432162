"""The chart with a proxy and without one, installed, changed and taken away by helm, with clients that check what they get."""

import copy
import pathlib
import time

from clients import Load, Memcached, Redis, Refusal
from plane import is_ready
from plane_scenarios import job
from release import Release
from witnesses import Outage, Shrinking, judge, read_all, read_all_or_none, settle, write_all

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples/client-side/python/memstore_ring.py"


def proxy(plane):
    """Shards behind proxies: a shard comes back, the ring grows and shrinks, proxies go, and nobody's request is lost."""
    release = Release(plane, "memstore", partitioning="proxy", shards={"count": 3}, proxy={"count": 3})
    release.install()
    installed = copy.deepcopy(release.values)
    host, port = release.address()
    with Redis(host, port) as client:
        write_all(client, 2000)
        plane.expect(read_all(client, 2000) == 0, "all keys are there")
    owners = release.owners()
    plane.expect(len(owners) == 2000 and len(set(owners.values())) == 3, "each key is on one of three shards")
    release.test()

    lose_a_shard(plane, release, owners)

    # The ring grows.
    proxies, shards = release.uids("proxy"), release.uids("shard")
    load = Load(host, port)
    begin = time.monotonic()
    release.upgrade(shards_count=5)
    release.await_ring(5)
    plane.say(f"all proxies have the ring of 5 shards {time.monotonic() - begin:.1f} s after the upgrade began")
    settle(2)
    judge(plane, load.stop())
    plane.expect(release.uids("proxy") == proxies, "the proxies are the same pods")
    plane.expect(release.uids("shard")[:3] == shards, "the first shards are the same pods")
    plane.check(release.restarts() == 0, "no container was restarted")

    # What a running proxy takes over, and what it has to be started anew for.
    load = Load(host, port)
    digests = release.digests()
    begin = time.monotonic()
    release.upgrade(proxy_pool={"timeout": "2s"})
    plane.wait(lambda: len(set(release.digests())) == 1 and not set(release.digests()) & set(digests), 30, "all proxies to have the new settings")
    plane.say(f"all proxies have a new setting {time.monotonic() - begin:.1f} s after the upgrade began")
    plane.check(release.uids("proxy") == proxies, "the proxies are the same pods")
    judge(plane, load.stop())
    load = Load(host, port)
    release.upgrade(proxy_workers=2)
    plane.wait(lambda: len(release.pods("proxy")) == 3 and not set(release.uids("proxy")) & set(proxies), 90, "three other proxies")
    judge(plane, load.stop(), "reconnects", "closed idle")

    # Proxies go, one at a time.
    load = Load(host, port)
    for number, pod in enumerate(release.pods("proxy")):
        begin = time.monotonic()
        release.delete_pod(pod)
        plane.wait(lambda: not release.api.get("pods", pod["metadata"]["name"], release.namespace), 70, "the proxy to end")
        plane.say(f"proxy {number} deleted: its pod was gone after {time.monotonic() - begin:.1f} s")
        plane.wait(lambda: plane.ready(release.pods("proxy")) == 3, 60, "three proxies")
    judge(plane, load.stop(), "reconnects", "closed idle")
    release.test()

    # Back, with clients there: a smaller ring, and other proxies, for their pods change too.
    load = Load(host, port)
    release.rollback(1)
    release.await_ring(3)
    plane.wait(lambda: len(release.pods("shard")) == 3 and len(release.pods("proxy")) == 3, 60, "three shards and three proxies")
    settle(2)
    judge(plane, load.stop(), "reconnects", "closed idle")

    # Smaller.
    release.values = installed
    release.refuse("shards.allowDataLoss", shards_count=2)
    load = Load(host, port)
    shrinking = Shrinking(release, "memstore-shards-2", 2)
    release.upgrade(shards_count=2, shards_allowDataLoss=True)
    plane.wait(lambda: len(release.pods("shard")) == 2, 60, "two shards")
    settle(1)
    shrinking.stop()
    judge(plane, load.stop())
    plane.expect(shrinking.ring and shrinking.pod, f"both were seen: ring {shrinking.ring}, pod {shrinking.pod}")
    plane.say(f"all proxies had left the shard {shrinking.pod - shrinking.ring:.1f} s before its pod was told to end")
    plane.check(shrinking.ring < shrinking.pod, "the ring changes before the shard's pod ends")
    release.uninstall()


def lose_a_shard(plane, release, owners):
    """A shard's pod is deleted: its keys fail fast and by its name, the others are served, and no key moves."""
    host, port = release.address()
    lost = release.pods("shard")[1]
    name = lost["metadata"]["name"]
    theirs = next(key for key, owner in owners.items() if owner == name)
    other = next(key for key, owner in owners.items() if owner != name)
    outage, others = Outage(host, port, theirs), Outage(host, port, other)
    begin = time.monotonic()
    release.delete_pod(lost)
    uid = lost["metadata"]["uid"]

    def replaced():
        pod = release.api.get("pods", name, release.namespace)
        return pod and pod["metadata"]["uid"] != uid and is_ready(pod) and pod

    fresh = plane.wait(replaced, 60, f"another {name}")
    plane.expect(fresh["status"]["podIP"] != lost["status"]["podIP"], "another address")
    plane.say(f"shard deleted: ready at another address after {time.monotonic() - begin:.1f} s")
    plane.wait(lambda: not outage.last or time.monotonic() - outage.last > 2, 60, "its keys to be served")
    outage.stop()
    others.stop()
    plane.say(
        f"shard deleted: its keys failed for {outage.seconds():.2f} s, each request for at most {outage.slowest * 1000:.0f} ms: {outage.errors}"
    )
    plane.check(all("shard-1" in words for words in outage.errors), f"errors name the shard: {outage.errors}")
    plane.check(outage.slowest < 1.5, "they come within the timeout")
    # Where the next pod runs at once there may be no errors: the proxy connects again within a quarter of a second.
    plane.expect(outage.served, "the client was served")
    plane.check(outage.connections == 1, "the client's connection stayed")
    plane.check(not others.errors, f"other shards' keys were served: {others.errors}")
    # Also by proxies that nobody asked for it meanwhile.
    for address in release.addresses("proxy"):
        idle = Outage(address, 6379, theirs)
        plane.wait(lambda: idle.last or idle.served > 10, 10, "a proxy to answer")
        plane.wait(lambda: not idle.last or time.monotonic() - idle.last > 1, 60, "every proxy to serve the shard's keys")
        idle.stop()
        plane.check(
            not idle.errors,
            f"{time.monotonic() - begin:.0f} s after a shard has moved, a proxy that had not been asked for it still fails: for {idle.seconds():.2f} s, {idle.errors}",
        )
    with Redis(host, port) as client:
        write_all(client, 2000)
        plane.expect(read_all(client, 2000) == 0, "all keys are there again")
    after = release.owners()
    plane.expect({key: after.get(key) for key in owners} == owners, "no key has moved")


def memcached(plane):
    """The same with memcached."""
    release = Release(plane, "memstore-mc", partitioning="proxy", shards={"type": "memcached", "count": 3}, proxy={"count": 2})
    release.install()
    host, port = release.address()
    with Memcached(host, port) as client:
        for number in range(1000):
            client.set(f"key:{number}", b"value %d" % number)
        plane.expect(all(client.get(f"key:{number}") == b"value %d" % number for number in range(1000)), "all keys are there")
    counts = []
    for address in release.addresses("shard"):
        with Memcached(address, release.shard_port()) as shard:
            counts.append(int(shard.stat("curr_items")))
    plane.expect(sum(counts) == 1000 and all(counts), f"each key is on one of three shards: {counts}")
    release.test()
    lost = release.pods("shard")[0]
    release.delete_pod(lost)
    plane.wait(
        lambda: plane.ready(release.pods("shard")) == 3 and release.pods("shard")[0]["metadata"]["uid"] != lost["metadata"]["uid"], 60, "the shard"
    )

    def served():
        with Memcached(host, port) as client:
            try:
                for number in range(200):
                    client.set(f"key:{number}", b"again")
                return True
            except Refusal:
                return False

    plane.wait(served, 30, "all shards to be served again")
    release.upgrade(shards_count=4)
    release.await_ring(4)
    release.test()
    release.uninstall()


CLIENT_SIDE = """
import socket, sys
sys.path.insert(0, "/example")
sys.path.insert(0, "/tests")
import memstore_ring
from clients import Redis
ring = memstore_ring.read("/topology/topology.json", "cache")
connections = {}
def shard(key):
    address = ring.shard_for(key.encode())["address"]
    if address not in connections:
        host, _, port = address.rpartition(":")
        connections[address] = Redis(host, int(port))
    return connections[address]
for number in range(500):
    assert shard(f"key:{number}").call("SET", f"key:{number}", f"value {number}") == "OK"
for number in range(500):
    assert shard(f"key:{number}").call("GET", f"key:{number}") == f"value {number}".encode()
assert len(connections) == len(ring.shards), connections
"""


def client_side(plane):
    """Applications find the shards themselves, by the document in a ConfigMap, and where a proxy would find them."""
    release = Release(plane, "memstore-cs", partitioning="client-side", shards={"count": 3})
    release.install()
    plane.expect(not release.pods("proxy"), "there are no proxies")
    release.api.create("configmaps", {"metadata": {"name": "example"}, "data": {"memstore_ring.py": EXAMPLE.read_text()}}, release.namespace)
    mounts = [{"name": "topology", "mountPath": "/topology", "readOnly": True}, {"name": "example", "mountPath": "/example"}]
    volumes = [{"name": "topology", "configMap": {"name": f"{release.full_name()}-topology"}}, {"name": "example", "configMap": {"name": "example"}}]
    application = {"container": {"volumeMounts": mounts}, "volumes": volumes}
    job(plane, release.namespace, "application", ["python3", "-c", CLIENT_SIDE], **application)
    plane.expect(len(release.owners()) == 500, "each key is on one shard")
    release.test()
    release.upgrade(shards_count=4)
    job(plane, release.namespace, "application-later", ["python3", "-c", CLIENT_SIDE], **application)
    release.test()
    release.rollback(1)
    release.api.delete("configmaps", "example", release.namespace)
    for name in ("application", "application-later"):
        release.api.delete("jobs", name, release.namespace, propagationPolicy="Background")
    release.uninstall()


def password(plane):
    """With a password and disks: who does not say it is refused, and keys survive their shard's pod."""
    release = Release(
        plane,
        "memstore-pw",
        partitioning="proxy",
        auth={"enabled": True, "existingSecret": "cache"},
        shards={"count": 2, "persistence": {"enabled": True, "size": "1Gi"}},
        proxy={"count": 2},
    )
    # With what shells and configuration files take for their own.
    word = 'p"ss\\w$rd'
    release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": word}}, release.namespace)
    release.install()
    host, port = release.address()
    for address in (host, *release.addresses("shard")):
        with Redis(address, port) as client:
            try:
                client.call("GET", "key:1")
                plane.check(False, f"{address} asks nobody for the password")
            except Refusal as refusal:
                plane.check("NOAUTH" in str(refusal), f"{address} says {refusal}")
            plane.expect(client.call("AUTH", word) == "OK", f"{address} knows the password")
    with Redis(host, port) as client:
        client.call("AUTH", word)
        write_all(client, 1000)
    lost = release.pods("shard")[0]
    release.delete_pod(lost)
    plane.wait(
        lambda: plane.ready(release.pods("shard")) == 2 and release.pods("shard")[0]["metadata"]["uid"] != lost["metadata"]["uid"], 60, "the shard"
    )

    def missing():
        with Redis(host, port) as client:
            client.call("AUTH", word)
            return read_all_or_none(client, 1000)

    plane.expect(plane.wait(missing, 30, "all keys to be answered") == [0], "the keys of the shard came back with its disk")
    shards = release.uids("shard")
    release.upgrade(shards_config="maxclients 5000")
    plane.wait(lambda: not set(release.uids("shard")) & set(shards) and plane.ready(release.pods("shard")) == 2, 90, "two other shards")
    plane.expect(plane.wait(missing, 30, "all keys to be answered") == [0], "all keys are there after all shards were replaced")
    release.test()
    release.api.delete("secrets", "cache", release.namespace)
    release.uninstall()


def network_policy(plane):
    """Pods of the namespace reach the proxy and not the shards; those of others reach nothing until they are let in."""
    release = Release(plane, "memstore-np", partitioning="proxy", shards={"count": 2}, proxy={"count": 1})
    elsewhere = plane.namespace("chart-elsewhere")
    release.install()
    domain = f"{release.namespace}.svc.cluster.local"
    shard = f"{release.full_name()}-shards-0.{release.full_name()}-shards.{domain}"
    numbers = iter(range(100))

    def ask(namespace, host, succeeds):
        name = f"ask-{next(numbers)}"
        job(plane, namespace, name, ["sh", "-c", f"timeout 5 redis-cli -h {host} PING | grep PONG"], succeeds)
        plane.api.delete("jobs", name, namespace, propagationPolicy="Background")

    proxy_name = f"{release.full_name()}.{domain}"
    ask(release.namespace, proxy_name, True)
    ask(release.namespace, shard, False)
    ask(elsewhere, proxy_name, False)
    ask(elsewhere, shard, False)
    release.upgrade(networkPolicy_clientNamespaces=[elsewhere])
    ask(elsewhere, proxy_name, True)
    ask(elsewhere, shard, False)
    release.test()
    release.uninstall()
    plane.remove_namespace(elsewhere)


SCENARIOS = {
    "proxy": proxy,
    "memcached": memcached,
    "client-side": client_side,
    "password": password,
    "network-policy": network_policy,
}
