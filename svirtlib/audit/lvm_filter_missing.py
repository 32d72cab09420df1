"""Volumes of guests that the host's LVM scans."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed


class LvmFilterMissing(AuditRule):
    """LVM on the host scans disks and partitions that guests may write."""

    ident = "lvm-filter-missing"
    severity = Severity.MEDIUM
    summary = "the host's LVM scans devices that guests may write"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all devices."""
        lvm = facts.practices.lvm
        if lvm is None or lvm.devices_file:
            return
        found = [
            (guest.name, link.source)
            for guest, link in facts.disks
            if link.writable
            and link.type == "block"
            and facts.block(link.source).kind in ("disk", "partition", "multipath", "array")
            and lvm.accepts(link.source)
        ]
        if found:
            paths = sorted({path for _, path in found})
            how = "is not set" if lvm.patterns is None else "accepts them"
            yield self.tell(
                f"LVM on the host scans {listed(paths)}, which guests may write: global_filter "
                f"{how}, and no devices file is in use. A volume group that a guest makes there "
                f"shows up on the host, perhaps with the name of one of its own",
                "name the host's own devices in /etc/lvm/lvm.conf: "
                '`global_filter = [ "a|^/dev/sda2$|", "r|.*|" ]`, or use a devices file '
                "(`vgimportdevices -a`, use_devicesfile = 1)",
                guests=[name for name, _ in found],
                paths=paths,
                evidence=(Evidence(lvm.path, f"global_filter {how}"),),
            )
