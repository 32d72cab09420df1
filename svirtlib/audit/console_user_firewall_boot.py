"""Owner rules that are gone after the next boot."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class ConsoleUserFirewallBoot(AuditRule):
    """The rules of consoles are installed, and no unit that loads them is enabled."""

    ident = "console-user-firewall-boot"
    severity = Severity.HIGH
    summary = "the firewall's rules about consoles and users are not loaded at boot"
    since = "0.1"
    needs = frozenset({Need.MAP, Need.OWNER_RULES, Need.UNITS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        if "svirt-user-console.service" not in (facts.practices.units or ()):
            yield self.tell(
                "the rules that keep users to their own consoles are not loaded at boot: "
                "svirt-user-console.service is not enabled",
                "`systemctl enable --now svirt-user-console.service`",
                evidence=(Evidence("/etc/systemd/system", "the unit is not enabled"),),
            )
