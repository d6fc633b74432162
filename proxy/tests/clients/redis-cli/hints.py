"""redis-cli in a terminal shows what arguments a command takes while it is typed; it makes that from COMMAND DOCS.

    hints.py HOST PORT
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

# EXPIRE redis-cli 7.0 knows by itself; hints of the others come from the proxy, where the shards have these commands.
HINTS = {
    "EXPIRE ": "key seconds [NX|XX|GT|LT]",
    "HEXPIRE ": "key seconds [NX|XX|GT|LT] FIELDS numfields field [field ...]",
    "VSETATTR ": "key element",
    "DIGEST ": "key",
}


def shown(typed, wanted):
    """Types into a terminal and waits until it shows the wanted text behind that."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    environment = dict(os.environ, TERM="xterm", HISTFILE="/dev/null")
    process = subprocess.Popen(
        ["redis-cli", "-h", sys.argv[1], "-p", sys.argv[2]],
        stdin=follower, stdout=follower, stderr=follower, env=environment,
    )
    os.close(follower)
    seen, is_typed, until = b"", False, time.monotonic() + 60
    try:
        while time.monotonic() < until:
            if select.select([leader], [], [], 1)[0]:
                seen += os.read(leader, 65536)
            if not is_typed and b"> " in seen:
                is_typed = True
                os.write(leader, typed.encode())
            plain = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", seen)
            if (typed + wanted).encode() in plain:
                return
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    raise SystemExit(f"redis-cli shows no {wanted!r} behind {typed!r}, but {seen!r}")


def is_known(name):
    said = subprocess.run(
        ["redis-cli", "-h", sys.argv[1], "-p", sys.argv[2], "COMMAND", "INFO", name],
        capture_output=True, text=True, check=True,
    )
    return name.lower() in said.stdout.split()


for typed, wanted in HINTS.items():
    if is_known(typed.strip()):
        shown(typed, wanted)
