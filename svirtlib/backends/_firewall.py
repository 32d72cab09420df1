"""The rules of a host's firewall: loaded ones, and those of its next boot."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from attr import evolve

from svirtlib.backends._tree import Tree
from svirtlib.consolerules import FILES
from svirtlib.errors import BackendDataError, SvirtError
from svirtlib.guests import Unreadable
from svirtlib.hostpractices import OpenPorts
from svirtlib.inboundrules import open_ports

__all__ = ["VIEWER", "loaded_rules", "owner_rules_of", "read_open_ports"]

#: What users see their consoles with.
VIEWER = "/usr/bin/remote-viewer"

_NFTABLES = "/etc/nftables.conf"
_SECONDS = 10


def loaded_rules(
    tree: Tree, units: Optional[frozenset[str]], *, live: bool
) -> Optional[list[dict[str, Any]]]:
    """Return the firewall's rules: those that are loaded, or that will be at boot."""
    if live:
        return _ruleset(tree)
    text = tree.text(_NFTABLES)
    if text is None or "nftables.service" not in (units or ()):
        return None
    from svirtlib.backends.consolefiles import rules_of

    try:
        return rules_of(text)
    except BackendDataError as error:
        tree.unreadable[_NFTABLES] = Unreadable(_NFTABLES, str(error))
    except SvirtError:
        # Without nft, or without the right to a namespace, nobody here can read it.
        pass
    return None


def read_open_ports(tree: Tree, rules: Sequence[Mapping[str, Any]], *, live: bool) -> OpenPorts:
    found = open_ports(rules, "nft -j list ruleset" if live else _NFTABLES)
    legacy = tree.text("/proc/net/ip_tables_names") if live else None
    if found.opened and {"filter", "raw", "mangle"} & {*(legacy or "").split()}:
        reason = "the old iptables has rules, too, which may close them (iptables-legacy-save)"
        return evolve(found, opened=(), undecided=(*found.undecided, *found.opened), reason=reason)
    return found


def _ruleset(tree: Tree) -> Optional[list[dict[str, Any]]]:
    """Return the rules that are loaded on this machine, as nft writes them in JSON."""
    try:
        done = subprocess.run(
            ["nft", "-j", "list", "ruleset"],
            capture_output=True,
            timeout=_SECONDS,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        entries: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        tree.unreadable["nft"] = Unreadable(
            "the firewall's rules",
            f"`nft -j list ruleset` failed ({type(error).__name__}); run as root, with nftables "
            f"installed",
        )
        return None
    return entries


def owner_rules_of(
    tree: Tree, rules: Optional[list[dict[str, Any]]], *, live: bool
) -> tuple[Optional[str], str]:
    """Return the rules about consoles and users: those that are loaded, or that will be.

    *rules* are all that are loaded, on this machine.
    """
    path = FILES["firewall"][0]
    text = tree.text(path)
    if live:
        if text is None and not tree.exists(VIEWER):
            return None, ""
        return (None if rules is None else json.dumps(rules)), "nft -j list ruleset"
    if text is None:
        # With a viewer and without rules, everything is open.
        return ("[]", path) if tree.exists(VIEWER) else (None, "")
    from svirtlib.backends.consolefiles import rules_of

    try:
        return json.dumps(rules_of(text)), path
    except SvirtError as error:
        tree.unreadable[path] = Unreadable(path, str(error))
        return None, ""
