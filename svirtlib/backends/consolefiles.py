"""Check the rules of "one VM, one user" with the programs that read them, and install them."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Mapping
from typing import Any, Optional

from attr import frozen

from svirtlib.backends import journal
from svirtlib.backends.output import read_file, write_bytes
from svirtlib.consolerules import FILES, MAX_BYTES, ConsoleUser, parse_map
from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    ConfigurationError,
)

__all__ = ["Change", "check", "install", "read_map", "remove", "rules_of", "uids"]

_SECONDS = 30
_MARK = b"# Written by svirt-label console-rules"


@frozen
class Change:
    """What is, or would be, done to one file.

    Attributes:
        path: the file.
        action: ``write``, ``keep`` or ``remove``.
    """

    path: str
    action: str


def uids() -> dict[str, int]:
    """Return the numbers of this machine's users, wherever its databases have them."""
    return {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}


def read_map(path: str, known: Optional[Mapping[str, int]] = None) -> tuple[ConsoleUser, ...]:
    """Return the lines of a map.

    Args:
        path: the map.
        known: the numbers of the users of the machine with the viewers; None for this one's.

    Raises:
        ConfigurationError: there is no such file, or it is no map.
        BackendError: it cannot be read.
    """
    if not os.path.exists(path):
        raise ConfigurationError(
            path, "there is no such file; a map has lines GUEST USER ADDRESS PORT"
        )
    return parse_map(read_file(path, MAX_BYTES), path, uids() if known is None else known)


def rules_of(text: str) -> list[dict[str, Any]]:
    """Return rules as nft understands them, without loading them into this machine's kernel.

    They are loaded in a network namespace of their own, which ends with the program.

    Raises:
        BackendDataError: nft refuses them.
        BackendError: nft is missing, or a namespace cannot be made.
    """
    if "include" in text:
        raise BackendDataError("the rules include other files, which are not followed")
    # nft echoes what it has loaded, as the kernel understood it.
    with tempfile.NamedTemporaryFile("w", suffix=".nft") as stream:
        # Of a pipe it echoes nothing.
        stream.write(text)
        stream.flush()
        words = ["nft", "--json", "--echo", "--file", stream.name]
        done = _run(["unshare", *_namespaces(), "--", *words], "")
    if done.returncode:
        raise BackendDataError(f"nft refuses the rules: {_first_line(done.stderr)}")
    if not done.stdout.strip():
        return []
    try:
        echoed = [entry.get("add", entry.get("insert")) for entry in _entries(done.stdout)]
    except (ValueError, KeyError, AttributeError):
        raise BackendDataError("nft answered with no JSON; it is older than 0.9") from None
    loaded = [entry for entry in echoed if isinstance(entry, dict)]
    named = {
        (one["table"], one["name"]): one
        for entry in loaded
        for one in (entry.get("set"), entry.get("map"))
        if one is not None
    }
    for entry in loaded:
        element = entry.get("element")
        if element is not None:
            holder = named.get((element["table"], element["name"]))
            if holder is not None:
                holder.setdefault("elem", []).extend(element["elem"]["set"])
    return loaded


def _entries(text: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(text)["nftables"]
    return entries


def _namespaces() -> list[str]:
    return ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]


def check(firewall: str, sudoers: str) -> None:
    """Have nft and visudo check the files.

    Raises:
        BackendDataError: one refuses what it is to read; a bug.
        BackendError: one is missing.
    """
    done = _run(["unshare", *_namespaces(), "--", "nft", "-c", "-f", "-"], firewall)
    if done.returncode:
        raise BackendDataError(f"nft refuses the rules: {_first_line(done.stderr)}")
    with tempfile.NamedTemporaryFile("w", suffix=".sudoers") as stream:
        stream.write(sudoers)
        stream.flush()
        os.fchmod(stream.fileno(), 0o440)
        done = _run(["visudo", "-c", "-q", "-f", stream.name], "")
    if done.returncode:
        raise BackendDataError(f"visudo refuses the lines: {_first_line(done.stderr)}")


def _run(words: list[str], text: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(("/usr/sbin", "/sbin", os.environ.get("PATH", "/usr/bin")))
    try:
        return subprocess.run(
            words,
            input=text,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env={"PATH": path, "LC_ALL": "C.UTF-8"},
            check=False,
        )
    except FileNotFoundError:
        raise BackendUnavailableError(
            f"{words[0]} is missing; install nftables, sudo and util-linux"
        ) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise BackendError(f"{words[0]} failed: {error}") from None


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else "no reason given"


def install(texts: dict[str, str], root: str, *, dry_run: bool) -> tuple[Change, ...]:
    """Write the files below a root; a file that is right is left alone.

    Raises:
        BackendError: a file cannot be written, or is somebody else's.
    """
    changes = []
    for name, text in texts.items():
        path, mode = FILES[name]
        place = _place(root, path)
        data = text.encode()
        present = _present(place)
        if present is not None and not present.startswith(_MARK):
            raise BackendError(f"{place} was not written by this program; move it away first")
        same = present == data and os.stat(place).st_mode & 0o7777 == mode
        changes.append(Change(place, "keep" if same else "write"))
        if same or dry_run:
            continue
        try:
            os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        except OSError as error:
            raise BackendPermissionError(f"{place}: {error.strerror}; run as root") from None
        write_bytes(place, data, mode=mode)
        _announce(f"wrote {place}", place, "create" if present is None else "replace")
    return tuple(changes)


def remove(root: str, *, dry_run: bool) -> tuple[Change, ...]:
    """Take the files below a root away, those that this program wrote.

    Raises:
        BackendError: a file cannot be removed, or is somebody else's.
    """
    changes = []
    for path, _ in FILES.values():
        place = _place(root, path)
        present = _present(place)
        if present is None:
            continue
        if not present.startswith(_MARK):
            raise BackendError(f"{place} was not written by this program; it stays")
        changes.append(Change(place, "remove"))
        if not dry_run:
            try:
                os.unlink(place)
            except OSError as error:
                raise BackendPermissionError(f"{place}: {error.strerror}; run as root") from None
            _announce(f"removed {place}", place, "remove")
    return tuple(changes)


def _announce(message: str, place: str, change: str) -> None:
    journal.changed(message, "console-rules", PATH=place, CHANGE=change)


def _place(root: str, path: str) -> str:
    """Return a path below the root; no link may lead elsewhere."""
    base = os.path.realpath(root)
    place = os.path.join(base, path.lstrip("/"))
    if os.path.realpath(place) != place:
        raise BackendError(f"{place} is, or lies behind, a symbolic link; nothing is written there")
    return place


def _present(place: str) -> Optional[bytes]:
    try:
        with open(place, "rb") as stream:
            return stream.read(16 * 1024 * 1024)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BackendPermissionError(f"{place}: {error.strerror}; run as root") from None
