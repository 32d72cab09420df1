"""Each rule of audit has a page that is right about it; the examples in the pages are judged.

In the section "Example" of a page, blocks are marked by what follows the language:

    ```xml bad                     guests of which the rule must tell
    ```conf bad /etc/some/file     a file of their host
    ```pki bad /etc/some/folder    certificates there: what is odd about them
    ```console bad                 modes of files, as ls -l shows them; sockets, as ss
                                   does, and booleans, as getsebool or
                                   semanage does
    ```nft bad                     a firewall, as nft -j shows it
    ```map bad                     who may use which console
    ```text                        what the rule says of the bad case, message and remedy

``good`` in the place of ``bad`` marks a case of which no rule at all may tell anything, and
blocks without either belong to both. ``profile`` before the case names the profile.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from attr import evolve
from hosttree import HostTree
from needs import require

from svirtlib.audit import ALL_RULES, Need, run_audit
from svirtlib.backends.audit import audit_tree
from svirtlib.booleans import Boolean
from svirtlib.guests import Inventory
from svirtlib.inboundrules import input_filtered, open_ports
from svirtlib.portuse import denials, port_uses
from svirtlib.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "rules"
RULES = {rule.ident: rule for rule in ALL_RULES}
HEADINGS = [
    "What it means",
    "How it happens",
    "What decides it",
    "How to fix it",
    "Example",
]
NEEDS = {
    frozenset(): "the guests' XML",
    frozenset({Need.CONFIG}): "the host's configuration",
    frozenset({Need.UNITS}): "the units that start at boot",
    frozenset({Need.SELINUX}): "the configuration of SELinux",
    frozenset({Need.BOOLEANS}): "a policy",
    frozenset({Need.PORTS}): "a policy",
    frozenset({Need.RULESET}): "the running host, as root, or its nftables.conf",
    frozenset({Need.MAP}): "a map of consoles to users",
    frozenset({Need.MAP, Need.OWNER_RULES}): "a map, and the machine with the viewers",
    frozenset({Need.MAP, Need.OWNER_RULES, Need.UNITS}): "a map, and the machine with the viewers",
    frozenset({Need.SUDOERS}): "the configuration of sudo",
    frozenset({Need.SOCKETS}): "the running host",
}

each_rule = pytest.mark.parametrize("ident", sorted(RULES))


def _page(ident):
    return (FOLDER / f"{ident}.md").read_text()


def _blocks(page):
    example = page.split("\n## Example\n")[1]
    return re.findall(r"^```([^\n]+)\n(.*?)^```$", example, re.MULTILINE | re.DOTALL)


def _report(folder, page, case, rules=ALL_RULES):
    tree = HostTree(folder)
    seen: dict[str, Any] = {}
    console_map = None
    for info, text in _blocks(page):
        kind, *words = info.split()
        if words and words[0] in ("bad", "good") and words.pop(0) != case:
            continue
        if kind == "xml":
            tree.domains(text)
        elif kind == "conf":
            tree.put(words[0], text)
        elif kind == "pki":
            tree.pki(words[0], text)
        elif kind == "map":
            require(os.geteuid() == 0, "a network namespace can be made by root alone")
            console_map = str(folder.with_suffix(".map"))
            Path(console_map).write_text(text)
        elif kind == "nft":
            ruleset = json.loads(text)["nftables"]
            seen["input_filtered"] = input_filtered(ruleset)
            seen["open_ports"] = open_ports(ruleset, "nft -j list ruleset")
        elif text.startswith("$ ss "):
            ports = re.findall(r"^LISTEN .*?(\S+):(\d+) ", text, re.MULTILINE)
            seen["listening"] = tuple((address, int(port)) for address, port in ports)
        elif text.startswith("$ getsebool "):
            states = re.findall(r"^(\w+) --> (on|off)$", text, re.MULTILINE)
            seen["booleans"] = tuple(Boolean(name, state == "on") for name, state in states)
        elif text.startswith("$ semanage boolean "):
            states = re.findall(r"^(\w+) +\((\w+) *, *(\w+)\)", text, re.MULTILINE)
            seen["booleans"] = tuple(
                Boolean(name, stored == "on", live == "on") for name, live, stored in states
            )
        elif text.startswith("$ semanage port "):
            ports = re.findall(r"^(\w+) +tcp +(\d+)-(\d+)$", text, re.MULTILINE)
            allowed = set(re.findall(r"^allow (\w+) (\w+):tcp_socket", text, re.MULTILINE))
            seen["ports"] = [(int(low), int(high), name) for name, low, high in ports], allowed
        elif kind == "console":
            tree.modes(text)
    profile = re.search(r"`--profile ([a-z-]+)`", page.split("\n## Example\n")[1])
    inventory, host = audit_tree(str(folder), console_map=console_map)
    if "ports" in seen:
        ports, allowed = seen.pop("ports")
        assert isinstance(host.qemu, Settings)
        uses = port_uses(inventory.guests, host.qemu, ["svirt_t"])
        seen["ports_denied"] = denials(uses, ports, lambda *both: both in allowed)
    # What only a running host tells.
    host = evolve(host, practices=evolve(host.practices, **seen))
    return run_audit(inventory, host, rules, profile=profile[1] if profile else "default")


def told(folder, ident):
    """What a rule says of the bad case of its page; it must say exactly one thing."""
    (finding,) = _report(folder, _page(ident), "bad", [RULES[ident]]).findings
    assert finding.rule == ident
    return f"{finding.message}\nmend: {finding.remedy}\n"


def _words(text):
    # Certificates of examples are made anew, and end on another day each time.
    return re.sub(r"\b\d{4}-\d\d-\d\d\b", "DATE", " ".join(text.split()))


def test_rules_are_in_order():
    assert [rule.severity for rule in ALL_RULES] == sorted(
        (rule.severity for rule in ALL_RULES), reverse=True
    )
    assert len(RULES) == len(ALL_RULES), "identifiers are unique"


@each_rule
def test_metadata_is_well_formed(ident):
    rule = RULES[ident]
    assert re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", ident)
    assert re.fullmatch(r"\d+\.\d+", rule.since)
    assert rule.summary == rule.summary.strip()
    assert not rule.summary.endswith(".")
    assert len(rule.summary) <= 95
    assert type(rule).__module__ == f"svirtlib.audit.{ident.replace('-', '_')}"


@each_rule
def test_page_has_the_skeleton(ident):
    lines = _page(ident).splitlines()
    rule = RULES[ident]
    assert lines[0] == f"# {ident}"
    assert lines[2] == rule.summary
    assert lines[4] == (
        f"**Severity:** {rule.severity.label}. **Since:** {rule.since}. "
        f"**Needs:** {NEEDS[rule.needs]}."
    )
    assert [line[3:] for line in lines if line.startswith("## ")] == HEADINGS
    assert not [line for line in lines if len(line) > 110]


@each_rule
def test_rule_fires_on_the_bad_example(ident, tmp_path):
    shown = [text for info, text in _blocks(_page(ident)) if info == "text"]
    assert [_words(text) for text in shown] == [_words(told(tmp_path / "bad", ident))]


@each_rule
def test_good_example_is_silent(ident, tmp_path):
    report = _report(tmp_path / "good", _page(ident), "good")
    assert report.findings == ()
    assert report.unreadable == ()
    assert ident not in {entry.rule for entry in report.not_run}


@each_rule
def test_bad_example_speaks_once(ident, tmp_path):
    report = _report(tmp_path / "bad", _page(ident), "bad")
    # An address in the XML is both: past the setting, and without authentication.
    more = {"vnc-auto-unix-socket-inert": ["vnc-no-auth"]}.get(ident, [])
    assert sorted(finding.rule for finding in report.findings) == sorted([ident, *more])


def test_hardened_host_is_silent():
    """The example that is shipped, as it lies in a checkout."""
    inventory, host = audit_tree(str(ROOT / "docs" / "examples" / "hardened-host"))
    report = run_audit(inventory, host)
    assert report.guests == 3
    assert report.findings == ()
    assert report.unreadable == ()
    # What only a running host, a map or sudo can tell; and the firewall, without nft.
    silent = {
        Need.MAP, Need.OWNER_RULES, Need.SOCKETS, Need.BOOLEANS, Need.PORTS, Need.SUDOERS,
    }  # fmt: skip
    nft = {rule.ident for rule in ALL_RULES if Need.RULESET in rule.needs}
    assert {entry.rule for entry in report.not_run} - nft == {
        rule.ident for rule in ALL_RULES if rule.needs & silent
    }


def test_hardened_host_with_tls_is_silent(tmp_path):
    """The same with consoles on the network, which takes secrets that no checkout can have."""
    folder = tmp_path / "host"
    shutil.copytree(ROOT / "docs" / "examples" / "hardened-host", folder)
    (folder / "etc/libvirt/qemu.conf").write_text(
        'vnc_listen = "192.0.2.2"\nvnc_tls = 1\nvnc_tls_x509_verify = 1\n'
        'spice_listen = "192.0.2.2"\nspice_tls = 1\nspice_sasl = 1\nmigrate_tls_force = 1\n'
    )
    desk = folder / "etc/libvirt/qemu/desk.xml"
    console = (
        "<graphics type='spice' autoport='yes' defaultMode='secure'>\n<listen type='address'/>"
    )
    text = desk.read_text().replace("<graphics type='spice'>", console)
    desk.write_text(text.replace("<listen type='none'/>", ""))
    tree = HostTree(folder)
    for service in ("vnc", "spice", "migrate"):
        tree.pki(f"/etc/pki/libvirt-{service}", "")
    tree.put("/etc/sasl2/qemu.conf", "mech_list: gssapi\nkeytab: /etc/qemu/krb5.tab\n")
    tree.put("/etc/qemu/krb5.tab", b"\5\2")
    tree.put("/etc/systemd/system/sockets.target.wants/virtproxyd-tls.socket", "")
    tree.pki("/etc/pki/libvirt", "")
    names = {"ca_file": "ca-cert", "cert_file": "server-cert", "key_file": "server-key"}
    lines = [f'{key} = "/etc/pki/libvirt/{name}.pem"\n' for key, name in names.items()]
    tree.put("/etc/libvirt/virtproxyd.conf", "".join(lines))
    inventory, host = audit_tree(str(folder))
    assert {store.service for store in host.stores} == {"vnc", "spice", "migrate", "libvirt"}
    report = run_audit(inventory, host)
    assert [(one.rule, one.message) for one in report.findings] == []
    assert report.unreadable == ()


@each_rule
def test_rule_is_not_run_without_what_it_needs(ident):
    rule = RULES[ident]
    report = run_audit(Inventory(), None, [rule])
    assert report.findings == ()
    assert [entry.rule for entry in report.not_run] == ([ident] if rule.needs else [])


def test_index_lists_the_rules():
    rows = [f"| [{r.ident}]({r.ident}.md) | {r.severity.label} | {r.summary} |" for r in ALL_RULES]
    _, _, audit = (FOLDER / "README.md").read_text().partition("\n## audit\n")
    assert re.findall(r"^\| \[.*$", audit, re.MULTILINE) == rows
