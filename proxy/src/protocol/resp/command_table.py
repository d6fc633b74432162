#!/usr/bin/env python3
"""Writes command_table.rs, so that no key position in it was ever typed by hand.

What a server publishes about its commands (COMMAND, COMMAND DOCS) is taken as it is. What a sharding proxy has to
decide for itself stands in the policy below, and commands newer than the server that was asked in the supplement.

    command_table.py [host port] > command_table.rs

Without an address a redis-server from PATH is started on 127.0.0.1 and ended again. Python 3, standard library only.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time

# ---------------------------------------------------------------------------------------------------------------
# Policy: what each command means behind a proxy. Whatever is not named here and has keys is forwarded by its keys;
# a command that is not named here and has no keys stops the generator, because nobody has decided yet.
# ---------------------------------------------------------------------------------------------------------------

SPLIT = {
    "mget": "Array",
    "mset": "AllOk",
    "del": "Sum",
    "unlink": "Sum",
    "exists": "Sum",
    "touch": "Sum",
}

# The variant of `Local` that answers; a name with a bar is a subcommand.
ANSWER = {
    "ping": "Ping",
    "echo": "Echo",
    "time": "Time",
    "quit": "Quit",
    "reset": "Reset",
    "hello": "Hello",
    "auth": "Auth",
    "select": "Select",
    "readonly": "Readonly",
    "readwrite": "Readwrite",
    "asking": "Asking",
    "role": "Role",
    "info": "Info",
    "lolwut": "Lolwut",
    "command": "Command",
    "client|id": "ClientId",
    "client|info": "ClientInfo",
    "client|list": "ClientList",
    "client|kill": "ClientKill",
    "client|getname": "ClientGetname",
    "client|setname": "ClientSetname",
    "client|setinfo": "ClientSetinfo",
    "client|reply": "ClientReply",
    "client|no-evict": "ClientNoEvict",
    "client|no-touch": "ClientNoTouch",
    "config|get": "ConfigGet",
}

# Containers of which every subcommand has the same answer.
ANSWER_WHOLE = {"command": "Command", "cluster": "Cluster"}

LATER = {
    "Transaction": "multi exec discard watch unwatch",
    "Blocking": "blpop brpop blmove blmovem brpoplpush blmpop bzpopmin bzpopmax bzmpop bzmove client|unblock",
    "PubSub": "subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe",
    "Publish": "publish spublish"
    " pubsub|channels pubsub|numpat pubsub|numsub pubsub|shardchannels pubsub|shardnumsub",
    "Scan": "scan",
    "AllShards": "keys dbsize flushdb randomkey script|exists script|load script|show"
    " function|dump function|list function|load function|stats"
    " slowlog|len commandlog|len"
    " latency|doctor latency|graph latency|histogram latency|history latency|latest"
    " memory|doctor memory|malloc-stats memory|stats",
    "WholeServer": "flushall script|flush script|kill function|delete function|flush function|kill function|restore"
    " slowlog|get slowlog|reset commandlog|get commandlog|reset latency|reset memory|purge",
    "Wait": "wait waitaof",
    "Tracking": "client|tracking client|caching client|trackinginfo client|getredir",
}

USERS, MODULES, REPLICATION, PERSISTENCE = "USERS", "MODULES", "REPLICATION", "PERSISTENCE"
PROTOCOL, DEBUGGING, PAUSE = "PROTOCOL", "DEBUGGING", "PAUSE"
CONFIGURATION = "CONFIGURATION"

# Reasons that several rows share; they become constants.
REASONS = {
    USERS: "users are kept by each shard; clients of the proxy know only the default user",
    MODULES: "modules are loaded into each shard by whoever runs it",
    REPLICATION: "replication is set up on the shards themselves, not through the proxy",
    PERSISTENCE: "each shard saves its data on its own; ask the shards directly",
    PROTOCOL: "this is spoken between servers, never by a client of the proxy",
    DEBUGGING: "debugging commands act on one server; ask the shard directly",
    CONFIGURATION: "it would change the shards for all clients of the proxy; ask the shards directly",
    PAUSE: "it would hold up the connections that all clients of the proxy share",
}

REFUSE = {
    "shutdown": "stopping a shard is left to whoever runs it; a client of the proxy cannot",
    "debug": DEBUGGING,
    "pfdebug": DEBUGGING,
    "pfselftest": DEBUGGING,
    "script|debug": "the script debugger needs a connection to one shard; ask the shard directly",
    "replicaof": REPLICATION,
    "slaveof": REPLICATION,
    "failover": REPLICATION,
    "sync": PROTOCOL,
    "psync": PROTOCOL,
    "replconf": PROTOCOL,
    "restore-asking": PROTOCOL,
    "monitor": "it would show the commands of all clients of a shard; ask the shard directly",
    "migrate": "it would move keys to a place where the proxy does not look for them",
    "save": PERSISTENCE,
    "bgsave": PERSISTENCE,
    "bgrewriteaof": PERSISTENCE,
    "lastsave": PERSISTENCE,
    "swapdb": "it would swap databases on one shard after another, and clients would see them mixed",
    "config|set": CONFIGURATION,
    "config|resetstat": CONFIGURATION,
    "config|rewrite": "each shard has a configuration file of its own; ask the shards directly",
    "client|pause": PAUSE,
    "client|unpause": PAUSE,
    "client|capa": "the proxy never redirects its clients, so they need not announce what they can do",
    "client|import-source": "importing is done on the shards themselves",
    "client|maint_notifications": "the proxy's address stays, so there are no maintenance notifications",
}
REFUSE_WHOLE = {"acl": USERS, "module": MODULES}

# Which words Redis finds for a bad number of keys (found by trying): a variant of `KeyNumWords`.
KEYNUM_WORDS = {
    "eval eval_ro": "Script",
    "evalsha evalsha_ro fcall fcall_ro": "NamedScript",
    "zunion zinter zdiff zintercard zunionstore zinterstore zdiffstore": "AtLeastOne",
    "sintercard sunioncard sdiffcard": "GreaterThanZeroOfArgs",
    "lmpop blmpop zmpop bzmpop msetex": "GreaterThanZero",
}

# Options that come before the STREAMS keyword, and how many arguments each takes: with BLOCK the command waits.
BLOCKS_WITH = {
    "xread": ("BLOCK", "STREAMS", "STREAM_OPTIONS"),
    "xreadgroup": ("BLOCK", "STREAMS", "STREAM_OPTIONS"),
}

# Redis finds the keys of SORT by code, not by its published key specs: the last STORE wins, values of other options
# are passed over, and the keys that BY and GET read come from the elements of what is sorted.
KEYS_BY_HAND = {
    ("sort", 1): ("patterns", ("BY", "GET"), 2, "SORT_OPTIONS"),
    ("sort", 2): ("option", ("STORE",), 2, "SORT_SKIPPED"),
    ("sort_ro", 1): ("patterns", ("BY", "GET"), 2, "SORT_OPTIONS"),
}

# What it takes as keys when it executes a command, where that is not what its key specs say: the last STORE of either kind
# wins, and the name of a group may be "streams".
EXECUTED = {
    "sort": ("at(1, RO | ACCESS)", 'option(&["STORE"], 2, SORT_OPTIONS, OW | UPDATE)'),
    "georadius": ("at(1, RO | ACCESS)", 'option(&["STORE", "STOREDIST"], 6, GEO_OPTIONS, OW | UPDATE)'),
    "georadiusbymember": ("at(1, RO | ACCESS)", 'option(&["STORE", "STOREDIST"], 5, GEO_OPTIONS, OW | UPDATE)'),
    "xread": ('half_behind(&["STREAMS"], 1, STREAM_OPTIONS, RO | ACCESS)',),
    "xreadgroup": ('half_behind(&["STREAMS"], 1, STREAM_OPTIONS, RO | ACCESS)',),
}

# Reach another database than the client's: all of them, the one that an argument names, or with an option. A pool that stays in one database refuses them.
LEAVES_DATABASE = {"move": "To(2)", "flushall": "All", "copy": 'With("DB")'}

# ---------------------------------------------------------------------------------------------------------------
# Supplement: commands of later Redis and Valkey versions, in the server's own words for flags and keys.
# name, arity, flags, categories that do not follow from the flags, key specs, since, group, summary
# ---------------------------------------------------------------------------------------------------------------


def key(index, *flags):
    return {"flags": flags, "begin": ("index", index), "find": ("range", 0, 1, 0), "notes": ""}


def numbered(index, step, *flags):
    return {"flags": flags, "begin": ("index", index), "find": ("keynum", 0, 1, step), "notes": ""}


READ = [key(1, "RO", "access")]
WRITE = [key(1, "RW", "update")]
DELETE = [key(1, "RW", "delete")]
HASH_EXPIRE = (-6, "write denyoom fast", "hash", WRITE, "7.4.0", "hash")
HASH_TTL = (-5, "readonly fast", "hash", READ, "7.4.0", "hash")
MOVE = [key(1, "RW", "access", "delete"), key(2, "RW", "insert")]
# How many arguments they take at least is left to the server where that is not certain.
SET_WRITE = (-3, "write denyoom fast", "set", WRITE, "8.12.0", "set")
SET_TTL = (-3, "readonly fast", "set", READ, "8.12.0", "set")
VECTOR_READ = ("readonly", "", READ)
VECTOR_READ_FAST = ("readonly fast", "", READ)
ARRAY_WRITE = ("write denyoom", "", WRITE, "8.8.0", "array")
ARRAY_READ = ("readonly", "", READ, "8.8.0", "array")
SUPPLEMENT = [
    ("hexpire", *HASH_EXPIRE, "Sets the time to live of hash fields in seconds."),
    ("hpexpire", *HASH_EXPIRE, "Sets the time to live of hash fields in milliseconds."),
    ("hexpireat", *HASH_EXPIRE, "Sets the expiration time of hash fields to a Unix timestamp in seconds."),
    ("hpexpireat", *HASH_EXPIRE, "Sets the expiration time of hash fields to a Unix timestamp in milliseconds."),
    ("hpersist", -5, "write fast", "hash", WRITE, "7.4.0", "hash", "Removes the expiration time of hash fields."),
    ("httl", *HASH_TTL, "Returns the time to live of hash fields in seconds."),
    ("hpttl", *HASH_TTL, "Returns the time to live of hash fields in milliseconds."),
    ("hexpiretime", *HASH_TTL, "Returns the expiration time of hash fields in seconds."),
    ("hpexpiretime", *HASH_TTL, "Returns the expiration time of hash fields in milliseconds."),
    ("hgetdel", -5, "write fast", "hash", [key(1, "RW", "access", "delete")], "8.0.0", "hash",
     "Returns the values of hash fields and deletes the fields."),
    ("hgetex", -5, "write fast", "hash", [key(1, "RW", "access", "update")], "8.0.0", "hash",
     "Returns the values of hash fields and sets their expiration time."),
    ("hsetex", -6, "write denyoom fast", "hash", WRITE, "8.0.0", "hash",
     "Sets hash fields together with their expiration time."),
    ("xdelex", -5, "write fast", "stream", DELETE, "8.2.0", "stream",
     "Deletes entries of a stream and chooses what becomes of references to them."),
    ("xackdel", -6, "write fast", "stream", DELETE, "8.2.0", "stream",
     "Acknowledges entries of a stream and deletes them."),
    ("delex", -2, "write fast", "string", DELETE, "8.4.0", "string",
     "Deletes a key if its value or digest is as expected."),
    ("digest", 2, "readonly fast", "string", READ, "8.4.0", "string", "Returns the digest of a string."),
    ("msetex", -4, "write denyoom movablekeys", "string", [numbered(1, 2, "OW", "update")], "8.4.0", "string",
     "Sets keys together with an expiration time, all or none."),
    ("delifeq", 3, "write fast", "string", DELETE, "9.0.0", "string",
     "Deletes a key if its value is as expected (Valkey)."),
    ("increx", -2, "write denyoom fast", "string", [key(1, "RW", "access", "update")], "8.8.0", "string",
     "Increments the number in a key within bounds and sets its expiration time."),
    ("xcfgset", -2, "write fast", "stream", WRITE, "8.6.0", "stream",
     "Sets how long a stream remembers what was added, so that it is added once."),
    ("xnack", -7, "write fast", "stream", WRITE, "8.8.0", "stream",
     "Gives claimed messages back to the group without acknowledging them."),
    ("lmovem", -5, "write denyoom", "list", MOVE, "8.10.0", "list", "Moves several elements from one list to another."),
    ("blmovem", -6, "write denyoom blocking", "list", MOVE, "8.10.0", "list",
     "Moves several elements from one list to another, and waits for them."),
    ("sunioncard", -3, "readonly movablekeys", "set", [numbered(1, 1, "RO", "access")], "8.10.0", "set",
     "Counts the members of the union of several sets."),
    ("sdiffcard", -3, "readonly movablekeys", "set", [numbered(1, 1, "RO", "access")], "8.10.0", "set",
     "Counts the members of the first set that are in none of the others."),
    ("sexpire", *SET_WRITE, "Sets the time to live of members of a set in seconds."),
    ("spexpire", *SET_WRITE, "Sets the time to live of members of a set in milliseconds."),
    ("sexpireat", *SET_WRITE, "Sets the expiration time of members of a set to a Unix timestamp in seconds."),
    ("spexpireat", *SET_WRITE, "Sets the expiration time of members of a set to a Unix timestamp in milliseconds."),
    ("spersist", *SET_WRITE, "Removes the expiration time of members of a set."),
    ("saddex", *SET_WRITE, "Adds members to a set together with their expiration time."),
    ("sttl", *SET_TTL, "Returns the time to live of members of a set in seconds."),
    ("spttl", *SET_TTL, "Returns the time to live of members of a set in milliseconds."),
    ("sexpiretime", *SET_TTL, "Returns the expiration time of members of a set in seconds."),
    ("spexpiretime", *SET_TTL, "Returns the expiration time of members of a set in milliseconds."),
    ("zmove", -4, "write denyoom", "sortedset", MOVE, "8.12.0", "sorted-set",
     "Moves the lowest or highest member of a sorted set to another one."),
    ("zmovemember", -4, "write denyoom", "sortedset", MOVE, "8.12.0", "sorted-set",
     "Moves a member of a sorted set to another one."),
    ("bzmove", -5, "write denyoom blocking", "sortedset", MOVE, "8.12.0", "sorted-set",
     "Moves the lowest or highest member of a sorted set to another one, and waits for one."),
    ("bitrangeintarray", -2, "readonly", "bitmap", READ, "8.12.0", "bitmap",
     "Returns the positions of the bits that are set in a range."),
    ("vadd", -5, "write denyoom", "", WRITE, "8.0.0", "vector_set", "Adds an element to a vector set, or updates its vector."),
    ("vrem", -3, "write", "", DELETE, "8.0.0", "vector_set", "Removes an element from a vector set."),
    ("vsetattr", 4, "write fast", "", WRITE, "8.0.0", "vector_set", "Sets or removes the attributes of an element."),
    ("vsim", -4, *VECTOR_READ, "8.0.0", "vector_set", "Returns the elements most similar to a vector or an element."),
    ("vcard", 2, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns the number of elements in a vector set."),
    ("vdim", 2, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns the dimension of the vectors in a vector set."),
    ("vemb", -3, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns the vector of an element."),
    ("vgetattr", 3, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns the attributes of an element."),
    ("vinfo", 2, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns information about a vector set."),
    ("vlinks", -3, *VECTOR_READ_FAST, "8.0.0", "vector_set", "Returns the neighbours of an element."),
    ("vrandmember", -2, *VECTOR_READ, "8.0.0", "vector_set", "Returns one or several random elements of a vector set."),
    ("vismember", 3, *VECTOR_READ_FAST, "8.2.0", "vector_set", "Says whether an element is in a vector set."),
    ("vrange", -4, *VECTOR_READ, "8.4.0", "vector_set", "Returns the elements of a vector set in a range of names."),
    ("arset", -4, *ARRAY_WRITE, "Sets values in an array from an index on."),
    ("armset", -4, *ARRAY_WRITE, "Sets values in an array at several indexes."),
    ("arinsert", -3, *ARRAY_WRITE, "Appends values to an array at its cursor."),
    ("arring", -4, *ARRAY_WRITE, "Appends values to an array that goes around at a size."),
    ("ardel", -3, *ARRAY_WRITE, "Deletes values of an array at indexes."),
    ("ardelrange", -4, *ARRAY_WRITE, "Deletes values of an array in ranges of indexes."),
    ("arseek", 3, *ARRAY_WRITE, "Sets the cursor of an array."),
    ("arget", 3, *ARRAY_READ, "Returns the value of an array at an index."),
    ("armget", -3, *ARRAY_READ, "Returns the values of an array at several indexes."),
    ("argetrange", -4, *ARRAY_READ, "Returns the values of an array in a range of indexes."),
    ("arscan", -4, *ARRAY_READ, "Returns indexes and values of an array in a range."),
    ("argrep", -4, *ARRAY_READ, "Searches the values of an array in a range."),
    ("arop", -5, *ARRAY_READ, "Aggregates the values of an array in a range."),
    ("arlastitems", -3, *ARRAY_READ, "Returns the values that were appended to an array last."),
    ("arnext", 2, *ARRAY_READ, "Returns the index at which the next value is appended to an array."),
    ("arlen", 2, *ARRAY_READ, "Returns the length of an array."),
    ("arcount", -2, *ARRAY_READ, "Returns the number of values in an array."),
    ("arinfo", -2, *ARRAY_READ, "Returns information about an array."),
    ("waitaof", 4, "noscript", "connection", [], "7.2.0", "generic",
     "Waits until earlier writes are in the append-only file."),
    ("client|setinfo", 4, "noscript loading stale", "connection", [], "7.2.0", "connection",
     "Sets the name or version of the client library."),
    ("client|no-touch", 3, "noscript loading stale", "connection", [], "7.2.0", "connection",
     "Controls whether commands of this client count as use of a key."),
    ("client|maint_notifications", -3, "noscript loading stale", "connection", [], "8.2.0", "connection",
     "Asks for notifications about maintenance of the server."),
    ("client|capa", -3, "noscript loading stale", "connection", [], "8.0.0", "connection",
     "Announces what the client can do (Valkey)."),
    ("script|show", 3, "noscript", "scripting", [], "8.0.0", "scripting",
     "Returns the text of a script in the cache (Valkey)."),
    ("cluster|myshardid", 2, "stale", "", [], "7.2.0", "cluster", "Returns the shard id of a node."),
]

# ---------------------------------------------------------------------------------------------------------------
# What follows from the flags, so that rows need not repeat it.
# ---------------------------------------------------------------------------------------------------------------


def implied_categories(flags, extra):
    found = {"fast" if "fast" in flags else "slow"}
    if "write" in flags:
        found.add("write")
    if "readonly" in flags and "scripting" not in extra:
        found.add("read")
    if "admin" in flags:
        found |= {"admin", "dangerous"}
    if "pubsub" in flags:
        found.add("pubsub")
    if "blocking" in flags:
        found.add("blocking")
    return found


# ---------------------------------------------------------------------------------------------------------------
# The server
# ---------------------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, host, port):
        self.socket = socket.create_connection((host, port), timeout=10)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        request = b"*%d\r\n" % len(words)
        for word in words:
            request += b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode())
        self.socket.sendall(request)
        return self.read()

    def read(self):
        line = self.file.readline()
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return None if rest == "-1" else [self.read() for _ in range(int(rest))]
        raise SystemExit(f"the server answered {line!r}")


def started_server():
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    directory = tempfile.TemporaryDirectory()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory.name],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(100):
        try:
            return Server("127.0.0.1", port), process, directory
        except ConnectionRefusedError:
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"redis-server does not listen on port {port}")


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


def key_spec(flat):
    spec = pairs(flat)
    begin, find = pairs(spec["begin_search"]), pairs(spec["find_keys"])
    return {
        "flags": spec["flags"],
        "begin": (begin["type"], *pairs(begin["spec"]).values()),
        "find": (find["type"], *pairs(find["spec"]).values()),
        "notes": spec.get("notes", ""),
    }


def command(entry, docs):
    name, arity, flags, _, _, _, categories, tips, specs, subcommands = entry
    categories = {category.removeprefix("@") for category in categories}
    # @connection and the like are what Redis' sources name; the rest follows from the flags.
    extra = categories - implied_categories(flags, categories)
    if implied_categories(flags, extra) | extra != categories:
        raise SystemExit(f"{name}: categories {categories} do not follow from flags {flags}")
    doc = pairs(docs[name])
    inner = pairs(doc.get("subcommands", []))
    return {
        "name": name,
        "arity": arity,
        "flags": flags,
        "categories": extra,
        "tips": tips,
        "keys": [key_spec(spec) for spec in specs],
        "since": doc["since"],
        "group": doc["group"],
        "summary": doc["summary"].strip(),
        "subcommands": [command(sub, inner) for sub in sorted(subcommands)],
    }


def supplement(commands):
    known = {row["name"]: row for row in commands}
    known |= {sub["name"]: sub for row in commands for sub in row["subcommands"]}
    for name, arity, flags, categories, keys, since, group, summary in SUPPLEMENT:
        if name in known:
            continue
        row = {
            "name": name,
            "arity": arity,
            "flags": flags.split(),
            "categories": set(categories.split()),
            "tips": [],
            "keys": keys,
            "since": since,
            "group": group,
            "summary": summary,
            "subcommands": [],
        }
        container = name.partition("|")[0]
        siblings = known[container]["subcommands"] if "|" in name else commands
        siblings.append(row)
        siblings.sort(key=lambda row: row["name"])


# ---------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------


def handling(row):
    name = row["name"]
    container, _, subcommand = name.partition("|")
    if container in REFUSE_WHOLE:
        return refuse(REFUSE_WHOLE[container]) if subcommand else "Container"
    if container in ANSWER_WHOLE and (subcommand or name in ANSWER):
        return f"Answer({ANSWER_WHOLE[container]})"
    if subcommand == "help":
        return "Answer(Help)"
    if name in SPLIT:
        return f"Split({SPLIT[name]})"
    if name in ANSWER:
        return f"Answer({ANSWER[name]})"
    for feature, names in LATER.items():
        if name in names.split():
            return f"Later({feature})"
    if name in REFUSE:
        return refuse(REFUSE[name])
    if row["subcommands"]:
        return "Container"
    if row["keys"]:
        return "Forward"
    raise SystemExit(f"{name} has no keys and no line in the policy")


def refuse(reason):
    return f"Refuse({reason if reason in REASONS else quoted(reason)})"


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bits(names, order, taken=()):
    # some categories are called like a flag, which is another bit
    words = [("category::" if name in taken else "") + name.upper() for name in sorted(names, key=order.index)]
    return " | ".join(words) or "0"


FLAGS = (
    "write readonly denyoom admin pubsub noscript blocking loading stale skip_monitor skip_slowlog asking fast"
    " no_auth no_mandatory_keys no_async_loading no_multi movablekeys allow_busy"
).split()
CATEGORIES = (
    "keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow"
    " blocking dangerous connection transaction scripting"
).split()
KEY_FLAGS = "RO RW OW RM access insert update delete not_key incomplete variable_flags".split()


def key_row(row, number, spec):
    access = bits(spec["flags"], KEY_FLAGS)
    by_hand = KEYS_BY_HAND.get((row["name"], number))
    if by_hand:
        kind, words, begin, options = by_hand
        words = ", ".join(quoted(word) for word in words)
        text = f"{kind}(&[{words}], {begin}, {options}, {access})"
    else:
        begin, find = spec["begin"], spec["find"]
        if begin[0] == "unknown" or find[0] == "unknown":
            raise SystemExit(f"{row['name']}: key spec {number} is unknown to the server; name it in KEYS_BY_HAND")
        if find[0] == "keynum":
            words = [words for names, words in KEYNUM_WORDS.items() if row["name"] in names.split()]
            if begin[0] != "index" or not words:
                raise SystemExit(f"{row['name']}: no words for a bad number of keys")
            text = f"counted({begin[1]}, {find[1]}, {find[2]}, {find[3]}, {words[0]}, {access})"
        elif begin[0] == "keyword":
            text = f"after({quoted(begin[1])}, {begin[2]}, {find[1]}, {find[2]}, {find[3]}, {access})"
        elif find[1:] == (0, 1, 0):
            text = f"at({begin[1]}, {access})"
        else:
            text = f"through({begin[1]}, {find[1]}, {find[2]}, {find[3]}, {access})"
    if spec["notes"]:
        text += f".notes({quoted(spec['notes'])})"
    return text


def rust(row, indent):
    keys = ", ".join(key_row(row, number, spec) for number, spec in enumerate(row["keys"]))
    doc = ", ".join(quoted(row[part]) for part in ("since", "group", "summary"))
    text = (
        f"{indent}row({quoted(row['name'])}, {row['arity']}, {bits(row['flags'], FLAGS)}, &[{keys}], {handling(row)},"
        f" {bits(row['categories'], CATEGORIES, FLAGS)}, doc({doc}))"
    )
    if row["tips"]:
        text += f".tips(&[{', '.join(quoted(tip) for tip in row['tips'])}])"
    if row["name"] in LEAVES_DATABASE:
        text += f".leaves_database({LEAVES_DATABASE[row['name']]})"
    if row["name"] in EXECUTED:
        text += f".executed(&[{', '.join(EXECUTED[row['name']])}])"
    if row["name"] in BLOCKS_WITH:
        option, until, options = BLOCKS_WITH[row["name"]]
        text += f".blocks_with({quoted(option)}, {quoted(until)}, {options})"
    if row["subcommands"]:
        inner = "".join(rust(sub, indent + "    ") for sub in row["subcommands"])
        text += f".subcommands(&[\n{inner}{indent}])"
    return text + ",\n"


HEAD = """\
//! One row per command: its name, arity, flags, where its keys stand, and what the proxy does with it.
//! Every other file asks here, so that a new command is a new row and nothing else.
//!
//! Written by `command_table.py` from what Redis {version} publishes (COMMAND, COMMAND DOCS) and from the policy in
//! that script; change the script, not this file. Columns: name, arity, flags, keys, handling, categories beyond those
//! that follow from the flags, and (since, group, summary). `commands.rs` explains the words.

use super::command_keys::LeavesDatabase::*;
use super::commands::Feature::*;
use super::commands::Handling::*;
use super::commands::KeyNumWords::*;
use super::commands::Local::*;
use super::commands::Merge::*;
use super::commands::category::{
    self, BITMAP, CONNECTION, DANGEROUS, GEO, HASH, HYPERLOGLOG, KEYSPACE, LIST, SCRIPTING, SET, SORTEDSET,
    STREAM, STRING, TRANSACTION,
};
use super::commands::flag::*;
use super::commands::key::*;
use super::commands::{Command, doc, row};

/// Arguments that each option of SORT and SORT_RO takes. Source: <https://redis.io/docs/latest/commands/sort/>.
const SORT_OPTIONS: &[(&str, u8)] = &[("BY", 1), ("GET", 1), ("LIMIT", 2), ("STORE", 1)];

/// Those that COMMAND GETKEYS passes over: what stands behind STORE may be an option for it.
const SORT_SKIPPED: &[(&str, u8)] = &[("BY", 1), ("GET", 1), ("LIMIT", 2)];

/// Arguments that each option of GEORADIUS and GEORADIUSBYMEMBER takes.
/// Source: <https://redis.io/docs/latest/commands/georadius/>.
const GEO_OPTIONS: &[(&str, u8)] = &[("COUNT", 1), ("STORE", 1), ("STOREDIST", 1)];

/// Arguments that each option of XREAD and XREADGROUP takes before STREAMS; any order is accepted.
/// Source: <https://redis.io/docs/latest/commands/xreadgroup/>.
const STREAM_OPTIONS: &[(&str, u8)] = &[("BLOCK", 1), ("COUNT", 1), ("GROUP", 2), ("NOACK", 0), ("CLAIM", 1),
    ("MAXCOUNT", 1), ("MAXSIZE", 1)];

{reasons}/// All commands, sorted by name; subcommands stand in the row of their container.
#[rustfmt::skip]
pub static COMMANDS: [Command; {count}] = [
"""


def main():
    process = directory = None
    if len(sys.argv) == 3:
        server = Server(sys.argv[1], int(sys.argv[2]))
    else:
        server, process, directory = started_server()
    try:
        info = dict(line.split(":", 1) for line in server.ask("INFO", "server").splitlines() if ":" in line)
        docs = pairs(server.ask("COMMAND", "DOCS"))
        commands = [command(entry, docs) for entry in sorted(server.ask("COMMAND"))]
    finally:
        if process:
            process.terminate()
            process.wait()
            directory.cleanup()
    supplement(commands)
    head = HEAD.replace("{version}", info["redis_version"]).replace("{count}", str(len(commands)))
    reasons = "".join(f"const {name}: &str = {quoted(reason)};\n" for name, reason in REASONS.items())
    head = head.replace("{reasons}", reasons + "\n")
    sys.stdout.write(head + "".join(rust(row, "    ") for row in commands) + "];\n")


if __name__ == "__main__":
    main()
