"""A host without a firewall at boot."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity

_FIREWALLS = frozenset(
    f"{name}.service"
    for name in (
        "nftables",
        "firewalld",
        "ufw",
        "iptables",
        "netfilter-persistent",
        "shorewall",
        "ferm",
    )
)


class FwNotAtBoot(AuditRule):
    """No firewall that we know is started at boot."""

    ident = "fw-not-at-boot"
    severity = Severity.HIGH
    summary = "no firewall is started at boot"
    since = "0.1"
    needs = frozenset({Need.UNITS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        if not _FIREWALLS & (facts.practices.units or frozenset()):
            yield self.tell(
                "no firewall is started at boot (nftables, firewalld, ufw, iptables): consoles, "
                "migration and what else listens can be reached from everywhere",
                "`systemctl enable --now nftables` (or firewalld), with rules that let in ssh, "
                "the consoles that are mapped to users, and migration from other hosts alone",
                evidence=(Evidence("/etc/systemd/system", "no unit of a firewall is enabled"),),
            )
