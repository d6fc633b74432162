#!/usr/bin/env python3
"""Records what a server publishes about its commands (COMMAND, COMMAND DOCS) into servers/FAMILY-VERSION.json.

    record.py redis-server      # a program, which is started on 127.0.0.1 and ended again
    record.py 127.0.0.1:6379    # a server that runs

A second argument names another folder to write to.

Kept are facts that the proxy needs or passes on. Complexity and history are left out, and so is the prose of servers that
are not under a BSD licence (Redis from 7.4 on): `policy.py` has sentences of our own for what only they have.
Python 3, standard library only.
"""

import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

SERVERS = pathlib.Path(__file__).parent / "servers"


class Server:
    """A connection that speaks RESP2."""

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


def started(program, directory):
    """The program on a free port: the process and a connection to it."""
    with socket.socket() as finder:
        finder.bind(("127.0.0.1", 0))
        port = finder.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
        stdout=subprocess.DEVNULL,
    )
    for _ in range(100):
        try:
            return process, Server("127.0.0.1", port)
        except ConnectionRefusedError:
            time.sleep(0.05)
    process.kill()
    raise SystemExit(f"{program} does not listen on port {port}")


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


def argument(flat):
    """One argument as text: `name:type`, what else is said of it behind commas, and its parts in brackets."""
    parts = pairs(flat)
    name, kind = parts.pop("name"), parts.pop("type")
    text = f"{name}:{kind}"
    display = parts.pop("display_text", name)
    if display != name:
        text += f",display={display}"
    for said in ("key_spec_index", "token", "since", "deprecated_since"):
        if said in parts:
            text += f",{said}={parts.pop(said)}"
    for flag in parts.pop("flags", []):
        text += f",{flag}"
    inner = parts.pop("arguments", None)
    parts.pop("summary", None)
    if parts or any(letter in text for letter in " []\t\"\\"):
        raise SystemExit(f"an argument that cannot be written: {flat}")
    return text if inner is None else f"{text}[{arguments(inner)}]"


def arguments(flats):
    return " ".join(argument(flat) for flat in flats)


def key_spec(flat):
    spec = pairs(flat)
    begin, find = pairs(spec["begin_search"]), pairs(spec["find_keys"])
    kept = {
        "flags": " ".join(spec["flags"]),
        "begin": [begin["type"], *pairs(begin["spec"]).values()],
        "find": [find["type"], *pairs(find["spec"]).values()],
    }
    return kept | ({"notes": spec["notes"]} if spec.get("notes") else {})


def rows(entries, docs, with_prose):
    """Commands and subcommands by name: those of modules are published in capitals."""
    for name, arity, flags, _, _, _, categories, tips, specs, subcommands in entries:
        doc = pairs(docs.get(name, []))
        row = {
            "arity": arity,
            "flags": " ".join(flags),
            "categories": " ".join(category.removeprefix("@") for category in categories),
        }
        if tips:
            row["tips"] = tips
        if specs:
            row["keys"] = [key_spec(spec) for spec in specs]
        said = ["since", "group", "module", "deprecated_since", "replaced_by"]
        for said in said + (["summary"] if with_prose else []):
            if said in doc:
                row[said] = doc[said].strip()
        if "arguments" in doc:
            row["arguments"] = arguments(doc["arguments"])
        yield name.lower(), row
        yield from rows(subcommands, pairs(doc.get("subcommands", [])), with_prose)


def record(server, folder):
    info = dict(line.split(":", 1) for line in server.ask("INFO", "server").splitlines() if ":" in line)
    family = info.get("server_name", "redis")
    version = info[f"{family}_version"]
    number = tuple(int(part) for part in version.split("."))
    with_prose = family == "valkey" or number < (7, 4)
    found = dict(rows(server.ask("COMMAND"), pairs(server.ask("COMMAND", "DOCS")), with_prose))
    lines = [f"{json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(found.items())]
    path = folder / f"{family}-{number[0]}.{number[1]}.json"
    head = f'{{"family": "{family}", "version": "{version}", "commands": {{\n'
    path.write_text(head + ",\n".join(lines) + "\n}}\n")
    print(f"{path}: {len(found)} commands of {family} {version}")


def main():
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: record.py PROGRAM|HOST:PORT [FOLDER]")
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else SERVERS
    host, colon, port = sys.argv[1].rpartition(":")
    if colon and port.isdigit():
        return record(Server(host, int(port)), folder)
    with tempfile.TemporaryDirectory() as directory:
        process, server = started(sys.argv[1], directory)
        try:
            record(server, folder)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
