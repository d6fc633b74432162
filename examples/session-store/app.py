"""A web application whose replicas share their sessions: it counts visits and remembers what forms send to it.

    GET  /          the session, and how the store does, as JSON; counts a visit
    POST /          name=value pairs of a form are remembered; an empty value is forgotten
    POST /logout    ends the session
    GET  /healthz   this process answers
    GET  /cache/status  what this replica has heard of the changes of others, and what waits to be told

Settings are environment variables: REDIS_URL, REDIS_PASSWORD, HOST, PORT, SESSION_SECONDS, STORE_TIMEOUT, RETRY_AFTER and FRESH_SECONDS
(seconds), COPIES_MAX.
"""

import http.cookies
import http.server
import json
import os
import signal
import socket
import threading
import urllib.parse

from invalidations import Invalidations
from sessions import Sessions, connect

BODY_MAX = 4096
FIELDS_MAX = 20


class Handler(http.server.BaseHTTPRequestHandler):
    # What a client may take to send its request.
    timeout = 10
    sessions: Sessions
    replica = os.environ.get("REPLICA") or socket.gethostname()

    def do_GET(self):
        if self.path == "/healthz":
            # Not the store: no replica gets better by being restarted because a shard is away.
            self.answer(200, {"replica": self.replica})
        elif self.path == "/cache/status":
            self.answer(200, {"replica": self.replica, **self.sessions.invalidations()})
        elif self.path == "/":
            session = self.sessions.open(self.cookie())
            self.show(self.sessions.save(session, {"visits": session.fields.get("visits", 0) + 1}))
        else:
            self.answer(404, {"error": "there is only /, /healthz and /cache/status"})

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > BODY_MAX:
            self.answer(413, {"error": f"a form of at most {BODY_MAX} bytes is needed"})
            return
        form = urllib.parse.parse_qs(self.rfile.read(int(length)).decode(errors="replace"), keep_blank_values=True)
        session = self.sessions.open(self.cookie())
        if self.path == "/logout":
            told = session.fresh or self.sessions.end(session)
            self.answer(200, {"replica": self.replica, "unsaved": not told}, "session=; Max-Age=0")
        elif self.path != "/":
            self.answer(404, {"error": "there is only / and /logout"})
        elif "visits" in form or len(session.fields.keys() | form.keys()) > FIELDS_MAX:
            self.answer(400, {"error": f"visits are counted here, and {FIELDS_MAX} fields are enough"})
        else:
            self.show(self.sessions.save(session, {name: values[-1] or None for name, values in form.items()}))

    def cookie(self):
        try:
            morsel = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get("session")
        except http.cookies.CookieError:
            return None
        return morsel and morsel.value

    def show(self, session):
        page = {
            "replica": self.replica,
            "session": session.fields,
            "source": session.source,
            "unsaved": session.unsaved,
            "store": self.sessions.status(),
        }
        self.answer(200, page, f"session={session.id}; Max-Age={self.sessions.ttl}")

    def answer(self, status, page, cookie=None):
        body = json.dumps(page, indent=2).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if cookie:
            secure = "; Secure" if self.headers.get("X-Forwarded-Proto") == "https" else ""
            self.send_header("Set-Cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Lax{secure}")
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    # Requests are finished before the process ends.
    daemon_threads = False
    request_queue_size = 128


def main():
    setting = os.environ.get
    timeout = float(setting("STORE_TIMEOUT", "0.5"))
    store = connect(setting("REDIS_URL", "redis://127.0.0.1:6379"), setting("REDIS_PASSWORD"), timeout)
    Handler.sessions = Sessions(
        store,
        ttl=int(setting("SESSION_SECONDS", "1800")),
        copies_max=int(setting("COPIES_MAX", "10000")),
        retry_after=float(setting("RETRY_AFTER", "2")),
        # A new session may wait as long as one that has an id.
        patience=timeout,
        fresh_for=float(setting("FRESH_SECONDS", "0")),
    )
    invalidations = Invalidations(Handler.sessions, store)
    invalidations.start()
    server = Server((setting("HOST", ""), int(setting("PORT", "8080"))), Handler)
    # In a thread, for shutdown waits for the loop that this handler interrupts.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"{Handler.replica} listens on port {server.server_port}", flush=True)
    server.serve_forever()
    server.server_close()
    invalidations.stop()


if __name__ == "__main__":
    main()
