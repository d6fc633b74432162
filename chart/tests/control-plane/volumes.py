"""The volumes of a pod, as folders on the node that are bound into its containers.

Files out of ConfigMaps, Secrets and the pod itself are swapped all at once: they lie in a folder of this version,
`..data` links to it, and the visible names link into `..data`, which is what programs that follow changes watch.
"""

import base64
import json
import os
import pathlib
import shutil
import stat
import time

from api import path_of


class NotYet(Exception):
    """Something that the pod refers to is not there. It may come."""


class Refused(Exception):
    """What the tests' node does not do."""


class Volumes:
    def __init__(self, pod, folder, node):
        self.folder = pathlib.Path(folder)
        self.node = node
        self.spec = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        self.group = pod["spec"].get("securityContext", {}).get("fsGroup")
        self.written = {}
        self.tokens = {}

    def prepare(self, pod):
        """All volumes as folders; raises NotYet."""
        for name, volume in self.spec.items():
            folder = self.folder / name
            if "emptyDir" in volume:
                # The node's files are in memory, so a medium of its own changes nothing; sizeLimit is not enforced.
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)
                self.give_to_group(folder)
            elif "persistentVolumeClaim" in volume:
                self.give_to_group(pathlib.Path(self.path(pod, name)))
            elif self.source_of_files(volume) is None:
                raise Refused(f"volume {name} is of a kind that the tests' node does not know: {sorted(volume)}")
        self.refresh(pod)

    def path(self, pod, name):
        volume = self.spec[name]
        if "persistentVolumeClaim" not in volume:
            return str(self.folder / name)
        claim = self.node.claims.get(pod["metadata"]["namespace"], volume["persistentVolumeClaim"]["claimName"])
        if claim is None or claim.get("status", {}).get("phase") != "Bound":
            raise NotYet(f"claim {volume['persistentVolumeClaim']['claimName']} is not bound")
        return self.node.disk(claim["spec"]["volumeName"])

    def read_only(self, name):
        volume = self.spec[name]
        return self.source_of_files(volume) is not None or volume.get("persistentVolumeClaim", {}).get("readOnly", False)

    def refresh(self, pod):
        """Writes anew what has changed."""
        for name, volume in self.spec.items():
            sources = self.source_of_files(volume)
            if sources is None:
                continue
            files = {}
            for source in sources:
                files |= self.files(pod, name, source)
            if files != self.written.get(name):
                self.swap(self.folder / name, files)
                self.written[name] = files

    def source_of_files(self, volume):
        """The sources that are projected into a volume, or None for one that holds what containers write."""
        if "projected" in volume:
            mode = volume["projected"].get("defaultMode", 0o644)
            return [{kind: {"defaultMode": mode, **source}} for each in volume["projected"].get("sources", []) for kind, source in each.items()]
        for kind in ("configMap", "secret", "downwardAPI"):
            if kind in volume:
                return [{kind: volume[kind]}]
        return None

    def files(self, pod, volume, source):
        """Path: content and mode."""
        ((kind, spec),) = source.items()
        mode = spec.get("defaultMode", 0o644)
        if kind == "downwardAPI":
            return {each["path"]: (field(pod, each, self.node).encode(), each.get("mode", mode)) for each in spec.get("items", [])}
        if kind == "serviceAccountToken":
            return {spec["path"]: (self.token(pod, volume, spec).encode(), 0o600 if self.group is None else mode)}
        name = spec.get("secretName") or spec.get("name")
        informer = self.node.secrets if kind == "secret" else self.node.configmaps
        thing = informer.get(pod["metadata"]["namespace"], name)
        if thing is None:
            if spec.get("optional"):
                return {}
            raise NotYet(f"{kind} {name} is not there")
        content = contents(thing, kind)
        if "items" not in spec:
            return {key: (value, mode) for key, value in content.items()}
        chosen = {}
        for each in spec["items"]:
            if each["key"] in content:
                chosen[each["path"]] = (content[each["key"]], each.get("mode", mode))
            elif not spec.get("optional"):
                raise NotYet(f"{kind} {name} has no key {each['key']}")
        return chosen

    def token(self, pod, volume, spec):
        held, until = self.tokens.get(volume, (None, 0))
        if time.monotonic() > until:
            seconds = spec.get("expirationSeconds", 3600)
            request = {
                "spec": {
                    "expirationSeconds": seconds,
                    "audiences": [spec["audience"]] if spec.get("audience") else None,
                    "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
                }
            }
            path = path_of("serviceaccounts", pod["metadata"]["namespace"], pod["spec"].get("serviceAccountName", "default"), "token")
            held = self.node.api.call("POST", path, request)["status"]["token"]
            self.tokens[volume] = held, time.monotonic() + seconds * 0.8
        return held

    def swap(self, folder, files):
        folder.mkdir(parents=True, exist_ok=True)
        version = folder / f"..{time.strftime('%Y_%m_%d_%H_%M_%S')}.{time.monotonic_ns()}"
        version.mkdir(mode=0o755)
        for path, (content, mode) in files.items():
            file = version / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(mode)
        self.give_to_group(version, read_only=True)
        self.give_to_group(folder, read_only=True, deep=False)
        link, old = folder / "..data", None
        if link.is_symlink():
            old = folder / os.readlink(link)
        fresh = folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(link)
        visible = {path.split("/")[0] for path in files}
        for name in visible:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
        for each in folder.iterdir():
            if each.is_symlink() and not each.name.startswith("..") and each.name not in visible:
                each.unlink()
        if old:
            shutil.rmtree(old)

    def give_to_group(self, folder, read_only=False, deep=True):
        if self.group is None:
            return
        mask = 0o440 if read_only else 0o660
        for path in [folder, *(folder.rglob("*") if deep else [])]:
            if path.is_symlink():
                continue
            os.chown(path, -1, self.group)
            mode = stat.S_IMODE(path.stat().st_mode) | mask
            path.chmod(mode | stat.S_ISGID | 0o110 if path.is_dir() else mode)


def contents(thing, kind):
    if kind == "secret":
        return {key: base64.b64decode(value) for key, value in (thing.get("data") or {}).items()}
    content = {key: value.encode() for key, value in (thing.get("data") or {}).items()}
    return content | {key: base64.b64decode(value) for key, value in (thing.get("binaryData") or {}).items()}


def field(pod, reference, node):
    """What `fieldRef` or `resourceFieldRef` stands for."""
    if "resourceFieldRef" in reference:
        return resource(pod, reference["resourceFieldRef"])
    path = reference["fieldRef"]["fieldPath"]
    metadata, status = pod["metadata"], pod.get("status", {})
    for kind in ("labels", "annotations"):
        if path == f"metadata.{kind}":
            return "\n".join(f"{key}={json.dumps(value)}" for key, value in sorted(metadata.get(kind, {}).items()))
        if path.startswith(f"metadata.{kind}['"):
            return metadata.get(kind, {}).get(path.split("'")[1], "")
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": pod["spec"].get("nodeName", ""),
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", "default"),
        "status.hostIP": node.address,
        "status.hostIPs": node.address,
        "status.podIP": status.get("podIP", ""),
        "status.podIPs": status.get("podIP", ""),
    }
    if path not in known:
        raise Refused(f"fieldPath {path} is not known to the tests' node")
    return known[path]


# What the nodes have, for limits that are not set.
ALLOCATABLE = {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "32Gi", "pods": "110"}


def resource(pod, reference):
    name = reference["containerName"] if "containerName" in reference else pod["spec"]["containers"][0]["name"]
    container = next(each for each in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])] if each["name"] == name)
    side, _, what = reference["resource"].partition(".")
    value = container.get("resources", {}).get(side, {}).get(what)
    if value is None:
        value = ALLOCATABLE[what] if side == "limits" else "0"
    divisor = reference.get("divisor", "1")
    return str(-int(-quantity(value) // (quantity("1" if divisor == "0" else divisor))))


SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def quantity(text):
    for suffix, factor in sorted(SUFFIXES.items(), key=lambda each: -len(each[0])):
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * factor
    return float(text)
