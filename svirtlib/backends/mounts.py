"""What is mounted where, and whether files there can carry labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Optional

from attr import frozen

from svirtlib.errors import BackendUnavailableError

__all__ = ["Mount", "mount_of", "parse_mounts", "read_mounts"]

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@frozen
class Mount:
    """One line of ``/proc/self/mountinfo``.

    Attributes:
        ident: the kernel's number for it.
        point: where it is mounted.
        device: ``major:minor`` of the file system.
        kind: its type, such as ``ext4`` or ``nfs4``.
        source: what is mounted.
        options: of the mount and of the file system.
    """

    ident: int
    point: bytes
    device: str
    kind: str
    source: str
    options: frozenset[str]

    @property
    def context(self) -> Optional[str]:
        """The one context that all files have by mount option, or None where there is none."""
        for option in self.options:
            key, equals, value = option.partition("=")
            if equals and key == "context":
                return value.strip('"')
        return None


def read_mounts() -> tuple[Mount, ...]:
    """Return what is mounted for this process; of two at one place the later one counts.

    Raises:
        BackendUnavailableError: ``/proc`` does not tell.
    """
    try:
        with open("/proc/self/mountinfo", "rb") as stream:
            return parse_mounts(stream.read())
    except OSError as error:
        raise BackendUnavailableError(
            f"/proc/self/mountinfo: cannot be read: {error.strerror}; mount /proc"
        ) from None


def parse_mounts(data: bytes) -> tuple[Mount, ...]:
    """Return the mounts in a ``mountinfo``; lines that are none are left out."""
    lines = data.splitlines()
    return tuple(mount for line in lines for mount in [_parse(line)] if mount is not None)


def mount_of(path: bytes, mounts: Iterable[Mount]) -> Optional[Mount]:
    """Return the mount that a path lies on, going by its text; symbolic links are not followed."""
    found: Optional[Mount] = None
    for mount in mounts:
        point = mount.point
        inside = point in (b"/", path) or path.startswith(point + b"/")
        if inside and (found is None or len(point) >= len(found.point)):
            found = mount
    return found


def _parse(line: bytes) -> Optional[Mount]:
    left, dash, right = line.partition(b" - ")
    before, after = left.split(), right.split()
    if not dash or len(before) < 6 or len(after) < 2 or not before[0].isdigit():
        return None
    return Mount(
        ident=int(before[0]),
        point=_unescape(before[4]),
        device=before[2].decode("ascii", "replace"),
        kind=os.fsdecode(after[0]),
        source=os.fsdecode(_unescape(after[1])),
        options=frozenset(_options(before[5]) | (_options(after[2]) if len(after) > 2 else set())),
    )


def _options(text: bytes) -> set[str]:
    """Split options at commas, except inside quotes: a context may hold commas."""
    return {os.fsdecode(_unescape(option)) for option in re.findall(rb'(?:[^,"]|"[^"]*")+', text)}


def _unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text)
