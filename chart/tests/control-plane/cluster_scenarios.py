"""The chart as a Redis Cluster: formed, healed, larger and smaller, and what becomes of the keys."""

import time

from clients import Closed, Load, Redis, Refusal, encoded
from release import Release
from witnesses import Outage, judge, read_all, read_all_or_none, summed, write_all


def redis_cluster(plane):
    """A Redis Cluster: formed, healed after all its pods came back elsewhere, larger and smaller with every value kept."""
    release = Release(
        plane,
        "memstore-rc",
        partitioning="redis-cluster",
        shards={"count": 3, "persistence": {"enabled": True, "size": "1Gi"}},
        redisCluster={"replicasPerPrimary": 1},
        proxy={"count": 2},
    )
    release.install()
    whole(plane, release, 6)
    host, port = release.address()
    with Redis(host, port) as client:
        # A proxy that saw the cluster while it was forming asks again after a second.
        plane.wait(lambda: read_all_or_none(client, 3000), 10, "the proxy to know all slots")
        write_all(client, 3000)
        plane.expect(read_all(client, 3000) == 0, "all keys are there")
    release.test()

    # One primary goes, and its replica takes its place.
    load = Load(host, port)
    primary = primaries(release)[0]
    begin = time.monotonic()
    release.delete_pod(primary)
    plane.wait(lambda: plane.ready(release.pods("shard")) == 6 and is_whole(release, 6), 90, "the cluster to be whole again")
    plane.say(f"a primary deleted: the cluster was whole again after {time.monotonic() - begin:.1f} s")
    seen = load.stop()
    examples = seen.pop("examples")
    plane.say(f"a primary deleted: clients saw {seen} {examples.get('errors', '')}")
    plane.expect(
        not any(seen.get(what) for what in ("wrong", "cut inside a reply", "closed unanswered", "closed idle", "connects failed")),
        f"connections stayed: {seen}",
    )

    # All at once.
    before = release.uids("shard")
    old = release.addresses("shard")
    begin = time.monotonic()
    for pod in release.pods("shard"):
        release.delete_pod(pod)
    plane.wait(lambda: not set(before) & set(release.uids("shard")) and len(release.uids("shard")) == 6, 60, "six other pods")
    plane.wait(lambda: len(release.addresses("shard")) == 6 and not set(old) & set(release.addresses("shard")), 60, "six other addresses")
    plane.say(f"all nodes deleted: all had other addresses after {time.monotonic() - begin:.1f} s")
    plane.wait(lambda: is_whole(release, 6), 120, "the cluster to be healed")
    plane.say(f"all nodes deleted: the cluster was healed after {time.monotonic() - begin:.1f} s")

    for proxy in release.addresses("proxy"):

        def served(proxy=proxy):
            try:
                with Redis(proxy, 6379) as client:
                    return read_all_or_none(client, 3000)
            except (Closed, OSError):
                return None

        missing = plane.wait(served, 60, "each proxy to serve all keys")
        plane.say(f"all nodes deleted: a proxy served all keys after {time.monotonic() - begin:.1f} s, {missing[0]} of 3000 missing")
        plane.expect(missing[0] == 0, "with persistence, no key is lost")

    # Larger, and smaller.
    for count, nodes in ((4, 8), (3, 6)):
        load = Load(host, port)
        release.upgrade(shards_count=count)
        plane.wait(lambda: is_whole(release, nodes), 60, f"a whole cluster of {nodes}")
        judge(plane, load.stop())
        with Redis(host, port) as client:
            plane.expect(read_all(client, 3000) == 0, "all keys are there")
        plane.expect(len(primaries(release)) == count, f"{count} primaries")
    release.test()

    load = Load(host, port)
    release.rollback(2)
    plane.wait(lambda: is_whole(release, 8), 90, "a whole cluster of 8")
    plane.expect(len(primaries(release)) == 4, "4 primaries again")
    judge(plane, load.stop())
    with Redis(host, port) as client:
        plane.expect(read_all(client, 3000) == 0, "all keys are there")
    release.test()
    release.uninstall()


def redis_cluster_in_memory(plane):
    """Without disks for the keys, replicas keep them: when a primary stays away, and when it is back at once and empty."""
    release = Release(
        plane,
        "memstore-rm",
        partitioning="redis-cluster",
        shards={"count": 3},
        redisCluster={"replicasPerPrimary": 1},
        proxy={"count": 2},
    )
    release.install()
    whole(plane, release, 6)
    host, port = release.address()

    def missing():
        try:
            with Redis(host, port) as client:
                return read_all_or_none(client, 3000)
        except (Closed, OSError):
            return None

    for how in ("stays away", "is deleted and back at once", "crashes"):
        with Redis(host, port) as client:
            write_all(client, 3000)
            plane.expect(read_all(client, 3000) == 0, "all keys are there")
        plane.wait(lambda: all(copied(told[2]) for told in nodes_of(release).values()), 30, "replicas to have all")
        primary = primaries(release)[0]
        uid = primary["metadata"]["uid"]
        watched = next(f"key:{number}" for number in range(3000) if owned_by(release, primary, f"key:{number}"))
        outage = Outage(host, port, watched)
        begin = time.monotonic()
        if how == "crashes":
            with Redis(primary["status"]["podIP"], 6379) as node:
                node.send(encoded(["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]))
        else:
            plane.close_nodes(how == "stays away")
            release.delete_pod(primary)
        # There may be none; one that is to come has begun by then.
        plane.wait(lambda: time.monotonic() - (outage.last or begin + 12) > 3, 60, "the outage to be over")
        outage.stop()
        plane.say(f"a primary without a disk {how}: its keys failed for {outage.seconds():.1f} s: {summed(outage.errors)}")
        plane.close_nodes(False)
        plane.wait(lambda: len(release.addresses("shard")) == 6 and is_whole(release, 6), 120, "the cluster to be whole again")
        plane.expect((how == "crashes") == (uid in release.uids("shard")), "only a crash leaves the pod")
        plane.say(f"a primary without a disk {how}: the cluster was whole after {time.monotonic() - begin:.1f} s")
        lost = plane.wait(missing, 60, "all keys to be answered")[0]
        plane.say(f"a primary without a disk {how}: {lost} of 3000 keys are missing")
        plane.check(lost == 0, f"a primary without a disk {how}: {lost} of 3000 keys were lost although it had a replica")
    begin = time.monotonic()
    before = release.uids("shard")
    for pod in release.pods("shard"):
        release.delete_pod(pod)
    plane.wait(
        lambda: not set(before) & set(release.uids("shard")) and len(release.addresses("shard")) == 6 and is_whole(release, 6),
        120,
        "the cluster to be healed",
    )
    plane.say(f"all nodes deleted: the cluster, empty, was healed after {time.monotonic() - begin:.1f} s")
    plane.wait(missing, 60, "all keys to be answered")
    release.test()
    release.uninstall()


def redis_cluster_rollout(plane):
    """All nodes are replaced, one after the other, as by another image: no key is lost, with disks for them or without."""
    for persistence in (True, False):
        kept = "with disks" if persistence else "without disks"
        release = Release(
            plane,
            "memstore-rd" if persistence else "memstore-rv",
            partitioning="redis-cluster",
            shards={"count": 3, "persistence": {"enabled": True, "size": "1Gi"} if persistence else {}},
            redisCluster={"replicasPerPrimary": 1},
            proxy={"count": 2},
        )
        release.install()
        whole(plane, release, 6)
        host, port = release.address()
        with Redis(host, port) as client:
            write_all(client, 3000)
        plane.wait(lambda: all(copied(told[2]) for told in nodes_of(release).values()), 30, "replicas to have all")
        load = Load(host, port)
        before = release.uids("shard")
        release.upgrade(shards_config="maxclients 5000")
        plane.wait(lambda: not set(before) & set(release.uids("shard")) and is_whole(release, 6), 200, "six other nodes, and a whole cluster")
        seen = load.stop()
        examples = seen.pop("examples")
        plane.say(f"all nodes replaced, {kept}: clients saw {seen}, first {examples.get('errors')}")
        for what in ("wrong", "stale", "misses", "cut inside a reply", "closed unanswered", "closed idle", "connects failed"):
            plane.check(not seen.get(what), f"all nodes replaced, {kept}: clients saw {seen.get(what)} {what}, first {examples.get(what)}")
        with Redis(host, port) as client:
            lost = read_all(client, 3000)
        plane.check(lost == 0, f"all nodes replaced, {kept}: {lost} of 3000 keys were lost")
        release.uninstall()


def redis_cluster_password(plane):
    """With a password, the cluster is formed and grows all the same."""
    release = Release(
        plane,
        "memstore-rp",
        partitioning="redis-cluster",
        auth={"enabled": True, "existingSecret": "cache"},
        shards={"count": 3},
        proxy={"count": 1},
    )
    word = "p'ss w\"rd"
    release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": word}}, release.namespace)
    release.install()
    host, port = release.address()
    with Redis(host, port) as client:
        client.call("AUTH", word)
        write_all(client, 1000)
        release.upgrade(shards_count=4)
        plane.expect(read_all(client, 1000) == 0, "all keys are there")
    release.test()
    release.api.delete("secrets", "cache", release.namespace)
    release.uninstall()


def nodes_of(release):
    """What each node says of all nodes: address of the node asked, then (address, flags, link, slots)."""
    told = {}
    for address in release.addresses("shard"):
        with Redis(address, 6379, 3) as node:
            info = dict(line.split(":", 1) for line in node.call("CLUSTER", "INFO").decode().split("\r\n") if ":" in line)
            lines = [line.split() for line in node.call("CLUSTER", "NODES").decode().splitlines()]
            replication = dict(line.split(":", 1) for line in node.call("INFO", "replication").decode().split("\r\n") if ":" in line)
            told[address] = info, [(line[1].split(":")[0], line[2], line[7], line[8:]) for line in lines], replication
    return told


def is_whole(release, count):
    """Every node knows every other at its present address, all slots are served, and replicas follow."""
    try:
        told = nodes_of(release)
    except (OSError, Refusal, Closed):
        return False
    present = set(told)
    for info, nodes, replication in told.values():
        if info["cluster_state"] != "ok" or info["cluster_slots_assigned"] != "16384" or info["cluster_slots_ok"] != "16384":
            return False
        if {node[0] for node in nodes} != present or len(nodes) != count or any("fail" in node[1] or node[2] != "connected" for node in nodes):
            return False
        if replication["role"] == "slave" and replication["master_link_status"] != "up":
            return False
    return len(present) == count


def whole(plane, release, count):
    plane.wait(lambda: is_whole(release, count), 90, f"a whole cluster of {count}")


def primaries(release):
    """The pods that own slots."""
    told = nodes_of(release)
    owning = {address for address, (_, nodes, _) in told.items() for node in nodes if "myself" in node[1] and "master" in node[1] and node[3]}
    return [pod for pod in release.pods("shard") if pod["status"].get("podIP") in owning]


def owned_by(release, pod, key):
    with Redis(pod["status"]["podIP"], 6379) as node:
        try:
            node.call("GET", key)
            return True
        except Refusal:
            return False


def copied(replication):
    """Whether a replica has all that its primary had when it was asked; a primary has."""
    return replication["role"] == "master" or (
        replication["master_link_status"] == "up" and replication["slave_read_repl_offset"] == replication["slave_repl_offset"]
    )


SCENARIOS = {
    "redis-cluster": redis_cluster,
    "redis-cluster-in-memory": redis_cluster_in_memory,
    "redis-cluster-rollout": redis_cluster_rollout,
    "redis-cluster-password": redis_cluster_password,
}
