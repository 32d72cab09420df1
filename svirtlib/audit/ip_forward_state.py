"""Forwarding of packets that nobody needs, or that somebody lacks."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

_ROUTED = ("nat", "route", "open")


class IpForwardState(AuditRule):
    """The kernel forwards packets and no network of libvirt needs it, or the reverse."""

    ident = "ip-forward-state"
    severity = Severity.LOW
    summary = "IP forwarding is on and no network of libvirt needs it, or off and one does"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        setting, networks = facts.practices.forwarding, facts.practices.networks
        if setting is None or networks is None:
            return
        routed = [network.name for network in networks if network.forward in _ROUTED]
        if setting.value == "1" and not routed:
            yield self.tell(
                "the kernel forwards packets between networks, and no network of libvirt needs "
                "it: guests on bridges may reach others through the host",
                "net.ipv4.ip_forward = 0 in /etc/sysctl.d, unless containers or a VPN need it",
                paths=[setting.origin.partition(":")[0]],
                evidence=(Evidence(setting.origin, "1"),),
            )
        elif setting.value == "0" and routed and facts.host is not None and facts.host.live:
            yield self.tell(
                f"the kernel forwards no packets, and {listed(routed)} needs it: guests there have "
                f"no network",
                "`sysctl -w net.ipv4.ip_forward=1`",
                severity=Severity.MEDIUM,
                evidence=(Evidence(setting.origin, "0"),),
            )
