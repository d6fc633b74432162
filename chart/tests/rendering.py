"""The chart as the tests see it: rendered by the real helm, read by the real proxy."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

import lookups

CHART = Path(__file__).resolve().parent.parent
ROOT = CHART.parent
HELM, MEMSTORE = os.environ["HELM"], os.environ["MEMSTORE"]


def helm(*words, values=None, kubernetes="1.34.0", running=()):
    """What helm does and says; resources that run can be looked up."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file, lookups.cluster(running) as cluster:
        json.dump(values or {}, file)
        file.flush()
        command = [HELM, *words, "-f", file.name]
        if words[0] != "install":
            command += ["--kube-version", kubernetes]
        if running:
            command += ["--dry-run=server"]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | cluster)


def rendered(values=None, kubernetes="1.34.0", name="cache", running=(), chart=CHART):
    """All resources, by kind and name."""
    done = helm("template", name, str(chart), "--namespace", "ns", values=values, kubernetes=kubernetes, running=running)
    if done.returncode:
        raise AssertionError(done.stderr)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


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
    return [one for one in resources if one["kind"] in ("Pod", "Job", "Deployment", "StatefulSet")]


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
    (folder / "password").write_text("secret\n")
    for path in ["ring/", "auth/"]:
        config = config.replace(f"/etc/memstore/{path}", "")
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
