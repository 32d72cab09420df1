"""What initial RAM disks say of the file systems that they mount; nothing is unpacked to a disk.

An image is one archive after the other, as the kernel's ``init/initramfs.c`` reads them: first
uncompressed ones with a processor's microcode, then the packed one with all else. The archives
are libarchive's to read; where one ends and the next begins is found here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from svirtlib.backends._tree import Tree
from svirtlib.guests import Unreadable

__all__ = ["read_initrds"]

_FOLDER = "/boot"
#: As Debian, Fedora and SUSE call them.
_IMAGE = re.compile(r"(?:initrd\.img|initramfs|initrd)(?:[-.].+)?")
#: Left behind by package managers; no boot loader's configuration names them.
_LEFTOVER = ("~", ".bak", ".dpkg-bak", ".old-dkms", ".new")

#: Where dracut and initramfs-tools write down what is mounted, and by which name.
_TOLD = re.compile(
    r"etc/cmdline(?:\.d/[^/]+)?|etc/fstab[^/]*|etc/crypttab|cryptroot/crypttab"
    r"|conf/(?:conf\.d/)?[^/]+"
)

#: Bytes: of an image, of all that is in one, of a file in it that is looked at.
_MOST_PACKED = 1 << 30
_MOST_UNPACKED = 4 << 30
_MOST_TEXT = 64 << 10

#: Of the "new ASCII" format, the only one that the kernel reads.
_HEADER = 110
_MAGIC = (b"070701", b"070702")
_END = b"TRAILER!!!\0"


def read_initrds(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """Yield the texts in a host's initial RAM disks that name file systems.

    Each with the image's path and its own path there. What cannot be read is noted in the tree.
    """
    for name in tree.names(_FOLDER):
        path = f"{_FOLDER}/{name}"
        # A link leads to another image, which has its turn under its own name.
        if not _IMAGE.fullmatch(name) or name.endswith(_LEFTOVER) or tree.link(path) is not None:
            continue
        try:
            with tree.opened(path) as opened, open(opened, "rb") as stream:
                if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    for inside, text in _texts(stream):
                        yield path, inside, text
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            tree.unreadable[path] = Unreadable(path, f"what is in it cannot be read: {reason}")


def _texts(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    """Yield the files of an image that tell of file systems, each as text.

    Raises:
        ValueError: it is no image, too large, or libarchive is missing.
    """
    try:
        import libarchive
    except (ImportError, OSError, AttributeError):
        raise ValueError("python3-libarchive-c is missing") from None

    if os.fstat(stream.fileno()).st_size > _MOST_PACKED:
        raise ValueError(f"it has more than {_MOST_PACKED >> 20} MiB")
    left = _MOST_UNPACKED
    for start in _starts(stream):
        os.lseek(stream.fileno(), start, os.SEEK_SET)
        try:
            with libarchive.fd_reader(stream.fileno(), format_name="cpio") as archive:
                for entry in archive:
                    left -= entry.size or 0
                    if left < 0:
                        raise ValueError(f"it unpacks to more than {_MOST_UNPACKED >> 30} GiB")
                    yield from _text(entry)
        except libarchive.ArchiveError as error:
            raise ValueError(str(error)) from None


def _text(entry: Any) -> Iterator[tuple[str, str]]:
    name = str(entry.pathname).lstrip("./")
    if entry.isfile and _TOLD.fullmatch(name):
        if entry.size > _MOST_TEXT:
            raise ValueError(f"{name} in it has more than {_MOST_TEXT >> 10} KiB")
        yield name, b"".join(entry.get_blocks()).decode("utf-8", "surrogateescape")


def _starts(stream: BinaryIO) -> Iterator[int]:
    """Yield where each archive of an image begins; a packed one is the last."""
    offset = 0
    while True:
        stream.seek(offset)
        block = stream.read(4096)
        if not block:
            return
        gap = len(block) - len(block.lstrip(b"\0"))
        if gap:
            # Archives are padded with zeros to any length.
            offset += gap
            continue
        yield offset
        if not block.startswith(_MAGIC):
            return
        offset = _end(stream, offset)


def _end(stream: BinaryIO, offset: int) -> int:
    """Return where an uncompressed archive ends."""
    while True:
        stream.seek(offset)
        header = stream.read(_HEADER)
        if len(header) < _HEADER or header[:6] not in _MAGIC:
            raise ValueError("an archive in it is damaged or cut short")
        size, length = int(header[54:62], 16), int(header[94:102], 16)
        name = stream.read(length)
        offset = _aligned(_aligned(offset + _HEADER + length) + size)
        if name == _END:
            return offset


def _aligned(offset: int) -> int:
    return (offset + 3) & ~3
