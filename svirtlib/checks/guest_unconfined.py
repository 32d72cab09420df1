"""A guest that runs without sVirt."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import DYNAMIC, Check, command, listed, one_or_many, restart
from svirtlib.checks._facts import Facts, Unconfined
from svirtlib.findings import Evidence, Finding, Severity

_SHOWN = 10


class GuestUnconfined(Check):
    """A running guest has no SELinux label of its own, or a type that categories do not bind.

    The categories of the other guests do not keep such a guest out. Without a policy this
    knows the types on which Debian's and Fedora's policies agree.
    """

    ident = "guest-unconfined"
    severity = Severity.CRITICAL
    summary = "a guest runs without sVirt: nothing keeps it from the other guests"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each cause."""
        causes: dict[str, list[Unconfined]] = {}
        for outcome in facts.unconfined:
            causes.setdefault(outcome.cause, []).append(outcome)
        for cause, outcomes in causes.items():
            names = tuple(sorted(outcome.guest.name for outcome in outcomes))
            others = tuple(
                sorted(guest.name for guest in facts.running if guest.name not in set(names))
            )
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=names,
                reaches=others,
                reaches_count=len(others),
                labels=tuple(sorted({outcome.context for outcome in outcomes if outcome.context})),
                message=(
                    f"{listed(names)} {one_or_many(names, 'runs', 'run')} without sVirt ({cause}): "
                    f"SELinux does not keep {one_or_many(names, 'it', 'them')} from other guests' "
                    f"memory, disks and sockets"
                ),
                remedy=_remedy(outcomes),
                evidence=tuple(
                    Evidence(outcome.source, f"{outcome.guest.name}: {outcome.context or cause}")
                    for outcome in outcomes[:_SHOWN]
                ),
            )


def _remedy(outcomes: list[Unconfined]) -> str:
    first = outcomes[0].guest
    others = {outcome.guest.name for outcome in outcomes[1:]}
    if not first.known_to_libvirt:
        text = f"libvirt does not know {first.name}: end its process and start it with virsh"
    elif first.seclabel is None:
        text = (
            f'let libvirt confine its guests: set security_driver = "selinux" and '
            f"security_default_confined = 1 in /etc/libvirt/qemu.conf and restart libvirt's "
            f"daemon; then {restart(first.name)}"
        )
    else:
        text = (
            f"let libvirt confine {first.name}: {command('virsh', 'edit', first.name)}, put "
            f"{DYNAMIC} in place of the SELinux seclabel; then {restart(first.name)}"
        )
    return f"{text}; likewise for {listed(others)}" if others else text
