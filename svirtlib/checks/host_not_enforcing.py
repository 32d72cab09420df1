"""SELinux does not enforce on the host."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, Need
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Mode


class HostNotEnforcing(Check):
    """SELinux is permissive or disabled on the host: it denies nothing to any guest."""

    ident = "host-not-enforcing"
    severity = Severity.CRITICAL
    summary = "SELinux is permissive or disabled on the host: no label protects anything"
    since = "0.1"
    needs = frozenset({Need.HOST})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield one finding if the host does not enforce."""
        host = facts.inventory.host
        if host.mode not in (Mode.PERMISSIVE, Mode.DISABLED):
            return
        if host.mode is Mode.PERMISSIVE:
            remedy = (
                "`setenforce 1`, and SELINUX=enforcing in /etc/selinux/config so that it stays; "
                "look first at what enforcing will deny: `ausearch -m AVC`"
            )
        else:
            remedy = (
                "install a policy, set SELINUX=permissive in /etc/selinux/config, have all files "
                "relabelled at the next boot (`touch /.autorelabel`), boot with security=selinux "
                "on the kernel's command line; when nothing is denied any more, SELINUX=enforcing"
            )
        yield Finding(
            rule=self.ident,
            severity=self.severity,
            guests=(),
            reaches=tuple(guest.name for guest in facts.running),
            reaches_count=len(facts.running),
            message=(
                f"SELinux is {host.mode.value} on {host.name or 'this host'}: no label keeps any "
                f"guest from the others"
            ),
            remedy=remedy,
            evidence=(Evidence("SELinux", f"mode {host.mode.value}"),),
        )
