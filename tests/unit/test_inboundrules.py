"""Which ports a firewall opens to everybody, by rules as nft and the kernel take them."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import pytest
from needs import require_program

from svirtlib.backends.consolefiles import rules_of
from svirtlib.inboundrules import open_ports

_NEW = "tcp flags & (fin|syn|rst|ack) != syn ct state new drop\n"
_STATES = "ct state vmap { established : accept, related : accept, invalid : drop }\n"

#: Rules; whether they open port 5904, and 49152, to everybody, None where they do not tell it.
CASES = [
    ("tcp dport 5900-5999 accept", True, False),
    ("tcp dport { 22, 5904 } accept", True, False),
    # Another service, whose port happens to lie there.
    ("tcp dport 6443 accept", False, False),
    ("tcp dport { 22, 80, 443 } accept", False, False),
    ("tcp dport 49152-49216 accept", False, True),
    ("tcp dport >= 1024 accept", True, True),
    ("tcp dport != 22 accept", True, True),
    ("meta l4proto { tcp, udp } th dport 5900-5910 accept", True, False),
    ("udp dport 5900-5910 accept", False, False),
    ("udp dport != 53 accept", False, False),
    ("ct state new tcp dport 5900-5910 limit rate 5/minute accept", True, False),
    ("ip saddr 192.0.2.0/24 tcp dport 5900-5910 accept", False, False),
    ("ip saddr @admins tcp dport 5900-5910 accept", False, False),
    ("ip saddr != 192.0.2.9 tcp dport 5900-5910 accept", True, False),
    ("ip saddr 0.0.0.0/0 tcp dport 5900-5910 accept", True, False),
    ("ip saddr { 0.0.0.0/1, 128.0.0.0/1 } tcp dport 5900-5910 accept", True, False),
    ("ip6 saddr ::/0 tcp dport 5900-5910 accept", True, False),
    ("ip6 saddr 2001:db8::/32 tcp dport 5900-5910 accept", False, False),
    ("ip saddr . tcp dport { 192.0.2.1 . 5904 } accept", False, False),
    ('iifname "br0" tcp dport 5900-5910 accept', False, False),
    ('iifname != "lo" tcp dport 5900-5910 accept', True, False),
    ("iif lo accept", False, False),
    ("tcp dport 5900-5910 drop\ntcp dport >= 5000 accept", False, True),
    ("tcp dport 5900-7000 reject\ntcp dport 5000-8000 accept", False, False),
    (_STATES + _NEW + "tcp dport 5900-5910 accept", True, False),
    (_STATES + "ct state established,related accept", False, False),
    ("fib saddr . iif oif missing drop\ntcp dport 5904 accept", True, False),
    ("tcp dport vmap { 22 : accept, 5900-5910 : accept }", True, False),
    ("tcp dport vmap @ports", True, False),
    ("tcp dport 5900-5910 jump clients", False, False),
    ("tcp dport 5900-5910 jump strangers", True, False),
    ("tcp dport 5900-5910 goto nothing\ntcp dport 5904 accept", False, False),
    # What rules do not tell.
    ('iifname "br0" jump strangers', None, None),
    ('iifname vmap { lo : accept, "br0" : jump strangers }', None, None),
    ('iifname "br0" drop\ntcp dport 5900-5910 accept', None, False),
    ("ip daddr 192.0.2.2 tcp dport 5900-5910 accept", None, False),
    ("meta mark 7 tcp dport 5900-5910 accept", None, False),
    ("meta mark 7 drop\ntcp dport 5900-5910 accept", None, False),
    ("meta mark 7 tcp dport 22 accept", False, False),
]


def _table(name, rules):
    return (
        f"table inet {name} {{\n"
        " set admins { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 } }\n"
        " map ports { type inet_service : verdict; elements = { 5904 : accept } }\n"
        " chain clients { ip saddr 192.0.2.0/24 accept; }\n chain strangers { accept; }\n"
        " chain nothing { counter; }\n"
        f" chain c {{ type filter hook input priority 0; policy drop;\n{rules}\n }}\n}}\n"
    )


@functools.lru_cache
def _loaded():
    """All cases, each in a table of its own, loaded at once."""
    return rules_of("".join(_table(f"f{number}", case[0]) for number, case in enumerate(CASES)))


def _state(found, port):
    def within(ranges):
        return any(low <= port <= high for low, high in ranges)

    return True if within(found.opened) else None if within(found.undecided) else False


@pytest.mark.root
@pytest.mark.parametrize("number", range(len(CASES)))
def test_ports_are_open_as_the_rules_say(number):
    require_program("nft", "nftables")
    rules, console, migration = CASES[number]
    own = [entry for entry in _loaded() if next(iter(entry.values())).get("table") == f"f{number}"]
    found = open_ports(own, "nft")
    assert (_state(found, 5904), _state(found, 49152)) == (console, migration), rules
    assert bool(found.reason) == bool(found.undecided)


#: Loads rules, and connects from another host; prints which ports could be reached.
PROOF = """
import json, socket, subprocess, sys
PEER = "import socket, sys; s = socket.socket(); s.settimeout(float(sys.argv[2])); " \\
    "s.connect(('198.51.100.1', int(sys.argv[1])))"
def ip(text, *inside):
    subprocess.run([*inside, "ip", *text.split()], check=True)
peer = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; read x"],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
peer.stdout.readline()
inside = ["nsenter", "--target", str(peer.pid), "--net"]
ip(f"link add name here type veth peer name there netns {peer.pid}")
ip("addr add 198.51.100.1/24 dev here")
ip("link set dev here up")
ip("addr add 198.51.100.2/24 dev there", *inside)
ip("link set dev there up", *inside)
servers = [socket.create_server(("198.51.100.1", port)) for port in (5904, 49152)]
found = []
for rules, *wanted in json.loads(sys.argv[1]):
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    for port, want in zip((5904, 49152), wanted):
        words = [*inside, sys.executable, "-S", "-c", PEER, str(port), "9" if want else "0.1"]
        found.append(not subprocess.run(words, stderr=subprocess.DEVNULL).returncode)
peer.communicate()
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.root
def test_a_stranger_reaches_what_is_open():
    """What is said of rules is what the kernel makes of them."""
    for name, package in (("nft", "nftables"), ("ip", "iproute2"), ("nsenter", "util-linux")):
        require_program(name, package)
    # The other host has no IPv6.
    cases = [case for case in CASES if None not in case and "ip6 saddr" not in case[0]]
    loads = [(f"flush ruleset\n{_table('f', case[0])}", *case[1:]) for case in cases]
    done = subprocess.run(
        ["unshare", "--net", "--", sys.executable, "-c", PROOF, json.dumps(loads)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [state for case in cases for state in case[1:]]


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        ([{"xt": None}, {"accept": None}], "'xt' (as iptables writes it)"),
        ([{"xt": {"type": "target", "name": "x"}}], "'xt' (as iptables writes it)"),
        ([{"match": {"op": "==", "left": {"meta": {"key": "iif"}}, "right": "@gone"}}], "a set"),
        ([{"vmap": {"key": {"meta": {"key": "iif"}}, "data": "@gone"}}], "a map"),
        ([{"queue": {}}], "'queue'"),
    ],
)
def test_rules_that_are_not_understood(expressions, expected):
    place = {"family": "inet", "table": "f"}
    chain = {**place, "name": "c", "type": "filter", "hook": "input", "policy": "drop"}
    rule = {**place, "chain": "c", "expr": [*expressions, {"accept": None}]}
    found = open_ports([{"chain": chain}, {"rule": rule}], "nft")
    assert (found.opened, found.undecided) == ((), ((1, 65535),))
    assert expected in found.reason


def test_rules_without_end():
    place = {"family": "inet", "table": "f"}
    chain = {**place, "name": "c", "type": "filter", "hook": "input", "policy": "drop"}
    jump = {"rule": {**place, "chain": "c", "expr": [{"jump": {"target": "c"}}]}}
    found = open_ports([{"chain": chain}, jump, jump], "nft")
    assert (found.opened, found.undecided) == ((), ((1, 65535),))
