"""One VM, one user: maps, the files made of them, and what the kernel makes of these."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkrun import run
from hypothesis import given
from hypothesis import strategies as st
from needs import require_program

from svirtlib import consolerules
from svirtlib.backends import consolefiles
from svirtlib.consolerules import ConsoleUser, allowed, firewall, parse_map, sudoers, unit
from svirtlib.errors import BackendError, ConfigurationError, SelectionError

UIDS = {"anna": 1021, "ben": 1022, "root": 0, "_x-1": 1023}
MAP = b"""\
# guest user address port
web anna kvm1.example.org/192.0.2.2 20002
db ben 192.0.2.2 20004   # the database
six anna kvm6.example.org/2001:db8::1 20006
"""


def users(data=MAP):
    return parse_map(data, "map", UIDS)


def test_map():
    assert users()[0] == ConsoleUser(
        "web", "anna", 1021, "kvm1.example.org", ipaddress.ip_address("192.0.2.2"), 20002, 2
    )
    assert users()[1].host == "192.0.2.2"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("web anna 192.0.2.2", "3 words"),
        ("web anna 192.0.2.2 20002 x", "5 words"),
        ("web nobody-here 192.0.2.2 20002", "there is no user"),
        ("web root 192.0.2.2 20002", "root"),
        ("web ALL 192.0.2.2 20002", "no user's name"),
        ("web %wheel 192.0.2.2 20002", "no user's name"),
        ("web anna kvm1.example.org 20002", "no IP address"),
        ("web anna a;b/192.0.2.2 20002", "no host's name"),
        ("web anna /192.0.2.2 20002", "no host's name"),
        ("web anna 0.0.0.0 20002", "no address"),
        ("web anna fe80::1%eth0 20002", "no address"),
        ("web anna 192.0.2.2 0", "no port"),
        ("web anna 192.0.2.2 65536", "no port"),
        ("web anna 192.0.2.2 2e4", "no port"),
        ("we/b anna 192.0.2.2 20002", "no guest's name"),
        ("web anna 192.0.2.2 20002\ndb ben 192.0.2.2 20002", "has the address and port of web"),
        ("web anna 192.0.2.2 20002\nweb anna 192.0.2.2 20003", "has web already"),
        ("# nothing", "maps no guest"),
    ],
)
def test_map_that_is_refused(line, reason):
    with pytest.raises(ConfigurationError, match=reason):
        users(line.encode())
    with pytest.raises(ConfigurationError):
        users(b"\xff\xfe" + line.encode())


def test_ports():
    assert consolerules.port_range(users()) == (20002, 20006)
    assert "20001-20010" in firewall(users(), (20001, 20010))
    with pytest.raises(SelectionError, match="20006"):
        firewall(users(), (20001, 20004))


def test_sudoers_lines():
    lines = sudoers(users(), group="spicegrp").splitlines()
    assert (
        r"anna ALL=(anna:spicegrp) /usr/bin/remote-viewer -- "
        r"spice\://kvm1.example.org\?tls-port\=20002"
    ) in lines
    assert lines[-1].endswith(r"spice\://192.0.2.2\?tls-port\=20004")
    assert any(r"spice\://kvm6.example.org\?" in line for line in lines)
    for group, viewer in (("a b", "/usr/bin/x"), ("spicegrp", "x"), ("spicegrp", "/usr/*")):
        with pytest.raises(SelectionError):
            sudoers(users(), group=group, viewer=viewer)


def test_address_of_version_6_in_sudoers():
    line = sudoers(users(b"six anna 2001:db8::1 20006"), group="g").splitlines()[-1]
    assert line.endswith(r"spice\://\[2001\:db8\:\:1\]\?tls-port\=20006")


@pytest.fixture
def programs():
    for name, package in (("nft", "nftables"), ("visudo", "sudo"), ("unshare", "util-linux")):
        require_program(name, package=package)


@pytest.mark.root
def test_nft_and_visudo_accept_the_files(programs):
    for data in (MAP, b"six anna 2001:db8::1 20006", b"web anna 192.0.2.2 1"):
        consolefiles.check(firewall(users(data)), sudoers(users(data), group="spicegrp"))
    with pytest.raises(BackendError, match="nft"):
        consolefiles.check("table inet x {", "")
    with pytest.raises(BackendError, match="visudo"):
        consolefiles.check("", "anna ALL=(anna /usr/bin/x : y\n")


def test_unit_is_one_of_systemd_s(tmp_path):
    program = require_program("systemd-analyze", package="systemd")
    path = tmp_path / "svirt-user-console.service"
    path.write_text(unit().replace("/usr/sbin/nft", "/bin/true"))
    done = subprocess.run(
        [program, "verify", "--man=no", str(path)], capture_output=True, text=True
    )
    assert path.name not in done.stderr, done.stderr


@pytest.mark.root
def test_our_reading_of_the_rules(programs):
    entries = consolefiles.rules_of(firewall(users(), (20001, 20010)))
    for uid, address, port, expected in (
        (1021, "192.0.2.2", 20002, True),
        (1022, "192.0.2.2", 20002, False),
        (0, "192.0.2.2", 20002, False),
        (1022, "192.0.2.2", 20004, True),
        (1021, "192.0.2.2", 20004, False),
        (1021, "192.0.2.2", 20010, False),
        (1021, "192.0.2.2", 20011, True),
        (1021, "192.0.2.3", 20004, True),
        (1021, "2001:db8::1", 20006, True),
        (1022, "2001:db8::1", 20006, False),
    ):
        assert allowed(entries, uid, address, port) is expected, (uid, address, port)


@pytest.mark.root
@pytest.mark.parametrize(
    ("text", "own", "other"),
    [
        # Accepts alone keep nobody from anything.
        ("meta skuid 1021 ip daddr 192.0.2.2 tcp dport 20002 accept", True, True),
        ("meta skuid != 1021 ip daddr 192.0.2.2 tcp dport 20002 drop", True, False),
        ("skuid 1021 tcp dport 20002 accept; tcp dport { 20002, 20004 } drop", True, False),
        ("ip daddr 192.0.2.0/24 tcp dport 20000-20010 reject", False, False),
        ("ip daddr 198.51.100.0/24 tcp dport 20000-20010 reject", True, True),
        ("udp dport 20002 drop", True, True),
        ("meta l4proto tcp skuid { 1022, 65534 } tcp dport 20002 drop", True, False),
        ("meta cgroup 7 drop", None, None),
    ],
)
def test_rules_of_others(programs, text, own, other):
    chain = f"chain c {{ type filter hook output priority 0; policy accept; {text}; }}"
    entries = consolefiles.rules_of(f"table inet t {{\n{chain}\n}}\n")
    assert allowed(entries, 1021, "192.0.2.2", 20002) is own
    assert allowed(entries, 1022, "192.0.2.2", 20002) is other
    wrong = consolefiles.rules_of(f"table inet t {{\n{chain.replace('output', 'input')}\n}}\n")
    assert allowed(wrong, 1022, "192.0.2.2", 20002) is True


def test_rules_that_include_files_are_not_followed():
    with pytest.raises(BackendError, match="include"):
        consolefiles.rules_of('include "/etc/shadow"')


#: Run in a network namespace: loads the rules, listens, and connects as each user.
PROOF = """
import json, os, socket, subprocess, sys
rules, hosts, ports, uids = json.loads(sys.argv[1])
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for host in hosts:
    subprocess.run(["ip", "address", "add", host, "dev", "lo"], check=True)
for _ in range(2):
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
listening = []
for port in ports:
    one = socket.socket()
    one.bind(("0.0.0.0", port))
    one.listen(50)
    listening.append(one)
reached = []
for uid in uids:
    for host in hosts:
        for port in ports:
            child = os.fork()
            if child == 0:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                try:
                    socket.create_connection((host, port), 5).close()
                except OSError:
                    os._exit(1)
                os._exit(0)
            if os.waitpid(child, 0)[1] == 0:
                reached.append([uid, host, port])
print(json.dumps(reached))
"""


@pytest.mark.root
@pytest.mark.slow
def test_each_user_reaches_its_own_port_alone(programs):
    require_program("ip", package="iproute2")
    data = b"web anna 192.0.2.2 20002\ndb ben 192.0.2.2 20004\nfar ben 192.0.2.3 20002\n"
    rules = firewall(users(data), (20001, 20010))
    wanted = [(1021, "192.0.2.2", 20002), (1022, "192.0.2.2", 20004), (1022, "192.0.2.3", 20002)]
    ports, hosts, uids = [20002, 20003, 20004, 20011], ["192.0.2.2", "192.0.2.3"], [1021, 1022, 9]
    # The port outside of the range is everybody's.
    wanted += [(uid, host, 20011) for uid in uids for host in hosts]
    words = ["unshare", "--net", "--", sys.executable, "-c", PROOF]
    done = subprocess.run(
        [*words, json.dumps([rules, hosts, ports, [*uids, 0]])],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"/usr/sbin:/sbin:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    reached = [tuple(one) for one in json.loads(done.stdout)]
    # The superuser is refused too.
    wanted += [(0, host, 20011) for host in hosts]
    assert sorted(reached) == sorted(wanted)
    # And the kernel decides as we say that it does.
    entries = consolefiles.rules_of(rules)
    for uid in (*uids, 0):
        for host in hosts:
            for port in ports:
                assert allowed(entries, uid, host, port) is ((uid, host, port) in reached)


@pytest.fixture
def me(tmp_path):
    """A map for a user of this machine."""
    name = "nobody"
    path = tmp_path / "map"
    path.write_text(f"web {name} 192.0.2.2 20002\n")
    return path


@pytest.mark.root
def test_install_and_remove(programs, me, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    dry = run("console-rules", me, "--install", "--dry-run", "--root", root)
    assert (dry.code, [*root.iterdir()]) == (0, [])
    assert "would write" in dry.out
    assert run("console-rules", me, "--install", "--root", root).code == 0
    found = {f"/{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()}
    assert {path: found[path].stat().st_mode & 0o7777 for path in found} == dict(
        consolerules.FILES.values()
    )
    again = run("console-rules", me, "--install", "--root", root, "--format", "json")
    assert {one["action"] for one in json.loads(again.out)["changes"]} == {"keep"}
    assert run("console-rules", me, "--remove", "--dry-run", "--root", root).code == 0
    assert all(path.exists() for path in found.values())
    assert run("console-rules", me, "--remove", "--root", root).code == 0
    assert not any(path.exists() for path in found.values())
    assert "nothing to do" in run("console-rules", me, "--remove", "--root", root).out


@pytest.mark.root
def test_nothing_of_others_is_touched(programs, me, tmp_path):
    root = tmp_path / "root"
    theirs = root / "etc/sudoers.d/svirt-user-console"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs\n")
    for action in ("--install", "--remove"):
        assert run("console-rules", me, action, "--root", root).code == 4
        assert theirs.read_text() == "theirs\n"
    theirs.unlink()
    theirs.symlink_to(tmp_path / "elsewhere")
    assert run("console-rules", me, "--install", "--root", root).code == 4
    assert not (tmp_path / "elsewhere").exists()


def test_printed_files(me):
    outcome = run("console-rules", me)
    assert outcome.code == 0
    for path, _ in consolerules.FILES.values():
        assert f"## {path}\n" in outcome.out
    assert run("console-rules", me, "--only", "firewall").out.startswith("# Written by")
    files = json.loads(run("console-rules", me, "--format", "json").out)["files"]
    assert set(files) == {path for path, _ in consolerules.FILES.values()}


def test_wrong_uses(me, tmp_path):
    assert run("console-rules", tmp_path / "nowhere").code == 2
    assert run("console-rules", me, "--ports", "5-4").code == 2
    assert run("console-rules", me, "--ports", "1-10").code == 2
    me.write_text("web no-such-user-here 192.0.2.2 20002\n")
    outcome = run("console-rules", me)
    assert (outcome.code, outcome.out) == (2, "")
    assert f"{me}:1" in outcome.err


_BYTES = st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8"))


@given(data=_BYTES)
def test_any_bytes_are_a_map_or_an_error(data):
    with contextlib.suppress(ConfigurationError):
        for one in parse_map(data, "map", UIDS):
            assert one.uid > 0


def test_documented_map_parses():
    page = (Path(__file__).parent.parent / "docs" / "console-rules.md").read_text()
    text = page.split("```text\n")[1].split("```")[0]
    parse_map(text.encode(), "docs", {"anna": 1021, "ben": 1022})
