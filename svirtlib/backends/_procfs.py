"""The kernel's own word on the processes of this host, from ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from attr import frozen

from svirtlib.guests import Guest, Process, Unreadable
from svirtlib.inventory import guest_key

__all__ = ["PID_FILES", "ProcessTable", "daemon_range", "labelled_processes"]

#: Where libvirt's system daemon keeps the numbers of its guests' processes. Only root may
#: write there, while a process may rewrite its own command line.
PID_FILES = "/run/libvirt/qemu"

_DAEMONS = ("virtqemud", "libvirtd")


@frozen
class _Qemu:
    pid: int
    name: Optional[str]
    uuid: Optional[str]


class ProcessTable:
    """The QEMU processes of this host.

    Args:
        labelled: whether SELinux runs here; without it no process has a context, and none is
            looked at.
        proc: where the kernel's process file system is mounted.
        pid_files: where libvirt keeps the numbers of its guests' processes, or None if it is
            not the system's daemon that was asked.
    """

    def __init__(
        self, *, labelled: bool = True, proc: str = "/proc", pid_files: Optional[str] = None
    ) -> None:
        self._labelled = labelled
        self._proc = proc
        self._pid_files = pid_files

    def of_guests(
        self, guests: Sequence[Guest]
    ) -> tuple[dict[str, Union[Process, Unreadable]], Sequence[Guest]]:
        """Return the process of each running guest, and guests that libvirt does not know."""
        found: dict[str, Union[Process, Unreadable]] = {}
        if not self._labelled:
            return found, ()
        processes = list(self._qemus())
        by_uuid: dict[str, list[_Qemu]] = {}
        for process in processes:
            if process.uuid is not None:
                by_uuid.setdefault(process.uuid, []).append(process)
        accounted: set[int] = set()
        for guest in guests:
            if not guest.running or guest.virt_type not in ("kvm", "qemu"):
                continue
            pid = self._pid_of(guest, by_uuid.get(guest.uuid or "", []))
            if isinstance(pid, int):
                accounted.add(pid)
                found[guest_key(guest)] = self._process(guest.name, pid)
            else:
                found[guest_key(guest)] = pid
        known = {guest.uuid for guest in guests if guest.uuid}
        lost = [
            self._lost(process)
            for process in processes
            if process.pid not in accounted
            and process.name is not None
            and process.uuid not in known
        ]
        return found, lost

    def _pid_of(self, guest: Guest, candidates: Sequence[_Qemu]) -> Union[int, Unreadable]:
        numbers = {process.pid for process in candidates}
        stated = self._pid_file(guest.name)
        if stated is not None and (not numbers or stated in numbers):
            return stated
        if len(numbers) == 1:
            return numbers.pop()
        what = f"process of guest {guest.name}"
        if not numbers:
            return Unreadable(
                what,
                "libvirt says that it runs, and no QEMU process has its UUID; run as root on "
                "the host that runs the guests, or leave processes out with --no-processes",
                guest.name,
            )
        pids = ", ".join(str(number) for number in sorted(numbers))
        return Unreadable(
            what, f"several processes claim its UUID {guest.uuid}: {pids}", guest.name
        )

    def _pid_file(self, name: str) -> Optional[int]:
        if self._pid_files is None or "/" in name:
            return None
        try:
            path = os.path.join(self._pid_files, f"{name}.pid")
            with open(path, encoding="ascii") as stream:
                pid = int(stream.read(32))
        except (OSError, ValueError):
            return None
        return pid if os.path.isdir(os.path.join(self._proc, str(pid))) else None

    def _process(self, name: str, pid: int) -> Union[Process, Unreadable]:
        path = os.path.join(self._proc, str(pid), "attr", "current")
        try:
            return Process(pid=pid, context=_read_context(path), source=path)
        except OSError as error:
            return Unreadable(
                f"process of guest {name}",
                f"its context could not be read from {path}: {error.strerror}",
                name,
            )

    def _lost(self, process: _Qemu) -> Guest:
        name = process.name or f"pid {process.pid}"
        outcome = self._process(name, process.pid)
        return Guest(
            name=name,
            uuid=process.uuid,
            running=True,
            virt_type="qemu",
            source=f"{self._proc}/{process.pid}",
            process=outcome if isinstance(outcome, Process) else None,
            known_to_libvirt=False,
        )

    def _qemus(self) -> Iterator[_Qemu]:
        """Yield the processes that libvirt started as guests; it always names them so."""
        for pid in _numbers(self._proc):
            try:
                with open(os.path.join(self._proc, str(pid), "cmdline"), "rb") as stream:
                    words = stream.read().split(b"\0")
            except OSError:
                # It ended meanwhile, or is hidden from us; then its guest is not found.
                continue
            name = uuid = None
            for option, value in zip(words, words[1:]):
                if option == b"-name" and value.startswith(b"guest="):
                    # QEMU options write a comma of a value twice; the name ends at a single one.
                    text = value[len(b"guest=") :].replace(b",,", b"\0").split(b",", 1)[0]
                    name = os.fsdecode(text.replace(b"\0", b","))
                elif option == b"-uuid":
                    uuid = os.fsdecode(value).lower()
            if name is not None:
                yield _Qemu(pid, name, uuid)


def daemon_range(proc: str = "/proc") -> Optional[str]:
    """Return the text of the range that libvirt's system daemon runs with, if it does.

    libvirt draws dynamic levels from it.
    """
    for daemon in _DAEMONS:
        for pid in _numbers(proc):
            directory = os.path.join(proc, str(pid))
            try:
                with open(os.path.join(directory, "comm"), "rb") as stream:
                    if stream.read(64).strip() != daemon.encode():
                        continue
                if os.stat(directory).st_uid != 0:
                    continue
                context = _read_context(os.path.join(directory, "attr", "current"))
            except OSError:
                continue
            parts = context.split(":", 3)
            return parts[3] if len(parts) == 4 else "s0"
    return None


def _numbers(proc: str) -> list[int]:
    """Return the numbers of all processes that we may see."""
    try:
        return sorted(int(entry) for entry in os.listdir(proc) if entry.isdigit())
    except OSError:
        return []


def labelled_processes(proc: str = "/proc") -> Iterator[tuple[str, str]]:
    """Yield a name and the context of each kind of process that has categories of its own.

    Those are containers and guests: their range is one level. Services and users have ranges
    from a level without categories up to a clearance (``s0-s0:c0.c1023``), and create nothing
    with the categories of its upper end. Of many processes with one context one is named.
    """
    seen = set()
    for pid in _numbers(proc):
        try:
            context = _read_context(os.path.join(proc, str(pid), "attr", "current"))
        except OSError:
            # It ended meanwhile, or this kernel has no SELinux.
            continue
        level = context.split(":", 3)[3:]
        if level and ":" in level[0] and "-" not in level[0] and context not in seen:
            seen.add(context)
            yield f"process {pid}", context


def _read_context(path: str) -> str:
    with open(path, "rb") as stream:
        return os.fsdecode(stream.read(65536).rstrip(b"\0\n"))
