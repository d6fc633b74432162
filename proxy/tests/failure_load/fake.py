"""A relay in front of a real shard that can misbehave: it understands requests, so that it never loses step by mistake."""

import socket
import struct
import threading
import time

ANSWERS = {
    "oom": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "readonly": b"-READONLY You can't write against a read only replica.\r\n",
    "busy": b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n",
}


def read_message(file):
    """The bytes of one request or reply; none at the end."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        return b""
    kind, rest = line[:1], line[1:-2]
    if kind in b"$" and int(rest) >= 0:
        return line + file.read(int(rest) + 2)
    if kind in b"*%~>":
        count = max(int(rest), 0) * (2 if kind == b"%" else 1)
        return line + b"".join(read_message(file) for _ in range(count))
    return line


class Relay:
    def __init__(self, host, shard_port):
        self.host, self.shard_port, self.mode = host, shard_port, "pass"
        self.connections, self.lock = set(), threading.Lock()
        self.listener, self.port = None, 0
        self.accept()

    def accept(self):
        """Takes connections from now on."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(128)
        self.listener, self.port = listener, listener.getsockname()[1]
        threading.Thread(target=self.take, args=(listener,), daemon=True).start()

    def refuse(self):
        """Takes none, and resets those that there are."""
        listener, self.listener = self.listener, None
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        self.reset()

    def reset(self):
        with self.lock:
            connections, self.connections = self.connections, set()
        for connection in connections:
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.shutdown(socket.SHUT_RD)
                connection.close()
            except OSError:
                pass

    def close(self):
        if self.listener:
            self.refuse()

    def take(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.connections.add(connection)
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        shard = socket.create_connection((self.host, self.shard_port))
        shard.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        requests, replies = connection.makefile("rb"), shard.makefile("rb")
        try:
            while request := read_message(requests):
                mode = self.mode
                if mode in ANSWERS:
                    connection.sendall(ANSWERS[mode])
                    continue
                shard.sendall(request)
                reply = read_message(replies)
                if mode == "corrupt":
                    reply = b"\x00" + reply[1:]
                if mode == "trickle":
                    for byte in reply:
                        connection.sendall(bytes([byte]))
                        time.sleep(0.0005)
                else:
                    connection.sendall(reply)
        except (OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.connections.discard(connection)
            requests.close()
            connection.close()
            shard.close()
