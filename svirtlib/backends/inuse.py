"""Who uses which file of this host: guests as libvirt knows them, processes, the kernel.

A file is told by its device and inode, so that no other name of it escapes; a device node by
the device that it stands for. Nothing is opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Optional, Union

from svirtlib.guests import Guest, Inventory, Unreadable
from svirtlib.labelling import labelling

__all__ = ["Users", "find_users", "status_files"]

#: Where libvirt's system daemon keeps a document about each running guest, also while it
#: does not run itself.
_STATUS_FILES = "/run/libvirt/qemu"

_Key = tuple[str, int, int]


class Users:
    """Who uses which file.

    Attributes:
        unreadable: what could not be looked at; a file may have users that are not known.
    """

    def __init__(self) -> None:
        self._users: dict[_Key, list[str]] = {}
        self._inodes: set[int] = set()
        self.unreadable: list[Unreadable] = []

    def of(self, status: os.stat_result) -> tuple[str, ...]:
        """Return who uses a file, in words; empty where nobody is known to."""
        # Hardly any file has a user; the number alone rules nearly all out.
        if status.st_ino not in self._inodes and not status.st_rdev:
            return ()
        return tuple(self._users.get(_key(status), ()))

    def __contains__(self, status: os.stat_result) -> bool:
        return _key(status) in self._users

    def add(self, path: Union[str, bytes], user: str) -> None:
        """Note that *user* uses the file at *path*, if there is one; symbolic links count.

        Their content is not looked at, so that no harm can come from where they lead.
        """
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return
        self._inodes.add(status.st_ino)
        users = self._users.setdefault(_key(status), [])
        if user not in users:
            users.append(user)

    def add_device(self, number: int, user: str) -> None:
        """Note that *user* uses a block device."""
        self._users.setdefault(("device", stat.S_IFBLK, number), []).append(user)


def find_users(inventory: Optional[Inventory] = None, proc: str = "/proc") -> Users:
    """Return who uses files of this host now.

    Args:
        inventory: the guests that libvirt knows, or None where it was not asked.
        proc: where the kernel's process file system is mounted.
    """
    users = Users()
    if inventory is not None:
        _guests(users, inventory)
    _processes(users, proc)
    _kernel(users, proc)
    return users


def status_files(folder: str = _STATUS_FILES) -> list[str]:
    """Return the names of guests that libvirt noted as running, whether it runs itself or not."""
    try:
        return sorted(name[:-4] for name in os.listdir(folder) if name.endswith(".xml"))
    except OSError:
        return []


def _guests(users: Users, inventory: Inventory) -> None:
    for guest in inventory.guests:
        for image in guest.images:
            if image.path is None:
                continue
            if guest.running:
                users.add(
                    image.path,
                    f"guest {guest.name} runs with it ({image.target or image.use.value})",
                )
            elif _keeps_label(guest) or not labelling(guest, image, inventory.host).relabelled:
                users.add(
                    image.path,
                    f"guest {guest.name} will start with the label it has now (relabel='no')",
                )


def _keeps_label(guest: Guest) -> bool:
    """Tell whether libvirt will not set a label of its own when the guest starts."""
    return guest.seclabel is not None and not guest.seclabel.relabel


def _processes(users: Users, proc: str) -> None:
    own = os.getpid()
    ours = _capabilities(os.path.join(proc, "self"))
    hidden = 0
    for pid in _numbers(proc):
        if pid == own:
            continue
        folder = os.path.join(proc, str(pid))
        try:
            _process(users, folder, pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        except PermissionError:
            # Guests and what serves them never have a capability that we lack; an init process
            # around the container that we run in may.
            if not _capabilities(folder) & ~ours:
                hidden += 1
        except OSError as error:
            users.unreadable.append(
                Unreadable(f"process {pid}", f"its open files cannot be listed: {error.strerror}")
            )
    if hidden:
        users.unreadable.append(
            Unreadable(
                "open files",
                f"those of {hidden} processes cannot be listed, and may be images in use; run as "
                f"root",
            )
        )


def _process(users: Users, folder: str, pid: int) -> None:
    """Note the files that a process holds open or has mapped.

    Raises:
        OSError: they cannot be listed, or the process has ended.
    """
    name: Optional[str] = None
    for link in _links(folder):
        if name is None:
            name = f"process {pid} ({_name(folder)}) has it open"
        users.add(link, name)


def _capabilities(folder: str) -> int:
    """Return the capabilities that a process may use, as the kernel's mask."""
    try:
        with open(os.path.join(folder, "status"), "rb") as stream:
            for line in stream:
                if line.startswith(b"CapPrm:"):
                    return int(line.split()[1], 16)
    except (OSError, ValueError):
        pass
    return 0


def _links(folder: str) -> Iterator[str]:
    files = os.path.join(folder, "fd")
    for number in os.listdir(files):
        link = os.path.join(files, number)
        try:
            # Sockets and pipes have no path; folders are no images.
            if os.readlink(link).startswith("/"):
                yield link
        except (FileNotFoundError, ProcessLookupError):
            continue
    seen = set()
    with open(os.path.join(folder, "maps"), "rb") as stream:
        for line in stream:
            fields = line.split(None, 5)
            # Shared mappings of files: memory of guests, and what was closed after mapping.
            if len(fields) == 6 and fields[4] != b"0" and fields[1][3:4] == b"s":
                key = (fields[3], fields[4])
                if key not in seen:
                    seen.add(key)
                    yield os.path.join(folder, "map_files", _map_name(fields[0]))


def _map_name(field: bytes) -> str:
    """Return how ``map_files`` calls a range of addresses: without leading zeros."""
    low, _, high = field.decode("ascii").partition("-")
    return f"{int(low, 16):x}-{int(high, 16):x}"


def _name(folder: str) -> str:
    try:
        with open(os.path.join(folder, "comm"), encoding="utf-8", errors="replace") as stream:
            return stream.read(64).strip()
    except OSError:
        return "?"


def _kernel(users: Users, proc: str) -> None:
    """Note the files that the kernel itself uses: loop devices, swap, mounted devices."""
    try:
        for name in os.listdir("/sys/block"):
            if name.startswith("loop"):
                path = _line(f"/sys/block/{name}/loop/backing_file")
                if path:
                    users.add(path, f"loop device /dev/{name} is made of it")
    except OSError:
        pass
    try:
        with open(os.path.join(proc, "swaps"), encoding="utf-8", errors="replace") as stream:
            for line in stream.readlines()[1:]:
                users.add(line.split()[0], "the kernel swaps to it")
    except OSError:
        pass
    try:
        with open(
            os.path.join(proc, "self/mountinfo"), encoding="utf-8", errors="replace"
        ) as stream:
            for line in stream:
                fields = line.split()
                major, _, minor = fields[2].partition(":")
                if major != "0":
                    users.add_device(
                        os.makedev(int(major), int(minor)), f"it is mounted on {fields[4]}"
                    )
    except OSError:
        pass
    try:
        for device in os.listdir("/sys/dev/block"):
            for holder in os.listdir(f"/sys/dev/block/{device}/holders"):
                major, _, minor = device.partition(":")
                users.add_device(os.makedev(int(major), int(minor)), f"{holder} is made of it")
    except OSError:
        pass


def _line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.readline().rstrip("\n")
    except OSError:
        return ""


def _numbers(proc: str) -> list[int]:
    return sorted(int(entry) for entry in os.listdir(proc) if entry.isdigit())


def _key(status: os.stat_result) -> _Key:
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFBLK, stat.S_IFCHR):
        return "device", kind, status.st_rdev
    return "file", status.st_dev, status.st_ino
