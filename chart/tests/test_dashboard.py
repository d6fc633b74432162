"""Every expression of the dashboard, evaluated by a real Prometheus that scrapes proxies at work.

DASHBOARD_PICTURE names a file that the panels are drawn into; it needs matplotlib.
"""

import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import urllib.request
from pathlib import Path

MEMSTORE = os.environ["MEMSTORE"]
DASHBOARD = json.loads((Path(__file__).parent.parent / "files/dashboard.json").read_text())
INTERVAL = 1
# What stands for the variables of Grafana.
VARIABLES = {"$__rate_interval": "8s", "$__range": "60s", "$__interval": "1s", "$namespace": ".*", "$service": ".*", "$pool": ".*"}


def free_port(below=65536):
    """A port that the system hands out; for a node of a cluster also the one for its bus, 10,000 above."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < below:
            return port


def ask(port, *commands):
    """The first line of each reply, to commands without blanks in their words."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall("".join(command + "\r\n" for command in commands).encode())
        replies = client.makefile("rb")
        return [replies.readline().decode().strip() for _ in commands]


def eventually(condition, what, seconds=60):
    """Until it holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


class Dashboard(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.processes = []
        self.addCleanup(self.end)

    def end(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def start(self, *words):
        log = (self.folder / f"{len(self.processes)}.log").open("w")
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        log.close()
        self.processes.append(process)
        return process

    def answers(self, port):
        def answered():
            try:
                return ask(port, "PING") == ["+PONG"]
            except OSError:
                return False
        eventually(answered, f"port {port}")

    def redis(self, *settings, below=65536):
        port = free_port(below)
        folder = self.folder / str(port)
        folder.mkdir()
        process = self.start("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *settings)
        self.answers(port)
        return port, process

    def cluster(self):
        nodes = [self.redis("--cluster-enabled", "yes", below=55000)[0] for _ in range(3)]
        shares = [(0, 5460), (5461, 10922), (10923, 16383)]
        for port, (first, last) in zip(nodes, shares):
            self.assertEqual(ask(port, f"CLUSTER ADDSLOTSRANGE {first} {last}"), ["+OK"])
        for port in nodes[1:]:
            self.assertEqual(ask(nodes[0], f"CLUSTER MEET 127.0.0.1 {port}"), ["+OK"])
        for port in nodes:
            eventually(lambda: ask(port, "SET {0} 1")[0] != "-CLUSTERDOWN Hash slot not served", f"cluster node {port}")
        return nodes

    def prometheus(self, admin):
        port = free_port()
        (self.folder / "prometheus.yml").write_text(json.dumps({
            "global": {"scrape_interval": f"{INTERVAL}s"},
            "scrape_configs": [{"job_name": "memstore", "static_configs": [
                {"targets": [f"127.0.0.1:{admin}"], "labels": {"namespace": "shop", "service": "cache-memstore", "pod": "cache-memstore-0"}},
            ]}],
        }))
        self.start("prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn")
        return port

    def query(self, path, **words):
        url = f"http://127.0.0.1:{self.server}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == 503:
                # It reads what it has on disk first.
                return []
            raise AssertionError(f"{words}: {error.read().decode()}") from None
        except OSError:
            return None

    def test_every_expression_has_a_result(self):
        shards = [self.redis() for _ in range(3)]
        nodes = self.cluster()
        plain, clustered, admin = free_port(), free_port(), free_port()
        lines = "\n".join(f"     - 127.0.0.1:{port}:1 shard-{number}" for number, (port, _) in enumerate(shards))
        (self.folder / "nutcracker.yml").write_text(
            f"pools:\n  plain:\n    listen: 127.0.0.1:{plain}\n    redis: true\n    timeout: 400\n"
            f"    servers:\n{lines}\n"
            f"  clustered:\n    listen: 127.0.0.1:{clustered}\n    redis: true\n    cluster:\n      seeds: [\"127.0.0.1:{nodes[0]}\"]\n"
        )
        self.start(MEMSTORE, "serve", "-c", str(self.folder / "nutcracker.yml"), "--admin-port", str(admin), "--stats-port", "0")
        self.answers(plain)
        self.answers(clustered)
        self.server = self.prometheus(admin)

        stop = threading.Event()

        def load():
            number = 0
            while not stop.wait(0.02):
                number += 1
                for port in (plain, clustered):
                    try:
                        ask(port, *(f"SET key:{number}:{each} {each}" for each in range(30)), f"MGET key:{number}:1 key:{number}:2 key:{number}:3",
                            "KEYS" if number % 5 == 0 else "PING")
                    except OSError:
                        pass

        worker = threading.Thread(target=load)
        worker.start()
        self.addCleanup(worker.join)
        self.addCleanup(stop.set)
        requests = lambda: self.query("query", query="rate(memstore_requests_total[8s])") or []
        eventually(lambda: len(requests()) == 2, "rates of both pools")
        shards[2][1].kill()
        # So that what failed is in the rates as well.
        eventually(lambda: self.query("query", query="sum(rate(memstore_shard_failures_total[8s])) > 0"), "failures of a shard")
        if os.environ.get("DASHBOARD_PICTURE"):
            time.sleep(90)
        begin, panels, checked = time.time() - 90, [], 0
        for panel in DASHBOARD["panels"]:
            for target in panel.get("targets", []):
                expression = target["expr"]
                for name, value in VARIABLES.items():
                    expression = expression.replace(name, value)
                self.assertNotIn("$", expression, panel["title"])
                with self.subTest(panel=panel["title"], expression=expression):
                    # At some moment of these: what stands still, or fell out of its window, has none at others.
                    series = self.query("query_range", query=expression, start=begin, end=time.time(), step=INTERVAL)
                    self.assertTrue(series, "no result")
                    known = {name for one in series for name in one["metric"]}
                    for name in re.findall(r"\{\{ *(\w+) *\}\}", target.get("legendFormat", "")):
                        self.assertIn(name, known, "the legend names a label that is not there")
                    panels.append((panel, target, series))
                    checked += 1
        self.assertGreater(checked, 50)
        if picture := os.environ.get("DASHBOARD_PICTURE"):
            draw(panels, picture)


def draw(panels, picture):
    """The time series as a picture."""
    import matplotlib
    import numpy
    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_panel = {}
    for panel, target, series in panels:
        if panel["type"] == "timeseries":
            by_panel.setdefault(panel["id"], (panel, []))[1].append((target, series))
    columns = 3
    rows = -(-len(by_panel) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(15, 2.4 * rows), squeeze=False)
    for axis in axes.flat[len(by_panel):]:
        axis.axis("off")
    for axis, (panel, targets) in zip(axes.flat, by_panel.values()):
        for target, series in targets:
            for one in series[:12]:
                name = re.sub(r"\{\{ *(\w+) *\}\}", lambda match: one["metric"].get(match[1], ""), target.get("legendFormat", ""))
                points = [(float(when), float(value)) for when, value in one["values"] if value != "NaN"]
                first = points[0][0] if points else 0
                axis.plot([when - first for when, _ in points], [value for _, value in points], linewidth=1.2, label=name.replace("cache-memstore ", ""))
        axis.set_title(panel["title"], fontsize=10, loc="left")
        axis.tick_params(labelsize=7)
        axis.set_ylim(0, axis.get_ylim()[1] * 1.05)
        axis.grid(alpha=0.25)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.legend(fontsize=6, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.tight_layout()
    # Few colours: a third of the bytes.
    figure.canvas.draw()
    from PIL import Image
    Image.fromarray(numpy.asarray(figure.canvas.buffer_rgba())).convert("RGB").quantize(48).save(picture, optimize=True)
