"""Write results to files, whole or not at all."""

from __future__ import annotations

import os
import stat

from svirtlib.errors import BackendError, BackendPermissionError

__all__ = ["read_file", "write_bytes", "write_file"]


def write_file(path: str, text: str) -> None:
    """Write *text* to *path* as :func:`write_bytes` does, in UTF-8.

    Raises:
        BackendError: the file cannot be written; what was there before is still there.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: str, data: bytes) -> None:
    """Write *data* to *path* so that a reader sees the old file or the new one, never a part.

    A file that is replaced keeps its mode; a new one is readable by its owner alone, for it
    tells who can reach whom. What is no regular file (a terminal, a pipe) is written to as it
    stands.

    Raises:
        BackendError: the file cannot be written; what was there before is still there.
    """
    import tempfile

    try:
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            with open(path, "wb") as stream:
                stream.write(data)
            return
        target = os.path.realpath(path)
        descriptor, partial = tempfile.mkstemp(
            dir=os.path.dirname(target), prefix=f".{os.path.basename(target)}."
        )
        try:
            with os.fdopen(descriptor, "wb") as stream:
                if mode is not None:
                    os.fchmod(descriptor, stat.S_IMODE(mode))
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


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None
