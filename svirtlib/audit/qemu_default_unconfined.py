"""Guests that start without a label unless they ask for one."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class QemuDefaultUnconfined(AuditRule):
    """``security_default_confined = 0``: a guest without a seclabel gets none."""

    ident = "qemu-default-unconfined"
    severity = Severity.HIGH
    summary = "guests without a <seclabel> start unconfined"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        conf = facts.conf
        if conf is not None and not conf.flag("security_default_confined", default=True):
            yield self.tell(
                "security_default_confined is 0: a guest whose XML has no `<seclabel>` starts "
                "without sVirt",
                "set security_default_confined = 1 in /etc/libvirt/qemu.conf (and "
                "security_require_confined = 1, so that none can ask to be unconfined), and start "
                "the guests anew",
                paths=[conf.source],
                evidence=(Evidence(conf.where("security_default_confined"), "it is 0"),),
            )
