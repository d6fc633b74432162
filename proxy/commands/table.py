#!/usr/bin/env python3
"""Writes the table of commands, so that no key position in it was ever typed by hand.

    table.py > ../src/protocol/resp/command/table.rs    # make commands

The rows are what servers publish (`servers/*.json`, written by `record.py`) and what `policy.py` decides. A row is taken
from the newest Redis that knows the command, or else from the newest Valkey, except that

- its arity is the laxest of all, so that an older and a newer server both work behind the proxy: the server judges the rest;
- it says "blocking" if any of them does;
- its summary is that of the newest server under a BSD licence.

Key positions have to be the same in all of them. Python 3, standard library only.
"""

import json
import pathlib
import sys

import policy

SERVERS = pathlib.Path(__file__).parent / "servers"


def quoted(text):
    return json.dumps(text, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------------------------
# What several servers say becomes one row
# ---------------------------------------------------------------------------------------------------------------


def dumps():
    """All kept dumps, the newest Redis first, then Valkey."""
    found = [json.loads(path.read_text()) for path in SERVERS.glob("*.json")]
    newest_first = sorted(found, key=lambda dump: numbers(dump["version"]), reverse=True)
    return sorted(newest_first, key=lambda dump: ("redis", "valkey").index(dump["family"]))


def merged(name, said):
    """One row of what servers say, the first of which counts: families, versions and their rows."""
    row = dict(said[0][2], name=name)
    row["arity"] = laxest(name, [row for *_, row in said])
    if any("blocking" in other["flags"].split() for *_, other in said):
        row["flags"] += " blocking"
        row["categories"] += " blocking"
    positions = {json.dumps([(spec["begin"], spec["find"]) for spec in row.get("keys", [])]) for *_, row in said}
    if len(positions) > 1:
        raise SystemExit(f"{name}: servers find its keys in different places: {positions}")
    row["since"] = {family: since(family, said) for family, _, _ in said}
    prose = [(family == "redis", other["summary"]) for family, _, other in said if "summary" in other]
    if bool(prose) == (name in policy.SUMMARIES):
        raise SystemExit(f"{name}: it needs a summary either from a server or from the policy")
    # Of two, that of Redis, which does not speak of the Valkey server.
    row["summary"] = max(prose)[1] if prose and max(prose)[0] else prose[0][1] if prose else policy.SUMMARIES[name]
    return row


def numbers(version):
    return [int(part) for part in version.split(".")]


def since(family, said):
    """What the newest server says; but a module may be wrong about a command that an earlier server knows as well."""
    rows = [(version, row) for of, version, row in said if of == family]
    (_, newest), (earliest, _) = rows[0], rows[-1]
    if numbers(newest["since"]) <= earliest:
        return newest["since"]
    return f"{earliest[0]}.{earliest[1]}.0"


def laxest(name, rows):
    """The number of arguments that all accept; the modules in Redis 8.0 say none and judge for themselves."""
    arities = {row["arity"] for row in rows if not ("module" in row["flags"].split() and row["arity"] == -1)}
    if not arities:
        raise SystemExit(f"{name}: no server says how many arguments it takes")
    return arities.pop() if len(arities) == 1 else -min(map(abs, arities))


def supplement():
    for name, arity, flags, categories, keys, since, group, summary in policy.SUPPLEMENT:
        row = {"name": name, "arity": arity, "flags": flags, "keys": keys, "since": {"redis": since}, "group": group}
        categories = set(categories.split())
        row["categories"] = " ".join(implied_categories(set(flags.split()), categories) | categories)
        yield row | {"summary": summary}


def commands():
    """All commands by name, each with its subcommands."""
    said = {}
    for dump in dumps():
        for name, row in dump["commands"].items():
            said.setdefault(name, []).append((dump["family"], numbers(dump["version"]), row))
    rows = {name: merged(name, of_servers) for name, of_servers in said.items()}
    for row in supplement():
        if row["name"] in rows:
            raise SystemExit(f"{row['name']}: a server publishes it, so the supplement needs no row for it")
        rows[row["name"]] = row
    for name in sorted(rows):
        container = name.partition("|")[0]
        rows[name].setdefault("subcommands", [])
        if container != name:
            rows[container].setdefault("subcommands", []).append(rows[name])
    return [rows[name] for name in sorted(rows) if "|" not in name]


# ---------------------------------------------------------------------------------------------------------------
# What follows from the flags, so that rows need not repeat it
# ---------------------------------------------------------------------------------------------------------------


def implied_categories(flags, categories):
    if "module" in flags:
        return set()
    found = {"fast" if "fast" in flags else "slow"}
    if "write" in flags:
        found.add("write")
    if "readonly" in flags and "scripting" not in categories:
        found.add("read")
    if "admin" in flags:
        found |= {"admin", "dangerous"}
    if "pubsub" in flags:
        found.add("pubsub")
    if "blocking" in flags:
        found.add("blocking")
    return found


def further_categories(row):
    """@connection and the like are what a server's sources name; the rest follows from the flags."""
    flags, categories = set(row["flags"].split()), set(row["categories"].split())
    further = categories - implied_categories(flags, categories)
    if implied_categories(flags, further) | further != categories:
        raise SystemExit(f"{row['name']}: categories {categories} do not follow from flags {flags}")
    return further


# ---------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------


def handling(row):
    name = row["name"]
    container, _, subcommand = name.partition("|")
    if container in policy.ANSWER_WHOLE and (subcommand or name in policy.ANSWER):
        return f"Answer({policy.ANSWER_WHOLE[container]})"
    if container == "cluster" and subcommand:
        return f"Answer(Cluster(ClusterWord::{policy.CLUSTER.get(subcommand, 'Change')}))"
    if subcommand == "help":
        return "Answer(Help)"
    if name in policy.SPLIT:
        return f"Split({policy.SPLIT[name]})"
    if name in policy.ANSWER:
        return f"Answer({policy.ANSWER[name]})"
    for place, names in policy.BLOCK.items():
        if name in names.split():
            return f"Block({place})"
    for script, names in policy.RUN.items():
        if name in names.split():
            return f"Run(ScriptKind::{script})"
    if name in policy.LISTEN:
        return f"Listen({policy.LISTEN[name]})"
    if name in policy.PUBLISH:
        return "ToChannel"
    if name in policy.WATCH:
        return "Watch"
    if name in policy.CONFIRM:
        return f"Confirm {{ files: {policy.CONFIRM[name]} }}"
    if name in policy.ASK_CHANNELS:
        return f"AskChannels({policy.ASK_CHANNELS[name]})"
    if name in policy.SCAN:
        return "Scan"
    for reach, rules in (("Database", policy.ALL_SHARDS), ("Server", policy.ALL_SERVERS)):
        for merge, names in rules.items():
            if name in names.split():
                special = [special for special, these in policy.REACH.items() if name in these.split()]
                return f"ToAll({merge}, Reach::{(special or [reach])[0]})"
    for feature, names in policy.LATER.items():
        if name in names.split():
            return f"Later({feature})"
    if name in policy.REFUSE:
        return refuse(policy.REFUSE[name])
    if row["subcommands"]:
        return "Container"
    if row.get("keys"):
        return "Forward"
    raise SystemExit(f"{name} has no keys and no line in the policy")


def refuse(reason):
    return f"Refuse({reason if reason in policy.REASONS else quoted(reason)})"


# In the order in which Redis lists them. From 8.1 on Valkey calls its slow log a command log.
FLAGS = (
    "write readonly denyoom module admin pubsub noscript blocking loading stale skip_monitor skip_slowlog asking fast"
    " no_auth no_mandatory_keys no_async_loading no_multi movablekeys allow_busy"
).split()
SYNONYMS = {"skip_commandlog": "skip_slowlog"}
CATEGORIES = (
    "keyspace read write set sortedset list hash string bitmap hyperloglog geo stream pubsub admin fast slow"
    " blocking dangerous connection transaction scripting"
).split()
KEY_FLAGS = "RO RW OW RM access insert update delete not_key incomplete variable_flags".split()


def bits(names, order, taken=()):
    # some categories are called like a flag, which is another bit
    names = sorted({SYNONYMS.get(name, name) for name in names}, key=order.index)
    return " | ".join(("category::" if name in taken else "") + name.upper() for name in names) or "0"


def key_row(row, number, spec):
    access = bits(spec["flags"].split(), KEY_FLAGS)
    by_hand = policy.KEYS_BY_HAND.get((row["name"], number))
    if by_hand:
        kind, words, begin, options = by_hand
        words = ", ".join(quoted(word) for word in words)
        text = f"{kind}(&[{words}], {begin}, {options}, {access})"
    else:
        begin, find = spec["begin"], spec["find"]
        if begin[0] == "unknown" or find[0] == "unknown":
            raise SystemExit(f"{row['name']}: key spec {number} is unknown to the server; name it in KEYS_BY_HAND")
        if find[0] == "keynum":
            words = [words for names, words in policy.KEYNUM_WORDS.items() if row["name"] in names.split()]
            if begin[0] != "index" or not words:
                raise SystemExit(f"{row['name']}: no words for a bad number of keys")
            text = f"counted({begin[1]}, {find[1]}, {find[2]}, {find[3]}, {words[0]}, {access})"
        elif begin[0] == "keyword":
            text = f"after({quoted(begin[1])}, {begin[2]}, {find[1]}, {find[2]}, {find[3]}, {access})"
        elif find[1:] == [0, 1, 0]:
            text = f"at({begin[1]}, {access})"
        else:
            text = f"through({begin[1]}, {find[1]}, {find[2]}, {find[3]}, {access})"
    if spec.get("notes"):
        text += f".notes({quoted(spec['notes'])})"
    return text


def docs(row):
    """What COMMAND DOCS says, as one text: group, summary, arguments, then further pairs; a row has one pointer to it."""
    further = [part for said in ("module", "deprecated_since", "replaced_by") if said in row for part in (said, row[said])]
    return quoted("\t".join([row["group"], row["summary"], row.get("arguments", ""), *further]))


def rust(row, indent):
    keys = ", ".join(key_row(row, number, spec) for number, spec in enumerate(row.get("keys", [])))
    since = ", ".join(quoted(row["since"].get(family, "")) for family in ("redis", "valkey"))
    text = (
        f"{indent}row({quoted(row['name'])}, since({since}), {row['arity']}, {bits(row['flags'].split(), FLAGS)},"
        f" &[{keys}], {handling(row)}, {bits(further_categories(row), CATEGORIES, FLAGS)}, {docs(row)})"
    )
    if row.get("tips"):
        text += f".tips(&[{', '.join(quoted(tip) for tip in row['tips'])}])"
    if row["name"] in policy.LEAVES_DATABASE:
        text += f".leaves_database({policy.LEAVES_DATABASE[row['name']]})"
    if row["name"] in policy.EXECUTED:
        text += f".executed(&[{', '.join(policy.EXECUTED[row['name']])}])"
    if row["name"] in policy.BLOCKS_WITH:
        option, until, options = policy.BLOCKS_WITH[row["name"]]
        text += f".blocks_with({quoted(option)}, {quoted(until)}, {options})"
    if row["name"] in policy.TRIED_BY:
        text += f".tried_by({policy.TRIED_BY[row['name']]})"
    is_varying = any("variable_flags" in spec["flags"].split() for spec in row.get("keys", []))
    if is_varying != (row["name"] in policy.VARIES):
        raise SystemExit(f"{row['name']}: what becomes of its key is for VARIES to say")
    if is_varying:
        text += f".varies({policy.VARIES[row['name']]})"
    if row["name"] in policy.TRANSFERS:
        text += f".transfers({policy.TRANSFERS[row['name']]})"
    if row["name"] in policy.SCRIPTS:
        text += f".scripts({policy.SCRIPTS[row['name']]})"
    if row["subcommands"]:
        inner = "".join(rust(sub, indent + "    ") for sub in row["subcommands"])
        text += f".subcommands(&[\n{inner}{indent}])"
    return text + ",\n"


HEAD = """\
//! One row per command: its name, arity, flags, where its keys stand, and what the proxy does with it.
//! Every other file asks here, so that a new command is a new row and nothing else.
//!
//! Written by `proxy/commands/table.py` (`make commands`) from what servers publish (COMMAND, COMMAND DOCS) and from the
//! policy beside that script; change those, not this file. Servers: {servers}.
//! Columns: name, versions of Redis and Valkey that brought it, arity, flags, keys, handling, categories beyond those that
//! follow from the flags, and documentation. `mod.rs` explains the words.

use super::LeavesDatabase::*;
use super::Feature::*;
use super::Handling::*;
use super::KeyNumWords::*;
use super::Local::*;
use super::Merge::*;
use super::ScriptChange::*;
use super::TimeoutPlace::*;
use super::Trial::*;
use super::Varies::*;
use super::category::{
    self, BITMAP, CONNECTION, DANGEROUS, GEO, HASH, HYPERLOGLOG, KEYSPACE, LIST, SCRIPTING, SET, SORTEDSET,
    STREAM, STRING, TRANSACTION,
};
use super::flag::*;
use super::key::*;
use super::{ClusterWord, Command, Reach, ScriptKind, row, since};
use crate::protocol::channels::Kind::*;
use crate::protocol::transfer::TransferKind::*;

/// Arguments that each option of SORT and SORT_RO takes. Source: <https://redis.io/docs/latest/commands/sort/>.
const SORT_OPTIONS: &[(&str, u8)] = &[("BY", 1), ("GET", 1), ("LIMIT", 2), ("STORE", 1)];

/// Those that COMMAND GETKEYS passes over: what stands behind STORE may be an option for it.
const SORT_SKIPPED: &[(&str, u8)] = &[("BY", 1), ("GET", 1), ("LIMIT", 2)];

/// Arguments that each option of GEORADIUS and GEORADIUSBYMEMBER takes.
/// Source: <https://redis.io/docs/latest/commands/georadius/>.
const GEO_OPTIONS: &[(&str, u8)] = &[("COUNT", 1), ("STORE", 1), ("STOREDIST", 1)];

/// Arguments that each option of XREAD and XREADGROUP takes before STREAMS; any order is accepted.
/// Source: <https://redis.io/docs/latest/commands/xreadgroup/>.
const STREAM_OPTIONS: &[(&str, u8)] =
    &[("BLOCK", 1), ("COUNT", 1), ("GROUP", 2), ("NOACK", 0), ("CLAIM", 1), ("MAXCOUNT", 1), ("MAXSIZE", 1)];

{reasons}/// All commands, sorted by name; subcommands stand in the row of their container.
pub static COMMANDS: [Command; {count}] = [
"""


def families():
    """Redis 7.0, 7.2 and Valkey 8.0"""
    versions = {}
    for dump in reversed(dumps()):
        versions.setdefault(dump["family"].capitalize(), []).append(".".join(dump["version"].split(".")[:2]))
    return " and ".join(f"{family} {', '.join(versions[family])}" for family in sorted(versions))


def main():
    rows = commands()
    reasons = "".join(f"const {name}: &str = {quoted(reason)};\n" for name, reason in policy.REASONS.items())
    head = HEAD.replace("{servers}", families()).replace("{count}", str(len(rows)))
    sys.stdout.write(head.replace("{reasons}", reasons + "\n") + "".join(rust(row, "    ") for row in rows) + "];\n")


if __name__ == "__main__":
    main()
