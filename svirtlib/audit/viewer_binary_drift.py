"""A viewer that more than the group of viewers may start."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import command


class ViewerBinaryDrift(AuditRule):
    """On a machine with console rules, everybody may execute the viewer again.

    A package's update restores the mode that it shipped.
    """

    ident = "viewer-binary-drift"
    severity = Severity.HIGH
    summary = "users may start the viewer past sudo, whose lines keep each to one console"
    since = "0.1"
    needs = frozenset({Need.SUDOERS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        viewer = facts.practices.viewer
        if viewer is None or not any(
            one.origin.endswith("svirt-user-console") for one in facts.practices.sudo or ()
        ):
            return
        fault = None
        if viewer.mode & 0o001:
            fault = f"everybody may execute it (mode {viewer.mode:04o})"
        elif viewer.uid != 0:
            fault = f"its owner is user {viewer.uid}, not root"
        elif viewer.mode & 0o6000:
            fault = f"it is set-uid or set-gid (mode {viewer.mode:04o})"
        elif viewer.mode & 0o022:
            fault = f"others than root may write it (mode {viewer.mode:04o})"
        elif viewer.gid == 0 and viewer.mode & 0o010:
            fault = "its group is root's, not that of the viewers"
        if fault is not None:
            statoverride = command(
                "dpkg-statoverride", "--update", "--add", "root", "spicegrp", "0750", viewer.path
            )
            yield self.tell(
                f"{viewer.path}: {fault}, so that users can start it past the lines of sudo",
                f"{statoverride} on Debian, which lasts over updates; elsewhere chown and chmod, "
                f"and again after each update",
                paths=[viewer.path],
                evidence=(
                    Evidence(viewer.path, f"mode {viewer.mode:04o}, {viewer.uid}:{viewer.gid}"),
                ),
            )
