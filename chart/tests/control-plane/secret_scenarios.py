"""Certificates and passwords: who is refused, and that nobody notices when they are changed as README.md says."""

import base64
import re
import subprocess
import threading
import urllib.request

from clients import Closed, Load, Memcached, Redis, Refusal, Tls
from plane import Failed
from release import Release
from witnesses import judge, read_all, read_all_or_none, settle, write_all

# The files of a pod change within this time, and what runs in it looks at them.
SECONDS = 120


class Authority:
    """Signs certificates, as cert-manager would."""

    def __init__(self, folder, name):
        folder.mkdir(exist_ok=True)
        self.folder, self.name, self.count = folder, name, 0
        self.file = folder / f"{name}.crt"
        openssl("req", "-x509", *KEY, "-keyout", folder / f"{name}.key", "-out", self.file, "-days", "30", "-subj", f"/CN={name}")

    def certificate(self, names, days=20):
        """Files of a certificate and its key."""
        self.count += 1
        stem = self.folder / f"{self.name}-{self.count}"
        request, crt, key, extensions = (stem.with_suffix(suffix) for suffix in (".csr", ".crt", ".key", ".ext"))
        alternatives = ",".join(f"DNS:{name}" for name in names)
        extensions.write_text(f"basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={alternatives}\n")
        openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={stem.name}")
        # A number of its own, by which it is known again.
        signed = ["-CA", self.file, "-CAkey", self.folder / f"{self.name}.key", "-set_serial", str(1000 + self.count)]
        openssl("x509", "-req", "-in", request, *signed, "-out", crt, "-days", str(days), "-extfile", extensions)
        return crt, key


KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"openssl {words[0]}: {done.stderr}")


class Certificates:
    """The Secret of a release's certificate."""

    def __init__(self, release, secret="certificates"):
        self.release, self.secret = release, secret
        self.folder = release.plane.folder / f"{release.name}-certificates"
        shards, domain = f"{release.full_name()}-shards", f"{release.namespace}.svc.cluster.local"
        self.host = f"{release.full_name()}.{domain}"
        self.names = [self.host, f"{shards}.{domain}", f"*.{shards}.{domain}"]
        self.shards_host = self.names[1]
        self.first = Authority(self.folder, "first")
        self.pair = self.first.certificate(self.names)

    def data(self, pair, *authorities):
        files = {"tls.crt": pair[0].read_bytes(), "tls.key": pair[1].read_bytes(), "ca.crt": b"".join(one.file.read_bytes() for one in authorities)}
        return {name: base64.b64encode(content).decode() for name, content in files.items()}

    def create(self):
        data = self.data(self.pair, self.first)
        self.release.api.create("secrets", {"metadata": {"name": self.secret}, "type": "kubernetes.io/tls", "data": data}, self.release.namespace)

    def change(self, pair, *authorities):
        self.release.api.patch("secrets", self.secret, {"data": self.data(pair, *authorities)}, self.release.namespace)

    def client(self, name, pair=None, *authorities):
        """A client that trusts these authorities, and presents this certificate."""
        trusted = self.folder / f"trusted-{'-'.join(one.name for one in authorities or [self.first])}.crt"
        trusted.write_bytes(b"".join(one.file.read_bytes() for one in authorities or [self.first]))
        return Tls(name, str(trusted), *(str(file) for file in pair or ()))

    def remove(self):
        self.release.api.delete("secrets", self.secret, self.release.namespace)


def shown(address, port, tls, kind=Redis):
    """The number of the certificate that a server shows to new clients; None if it refuses this one."""
    try:
        with kind(address, port, tls=tls) as client:
            if kind is Redis:
                try:
                    client.call("PING")
                except Refusal:
                    # Whoever may not speak yet is let in as well.
                    pass
            else:
                client.get("nothing")
            return int(client.socket.getpeercert()["serialNumber"], 16)
    except (Closed, OSError):
        return None


class Newcomers(threading.Thread):
    """Connects again and again, says each of the passwords that is good now, and writes. `connect` is a client that nobody has asked anything."""

    def __init__(self, connect, words=(None,)):
        super().__init__(daemon=True)
        self.connect, self.words = connect, words
        self.served, self.refused, self.over = 0, {}, threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            for word in list(self.words):
                try:
                    with self.connect() as client:
                        if word:
                            client.call("AUTH", word)
                        for number in range(20):
                            client.call("SET", f"new:{number}", number)
                        self.served += 1
                except (Refusal, Closed, OSError) as error:
                    if word in self.words:
                        self.refused[str(error)] = self.refused.get(str(error), 0) + 1
            self.over.wait(0.02)

    def judge(self, plane, what):
        self.over.set()
        self.join()
        plane.say(f"{what}: {self.served} new connections were served")
        plane.check(not self.refused, f"{what}: refused: {self.refused}")
        plane.expect(self.served > 50, f"{what}: they were served at all")


def rotation(plane):
    """A password is changed as README.md says, by the Secret alone: nobody is refused who says either of the two, neither by proxies nor by shards."""
    old, new = 'o"ld\\w$rd', 'n"ew\\w$rd'
    for user in ("", "app"):
        auth = {"enabled": True, "existingSecret": "cache", "user": user}
        release = Release(plane, f"memstore-ro{user}", partitioning="proxy", auth=auth, shards={"count": 2}, proxy={"count": 2})
        release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": old}}, release.namespace)
        release.install()
        host, port = release.address()
        shards = release.addresses("shard")
        pods = release.uids("shard") + release.uids("proxy")
        words = [old]
        # What applications say that name no user, and those that name one.
        newcomers = [Newcomers(lambda: Said(user, host, port), words), *(Newcomers(lambda each=each: Said(user, each, 6379), words) for each in shards)]
        load = Load(host, port, password=old) if not user else None

        def known(word, addresses):
            return [accepts(user, address, word) for address in addresses]

        release.api.patch("secrets", "cache", {"stringData": {"password": new, "previous": old}}, release.namespace)
        everybody = [*release.addresses("proxy"), *shards]
        plane.wait(lambda: all(known(new, everybody)), SECONDS, "proxies and shards to accept the new password")
        plane.expect(all(known(old, everybody)), "and the one before")
        words.append(new)
        settle(1)
        if load:
            judge(plane, load.stop())
            load = Load(host, port, password=new)
        words.remove(old)
        settle(1)
        release.api.patch("secrets", "cache", {"data": {"previous": None}}, release.namespace)
        plane.wait(lambda: not any(known(old, everybody)), SECONDS, "proxies and shards to refuse the old password")
        settle(1)
        plane.expect(all(known(new, everybody)), "the new one is accepted")
        for each, what in zip(newcomers, ("proxies", "shard 0", "shard 1")):
            each.judge(plane, what)
        if load:
            judge(plane, load.stop())
        # Proxies say the password again, and so does a shard that starts.
        end_connections(plane, [Said(user, address, 6379) for address in shards], new)
        plane.wait(lambda: can_write(Said(user, host, port), new), 10, "proxies to be connected to all shards again")
        plane.expect(release.uids("shard") + release.uids("proxy") == pods, "the pods are the same")
        plane.expect(release.restarts() == 0, "no container was restarted")
        release.test()
        release.api.delete("secrets", "cache", release.namespace)
        release.uninstall()


def end_connections(plane, shards, word):
    """Whoever is connected to the shards has to connect again. Not while anybody waits for a reply, which nobody else could give."""
    for shard in shards:
        with shard:
            shard.call("AUTH", word)
            shard.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    plane.say("the shards' connections were ended")


def can_write(client, word):
    with client:
        client.call("AUTH", word)
        try:
            write_all(client, 200)
        except Failed:
            return False
        return True


class Said(Redis):
    """AUTH with a user's name, where there is one."""

    def __init__(self, user, host, port, **more):
        super().__init__(host, port, **more)
        self.user = user

    def call(self, *words):
        if words[0] == "AUTH" and self.user:
            words = ("AUTH", self.user, *words[1:])
        return super().call(*words)


def accepts(user, address, word):
    try:
        with Said(user, address, 6379) as client:
            client.call("AUTH", word)
            return True
    except (Refusal, Closed, OSError):
        return False


def tls(plane):
    """Everybody speaks TLS and presents a certificate: others are refused, and certificates and authorities change under load."""
    release = Release(
        plane,
        "memstore-tls",
        partitioning="proxy",
        auth={"enabled": True, "existingSecret": "cache"},
        tls={"enabled": True, "existingSecret": "certificates", "clientAuth": "required"},
        shards={"count": 2},
        proxy={"count": 2},
    )
    word = "secret"
    release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": word}}, release.namespace)
    certificates = Certificates(release)
    certificates.create()
    release.install()
    host, port = release.address()
    first, second = certificates.first, Authority(certificates.folder, "second")
    ours = first.certificate(["client"])
    client = certificates.client(certificates.host, ours, first, second)
    to_shards = certificates.client(certificates.shards_host, ours, first, second)
    strangers = second.certificate(["client"])
    everybody = [(address, client) for address in release.addresses("proxy")] + [(address, to_shards) for address in release.addresses("shard")]

    # Who is let in.
    for address, good in everybody:
        plane.expect(shown(address, 6379, good) == 1001, f"{address} shows its certificate")
        plane.check(shown(address, 6379, certificates.client(good.name)) is None, f"{address} refuses whoever has no certificate")
        plane.check(shown(address, 6379, certificates.client(good.name, strangers)) is None, f"{address} refuses a certificate of another authority")
        plane.check(not plain_is_served(address), f"{address} refuses whoever speaks no TLS")
    with Redis(host, port, tls=client) as connection:
        connection.call("AUTH", word)
        write_all(connection, 1000)
        plane.expect(read_all(connection, 1000) == 0, "all keys are there")
    release.test()
    release.refuse("with TLS", tls_shards=False)

    pods = release.uids("shard") + release.uids("proxy")
    load = Load(host, port, password=word, **client.options)
    newcomers = Newcomers(lambda: Redis(host, port, tls=client), (word,))

    def until(what, number):
        plane.wait(lambda: all(shown(address, 6379, good) == number for address, good in everybody), SECONDS, what)
        settle(2)

    # Another certificate of the same authority.
    certificates.change(first.certificate(certificates.names), first)
    until("the next certificate everywhere", number_of(first))
    # Half of a change, which nobody uses.
    wrong = (first.certificate(certificates.names)[0], ours[1])
    certificates.change(wrong, first)
    plane.wait(lambda: all("memstore_config_reload_failed 1" in metrics(address) for address in release.addresses("proxy")), SECONDS, "proxies to refuse a pair that does not fit")
    settle(15)
    plane.expect(all(shown(address, 6379, good) for address, good in everybody), "all go on with what they had")
    # Another authority: first it is trusted beside the other one, then it signs, then the other one goes.
    kept = first.certificate(certificates.names)
    certificates.change(kept, first, second)
    theirs = second.certificate(["client"])
    certificates_of_second = [(address, certificates.client(good.name, theirs, first, second)) for address, good in everybody]
    plane.wait(lambda: all(shown(address, 6379, good) for address, good in certificates_of_second), SECONDS, "both authorities to be trusted everywhere")
    certificates.change(second.certificate(certificates.names), first, second)
    until("a certificate of the second authority everywhere", number_of(second))
    newcomers.judge(plane, "the certificate was changed three times")
    judge(plane, load.stop())
    end_connections(plane, [Redis(address, 6379, tls=to_shards) for address in release.addresses("shard")], word)
    plane.wait(lambda: can_write(Redis(host, port, tls=client), word), 10, "proxies to be connected to all shards again")
    client = certificates.client(certificates.host, theirs, second)
    load = Load(host, port, password=word, **client.options)
    certificates.change(second.certificate(certificates.names), second)
    plane.wait(lambda: not any(shown(address, 6379, good) for address, good in everybody), SECONDS, "the first authority to be trusted nowhere")
    settle(2)
    judge(plane, load.stop())
    plane.expect(release.uids("shard") + release.uids("proxy") == pods, "the pods are the same")
    plane.expect(release.restarts() == 0, "no container was restarted")
    release.test()

    # A shard comes back.
    lost = release.pods("shard")[0]
    release.delete_pod(lost)
    plane.wait(lambda: plane.ready(release.pods("shard")) == 2 and lost["metadata"]["uid"] not in release.uids("shard"), 60, "the shard")

    def served():
        with Redis(host, port, tls=client) as connection:
            connection.call("AUTH", word)
            return read_all_or_none(connection, 1000)

    plane.expect(plane.wait(served, 30, "all keys to be answered")[0] < 1000, "the other shard's keys are there")
    certificates.remove()
    release.api.delete("secrets", "cache", release.namespace)
    release.uninstall()


def users(plane):
    """Users of a Secret, on shards that applications connect to: each may do what its line says, and a changed line is used without a restart."""
    auth = {"enabled": True, "existingSecret": "cache", "user": "store", "users": {"existingSecret": "users"}}
    release = Release(plane, "memstore-us", partitioning="client-side", auth=auth, shards={"count": 2})
    release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": "word"}}, release.namespace)
    line = "# applications\nuser app on >secret ~app:* +@read +set\n"
    release.api.create("secrets", {"metadata": {"name": "users"}, "stringData": {"users.acl": line}}, release.namespace)
    release.install()
    pods = release.uids("shard")

    def says(address, user, word, *command):
        try:
            with Redis(address, 6379) as client:
                if user:
                    client.call("AUTH", user, word)
                return client.call(*command)
        except Refusal as refusal:
            return str(refusal).split()[0]

    def all_say(expected, *asked):
        return all(says(address, *asked) == expected for address in release.addresses("shard"))

    plane.expect(all_say("NOAUTH", None, None, "GET", "app:1"), "nobody is let in without a name")
    plane.expect(all_say("OK", "app", "secret", "SET", "app:1", "x"), "a user may do what its line says")
    plane.expect(all_say("NOPERM", "app", "secret", "SET", "other", "x"), "and nothing else")
    plane.expect(all_say("OK", "store", "word", "SET", "other", "x"), "the release's own user may do all")
    release.test()
    with Redis(release.addresses("shard")[0], 6379) as kept:
        kept.call("AUTH", "store", "word")
        change = {"stringData": {"users.acl": line.replace("+set", "+set ~other") + "user more on >again ~* +get\n"}}
        release.api.patch("secrets", "users", change, release.namespace)
        plane.wait(lambda: all_say("OK", "app", "secret", "SET", "other", "x"), SECONDS, "the changed line to be used")
        plane.expect(all_say(b"x", "more", "again", "GET", "other"), "there is another user")
        # One line that is wrong, and none of them is used.
        release.api.patch("secrets", "users", {"stringData": {"users.acl": "user app on >secret ~* +@all\nuser more on +nonsense\n"}}, release.namespace)
        # The password is changed as before.
        release.api.patch("secrets", "cache", {"stringData": {"password": "next", "previous": "word"}}, release.namespace)
        plane.wait(lambda: all_say("OK", "store", "next", "SET", "other", "x"), SECONDS, "both passwords to be accepted")
        plane.expect(all_say("OK", "store", "word", "SET", "other", "x"), "both passwords are accepted")
        settle(12)
        plane.expect(all_say("NOPERM", "app", "secret", "SET", "third", "x"), "a file with a mistake is not used")
        plane.expect(all_say(b"x", "more", "again", "GET", "other"), "and what was there before is")
    release.api.patch("secrets", "users", {"stringData": {"users.acl": line}}, release.namespace)
    plane.wait(lambda: all_say("WRONGPASS", "more", "again", "GET", "other"), SECONDS, "the other user to be gone")
    plane.expect(release.uids("shard") == pods and release.restarts() == 0, "nothing was restarted")
    release.test()
    for name in ("cache", "users"):
        release.api.delete("secrets", name, release.namespace)
    release.uninstall()


def number_of(authority):
    """Of its latest certificate."""
    return 1000 + authority.count


def plain_is_served(address, kind=Redis):
    try:
        with kind(address, 6379, 3) as client:
            client.call("PING")
            return True
    except Refusal as refusal:
        return "NOAUTH" in str(refusal)
    except (Closed, OSError):
        return False


def metrics(address):
    with urllib.request.urlopen(f"http://{address}:9121/metrics", timeout=3) as answer:
        return answer.read().decode()


def tls_memcached(plane):
    """memcached with TLS: it reads a new certificate without being started again, and so do the proxies."""
    release = Release(
        plane,
        "memstore-tm",
        partitioning="proxy",
        tls={"enabled": True, "existingSecret": "certificates", "clientAuth": "required"},
        shards={"type": "memcached", "count": 2},
        proxy={"count": 2},
    )
    certificates = Certificates(release)
    certificates.create()
    release.install()
    host, port = release.address()
    ours = certificates.first.certificate(["client"])
    client, to_shards = (certificates.client(name, ours) for name in (certificates.host, certificates.shards_host))
    everybody = [(address, client) for address in release.addresses("proxy")] + [(address, to_shards) for address in release.addresses("shard")]
    for address, good in everybody:
        plane.expect(shown(address, 11211, good, Memcached) == 1001, f"{address} shows its certificate")
        plane.check(shown(address, 11211, certificates.client(good.name), Memcached) is None, f"{address} refuses whoever has no certificate")
    pods = release.uids("shard") + release.uids("proxy")
    with Memcached(host, port, tls=client) as connection:
        for number in range(300):
            connection.set(f"key:{number}", b"value %d" % number)
        certificates.change(certificates.first.certificate(certificates.names), certificates.first)
        wanted = number_of(certificates.first)

        def changed():
            # Nobody is disconnected meanwhile.
            for number in range(100):
                connection.get(f"key:{number}")
            return all(shown(address, 11211, good, Memcached) == wanted for address, good in everybody)

        plane.wait(changed, SECONDS, "the next certificate everywhere")
        plane.expect(all(connection.get(f"key:{number}") == b"value %d" % number for number in range(300)), "all keys are there")
    plane.expect(release.uids("shard") + release.uids("proxy") == pods and release.restarts() == 0, "nothing was restarted")
    release.test()
    certificates.remove()
    release.uninstall()


def tls_cluster(plane):
    """A Redis Cluster whose nodes speak TLS with each other: formed, grown, its certificate and its password changed, and healed."""
    release = Release(
        plane,
        "memstore-tc",
        partitioning="redis-cluster",
        auth={"enabled": True, "existingSecret": "cache"},
        tls={"enabled": True, "existingSecret": "certificates", "clientAuth": "required"},
        shards={"count": 3},
        redisCluster={"replicasPerPrimary": 1},
        proxy={"count": 2},
    )
    release.api.create("secrets", {"metadata": {"name": "cache"}, "stringData": {"password": "old"}}, release.namespace)
    certificates = Certificates(release)
    certificates.create()
    release.install()
    host, port = release.address()
    ours = certificates.first.certificate(["client"])
    client, to_shards = (certificates.client(name, ours) for name in (certificates.host, certificates.shards_host))

    def cluster(word):
        """What each node says of the others' state and of its primary."""
        found = []
        for address in release.addresses("shard"):
            try:
                with Redis(address, 6379, tls=to_shards) as node:
                    node.call("AUTH", word)
                    info = node.call("CLUSTER", "INFO").decode()
                    links = re.findall(r"master_link_status:(\w+)", node.call("INFO", "replication").decode())
                    found.append("cluster_state:ok" in info and links in ([], ["up"]))
            except (Refusal, Closed, OSError):
                found.append(False)
        return found

    def connected():
        return Redis(host, port, tls=client)

    plane.wait(lambda: cluster("old") == [True] * 6, 90, "a whole cluster of 6")

    def all_answered(word):
        with connected() as connection:
            connection.call("AUTH", word)
            return read_all_or_none(connection, 1000)

    plane.wait(lambda: all_answered("old"), 10, "the proxy to know all slots")
    with connected() as connection:
        connection.call("AUTH", "old")
        write_all(connection, 1000)
    release.test()
    pods = release.uids("shard") + release.uids("proxy")
    load = Load(host, port, password="old", **client.options)
    certificates.change(certificates.first.certificate(certificates.names), certificates.first)
    release.api.patch("secrets", "cache", {"stringData": {"password": "new", "previous": "old"}}, release.namespace)
    wanted = number_of(certificates.first)
    everybody = [(address, client) for address in release.addresses("proxy")] + [(address, to_shards) for address in release.addresses("shard")]
    plane.wait(lambda: all(shown(address, 6379, good) == wanted for address, good in everybody), SECONDS, "the next certificate everywhere")
    plane.wait(lambda: cluster("new") == cluster("old") == [True] * 6, SECONDS, "both passwords to be accepted by all nodes")
    # Replicas connect to their primaries again.
    for address in release.addresses("shard"):
        with Redis(address, 6379, tls=to_shards) as node:
            node.call("AUTH", "new")
            node.call("CLIENT", "KILL", "TYPE", "replica")
            node.call("CLIENT", "KILL", "TYPE", "master")
    plane.wait(lambda: cluster("new") == [True] * 6, 60, "replicas to be connected again")
    judge(plane, load.stop())
    load = Load(host, port, password="new", **client.options)
    release.api.patch("secrets", "cache", {"data": {"previous": None}}, release.namespace)
    plane.wait(lambda: cluster("new") == [True] * 6 and cluster("old") == [False] * 6, SECONDS, "the old password to be refused by all nodes")
    settle(2)
    judge(plane, load.stop())
    plane.expect(release.uids("shard") + release.uids("proxy") == pods and release.restarts() == 0, "nothing was restarted")
    load = Load(host, port, password="new", **client.options)
    release.upgrade(shards_count=4)
    plane.wait(lambda: cluster("new") == [True] * 8, 90, "a whole cluster of 8")
    judge(plane, load.stop())
    lost = release.pods("shard")[0]
    release.delete_pod(lost)
    plane.wait(lambda: lost["metadata"]["uid"] not in release.uids("shard") and cluster("new") == [True] * 8, 120, "the cluster to be healed")
    plane.expect(plane.wait(lambda: all_answered("new"), 30, "all keys to be answered") == [0], "no key is lost")
    release.test()
    certificates.remove()
    release.api.delete("secrets", "cache", release.namespace)
    release.uninstall()


SCENARIOS = {
    "rotation": rotation,
    "users": users,
    "tls": tls,
    "tls-memcached": tls_memcached,
    "tls-cluster": tls_cluster,
}
