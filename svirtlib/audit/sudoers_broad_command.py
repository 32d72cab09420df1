"""Lines of sudoers that let more be started than a viewer for one console."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.hostpractices import SudoCommand
from svirtlib.wording import listed

#: Whom sudo is there for, as distributions set it up.
_ADMINISTRATORS = frozenset({"root", "#0", "%root", "%#0", "%sudo", "%wheel", "%admin"})
_VIEWERS = ("/usr/bin/remote-viewer", "/usr/bin/virt-viewer", "/usr/bin/spicy")


class SudoersBroadCommand(AuditRule):
    """On a machine where sudo keeps users to their consoles, it lets one start anything.

    A ``!`` after ``ALL`` takes nothing back: the same program has other names.
    """

    ident = "sudoers-broad-command"
    severity = Severity.HIGH
    summary = "sudo keeps users to their consoles, and lets one start all commands or any viewer"
    since = "0.1"
    needs = frozenset({Need.SUDOERS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each command."""
        commands = facts.practices.sudo or ()
        mapped = {one.user for one in facts.console_users}
        if not mapped and not any(one.starts_viewer for one in commands):
            return
        for one in commands:
            what = _breadth(one)
            who = [name for name in one.users if name not in _ADMINISTRATORS]
            if what is None or not who or _is_himself(one):
                continue
            owned = sorted(mapped & {*who})
            others = f"; the map gives {listed(owned)} one console alone" if owned else ""
            yield self.tell(
                f"{one.origin} lets {listed(who)} start {what} as "
                f"{_whom(one)}: neither the lines for single viewers nor the firewall's rules "
                f"about users hold{others}",
                "name the commands that are needed, each with its arguments; of viewers what "
                "`svirt-label console-rules` writes",
                paths=[one.origin],
                evidence=(Evidence(one.origin, one.value[:200]),),
            )


def _is_himself(one: SudoCommand) -> bool:
    """Tell whether a user starts it as who he is anyway."""
    return one.runas == one.users != ("ALL",) and len(one.users) == 1 and not one.groups


def _whom(one: SudoCommand) -> str:
    users = listed(one.runas) if one.runas else "himself"
    return f"{users} with the group {listed(one.groups)}" if one.groups else users


def _breadth(one: SudoCommand) -> Optional[str]:
    """Return what can be started; of a viewer by its name other rules tell."""
    if one.value == "ALL":
        return "every command"
    if one.starts_viewer:
        return None
    program = one.program
    for viewer in _VIEWERS:
        folder = viewer.rpartition("/")[0] + "/"
        # As in a shell, a wildcard matches no slash.
        same = program.count("/") == viewer.count("/") and fnmatchcase(viewer, program)
        if program == folder or same:
            return f"{program}, viewers among them"
    return None
