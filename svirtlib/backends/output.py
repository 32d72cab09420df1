"""Write results to files, whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from typing import Optional

from svirtlib.errors import BackendError, BackendPermissionError

__all__ = ["read_file", "write_bytes", "write_file"]


def write_file(path: str, text: str, *, mode: Optional[int] = None) -> None:
    """Write *text* to *path* as :func:`write_bytes` does, in UTF-8.

    Raises:
        BackendError: the file cannot be written; what was there before is still there.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), mode=mode)


def write_bytes(
    path: str, data: bytes, *, mode: Optional[int] = None, context: Optional[str] = None
) -> None:
    """Write *data* to *path* so that a reader sees the old file or the new one, never a part.

    A file that is replaced keeps its mode; a new one is readable by its owner alone, for it
    tells who can reach whom. What is no regular file (a terminal, a pipe) is written to as it
    stands.

    Args:
        path: the file.
        data: what it is to hold.
        mode: the permissions that it is to have, new or not.
        context: the SELinux context that it is to have; on a file system without labels, none.

    Raises:
        BackendError: the file cannot be written; what was there before is still there.
    """
    import tempfile

    try:
        present = _mode(path)
        if present is not None and not stat.S_ISREG(present):
            with open(path, "wb") as stream:
                stream.write(data)
            return
        target = os.path.realpath(path)
        descriptor, partial = tempfile.mkstemp(
            dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}."
        )
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if mode is None and present is not None:
                    mode = stat.S_IMODE(present)
                if mode is not None:
                    os.fchmod(descriptor, mode)
                if context is not None:
                    _set_context(descriptor, context)
                stream.write(data)
                stream.flush()
                os.fsync(descriptor)
            os.replace(partial, target)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{path}: cannot be written: {error.strerror}") from None


def read_file(path: str, limit: int) -> bytes:
    """Return at most *limit* + 1 bytes of a file.

    Raises:
        BackendError: the file cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return stream.read(limit + 1)
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{path}: cannot be read: {error.strerror}") from None


def _set_context(descriptor: int, context: str) -> None:
    try:
        os.setxattr(descriptor, "security.selinux", context.encode() + b"\0")
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EPERM):
            raise
        # Without labels, or without the right to set any: the kernel has given it one.


def _mode(path: str) -> Optional[int]:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
