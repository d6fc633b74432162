"""What goes wrong half-way in the life of a release, and what is changed under clients: no key is looked for where the others do not."""

import json
import time

import yaml

from clients import Load, Redis
from plane import Failed
from release import Release, topology
from witnesses import judge, read_all, settle, write_all

# As long as pods of new shards are pending.
PENDING_SECONDS = 60


def growth(plane):
    """The pods of new shards find no node for a while: proxies that start meanwhile use the ring of those that run."""
    release = Release(plane, "memstore-gr", partitioning="proxy", shards={"count": 3}, proxy={"count": 2})
    release.install()
    host, port = release.address()
    with Redis(host, port) as client:
        write_all(client, 2000)
    file = plane.folder / "growing.json"
    # Only new pods look for a node that is labelled so.
    release.values["shards"] |= {"count": 5, "updateStrategy": "OnDelete", "nodeSelector": {"memstore.dev/late": "true"}}
    file.write_text(json.dumps(release.values))
    release.helm("upgrade", release.name, str(plane.chart), "--values", str(file), "--timeout", "3m")
    plane.wait(lambda: all(told["shards_awaited"] == ["shard-3", "shard-4"] for told in pools(release)), 120, "both proxies to wait for two shards")
    began = time.monotonic()
    old = release.uids("proxy")
    release.delete_pod(release.pods("proxy")[0])
    plane.wait(lambda: plane.ready(release.pods("proxy")) == 2 and old[0] not in release.uids("proxy"), 70, "another proxy")
    while time.monotonic() - began < PENDING_SECONDS:
        plane.expect({len(ring) for ring in release.rings().values()} == {3}, f"all proxies have three shards: {release.rings()}")
        for address in release.addresses("proxy"):
            with Redis(address, 6379) as client:
                plane.expect(read_all(client, 2000) == 0, "all keys are there through every proxy")
        settle(5)
    for node in release.api.list("nodes"):
        release.api.patch("nodes", node["metadata"]["name"], {"metadata": {"labels": {"memstore.dev/late": "true"}}})
    release.await_ring(5)
    release.uninstall()


def shrink(plane):
    """An upgrade to fewer shards is refused after its hooks: it can be mended or taken back, and ends by itself."""
    release = Release(plane, "memstore-sh", partitioning="proxy", shards={"count": 3}, proxy={"count": 2, "pool": {"servers_within_limit": "150s"}})
    release.install()
    host, port = release.address()
    bad = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "no_such_name"}}

    def fail():
        try:
            release.apply("upgrade", shards_count=2, shards_allowDataLoss=True, extraObjects=[bad])
        except Failed as error:
            plane.say(f"refused: {str(error)[-200:]}")
            plane.expect("no_such_name" in str(error), "by the API server")
        else:
            raise Failed("an object with a bad name was accepted")
        plane.expect(all(told["servers_within"]["leaves_out"] == ["shard-2"] for told in pools(release)), "what is left out is told")
        plane.expect(len(release.pods("shard")) == 3, "the shard still runs")

    def back(seconds, how):
        began = time.monotonic()
        release.await_ring(3, seconds)
        plane.say(f"{how}: all proxies had three shards after {time.monotonic() - began:.1f} s")

    with Redis(host, port) as client:
        write_all(client, 2000)
    fail()
    release.values["shards"]["count"] = 3
    release.values["extraObjects"] = []
    release.rollback(1)
    back(100, "helm rollback")
    with Redis(host, port) as client:
        plane.expect(read_all(client, 2000) == 0, "nothing was written meanwhile, so that all keys are there")
    fail()
    back(260, "nothing")
    plane.expect(all(told["servers_within"]["expired"] for told in pools(release)), "that it has ended is told")
    # Begun again and mended it goes through.
    release.apply("upgrade", shards_count=2, extraObjects=[])
    plane.wait(lambda: len(release.pods("shard")) == 2, 60, "two shards")
    release.await_ring(2)
    # The list is deleted after the hooks; a node sees that with its next look at the volume.
    plane.wait(lambda: all(told["servers_within"] is None for told in pools(release)), 60, "nothing to be left out any more")
    release.uninstall()


def pools(release):
    return [topology(address)["pools"]["cache"] for address in release.addresses("proxy")]


def volumes(plane):
    """Larger volumes without a restart; and shards that keep nothing are not emptied without a word."""
    release = Release(
        plane, "memstore-vo", partitioning="proxy", shards={"count": 2, "persistence": {"enabled": True, "size": "1Gi"}}, proxy={"count": 2}
    )
    release.install()
    host, port = release.address()
    with Redis(host, port) as client:
        write_all(client, 1000)
    shards = release.uids("shard")
    load = Load(host, port)
    release.refuse("--cascade=orphan", shards_persistence_size="2Gi")
    shards_set = f"{release.full_name()}-shards"
    release.api.delete("statefulsets", shards_set, release.namespace, propagationPolicy="Orphan")
    # As kubectl does: it is gone when its pods have been orphaned.
    plane.wait(lambda: release.api.get("statefulsets", shards_set, release.namespace) is None, 60, "the StatefulSet to be gone")
    release.upgrade(shards_persistence_size="2Gi")
    plane.expect(release.uids("shard") == shards, "the shards are the same pods")
    plane.expect(release.restarts() == 0, "no container was restarted")
    judge(plane, load.stop())
    with Redis(host, port) as client:
        plane.expect(read_all(client, 1000) == 0, "all keys are there")
    release.uninstall()

    release = Release(plane, "memstore-di", partitioning="proxy", shards={"count": 2}, proxy={"count": 1})
    release.install()
    shards = release.uids("shard")
    release.refuse("shards.updateStrategy to OnDelete", shards_config="maxclients 5000")
    release.upgrade(shards_config="maxclients 5000", shards_updateStrategy="OnDelete")
    plane.expect(release.uids("shard") == shards, "the shards are the same pods")
    release.refuse("shards.updateStrategy to OnDelete", shards_updateStrategy="RollingUpdate")
    release.values["shards"]["updateStrategy"] = "OnDelete"
    release.upgrade(proxy_count=2)
    release.uninstall()


def applied(plane):
    """What is rendered can be applied again and again, without Helm."""
    release = Release(plane, "memstore-ap", partitioning="proxy", shards={"count": 2}, proxy={"count": 1}, tests={"enabled": True})
    file = plane.folder / "applied.json"
    for count in (2, 3, 3):
        release.values["shards"]["count"] = count
        file.write_text(json.dumps(release.values))
        text = release.helm("template", release.name, str(plane.chart), "--values", str(file))
        for thing in documents(text):
            release.api.apply(thing, release.namespace)
        plane.wait(lambda: plane.ready(release.pods("shard")) == count, 60, f"{count} shards")
        release.await_ring(count)
    plane.remove_namespace(release.namespace)


def documents(text):
    """As kubectl reads them."""
    return [document for document in yaml.safe_load_all(text) if document]


SCENARIOS = {
    "growth": growth,
    "shrink": shrink,
    "volumes": volumes,
    "applied": applied,
}
