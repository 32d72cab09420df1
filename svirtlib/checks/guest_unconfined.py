"""A guest that runs without sVirt."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed
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
                sorted(
                    guest.name for guest in facts.running if guest.name not in set(names)
                )
            )
            verb = "runs" if len(names) == 1 else "run"
            cause_text = cause.replace("their", "its") if len(names) == 1 else cause
            cause_text = cause_text.replace("them", "it") if len(names) == 1 else cause_text
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=names,
                reaches=others,
                reaches_count=len(others),
                labels=tuple(
                    sorted({outcome.context for outcome in outcomes if outcome.context})
                ),
                message=(
                    f"{listed(names)} {verb} without sVirt, because {cause_text}: SELinux keeps "
                    f"{'it' if len(names) == 1 else 'them'} from no other guest's memory, disks "
                    f"and sockets"
                ),
                remedy=(
                    f"let libvirt confine {'it' if len(names) == 1 else 'them'}: virsh edit "
                    f"{names[0]}, replace its SELinux seclabel by <seclabel type='dynamic' "
                    f"model='selinux' relabel='yes'/>, then stop and start the guest; keep "
                    f"security_driver = \"selinux\" and security_default_confined = 1 in qemu.conf"
                ),
                evidence=tuple(
                    Evidence(outcome.source, f"{outcome.guest.name}: {outcome.context or cause}")
                    for outcome in outcomes[:_SHOWN]
                ),
            )
