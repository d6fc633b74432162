"""The chart as the tests see it: rendered by the real helm, read by the real proxy."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

import lookups

CHART = Path(__file__).resolve().parent.parent
ROOT = CHART.parent
HELM, MEMSTORE = os.environ["HELM"], os.environ["MEMSTORE"]
# The one of libyaml, where it is there, takes a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def helm(*words, values=None, kubernetes="1.34.0", running=()):
    """What helm does and says; resources that run can be looked up."""
    return asked_once(words, json.dumps(values or {}), kubernetes, json.dumps(running))


@functools.cache
def asked_once(words, values, kubernetes, running):
    """What helm does, which depends on these alone: a chart is not changed once it has been rendered."""
    running = json.loads(running)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, lookups.cluster(running) as cluster:
        file.write(values)
        file.flush()
        command = [HELM, *words, "-f", file.name]
        if words[0] != "install":
            command += ["--kube-version", kubernetes]
        if running:
            command += ["--dry-run=server"]
        # It ends before its garbage would be in anybody's way.
        environment = os.environ | cluster | {"GOGC": "off"}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def rendered(values=None, kubernetes="1.34.0", name="cache", running=(), chart=CHART):
    """All resources, by kind and name."""
    done = helm("template", name, str(chart), "--namespace", "ns", values=values, kubernetes=kubernetes, running=running)
    if done.returncode:
        raise AssertionError(done.stderr)
    return [document for document in yaml.load_all(done.stdout, LOADER) if document]


def refused(values, name="cache", running=()):
    """Why it is not rendered."""
    done = helm("template", name, str(CHART), "--namespace", "ns", values=values, running=running)
    if not done.returncode:
        raise AssertionError(f"it is rendered: {values}")
    return done.stderr


def pick(resources, kind, suffix=""):
    found = [one for one in resources if one["kind"] == kind and one["metadata"]["name"].endswith(suffix)]
    if len(found) != 1:
        raise AssertionError(f"{len(found)} resources {kind} *{suffix}")
    return found[0]


def pod_spec(resource):
    return resource["spec"] if resource["kind"] == "Pod" else resource["spec"]["template"]["spec"]


def pods(resources):
    return [one for one in resources if one["kind"] in ("Pod", "Job", "Deployment", "DaemonSet", "StatefulSet")]


def told(values):
    """NOTES, which helm shows only after an installation: here as a resource of a copy of the chart."""
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(CHART, Path(folder) / "memstore", ignore=shutil.ignore_patterns("tests"))
        shutil.move(copy / "templates" / "NOTES.txt", copy / "NOTES.txt")
        (copy / "templates" / "notes.yaml").write_text('notes: |\n{{ tpl (.Files.Get "NOTES.txt") . | indent 2 }}\n')
        words = ["template", "memstore", str(copy), "--namespace", "ns", "--show-only", "templates/notes.yaml"]
        done = helm(*words, values=values)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def proxy_files(resources, folder):
    """The proxy's configuration in a folder, with the paths it has there."""
    config = pick(resources, "ConfigMap", "-proxy")["data"]["memstore.yml"]
    for ring in [one for one in resources if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-ring")]:
        (folder / "servers.yml").write_text(ring["data"]["servers.yml"])
    for mounted in re.findall(r"/etc/memstore/((?:auth|servers)(?:-[-a-z0-9]+)?)/", config):
        (folder / mounted).mkdir(exist_ok=True)
        (folder / mounted / "password").write_text("secret\n")
        (folder / mounted / "servers.yml").write_text('- "127.0.0.1:1:1 theirs"\n')
    for mounted in set(re.findall(r"/etc/memstore/(tls(?:-[-a-z0-9]+)?)/", config)):
        (folder / mounted).mkdir(exist_ok=True)
        key, certificate = folder / mounted / "tls.key", folder / mounted / "tls.crt"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test", "-days", "30"]
        subprocess.run([*command, "-addext", "basicConstraints=CA:FALSE", "-keyout", key, "-out", certificate], capture_output=True, check=True)
        subprocess.run([*command, "-keyout", folder / "ca.key", "-out", folder / mounted / "ca.crt"], capture_output=True, check=True)
    config = re.sub("/etc/memstore/(auth|servers|tls)", r"\1", config.replace("/etc/memstore/ring/", ""))
    # It is not there before the first upgrade.
    config = config.replace("/etc/memstore/next/", "next-")
    (folder / "memstore.yml").write_text(config)
    return folder / "memstore.yml"


def memstore(*words):
    return subprocess.run([MEMSTORE, *map(str, words)], capture_output=True, text=True, check=False)


def selects(selector, labels):
    """Whether a selector of Kubernetes means these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", []))
