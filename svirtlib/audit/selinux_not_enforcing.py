"""A host that will boot without SELinux."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class SelinuxNotEnforcing(AuditRule):
    """The configuration of SELinux, or the kernel's command line, has it permissive or off.

    What SELinux does now, ``check`` tells (host-not-enforcing).
    """

    ident = "selinux-not-enforcing"
    severity = Severity.HIGH
    summary = "SELinux will be permissive or off at the next boot"
    since = "0.1"
    needs = frozenset({Need.SELINUX})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        config = facts.practices.selinux
        if config is None:
            return
        drivers = None if facts.conf is None else facts.conf.texts("security_driver")
        if drivers and "apparmor" in drivers:
            # The administrator chose another security model.
            return
        if config.switched_off is not None:
            evidence = Evidence(config.switched_off.origin, config.switched_off.value[:200])
            fault = "the kernel's command line switches SELinux off, or to permissive"
        elif config.mode != "enforcing":
            evidence = Evidence(config.origin, f"SELINUX={config.mode or ''}")
            fault = f"SELINUX is {config.mode or 'not set'} in /etc/selinux/config"
        else:
            return
        yield self.tell(
            f"{fault}: from the next boot on no label keeps any guest from the others",
            "SELINUX=enforcing in /etc/selinux/config, and neither selinux=0 nor enforcing=0 for "
            "the kernel; after a time without SELinux, `touch /.autorelabel` first",
            paths=[evidence.source.partition(":")[0]],
            evidence=(evidence,),
        )
