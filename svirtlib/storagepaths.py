"""Paths that an administrator names for storage: which may have a rule, and its pattern.

Nothing here looks at the system. Paths are bytes, as names of files are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Optional

from svirtlib.errors import StorageError, quote
from svirtlib.filerules import clean_path

__all__ = [
    "check_path",
    "escape_path",
    "looks_like_pattern",
    "pattern_for",
    "shown",
    "system_path",
]

#: Signs that are themselves in a pattern only behind a backslash.
_META = b".^$?*+|[](){}\\"

#: All that lies below belongs to the operating system, not to guests.
_SYSTEM_TREES = [
    "/bin",
    "/boot",
    "/dev",
    "/efi",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/lost+found",
    "/ostree",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/selinux",
    "/sys",
    "/sysroot",
    "/usr",
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/lib/rpm",
    "/var/lib/selinux",
    "/var/lib/sepolgen",
    "/var/lib/systemd",
    "/var/lib/svirt-label",
    "/var/log",
    "/var/run",
    "/var/lock",
    "/var/lib/libvirt/qemu",
    "/var/lib/libvirt/dnsmasq",
    "/var/lib/libvirt/swtpm",
]

#: Folders that hold much besides storage of guests; what lies in them may be named.
_SYSTEM_FOLDERS = [
    "/",
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/tmp",  # noqa: S108 - to be refused
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/lib/libvirt",
    "/var/local",
    "/var/mail",
    "/var/opt",
    "/var/spool",
    "/var/tmp",  # noqa: S108 - to be refused
]


def check_path(text: str, *, ruled: bool = True) -> bytes:
    """Return a path that an administrator named, cleaned, or say why it is none.

    Args:
        text: the path.
        ruled: it is to get a rule, which no control character can stand in.

    Raises:
        StorageError: it is relative, has control characters, or goes upwards.
    """
    if not text:
        raise StorageError("an empty path; name a folder, an image or a block device")
    if ruled and any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise StorageError(
            f"{quote(text)}: no rule can be written for a path with a newline or another control "
            f"character, and none is guessed; rename it"
        )
    if not text.startswith("/"):
        raise StorageError(
            f"{quote(text)}: a relative path; file-context rules are for absolute ones: name "
            f"it from / on"
        )
    path = clean_path(os.fsencode(text))
    parts = path.split(b"/")
    if b".." in parts or b"." in parts:
        raise StorageError(
            f"{quote(text)}: names a folder by '.' or '..'; name it as it is called from / on"
        )
    return path


def looks_like_pattern(path: bytes) -> bool:
    """Tell whether something that does not exist was meant as a regular expression."""
    return bool(re.search(rb"[*?|^$\[\]{}]|\.\*|\(|\\", path))


def system_path(path: bytes, homes: Iterable[bytes] = ()) -> Optional[str]:
    """Return why a path must not get a rule for storage, or None.

    Args:
        path: cleaned, see :func:`check_path`.
        homes: the home folders of this host's users.
    """
    text = os.fsdecode(path)
    for tree in _SYSTEM_TREES:
        if text == tree or text.startswith(f"{tree}/"):
            return f"{tree} belongs to the system"
        if tree.startswith(f"{text.rstrip('/')}/") and text not in _SYSTEM_FOLDERS:
            return f"{tree}, which belongs to the system, lies below it"
    if text in _SYSTEM_FOLDERS:
        return "it holds much besides storage of guests; name the folder in it that is for them"
    for home in homes:
        if path == home or home.startswith(path + b"/"):
            return "it is, or holds, a user's home folder; name the folder in it that is for guests"
    return None


def escape_path(path: bytes) -> str:
    r"""Return a pattern that only this path matches.

    Signs of regular expressions get a backslash. White space would end the pattern in
    ``file_contexts``, and libselinux loads no file with bytes outside ASCII: those are written
    as a class of one byte (``[\x20]``). They stand in a class because newer libselinux takes
    a backslash before any other sign for that sign itself.
    """
    parts = []
    for byte in path:
        if byte in _META:
            parts.append(f"\\{chr(byte)}")
        elif 0x20 < byte < 0x7F:
            parts.append(chr(byte))
        else:
            parts.append(f"[\\x{byte:02x}]")
    return "".join(parts)


def pattern_for(path: bytes, *, folder: bool) -> str:
    """Return the pattern for a file, or for a folder and all that is in it."""
    return escape_path(path) + ("(/.*)?" if folder else "")


def shown(path: bytes) -> str:
    """Return a path as text."""
    return os.fsdecode(path)
