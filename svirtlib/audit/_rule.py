"""What a rule of ``audit`` is, and what its rules share."""

from __future__ import annotations

import abc
import enum
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from typing import Callable, ClassVar, Optional, TypeVar

from svirtlib.audit._facts import AuditFacts, Seat
from svirtlib.devices import StorageLink
from svirtlib.engine import Rule
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest

__all__ = ["AuditRule", "Need", "grouped", "names_of", "seen_at", "seen_on"]

_T = TypeVar("_T")
_K = TypeVar("_K", bound=Hashable)

#: So many pieces of evidence tell enough; a thousand guests may share a cause.
_SHOWN = 10


class Need(enum.Enum):
    """What must have been looked at for a rule to be run; the value says what to do about it."""

    CONFIG = "no host's configuration was looked at; name an unpacked host with --root"
    UNITS = "what starts at boot is not known: there is no /etc/systemd/system"
    SELINUX = "there is no /etc/selinux/config"
    BOOLEANS = "no policy of the host could be asked for its booleans"
    PORTS = "no policy of the host could be asked for the types of ports"
    RULESET = (
        "the firewall's rules can be read on the running host, as root, or from the "
        "/etc/nftables.conf of an unpacked one that loads it, with nft"
    )
    MAP = "no map of consoles to users was named (--map)"
    OWNER_RULES = "this is not the machine with the viewers: it has no rules about consoles"
    SUDOERS = "the host has no sudoers, or no cvtsudoers could read them"
    SOCKETS = "what listens can be seen on the running host alone"


class AuditRule(Rule):
    """One rule of ``audit``: guests' devices and a host's configuration to findings.

    Attributes:
        needs: what it needs to be looked at.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    @abc.abstractmethod
    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield what the rule finds, in any order."""

    def tell(
        self,
        message: str,
        remedy: str,
        *,
        guests: Collection[str] = (),
        severity: Optional[Severity] = None,
        paths: Collection[str] = (),
        evidence: Sequence[Evidence] = (),
    ) -> Finding:
        """Return a finding of this rule."""
        return Finding(
            rule=self.ident,
            severity=self.severity if severity is None else severity,
            guests=tuple(sorted(set(guests))),
            message=message,
            remedy=remedy,
            paths=tuple(sorted(set(paths))),
            evidence=tuple(evidence[:_SHOWN]),
        )


def grouped(items: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    """Return items by what they have in common, in the order of their first ones."""
    groups: dict[_K, list[_T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def names_of(seats: Iterable[Seat]) -> list[str]:
    """Return the names of the guests that have these consoles."""
    return sorted({seat.guest.name for seat in seats})


def seen_at(seats: Iterable[Seat], text: str) -> tuple[Evidence, ...]:
    """Return one piece of evidence for each console."""
    return tuple(Evidence(seat.source, f"{seat.guest.name}: {text}") for seat in seats)


def seen_on(disks: Iterable[tuple[Guest, StorageLink]]) -> tuple[Evidence, ...]:
    """Return one piece of evidence for each disk."""
    return tuple(Evidence(guest.source, f"{guest.name}: {link.target}") for guest, link in disks)
