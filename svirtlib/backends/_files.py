"""Labels of images on this host. Nothing is changed, and content is hardly ever opened.

A label is read through a descriptor that gives no access to the content (``O_PATH``). Only
the header of a qcow2 image is read, to follow its backing chain: of regular files and block
devices alone, never through a symbolic link that leads out of the folder in which it lies, and
only where the XML or the image above says that the format is qcow2 (a guest could write such
a header into a raw disk and name any file of the host in it).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import struct
from collections.abc import Iterator
from typing import Any, Optional, Union

from attr import evolve, frozen

from svirtlib.errors import quote
from svirtlib.guests import FileLabel, Image, ImageKind, ImageMode, ImageUse, Unreadable

__all__ = ["FileSystem"]

_SELINUX = "security.selinux"
_LIBVIRT = "trusted.libvirt.security."

#: Bytes at the start of a qcow2 image in which its header must lie.
_HEADER = 65536

#: As many symbolic links as the kernel follows.
_LINKS = 40

#: A longer chain than any that works; libvirt itself gives up at 200.
_DEEPEST = 200


class FileSystem:
    """The files of this host.

    Args:
        enforced: whether SELinux runs here; only then the kernel tells which file systems
            carry labels of files.
    """

    def __init__(self, *, enforced: bool = False) -> None:
        self._labelled_mounts = _labelled_mounts() if enforced else None
        self._headers: dict[str, Union[_Header, OSError, ValueError]] = {}

    def look(self, path: str, pid: Optional[int]) -> Union[FileLabel, Unreadable, None]:
        """Return what this host says of a path, or None where there is no such file."""
        try:
            real = path if pid is None else _as_guest_sees(path, pid)
            descriptor = os.open(real, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return _unreadable(path, error)
        try:
            return self._label(path, descriptor)
        except OSError as error:
            return _unreadable(path, error)
        finally:
            os.close(descriptor)

    def _label(self, path: str, descriptor: int) -> FileLabel:
        status = os.fstat(descriptor)
        if stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode):
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            identity = f"device {major}:{minor}"
        else:
            identity = f"file {status.st_dev}:{status.st_ino}"
        labelable = self._labelled_mounts is None or (
            _mount_of(descriptor) in self._labelled_mounts
        )
        # O_PATH descriptors take no fgetxattr; the kernel follows this link to the same file.
        link = f"/proc/self/fd/{descriptor}"
        try:
            context = _attribute(link, _SELINUX)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            context, labelable = None, False
        references = _attribute(link, f"{_LIBVIRT}ref_selinux")
        return FileLabel(
            path=path,
            identity=identity,
            context=context,
            labelable=labelable,
            references=int(references) if references and _is_number(references) else None,
            remembered=_attribute(link, f"{_LIBVIRT}selinux"),
        )

    def below(self, image: Image) -> Iterator[Union[Image, Unreadable]]:
        """Yield the chain below a qcow2 image, top down."""
        seen = {_identity(image.path)}
        current = image
        while current.path is not None and current.format == "qcow2":
            try:
                header = self._header(current.path)
                below = None if header.backing is None else _backing(current.path, header)
            except FileNotFoundError:
                return
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                yield Unreadable(current.path, f"its backing chain could not be read: {reason}")
                return
            if header.data_file is not None:
                # The data file of an image is written like the image itself.
                path = _beside(current.path, header.data_file)
                yield evolve(current, path=path, name=path or header.data_file, format="raw")
            if below is None:
                return
            identity = _identity(below.path)
            if identity is not None and identity in seen:
                yield Unreadable(image.name, f"its backing chain loops at {below.path}")
                return
            if len(seen) > _DEEPEST:
                yield Unreadable(image.name, "its backing chain has no end")
                return
            seen.add(identity)
            current = evolve(below, target=image.target, seclabel=image.seclabel)
            yield current

    def _header(self, path: str) -> _Header:
        """Read an image's header, once however many guests share the image.

        Raises:
            OSError: the file cannot be opened.
            ValueError: the file is no qcow2 image, or is one that we must not open.
        """
        if path not in self._headers:
            try:
                self._headers[path] = _read_header(path)
            except (OSError, ValueError) as error:
                self._headers[path] = error
        header = self._headers[path]
        if isinstance(header, _Header):
            return header
        raise header


@frozen
class _Header:
    """What the header of a qcow2 image says of other files."""

    backing: Optional[str] = None
    backing_format: Optional[str] = None
    data_file: Optional[str] = None


def _read_header(path: str) -> _Header:
    """Read what a qcow2 header says of other files.

    Raises:
        OSError: the file cannot be opened.
        ValueError: the file is no qcow2 image, or is one that we must not open.
    """
    folder = os.path.realpath(os.path.dirname(path))
    real = os.path.realpath(path)
    if os.path.dirname(real) != folder and not real.startswith("/dev/"):
        raise ValueError("it is a symbolic link that leads out of its folder")
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    # Look first: opening a device that is neither disk nor file can have effects.
    if not _is_storage(os.stat(real).st_mode):
        raise ValueError("it is no regular file and no block device")
    descriptor = os.open(real, flags)
    with os.fdopen(descriptor, "rb") as stream:
        if not _is_storage(os.fstat(descriptor).st_mode):
            raise ValueError("it is no regular file and no block device")
        return _parse_header(stream.read(_HEADER))


def _is_storage(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISBLK(mode)


def _parse_header(data: bytes) -> _Header:
    """Parse a qcow2 header (QEMU ``docs/interop/qcow2.txt``).

    Raises:
        ValueError: it is none, or one that contradicts itself.
    """
    if len(data) < 72 or data[:4] != b"QFI\xfb":
        raise ValueError("it is no qcow2 image")
    version, offset, size = struct.unpack_from(">IQI", data, 4)
    if version not in (2, 3):
        raise ValueError(f"it is a qcow2 image of the unknown version {version}")
    backing = backing_format = data_file = None
    if offset and size:
        if size > 1023 or offset + size > len(data):
            raise ValueError("its header names a backing file that lies outside the header")
        backing = _name(data[offset : offset + size])
    place = struct.unpack_from(">I", data, 100)[0] if version == 3 and len(data) >= 104 else 72
    end = len(data) if backing is None else min(offset, len(data))
    while place + 8 <= end:
        kind, length = struct.unpack_from(">II", data, place)
        if kind == 0 or place + 8 + length > len(data):
            break
        if kind == 0xE2792ACA:
            backing_format = _name(data[place + 8 : place + 8 + length])
        elif kind == 0x44415441:
            data_file = _name(data[place + 8 : place + 8 + length])
        place += 8 + (length + 7) // 8 * 8
    return _Header(backing, backing_format, data_file)


def _name(data: bytes) -> str:
    if b"\0" in data:
        raise ValueError("its header names a file with a NUL byte")
    return os.fsdecode(data)


def _backing(path: str, header: _Header) -> Image:
    """Return the image that the header of the image at *path* names as its backing file.

    Raises:
        ValueError: it is described in a way that is not understood.
    """
    name = str(header.backing)
    image_format = header.backing_format
    below: Optional[str] = None
    if name.startswith("json:"):
        found, described = _described(name[len("json:") :])
        below = None if found is None else _beside(path, found)
        image_format = image_format or described
    else:
        below = _beside(path, name)
    if below is None:
        kind = ImageKind.NETWORK
    else:
        kind = ImageKind.BLOCK if below.startswith("/dev/") else ImageKind.FILE
    return Image(
        use=ImageUse.BACKING,
        kind=kind,
        mode=ImageMode.READONLY,
        path=below,
        name=below or name,
        target="",
        format=image_format,
    )


def _described(text: str) -> tuple[Optional[str], Optional[str]]:
    """Return path and format of an image that is described in QEMU's JSON.

    The path is None for an image in the network. Members of a node may stand inside it
    (``"file": {"filename": ...}``) or before it (``"file.filename": ...``).

    Raises:
        ValueError: the description is not understood.
    """
    import json

    try:
        node: Any = json.loads(text)
    except (ValueError, RecursionError):
        node = None
    image_format: Optional[str] = None
    while isinstance(node, dict):
        driver = node.get("driver")
        inner = node.get("file")
        if inner is None:
            dotted = {key[5:]: value for key, value in node.items() if key.startswith("file.")}
            inner = dotted or None
        if inner is not None:
            image_format = image_format or (driver if isinstance(driver, str) else None)
            node = inner
        elif driver in ("file", "host_device", None):
            path = node.get("filename")
            if isinstance(path, str) and path and "\0" not in path:
                return path, image_format
            break
        elif isinstance(driver, str):
            return None, image_format
        else:
            break
    raise ValueError(f"its backing file is described as {quote(text)}, which is not understood")


def _beside(path: str, name: str) -> Optional[str]:
    """Return the path that the header of the image at *path* means with *name*.

    None for what is no file, such as ``nbd://host/export``.
    """
    if name.startswith("file:/"):
        name = name[len("file:") :]
    if ":" in name.split("/", 1)[0]:
        return None
    joined = posixpath.join(posixpath.dirname(path), name)
    # What ".." leads to depends on where symbolic links lead; the kernel knows.
    if ".." in joined.split("/"):
        return joined
    # POSIX lets exactly two leading slashes mean something else; Linux does not.
    return posixpath.normpath(joined).replace("//", "/", 1)


def _identity(path: Optional[str]) -> Optional[tuple[int, int]]:
    """Return what is the same for all names of a file, or None without a file."""
    if path is None:
        return None
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _as_guest_sees(path: str, pid: int) -> str:
    """Return how to open a path so that it leads where it leads the process *pid*.

    libvirt gives each guest a /dev of its own and labels the nodes in there.

    Raises:
        OSError: the process may not be looked at.
    """
    root = f"/proc/{pid}/root"
    inside = path
    if not path.startswith("/dev/"):
        return path
    for _ in range(_LINKS):
        try:
            target = os.readlink(root + inside)
        except FileNotFoundError:
            # libvirt has put no node there, or the process has ended.
            return path
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return root + inside
        # The kernel would take an absolute link for one into our own /dev.
        inside = posixpath.join(posixpath.dirname(inside), target)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _attribute(path: str, name: str) -> Optional[str]:
    """Return an extended attribute as text, or None where the file has none."""
    try:
        return os.fsdecode(os.getxattr(path, name).rstrip(b"\0"))
    except OSError as error:
        if error.errno == errno.ENODATA or (
            error.errno == errno.EOPNOTSUPP and name.startswith(_LIBVIRT)
        ):
            return None
        raise


def _labelled_mounts() -> frozenset[int]:
    """Return the mounts on which SELinux keeps a label for each file.

    The kernel marks them with the option ``seclabel`` (SELinux ``selinux_sb_show_options``).
    """
    mounts = set()
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as stream:
            for line in stream:
                left, _, right = line.partition(" - ")
                options = right.split()[-1:]
                if options and "seclabel" in options[0].split(","):
                    mounts.add(int(left.split()[0]))
    except OSError:
        pass
    return frozenset(mounts)


def _mount_of(descriptor: int) -> int:
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
        for line in stream:
            if line.startswith("mnt_id:"):
                return int(line.split()[1])
    return -1


def _unreadable(path: str, error: Union[OSError, ValueError]) -> Unreadable:
    reason = str(error)
    if isinstance(error, OSError):
        hint = "; run as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
        reason = f"{error.strerror}{hint}"
    return Unreadable(path, f"its label could not be read: {reason}")
