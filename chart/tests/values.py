#!/usr/bin/env python3
"""Writes values.schema.json, files/defaults.json and the table in README.md from values.yaml, its comments and defaults.

    values.py           writes them
    values.py --check   says what is not up to date; exit 1 if anything is

A line `# -- text` above a value tells its meaning, `# @schema {...}` what its default does not tell of its type. What a pool may be told is asked of
the proxy: of target/debug/memstore, or the binary that MEMSTORE names.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

CHART = Path(__file__).resolve().parent.parent
MARKS = ("<!-- values: written by tests/values.py -->\n", "<!-- end of values -->\n")

QUANTITY = {"type": ["string", "number"], "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"}
QUANTITIES = {"type": "object", "additionalProperties": QUANTITY}
# Settings of a pool that the chart decides itself: where it listens, how its own shards are found, and what is said to them.
DECIDED = re.compile(r"(listen|shard_identity|redis_auth.*|redis_user|users_file|servers_(file|peers|within|within_attempt))")
# Of these, those that are values of their own where there is one pool.
NAMED = {"redis", "servers_url", "servers_url_refresh"}
DIGEST = "defaultsDigest"
DEFS = {
    "strings": {"type": "object", "additionalProperties": {"type": "string"}},
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "pullSecrets": {
        "type": "array",
        "items": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["name"]}]},
    },
    "issuer": {"type": "object", "properties": {name: {"type": "string"} for name in ("name", "kind", "group")}, "additionalProperties": False},
    "resources": {
        "type": "object",
        "properties": {"requests": QUANTITIES, "limits": QUANTITIES, "claims": {"type": "array"}},
        "additionalProperties": False,
    },
}


def pool():
    """What may stand below proxy.pool."""
    binary = os.environ.get("MEMSTORE") or CHART.parent / "target" / "debug" / "memstore"
    if not Path(binary).exists():
        sys.exit(f"{binary} is missing, which knows the settings of pools: cargo build -p memstore-proxy, or name another one in MEMSTORE")
    done = subprocess.run([binary, "settings", "--format", "json-schema"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{binary} does not say its settings; is it an older one? {done.stderr}")
    definitions = json.loads(done.stdout)["definitions"]
    settings = definitions["pool"]
    settings["properties"] = {name: one for name, one in settings["properties"].items() if not DECIDED.fullmatch(name)}
    # Which names of shards there are the chart itself can tell.
    settings["properties"]["keyless_scripts"] = {"type": "string", "pattern": r"^\S+$"}
    # Whom a NetworkPolicy has to allow is read from these.
    settings["properties"]["servers"]["items"]["pattern"] = r"^(/\S+|\S+:[0-9]+):[0-9]+( +\S+)?$"
    settings["properties"]["servers_dns"] = {"type": "string", "pattern": r"^\S*\{\}\S*$"}
    settings["properties"]["servers_url"] = {"type": "string", "pattern": r"^http://\S+$"}
    settings["properties"]["cluster_facade_announce"] = {"type": "string", "pattern": r"^\S+:[0-9]+$"}
    settings["properties"]["cluster_facade_nodes"]["items"]["pattern"] = r"^\S+:[0-9]+$"
    definitions["cluster"]["properties"]["seeds"]["items"]["pattern"] = r"^\S+:[0-9]+$"
    # What these refer to is defined in the schema of the proxy only.
    for name, required in {"cluster": ["seeds"], "tls": [], "servers_tls": []}.items():
        for one in definitions[name]["properties"].values():
            one.pop("default", None)
            one.pop("description", None)
        settings["properties"][name] = definitions[name] | {"required": required}
    # What stands in the list refers to nothing else.
    for one in settings["properties"]["tls"]["properties"]["certificates"]["items"]["properties"].values():
        one.pop("description", None)
    tls = settings["properties"]["tls"]
    tls["anyOf"] = [{"required": tls.pop("required")}, {"required": ["certificates"]}]
    # The chart has defaults of its own, and what a setting means stands where the proxy is described.
    for one in settings["properties"].values():
        one.pop("default", None)
        one.pop("description", None)
    alone = settings | {"properties": {name: one for name, one in settings["properties"].items() if name not in NAMED}}
    return {"pool": alone, "pools": pools(settings)}


def pools(settings):
    """What may stand below proxy.pools."""
    port = {"type": "integer", "minimum": 1, "maximum": 65535}
    key = {"type": "string", "minLength": 1}
    auth = {"existingSecret": key, "passwordKey": key, "previousPasswordKey": key}
    auth["user"] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]*$", "not": {"const": "default"}}
    chart = {
        # Whoever is not root takes no lower one.
        "port": port | {"minimum": 1024},
        "nodePort": port,
        "redis": {"type": "boolean"},
        "auth": {"type": "object", "properties": auth, "required": ["existingSecret"], "additionalProperties": False},
        "serversTls": {
            "type": "object", "properties": {"existingSecret": key, "clientCertificate": {"type": "boolean"}}, "required": ["existingSecret"],
            "additionalProperties": False,
        },
        "serversConfigMap": {"type": "object", "properties": {"name": key, "key": key}, "required": ["name"], "additionalProperties": False},
    }
    pool = settings | {"properties": settings["properties"] | chart, "required": ["port", "redis"]}
    pool["properties"].pop("servers_within_limit")
    return {"type": "object", "additionalProperties": pool}


def comments(text):
    """What the comments above each value say, by its path: (description, schema)."""
    found, above, path = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            above.append(stripped[1:].strip())
            continue
        key = re.match(r"( *)([A-Za-z0-9]+):", line)
        if key:
            depth = len(key[1]) // 2
            path = path[:depth] + [key[2]]
            told = [line[3:] for line in above if line.startswith("-- ")]
            schema = [json.loads(line[8:]) for line in above if line.startswith("@schema ")]
            found[tuple(path)] = (" ".join(told), schema[0] if schema else {})
        above = []
    return found


def kind(value):
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "integer", float: "number", list: "array", dict: "object"}
    return kinds[type(value)]


def described(value, path, told):
    """The schema of a value."""
    text, given = told.get(path, ("", {}))
    schema = {"description": text} if text else {}
    if value is not None and not given.keys() & {"$ref", "type"}:
        schema["type"] = kind(value)
    schema |= given
    if isinstance(value, dict) and "$ref" not in given:
        schema.setdefault("additionalProperties", False)
        schema["properties"] = {key: described(part, (*path, key), told) for key, part in value.items()}
    return schema


def schema(values, told):
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart memstore"}
    whole |= {"type": "object"} | described(values, (), told) | {"$defs": DEFS | pool()}
    # What charts around this one put beside the values.
    whole["properties"] |= {"enabled": {"type": "boolean"}}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def leaves(value, path, told):
    given = told.get(path, ("", {}))[1]
    if isinstance(value, dict) and value and "$ref" not in given:
        for key, part in value.items():
            yield from leaves(part, (*path, key), told)
    elif path:
        yield path, value


def table(values, told):
    lines = ["| Value | default | meaning |", "|---|---|---|"]
    for path, value in leaves(values, (), told):
        if path == (DIGEST,):
            continue
        text, given = told.get(path, ("", {}))
        default = "" if value in (None, "") else f"`{json.dumps(value, ensure_ascii=False)}`"
        allowed = ", ".join(f"`{choice}`" for choice in given.get("enum", []) if choice)
        if allowed and not all(f"{choice}" in text for choice in given["enum"]):
            text = f"{text} ({allowed})".strip()
        lines.append(f"| `{'.'.join(path)}` | {default} | {text} |".replace("  |", " |"))
    return "\n".join(lines).replace("\\|", "|") + "\n"


def defaults(values):
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def main():
    text = (CHART / "values.yaml").read_text()
    values, told = yaml.safe_load(text), comments(text)
    values[DIGEST] = ""
    values[DIGEST] = hashlib.sha256(defaults(values).encode()).hexdigest()[:12]
    readme = CHART / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    written = {
        CHART / "values.yaml": re.sub(rf"^{DIGEST}: .*$", f'{DIGEST}: "{values[DIGEST]}"', text, count=1, flags=re.M),
        CHART / "values.schema.json": schema(values, told),
        CHART / "files" / "defaults.json": defaults(values),
        readme: before + MARKS[0] + table(values, told) + MARKS[1] + after,
    }
    stale = [path for path, content in written.items() if not path.exists() or path.read_text() != content]
    if sys.argv[1:] == ["--check"]:
        for path in stale:
            print(f"{path.relative_to(CHART)} is not what values.yaml says; run chart/tests/values.py")
        sys.exit(bool(stale))
    for path in stale:
        path.write_text(written[path])
        print(f"written: {path.relative_to(CHART)}")


if __name__ == "__main__":
    main()
