"""The host's own file systems, found by labels that guests can write."""

from __future__ import annotations

import re
from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed

_LABEL = re.compile(r"(?:PART)?LABEL=|/dev/disk/by-(?:part)?label/")
_WORD = re.compile(
    r"(?:root|resume|rd\.\S+|swap)=\"?((?:PART)?LABEL=[^\s\"]+|/dev/disk/by-(?:part)?label/[^\s\"]+)"
)


class HostMountByLabel(AuditRule):
    """``LABEL=`` in fstab or for the kernel, while guests may write block devices."""

    ident = "host-mount-by-label"
    severity = Severity.HIGH
    summary = "the host finds its file systems by labels, which guests on block devices can forge"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding for all places."""
        names = [
            guest.name
            for guest in facts.inventory.guests
            if any(link.writable and link.type == "block" for link in facts.devices(guest).storage)
        ]
        if not names:
            return
        seen = [
            Evidence(mount.origin, f"{mount.source} at {mount.target}")
            for mount in facts.practices.mounts
            if _LABEL.match(mount.source)
        ]
        seen += [
            Evidence(setting.origin, match[1])
            for setting in facts.practices.kernel
            for match in _WORD.finditer(setting.value)
        ]
        if seen:
            places = {one.source for one in seen}
            yield self.tell(
                f"the host finds file systems by their label ({listed(places)}): "
                f"{listed(set(names))} may write block devices, and a file system there with the "
                f"same label is mounted in the place of the host's own",
                "write UUID= in its place (`blkid -s UUID -o value DEVICE`), and make the boot "
                "loader's configuration and the initial RAM disk anew",
                guests=names,
                paths=sorted({one.source.rpartition(":")[0] or one.source for one in seen}),
                evidence=seen,
            )
