"""What a rule is, and the words that the rules share."""

from __future__ import annotations

import abc
import enum
from collections.abc import Iterator, Sequence
from typing import ClassVar

from svirtlib.checks._facts import Facts
from svirtlib.engine import Rule
from svirtlib.findings import Finding
from svirtlib.guests import Guest, ImageMode
from svirtlib.seclabel import SeclabelType
from svirtlib.wording import command, listed, one_or_many, several

__all__ = [
    "DYNAMIC",
    "MODE_WORDS",
    "Check",
    "Need",
    "command",
    "listed",
    "new_level",
    "one_or_many",
    "restart",
    "several",
]


class Need(enum.Enum):
    """What an inventory must hold for a rule to be run; the value says what to do about it."""

    HOST = "there is no host: only documents were read"
    FILES = "files were not looked at; use --files on the host that holds the images"
    RULES = "no file-context rules were asked; use --files on the host that holds the images"
    POLICY = "not decided: no policy; name the guests' one with --policy FILE"
    PROCESSES = "processes were not looked at; use --processes on the host that runs the guests"


class Check(Rule):
    """One rule of ``check``: an inventory's facts to findings.

    Attributes:
        needs: what it needs to be looked at.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    @abc.abstractmethod
    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield what the rule finds, in any order."""


#: What a definition holds for a guest that libvirt is to confine.
DYNAMIC = "`<seclabel type='dynamic' model='selinux' relabel='yes'/>`"

#: How a message calls the way in which a guest uses an image.
MODE_WORDS = {
    ImageMode.PRIVATE: "the guest's own disk",
    ImageMode.SHAREABLE: "a shareable disk",
    ImageMode.READONLY: "a read-only disk",
}


def restart(name: str) -> str:
    """Return the commands that stop a guest and start it anew."""
    return f"{command('virsh', 'shutdown', name)} and {command('virsh', 'start', name)}"


def new_level(guests: Sequence[Guest]) -> str:
    """Return how to give each of some guests a level of its own, the first one in full."""
    first = guests[0]
    if not first.known_to_libvirt:
        text = (
            f"libvirt does not know {first.name}: end its process{_pid(first)} and start the "
            f"guest with virsh"
        )
    elif first.seclabel is None or first.seclabel.type in (
        SeclabelType.DYNAMIC,
        SeclabelType.DEFAULT,
    ):
        text = f"{restart(first.name)}: libvirt draws a new level for {first.name} when it starts"
    else:
        text = (
            f"{command('virsh', 'edit', first.name)}, and put {DYNAMIC} in place of its SELinux "
            f"seclabel (or, into its <label>, two categories that no other guest has)"
        )
        if first.running:
            text += f"; then {restart(first.name)}"
    others = {guest.name for guest in guests[1:]}
    return f"{text}; likewise for {listed(others)}" if others else text


def _pid(guest: Guest) -> str:
    known = guest.process is not None and guest.process.pid is not None
    return f" (pid {guest.process.pid})" if known and guest.process is not None else ""
