"""What each command means behind a sharding proxy, and what no kept server publishes.

Only this is decided by hand; everything else in the table is what servers say (`servers/`, written by `record.py`).
"""

# ---------------------------------------------------------------------------------------------------------------
# Policy. Whatever is not named here and has keys is forwarded by its keys; a command that is not named here and has no
# keys stops the generator, because nobody has decided yet.
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
    "monitor": "Monitor",
    "hello": "Hello",
    "auth": "Auth",
    "select": "Select",
    "readonly": "Readonly",
    "readwrite": "Readwrite",
    "asking": "Asking",
    "multi": "Multi",
    "exec": "Exec",
    "discard": "Discard",
    "unwatch": "Unwatch",
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
    "client|unblock": "ClientUnblock",
    "client|tracking": "ClientTracking",
    "client|caching": "ClientCaching",
    "client|trackinginfo": "ClientTrackinginfo",
    "client|getredir": "ClientGetredir",
    "client|unpause": "ClientUnpause",
    "acl|whoami": "AclWhoami",
    "acl|users": "AclUsers",
    "acl|list": "AclList",
    "acl|getuser": "AclGetuser",
    "acl|cat": "AclCat",
    "acl|dryrun": "AclDryrun",
    "acl|log": "AclLog",
    "slowlog|get": "SlowlogGet",
    "slowlog|len": "SlowlogLen",
    "slowlog|reset": "SlowlogReset",
    "config|get": "ConfigGet",
    "config|set": "ConfigSet",
    "script|kill": "ScriptKill",
    "function|kill": "FunctionKill",
}

# Containers of which every subcommand has the same answer.
ANSWER_WHOLE = {"command": "Command"}

# What subcommands of CLUSTER ask, where the proxy poses as a cluster: a variant of `ClusterWord`. All others change something.
CLUSTER = {
    "slots": "Slots",
    "shards": "Shards",
    "nodes": "Nodes",
    "myid": "Myid",
    "myshardid": "Myshardid",
    "info": "Info",
    "keyslot": "Keyslot",
    "links": "Links",
    "help": "Help",
    "replicas": "Replicas",
    "slaves": "Replicas",
    "count-failure-reports": "CountFailureReports",
    "countkeysinslot": "Countkeysinslot",
    "getkeysinslot": "Getkeysinslot",
    "slot-stats": "SlotStats",
    "getslotmigrations": "Getslotmigrations",
}

# Commands that wait for data, with the place of their timeout.
BLOCK = {"First": "blmpop bzmpop", "Last": "blpop brpop bzpopmin bzpopmax brpoplpush", "BehindEnds": "blmove"}

# By what a key of one that waits under keys of several shards is tried, without waiting.
TRIED_BY = {
    "blpop": 'Element("LPOP")',
    "brpop": 'Element("RPOP")',
    "bzpopmin": 'Scored("ZPOPMIN")',
    "bzpopmax": 'Scored("ZPOPMAX")',
    "blmpop": 'Elements("LMPOP", ["LEFT", "RIGHT"])',
    "bzmpop": 'Elements("ZMPOP", ["MIN", "MAX"])',
    "xread": "Entries",
    "xreadgroup": "EntriesOfGroup",
}

# What becomes of a key whose spec says variable_flags: whether it is read and written depends on the other arguments.
VARIES = {
    "set": 'ReadsWith("GET")',
    "delex": "ReadsWithMore",
    "bitfield": 'WritesUnless(&[("GET", 2), ("OVERFLOW", 1)])',
}

# Commands that bring the value of one key to another one, which may be on another shard (rename_across_shards).
TRANSFERS = {"rename": "Renames", "renamenx": "RenamesIfNew", "copy": "Copies"}

# Commands about channels: which kind of names, and whether they are listened to from then on.
LISTEN = {
    "subscribe": "Channel, true",
    "unsubscribe": "Channel, false",
    "psubscribe": "Pattern, true",
    "punsubscribe": "Pattern, false",
    "ssubscribe": "Sharded, true",
    "sunsubscribe": "Sharded, false",
}
PUBLISH = ("publish", "spublish")
# Questions about channels, and how the answers of shards become one.
ASK_CHANNELS = {
    "pubsub|channels": "Union",
    "pubsub|shardchannels": "Union",
    "pubsub|numpat": "Most",
    "pubsub|numsub": "Counts(Channel)",
    "pubsub|shardnumsub": "Counts(Sharded)",
}

# Commands for all shards at once (in a cluster: for all nodes that own slots), and how the replies become one. `ALL_SERVERS`
# change something for all clients of a server, also of databases that are not the pool's.
ALL_SHARDS = {
    "Sum": "dbsize commandlog|len",
    "AllOk": "flushdb",
    "Keys": "keys",
    "Any(0)": "randomkey acl|genpass",
    "Least": "lastsave",
    "Every": "script|exists",
    "Modules": "module|list",
    "AnyDone": "script|load script|show function|dump function|list function|stats",
    "Same": "function|load",
    "History": "latency|history",
    "Latest": "latency|latest",
    "MemoryStats": "memory|stats",
    "Histogram": "latency|histogram",
    "Texts": "latency|doctor latency|graph memory|doctor memory|malloc-stats",
}
ALL_SERVERS = {
    "AllOk": "save flushall script|flush function|delete function|flush function|restore commandlog|reset memory|purge",
    "AllReset": "config|resetstat",
    "Same": "bgsave bgrewriteaof",
    "Sum": "latency|reset",
    "Log(0)": "commandlog|get",
}

# Which of them a pool of several shards can be kept from, or does only where a setting allows it: a variant of `Reach`.
REACH = {"Names": "keys", "Disk": "save bgsave bgrewriteaof"}

# Commands that run scripts, and what of; and those that change which are known.
SCRIPTS = {
    "script|load": "Shown",
    "script|flush": "Forgotten",
    "function|load": "LibraryLoaded",
    "function|delete": "LibraryDeleted",
    "function|flush": "LibrariesDeleted",
    "function|restore": "LibrariesRestored",
}
RUN = {"Text": "eval eval_ro", "Digest": "evalsha evalsha_ro", "Function": "fcall fcall_ro"}

# Names of all keys, page by page.
SCAN = ("scan",)

# Commands whose keys are watched, on a connection of the client's own.
WATCH = ("watch",)

# Commands that wait until replicas have what was executed before, and whether files are to have it as well.
CONFIRM = {"wait": "false", "waitaof": "true"}

LATER = {
    "Blocking": "blmovem bzmove",
    "AllShards": "clusterscan",
    "AtOnce": "swapdb",
    "WholeServer": "hotkeys|get hotkeys|reset hotkeys|start hotkeys|stop",
}

USERS, MODULES, REPLICATION, PERSISTENCE = "USERS", "MODULES", "REPLICATION", "PERSISTENCE"
PROTOCOL, DEBUGGING, PAUSE = "PROTOCOL", "DEBUGGING", "PAUSE"

# Reasons that several rows share; they become constants.
REASONS = {
    USERS: "users are what the file says that users_file names; change that, it is read again at once",
    MODULES: "modules are loaded into each shard by whoever runs it",
    REPLICATION: "replication is set up on the shards themselves, not through the proxy",
    PERSISTENCE: "each shard saves its data on its own; ask the shards directly",
    PROTOCOL: "this is spoken between servers, never by a client of the proxy",
    DEBUGGING: "debugging commands act on one server; ask the shard directly",
    PAUSE: "it would hold up the connections that all clients of the proxy share",
}

REFUSE = {
    "shutdown": "stopping a shard is left to whoever runs it; a client of the proxy cannot",
    "debug": DEBUGGING,
    "pfselftest": DEBUGGING,
    "script|debug": "the script debugger needs a connection to one shard; ask the shard directly",
    "replicaof": REPLICATION,
    "slaveof": REPLICATION,
    "failover": REPLICATION,
    "sync": PROTOCOL,
    "psync": PROTOCOL,
    "replconf": PROTOCOL,
    "restore-asking": PROTOCOL,
    "backup": PERSISTENCE,
    "himport": "its sets of fields live in one connection, and clients of the proxy share those to a shard",
    "trimslots": PROTOCOL,
    "migrate": "it would move keys to a place where the proxy does not look for them",
    "config|rewrite": "each shard has a configuration file of its own; ask the shards directly",
    "client|pause": PAUSE,
    "module|load": MODULES,
    "module|loadex": MODULES,
    "module|unload": MODULES,
    "acl|setuser": USERS,
    "acl|deluser": USERS,
    "acl|load": USERS,
    "acl|save": USERS,
    "client|capa": "the proxy never redirects its clients, so they need not announce what they can do",
    "client|import-source": "importing is done on the shards themselves",
    "client|maint_notifications": "the proxy's address stays, so there are no maintenance notifications",
}

# Which words Redis finds for a bad number of keys (found by trying): a variant of `KeyNumWords`.
KEYNUM_WORDS = {
    "eval eval_ro": "Script",
    "evalsha evalsha_ro fcall fcall_ro": "NamedScript",
    "zunion zinter zdiff zintercard zunionstore zinterstore zdiffstore": "AtLeastOne",
    "sintercard sunioncard sdiffcard": "GreaterThanZeroOfArgs",
    "lmpop blmpop zmpop bzmpop": "GreaterThanZero",
    "msetex": "Pairs",
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
# Supplement: commands of versions of which there is no dump, in the server's own words for flags and keys.
# name, arity, flags, categories that do not follow from the flags, key specs, since (Redis), group, summary
# ---------------------------------------------------------------------------------------------------------------


def key(index, *flags):
    return {"flags": " ".join(flags), "begin": ["index", index], "find": ["range", 0, 1, 0]}


def numbered(index, step, *flags):
    return {"flags": " ".join(flags), "begin": ["index", index], "find": ["keynum", 0, 1, step]}


READ = [key(1, "RO", "access")]
WRITE = [key(1, "RW", "update")]
MOVE = [key(1, "RW", "access", "delete"), key(2, "RW", "insert")]
# How many arguments they take at least is left to the server where that is not certain.
SET_WRITE = (-3, "write denyoom fast", "set", WRITE, "8.12.0", "set")
SET_TTL = (-3, "readonly fast", "set", READ, "8.12.0", "set")
ARRAY_ADD = ("write denyoom", "", WRITE, "8.8.0", "array")
ARRAY_ADD_FAST = ("write denyoom fast", "", WRITE, "8.8.0", "array")
ARRAY_WRITE = ("write", "", WRITE, "8.8.0", "array")
ARRAY_WRITE_FAST = ("write fast", "", WRITE, "8.8.0", "array")
ARRAY_READ = ("readonly", "", READ, "8.8.0", "array")
ARRAY_READ_FAST = ("readonly fast", "", READ, "8.8.0", "array")
SUPPLEMENT = [
    ("increx", -2, "write denyoom fast", "string", [key(1, "RW", "access", "update")], "8.8.0", "string",
     "Increments the number in a key within bounds and sets its expiration time."),
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
    ("arset", -4, *ARRAY_ADD_FAST, "Sets values in an array from an index on."),
    ("armset", -4, *ARRAY_ADD_FAST, "Sets values in an array at several indexes."),
    ("arinsert", -3, *ARRAY_ADD_FAST, "Appends values to an array at its cursor."),
    ("arring", -4, *ARRAY_ADD, "Appends values to an array that goes around at a size."),
    ("ardel", -3, *ARRAY_WRITE_FAST, "Deletes values of an array at indexes."),
    ("ardelrange", -4, *ARRAY_WRITE, "Deletes values of an array in ranges of indexes."),
    ("arseek", 3, *ARRAY_WRITE_FAST, "Sets the cursor of an array."),
    ("arget", 3, *ARRAY_READ_FAST, "Returns the value of an array at an index."),
    ("armget", -3, *ARRAY_READ_FAST, "Returns the values of an array at several indexes."),
    ("argetrange", 4, *ARRAY_READ, "Returns the values of an array in a range of indexes."),
    ("arscan", -4, *ARRAY_READ, "Returns indexes and values of an array in a range."),
    ("argrep", -6, *ARRAY_READ, "Searches the values of an array in a range."),
    ("arop", -5, *ARRAY_READ, "Aggregates the values of an array in a range."),
    ("arlastitems", -3, *ARRAY_READ, "Returns the values that were appended to an array last."),
    ("arnext", 2, *ARRAY_READ_FAST, "Returns the index at which the next value is appended to an array."),
    ("arlen", 2, *ARRAY_READ_FAST, "Returns the length of an array."),
    ("arcount", 2, *ARRAY_READ_FAST, "Returns the number of values in an array."),
    ("arinfo", -2, *ARRAY_READ, "Returns information about an array."),
    ("backup", -2, "admin noscript", "", [], "8.10.0", "server", "A container for commands that back up the server."),
    ("himport", -2, "write denyoom", "hash", [], "8.10.0", "hash", "A container for commands that set many hashes of the same fields."),
    ("client|maint_notifications", -3, "noscript loading stale", "connection", [], "8.2.0", "connection",
     "Asks for notifications about maintenance of the server."),
]

# ---------------------------------------------------------------------------------------------------------------
# Summaries in words of our own, for commands of which only servers without a BSD licence have any.
# ---------------------------------------------------------------------------------------------------------------

SUMMARIES = {
    "cluster|migration": "Starts, follows or cancels moves of slots between nodes.",
    "delex": "Deletes a key if its value or digest is as expected.",
    "digest": "Returns the digest of a string.",
    "hotkeys": "A container for commands that find the keys in most use.",
    "hotkeys|get": "Returns the keys in most use.",
    "hotkeys|help": "Returns helpful text about the different subcommands.",
    "hotkeys|reset": "Forgets which keys were in most use.",
    "hotkeys|start": "Starts to look for the keys in most use.",
    "hotkeys|stop": "Stops looking for the keys in most use.",
    "trimslots": "Removes the keys of slots that another node owns.",
    "vadd": "Adds an element to a vector set, or updates its vector.",
    "vcard": "Returns the number of elements in a vector set.",
    "vdim": "Returns the dimension of the vectors in a vector set.",
    "vemb": "Returns the vector of an element.",
    "vgetattr": "Returns the attributes of an element.",
    "vinfo": "Returns information about a vector set.",
    "vismember": "Says whether an element is in a vector set.",
    "vlinks": "Returns the neighbours of an element.",
    "vrandmember": "Returns one or several random elements of a vector set.",
    "vrange": "Returns the elements of a vector set in a range of names.",
    "vrem": "Removes an element from a vector set.",
    "vsetattr": "Sets or removes the attributes of an element.",
    "vsim": "Returns the elements most similar to a vector or an element.",
    "xackdel": "Acknowledges entries of a stream and deletes them.",
    "xcfgset": "Sets how long a stream remembers what was added, so that it is added once.",
    "xdelex": "Deletes entries of a stream and chooses what becomes of references to them.",
    "xidmprecord": "Notes an entry of a stream as added, so that it is added once.",
}
