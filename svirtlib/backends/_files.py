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
from typing import Optional, Union

from attr import evolve, frozen

from svirtlib.guests import FileLabel, Image, ImageMode, ImageUse, Unreadable

__all__ = ["FileSystem"]

_SELINUX = "security.selinux"
_LIBVIRT = "trusted.libvirt.security."

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

    def look(self, path: str, pid: Optional[int]) -> Union[FileLabel, Unreadable, None]:
        """Return what this host says of a path, or None where there is no such file."""
        real = path
        if pid is not None and path.startswith("/dev/"):
            # libvirt gives each guest a /dev of its own and labels the nodes in there.
            inside = f"/proc/{pid}/root{path}"
            real = inside if os.path.lexists(inside) else path
        try:
            descriptor = os.open(real, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
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
            references=int(references) if references and references.isdigit() else None,
            remembered=_attribute(link, f"{_LIBVIRT}selinux"),
        )

    def below(self, image: Image) -> Iterator[Union[Image, Unreadable]]:
        """Yield the chain below a qcow2 image, top down."""
        seen = {image.path}
        current = image
        while current.path is not None and current.format == "qcow2":
            try:
                header = _read_header(current.path)
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
            if header.backing is None:
                return
            path = _beside(current.path, header.backing)
            current = Image(
                use=ImageUse.BACKING,
                kind=image.kind,
                mode=ImageMode.READONLY,
                path=path,
                name=path or header.backing,
                target=image.target,
                seclabel=image.seclabel,
                format=header.backing_format,
            )
            if path in seen:
                yield Unreadable(image.path or image.name, f"its backing chain loops at {path}")
                return
            if len(seen) > _DEEPEST:
                yield Unreadable(image.path or image.name, "its backing chain has no end")
                return
            seen.add(path)
            yield current


@frozen
class _Header:
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
        return _parse_header(stream.read(65536))


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
    backing = None
    if offset and size:
        if size > 1023 or offset + size > len(data):
            raise ValueError("its header names a backing file that lies outside the header")
        backing = os.fsdecode(data[offset : offset + size])
    backing_format = data_file = None
    place = struct.unpack_from(">I", data, 100)[0] if version >= 3 and len(data) >= 104 else 72
    end = offset if backing is not None else len(data)
    while place + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from(">II", data, place)
        if kind == 0 or place + 8 + length > len(data):
            break
        value = os.fsdecode(data[place + 8 : place + 8 + length])
        if kind == 0xE2792ACA:
            backing_format = value
        elif kind == 0x44415441:
            data_file = value
        place += 8 + (length + 7) // 8 * 8
    return _Header(backing, backing_format, data_file)


def _beside(path: str, name: str) -> Optional[str]:
    """Return where an image's header points to; None for what is no file (``nbd://``, ``json:``)."""
    if name.startswith("/"):
        return posixpath.normpath(name)
    if ":" in name.split("/", 1)[0]:
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), name))


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
                if "seclabel" in right.split()[-1].split(","):
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


def _unreadable(path: str, error: OSError) -> Unreadable:
    hint = "; run as root" if error.errno in (errno.EACCES, errno.EPERM) else ""
    return Unreadable(path, f"its label could not be read: {error.strerror}{hint}")
