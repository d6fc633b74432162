"""The network of the pods: each has a namespace, an address that nobody had before it, and a cable to the node's
namespace, which routes. There nftables stands in for kube-proxy (Services) and for a network plugin (NetworkPolicies).

The addresses are routed, not bridged, because then everything passes the same hooks, also what a pod sends itself by
way of a Service. All nodes are one namespace: what is between nodes is not here.
"""

import ipaddress
import subprocess
import threading
import time

from api import selects

NODE = "10.200.0.1"
SERVICES = "10.96.0.0/16"
DNS = "10.96.0.10"
PODS = ipaddress.ip_network("10.244.0.0/16")
# Every pod's next hop. Link-local, so that no pod's address is in the way.
GATEWAY = "169.254.1.1"
# kube-proxy's own: changes are applied at once after a quiet time, then at most so often.
SERVICE_PERIOD = 1.0
# A network plugin is done with a pod before its containers start, or soon after.
POLICY_PERIOD = 0.05


def prepare_node():
    """Makes this network namespace the nodes'."""
    batch(
        "link set lo up",
        # Stands for the node's own network card; a bridge without ports needs no kernel module that may be missing.
        "link add node type bridge",
        f"addr add {NODE}/32 dev node",
        "link set node up",
        # Into nothing: a Service's address is rewritten before, and a pod that is gone does not answer.
        f"route add {SERVICES} dev node src {NODE}",
        f"route add {PODS} dev node src {NODE}",
    )
    with open("/proc/sys/net/ipv4/ip_forward", "w") as file:
        file.write("1")
    nft(
        """
        table ip services {
            chain dispatch { }
            set hairpin { type ipv4_addr . ipv4_addr; }
            set refused { type ipv4_addr . inet_proto . inet_service; }
            chain prerouting { type nat hook prerouting priority -100; jump dispatch; }
            chain output { type nat hook output priority -100; jump dispatch; }
            chain postrouting { type nat hook postrouting priority 100; ip saddr . ip daddr @hairpin masquerade; }
            chain forward { type filter hook forward priority 0; jump refuse; }
            chain local { type filter hook output priority 0; jump refuse; }
            chain refuse {
                ip daddr . meta l4proto . th dport @refused meta l4proto tcp reject with tcp reset
                ip daddr . meta l4proto . th dport @refused reject
            }
        }
        table ip policies {
            chain ingress { }
            chain egress { }
            chain forward { type filter hook forward priority 10; ct state established,related accept; jump egress; jump ingress; }
            chain input { type filter hook input priority 10; ct state established,related accept; jump egress; }
        }
        """
    )


def batch(*lines, namespace=None):
    command = ["ip", "-batch", "-"]
    if namespace:
        command = ["nsenter", f"--net=/proc/{namespace}/ns/net", *command]
    subprocess.run(command, input="\n".join(lines), text=True, check=True)


def nft(rules):
    finished = subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True)
    if finished.returncode != 0:
        raise RuntimeError(f"nft: {finished.stderr}\n{rules}")


class Cables:
    """Gives pods their addresses. An address is not used again in a run, as one that is handed out in turn is not for long."""

    def __init__(self):
        self.lock = threading.Lock()
        self.addresses = PODS.hosts()
        self.count = 0

    def connect(self, sandbox):
        """Connects the network namespace of the process `sandbox`, and returns its new address."""
        with self.lock:
            address = str(next(self.addresses))
            self.count += 1
            cable = f"pod{self.count}"
        batch(
            f"link add {cable} type veth peer name eth0 netns {sandbox}",
            f"addr add {GATEWAY}/32 dev {cable}",
            f"link set {cable} up",
            f"route add {address}/32 dev {cable} src {NODE}",
        )
        batch(
            "link set lo up",
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {GATEWAY} dev eth0 scope link",
            f"route add default via {GATEWAY}",
            namespace=sandbox,
        )
        return address


class Rules(threading.Thread):
    """Keeps rules as `written` says they should be, once `changed` was called; at most once per period."""

    def __init__(self, name, written, period):
        super().__init__(name=name, daemon=True)
        self.written, self.period = written, period
        self.change = threading.Event()

    def changed(self, *_):
        self.change.set()

    def run(self):
        applied = None
        while True:
            self.change.wait()
            self.change.clear()
            rules = self.written()
            if rules != applied:
                try:
                    nft(rules)
                    applied = rules
                except RuntimeError as error:
                    print(error, flush=True)
                time.sleep(self.period)


def service_rules(services, slices):
    lines = ["flush chain ip services dispatch", "flush set ip services hairpin", "flush set ip services refused"]
    own = set()
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        if spec.get("clusterIP") in (None, "", "None") or spec.get("type") == "ExternalName":
            continue
        for port in spec.get("ports", []):
            protocol = port.get("protocol", "TCP").lower()
            targets = []
            for piece in slices:
                owner = piece["metadata"].get("labels", {}).get("kubernetes.io/service-name")
                if (piece["metadata"]["namespace"], owner) == (metadata["namespace"], metadata["name"]) and piece["addressType"] == "IPv4":
                    targets += targets_of(piece, port)
            ready = sorted({target for target, state in targets if state == "ready"})
            # As kube-proxy does: those that are ending are better than none.
            ready = ready or sorted({target for target, state in targets if state == "ending"})
            for address in spec.get("clusterIPs", [spec["clusterIP"]]):
                if ready:
                    choices = ", ".join(f"{number} : {target} . {number_of_port}" for number, (target, number_of_port) in enumerate(ready))
                    lines.append(
                        f"add rule ip services dispatch ip daddr {address} {protocol} dport {port['port']} "
                        f"dnat to numgen random mod {len(ready)} map {{ {choices} }}"
                    )
                    own |= {target for target, _ in ready}
                else:
                    lines.append(f"add element ip services refused {{ {address} . {protocol} . {port['port']} }}")
    lines += [f"add element ip services hairpin {{ {address} . {address} }}" for address in sorted(own)]
    return "\n".join(lines) + "\n"


def targets_of(piece, port):
    for numbered in piece.get("ports") or []:
        if numbered.get("name", "") != port.get("name", "") or numbered.get("port") is None:
            continue
        for endpoint in piece.get("endpoints") or []:
            conditions = endpoint.get("conditions") or {}
            if conditions.get("ready") is not False:
                state = "ready"
            elif conditions.get("serving") and conditions.get("terminating"):
                state = "ending"
            else:
                continue
            for address in endpoint["addresses"]:
                yield (address, numbered["port"]), state


def policy_rules(policies, pods, namespaces):
    labels = {namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}) for namespace in namespaces}
    pods = [pod for pod in pods if pod.get("status", {}).get("podIP") and pod["status"].get("phase") not in ("Succeeded", "Failed")]
    lines = ["flush chain ip policies ingress", "flush chain ip policies egress"]
    for pod in pods:
        for direction in ("Ingress", "Egress"):
            lines += rules_of_pod(pod, direction, policies, pods, labels)
    return "\n".join(lines) + "\n"


def rules_of_pod(pod, direction, policies, pods, namespace_labels):
    """Nothing for a pod that no policy selects; else a rule for each way that is open, and one that closes the rest."""
    namespace, address = pod["metadata"]["namespace"], pod["status"]["podIP"]
    chosen = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == namespace
        and direction in policy["spec"].get("policyTypes", ["Ingress"])
        and selects(policy["spec"].get("podSelector", {}), pod["metadata"].get("labels"))
    ]
    if not chosen:
        return []
    chain = direction.lower()
    mine, theirs, key = ("daddr", "saddr", "from") if direction == "Ingress" else ("saddr", "daddr", "to")
    # "accept" would skip the other direction's chain for ingress, which is asked last, and "return" for egress.
    verdict = "accept" if direction == "Ingress" else "return"
    lines = []
    for policy in chosen:
        for rule in policy["spec"].get(chain) or []:
            peers = peers_of(rule.get(key), theirs, namespace, pods, namespace_labels)
            for peer in peers:
                for port in ports_of(rule.get("ports"), pod if direction == "Ingress" else peer):
                    if peer is None:
                        match = ""
                    elif isinstance(peer, str):
                        match = peer
                    else:
                        match = f"ip {theirs} {peer['status']['podIP']}"
                    lines.append(f"add rule ip policies {chain} ip {mine} {address} {match} {port} {verdict}")
    lines.append(f"add rule ip policies {chain} ip {mine} {address} counter drop")
    return lines


def peers_of(peers, theirs, namespace, pods, namespace_labels):
    """None stands for everybody, text for a range of addresses as nftables writes it."""
    if not peers:
        return [None]
    found = []
    for peer in peers:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            without = ", ".join(block.get("except") or [])
            found.append(f"ip {theirs} {block['cidr']}" + (f" ip {theirs} != {{ {without} }}" if without else ""))
            continue
        for pod in pods:
            there = pod["metadata"]["namespace"]
            in_namespace = selects(peer["namespaceSelector"], namespace_labels.get(there)) if "namespaceSelector" in peer else there == namespace
            if in_namespace and selects(peer.get("podSelector", {}), pod["metadata"].get("labels")):
                found.append(pod)
    return found


def ports_of(ports, pod):
    """`pod` is whose ports names stand for."""
    if not ports:
        return [""]
    found = []
    for port in ports:
        protocol, wanted = port.get("protocol", "TCP").lower(), port.get("port")
        if wanted is None:
            found.append(f"meta l4proto {protocol}")
        elif isinstance(wanted, int):
            found.append(f"{protocol} dport {wanted}" + (f"-{port['endPort']}" if "endPort" in port else ""))
        elif isinstance(pod, dict):
            for container in pod["spec"]["containers"]:
                for named in container.get("ports", []):
                    if named.get("name") == wanted and named.get("protocol", "TCP").lower() == protocol:
                        found.append(f"{protocol} dport {named['containerPort']}")
    return found
