"""``svirt-label audit``: what the firewall of a host lets in, in rules that nft itself reads."""

from __future__ import annotations

import pytest
from auditrun import audit, guest
from needs import require_program

OPEN = "fw-default-policy"


@pytest.mark.root
@pytest.mark.parametrize(
    ("rules", "told", "unknown"),
    [
        ("type filter hook input priority 0; policy drop;", [], 0),
        ("type filter hook input priority 0; policy accept; tcp dport 22 accept", [OPEN], 0),
        ("type filter hook input priority 0; policy accept; counter drop", [], 0),
        ("type filter hook forward priority 0; policy drop;", [OPEN], 0),
        ("type filter hook input priority 0; polic", [], 1),
        ('include "/etc/a"', [], 1),
    ],
)
def test_firewall_of_an_unpacked_host(tree, rules, told, unknown):
    require_program("nft", "nftables")
    tree.put("/etc/nftables.conf", f"table inet f {{\n chain c {{\n{rules}\n}}\n}}\n")
    # What nobody loads says nothing.
    assert "fw-default-policy" in {one["rule"] for one in audit(tree).report["not_run"]}
    tree.put("/etc/systemd/system/sysinit.target.wants/nftables.service", "")
    outcome = audit(tree, "--only", "fw-default-policy")
    assert outcome.rules == told
    assert len(outcome.unjudged) == unknown


@pytest.fixture
def filtered(tree):
    """A host that loads its nftables.conf at boot."""
    require_program("nft", "nftables")
    for unit in ("nftables", "auditd"):
        tree.put(f"/etc/systemd/system/sysinit.target.wants/{unit}.service", "")
    return tree


@pytest.mark.root
@pytest.mark.parametrize(
    ("rules", "told", "unknown"),
    [
        ("tcp dport { 22, 5904 } accept", ["fw-console-range"], 0),
        # Another service, whose port happens to lie there.
        ("tcp dport 6443 accept", [], 0),
        ("tcp dport >= 1024 accept", ["fw-console-range", "fw-migration-range"], 0),
        ('iifname "br0" drop\ntcp dport 5900-5910 accept', [], 1),
        ("meta mark 7 tcp dport 22 accept", [], 0),
        ("tcp dport 5900-5910 acc", [], 1),
    ],
)
def test_ports_that_a_firewall_opens(filtered, rules, told, unknown):
    filtered.domains(guest(attributes="port='5904' autoport='no' listen='192.0.2.2'"))
    filtered.put(
        "/etc/nftables.conf",
        "table inet f { chain c { type filter hook input priority 0; policy drop;\n"
        f"{rules}\n}}\n}}\n",
    )
    outcome = audit(filtered, "--ignore", "vnc-no-auth")
    assert (outcome.rules, len(outcome.unjudged)) == (told, unknown)


@pytest.mark.root
def test_ports_of_consoles_and_migration_are_those_of_qemu_conf(filtered):
    tree = filtered
    rules = "type filter hook input priority 0; policy drop; tcp dport 7000-7999 accept"
    tree.put("/etc/nftables.conf", f"table inet f {{ chain c {{\n{rules}\n}}\n}}\n")
    assert audit(tree).rules == []
    tree.put("/etc/libvirt/qemu.conf", "migration_port_min = 7500\nmigrate_tls_force = 1\n")
    tree.pki("/etc/pki/libvirt-migrate", "")
    tree.pki("/etc/pki/qemu", "")
    outcome = audit(tree, "--only", "fw-migration-range")
    assert outcome.one("fw-migration-range")["severity"] == "low"
    tree.put(
        "/etc/libvirt/qemu.conf", "remote_display_port_min = 7990\nremote_display_port_max = 8000"
    )
    assert "7990-7999" in audit(tree).one("fw-console-range")["message"]
    # A firewall that lets all in is told once.
    tree.put("/etc/nftables.conf", "table inet f { }\n")
    assert audit(tree).rules == ["fw-default-policy"]
