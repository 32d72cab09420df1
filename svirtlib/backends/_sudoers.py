"""What sudo lets users of a host do, as cvtsudoers reads it, and who may change that."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from attr import evolve

from svirtlib.backends._tree import Tree
from svirtlib.guests import Unreadable
from svirtlib.hostconfig import FileFacts
from svirtlib.hostpractices import SudoCommand

__all__ = ["read_sudo", "sudoers_files"]

_SUDOERS_D = "/etc/sudoers.d"
_SUDO_ALIAS = re.compile(r"\s*(?:User|Runas|Host|Cmnd|Cmd)_Alias\b")
_SUDO_INCLUDE = re.compile(r"\s*[@#]include(?:dir)?\b")
#: How sudoers marks what is no user's name.
_SUDO_SIGNS = {
    "usergroup": "%", "usergid": "%#", "userid": "#", "netgroup": "+", "nonunixgroup": "%:",
}  # fmt: skip
_SECONDS = 10


def _sudoers_paths(tree: Tree) -> list[str]:
    """Return the files that sudo reads."""
    names = [name for name in tree.names(_SUDOERS_D) if "." not in name and not name.endswith("~")]
    return ["/etc/sudoers", *(f"{_SUDOERS_D}/{name}" for name in names)]


def sudoers_files(tree: Tree) -> Iterator[FileFacts]:
    """Yield who may write the files of sudoers, and their folder."""
    root = tree.facts("/")
    for path in (_SUDOERS_D, *_sudoers_paths(tree)):
        facts = tree.facts(path)
        if isinstance(facts, FileFacts):
            if isinstance(root, FileFacts) and facts.uid == root.uid:
                # Who unpacked a host without being root owns all of it.
                facts = evolve(facts, uid=0)
            yield facts


def read_sudo(tree: Tree, *, mapped: bool) -> Optional[tuple[SudoCommand, ...]]:
    """Return the commands of sudoers, with their files, where one of them is about viewers."""
    texts = {path: tree.text(path) for path in _sudoers_paths(tree)}
    known = {path: text for path, text in texts.items() if text is not None}
    if not known:
        return None
    found: list[SudoCommand] = []
    if not mapped and not any("viewer" in text or "spicy" in text for text in known.values()):
        return ()
    # Files that others include are read by themselves, from this host, with the aliases of all.
    lines = {path: text.replace("\\\n", " ").splitlines() for path, text in known.items()}
    aliases = {path: [*filter(_SUDO_ALIAS.match, own)] for path, own in lines.items()}
    for path, own in lines.items():
        others = [line for other, more in aliases.items() if other != path for line in more]
        own = [line for line in own if not _SUDO_INCLUDE.match(line)]
        try:
            done = subprocess.run(
                ["cvtsudoers", "-e", "-f", "json", "-"],
                input="\n".join([*others, *own]) + "\n",
                capture_output=True,
                timeout=_SECONDS,
                check=True,
                text=True,
            )
            found += _sudo_commands(json.loads(done.stdout), path)
        except (OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
            tree.unreadable[path] = Unreadable(
                path, f"cvtsudoers (package sudo) could not read it: {type(error).__name__}"
            )
    return tuple(found)


def _sudo_commands(document: dict[str, Any], path: str) -> Iterator[SudoCommand]:
    """Yield the commands of a file as cvtsudoers writes it."""
    for spec in document.get("User_Specs", []):
        users = tuple(_sudo_names(spec.get("User_List", [])))
        for group in spec.get("Cmnd_Specs", []):
            # With a group alone it is started as who calls sudo, with nothing as root.
            default = () if "runasgroups" in group else ("root",)
            runas = tuple(_sudo_names(group.get("runasusers", []))) or default
            groups = tuple(_sudo_names(group.get("runasgroups", [])))
            if not group.get("Commands"):
                raise ValueError("an alias that no file defines")
            for entry in group["Commands"]:
                if "command" in entry and not entry.get("negated"):
                    yield SudoCommand(str(entry["command"]), path, users, runas, groups)


def _sudo_names(entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        if not entry.get("negated"):
            for kind, name in entry.items():
                yield f"{_SUDO_SIGNS.get(kind, '')}{name}"
