"""Files below a root directory: this machine's, or those of an unpacked host.

Symbolic links are followed as if the root were ``/``, as they would be on that host, so that
none leads out of it. Every file is read once, however often it is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Iterator
from typing import Optional, Union

from svirtlib.errors import BackendPermissionError, BackendUnavailableError
from svirtlib.guests import Unreadable
from svirtlib.hostconfig import FileFacts

__all__ = ["MAX_BYTES", "Tree", "lines_in", "lines_of"]

#: Largest configuration file that is read, in bytes; libvirt reads 10 MiB at most.
MAX_BYTES = 10 * 1024 * 1024

#: As many links as the kernel follows.
_MOST_LINKS = 40

_ABSENT = (errno.ENOENT, errno.ENOTDIR)


class _EscapeError(OSError):
    """Too many links."""


class Tree:
    """Files below a root.

    Args:
        root: the directory that stands for ``/``.

    Attributes:
        root: the directory as given.
        unreadable: what was there and could not be read.

    Raises:
        BackendError: the root is no directory, or cannot be opened.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.unreadable: dict[str, Unreadable] = {}
        self._contents: dict[str, Union[bytes, Unreadable, None]] = {}
        try:
            self._descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError as error:
            raise BackendPermissionError(f"{root}: cannot be opened: {error.strerror}") from None
        except OSError as error:
            raise BackendUnavailableError(
                f"{root}: {error.strerror}; --root takes the directory that a host was unpacked to"
            ) from None

    def close(self) -> None:
        """Give the root back."""
        os.close(self._descriptor)

    def read(self, path: str, limit: int = MAX_BYTES) -> Union[bytes, Unreadable, None]:
        """Return a file's bytes, why they cannot be had, or None where there is no such file."""
        if path not in self._contents:
            self._contents[path] = self._read(path, limit)
        return self._contents[path]

    def text(self, path: str) -> Optional[str]:
        """Return a file as text; None where it is absent or unreadable, which is noted."""
        data = self.read(path)
        if isinstance(data, bytes) and b"\0" in data:
            # What stands in such a file nobody can tell; its reader stops somewhere in it.
            self._note(path, "it is no text: it holds NUL bytes")
            return None
        return data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else None

    def facts(self, path: str, holds: str = "") -> Union[FileFacts, Unreadable, None]:
        """Return who may use a file, or None where there is none."""
        try:
            descriptor, parent = self._open(path, os.O_PATH)
        except OSError as error:
            return self._failed(path, error)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return FileFacts(
            path, stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, parent, holds
        )

    def exists(self, path: str) -> bool:
        """Tell whether there is such a file; what cannot be looked at counts as one."""
        return self.facts(path) is not None

    def link(self, path: str) -> Optional[str]:
        """Return what a symbolic link says, or None where it is none."""
        folder, _, name = path.rpartition("/")
        try:
            descriptor, _ = self._open(folder or "/", os.O_PATH | os.O_DIRECTORY)
        except OSError:
            return None
        try:
            return os.readlink(name, dir_fd=descriptor)
        except OSError:
            return None
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[str]:
        """Open a file, and yield a path that leads to it and nowhere else.

        Raises:
            OSError: it cannot be opened.
        """
        descriptor, _ = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, sorted; none where it is absent or unreadable."""
        try:
            descriptor, _ = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            self._failed(path, error)
            return []
        try:
            return sorted(os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def _read(self, path: str, limit: int) -> Union[bytes, Unreadable, None]:
        try:
            # Non-blocking, or a FIFO would hold us for ever.
            descriptor, _ = self._open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            return self._failed(path, error)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return self._note(path, "it is no regular file")
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            # In pieces: the kernel's own files refuse to fill a large buffer.
            parts: list[bytes] = []
            left = limit + 1
            try:
                while left > 0:
                    part = stream.read(min(left, 65536))
                    if not part:
                        break
                    parts.append(part)
                    left -= len(part)
            except OSError as error:
                return self._failed(path, error)
        data = b"".join(parts)
        if len(data) > limit:
            return self._note(path, f"it is larger than {limit} bytes")
        return data

    def _failed(self, path: str, error: OSError) -> Optional[Unreadable]:
        if error.errno in _ABSENT:
            return None
        hint = "; run as root" if isinstance(error, PermissionError) else ""
        return self._note(path, f"cannot be read: {error.strerror}{hint}")

    def _note(self, path: str, reason: str) -> Unreadable:
        return self.unreadable.setdefault(path, Unreadable(path, reason))

    def _open(self, path: str, flags: int) -> tuple[int, Optional[str]]:
        """Open a path inside the root.

        Returns:
            The descriptor, and the first folder on the way that everybody may write to.

        Raises:
            OSError: it cannot be opened.
        """
        parts = deque(part for part in path.split("/") if part not in ("", "."))
        folders = [os.dup(self._descriptor)]
        names: list[str] = []
        links = 0
        open_parent: Optional[str] = None
        try:
            while parts:
                name = parts.popleft()
                if name == "..":
                    if len(folders) > 1:
                        os.close(folders.pop())
                        names.pop()
                    continue
                found = os.stat(name, dir_fd=folders[-1], follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > _MOST_LINKS:
                        raise _EscapeError(errno.ELOOP, os.strerror(errno.ELOOP))
                    target = os.readlink(name, dir_fd=folders[-1])
                    if target.startswith("/"):
                        while len(folders) > 1:
                            os.close(folders.pop())
                        names.clear()
                    parts.extendleft(
                        reversed([part for part in target.split("/") if part not in ("", ".")])
                    )
                    continue
                last = not parts
                wanted = flags if last else os.O_PATH | os.O_DIRECTORY
                folders.append(
                    os.open(name, wanted | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folders[-1])
                )
                names.append(name)
                sticky = found.st_mode & stat.S_ISVTX
                if not last and found.st_mode & stat.S_IWOTH and not sticky:
                    open_parent = open_parent or "/" + "/".join(names)
            if len(folders) == 1:
                # The root itself.
                flags = flags | os.O_CLOEXEC
                folders.append(os.open(".", flags, dir_fd=folders[-1]))
            return folders.pop(), open_parent
        finally:
            for folder in folders:
                os.close(folder)


def lines_in(tree: Tree, path: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a file without its comment, with its place."""
    return lines_of(tree.text(path) or "", path)


def lines_of(text: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield each line of a text without its comment, with its place in *path*."""
    for number, line in enumerate(text.splitlines(), 1):
        text = line.split("#", 1)[0].strip() if not line.lstrip().startswith("#") else ""
        if text:
            yield text, f"{path}:{number}"
