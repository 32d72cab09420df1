"""``svirt-label audit`` of an unpacked host, and a guest with a console to judge."""

from __future__ import annotations

from checkrun import Outcome, run
from hosttree import HostTree

GUEST = (
    "<domain type='kvm'><name>{name}</name><devices><graphics type='vnc' {attributes}>"
    "{inner}</graphics></devices></domain>"
)


def guest(name: str = "web", attributes: str = "", inner: str = "") -> str:
    """Return the document of a guest with a VNC console."""
    return GUEST.format(name=name, attributes=attributes, inner=inner)


def audit(tree: HostTree, *options: object) -> Outcome:
    """Audit an unpacked host."""
    return run("audit", "--format", "json", "--root", tree.root, *options)
