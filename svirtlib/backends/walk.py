"""A walk over files that nobody can lead astray: what lies in a tree, each behind a handle.

Guests, and whoever may write to an image folder, can rename, replace and link while the walk
goes on. So a path is opened one component at a time, each below the descriptor of the one
before and never through a symbolic link; what is found is named by the descriptor of its
folder, and changed through a descriptor of its own. A folder that is moved away while it is
read stays the folder that it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Optional, Union

from svirtlib.backends.mounts import read_mounts
from svirtlib.errors import BackendError, BackendPermissionError, BackendUnavailableError
from svirtlib.guests import Unreadable

__all__ = ["Entry", "Pinned", "Walk"]

LABEL = "security.selinux"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Pinned:
    """One file, held so that nobody can put another one in its place.

    Attributes:
        descriptor: gives no access to the content (``O_PATH``).
        status: what ``stat`` says of it.
    """

    __slots__ = ("descriptor", "status")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.status = os.fstat(descriptor)

    @property
    def _link(self) -> str:
        # Such descriptors take no fsetxattr; the kernel follows this link to the same file,
        # to the link itself where the file is a symbolic link.
        return f"/proc/self/fd/{self.descriptor}"

    def get(self, name: str) -> Optional[bytes]:
        """Return an extended attribute, or None where there is none.

        Raises:
            OSError: it cannot be read, or the file system has none (``EOPNOTSUPP``).
        """
        return _attribute(self._link, name)

    def set(self, name: str, value: bytes) -> None:
        """Set an extended attribute.

        Raises:
            OSError: it cannot be set.
        """
        os.setxattr(self._link, name, value)

    def remove(self, name: str) -> None:
        """Remove an extended attribute.

        Raises:
            OSError: it cannot be removed.
        """
        os.removexattr(self._link, name)

    def label(self) -> Optional[bytes]:
        """Return the label, without the NUL at its end, or None where there is none.

        Raises:
            OSError: it cannot be read.
        """
        value = self.get(LABEL)
        return None if value is None else value.rstrip(b"\0")


class Entry:
    """Something in a tree; valid until the walk is asked for the next one.

    Attributes:
        path: absolute, below the walk's root.
        mode: its kind, as ``stat.S_IFMT`` has it.
    """

    __slots__ = ("_folder", "_name", "mode", "path")

    def __init__(self, path: bytes, mode: int, folder: int, name: bytes) -> None:
        self.path = path
        self.mode = mode
        self._folder = folder
        self._name = name

    def label(self) -> Optional[bytes]:
        """Return the label, without the NUL at its end, or None where there is none.

        Raises:
            OSError: it cannot be read; the file may be gone.
        """
        link = b"/proc/self/fd/%d/%s" % (self._folder, self._name)
        value = _attribute(link, LABEL, follow=False)
        return None if value is None else value.rstrip(b"\0")

    @contextlib.contextmanager
    def pin(self) -> Iterator[Pinned]:
        """Hold the file for as long as the block lasts.

        Raises:
            OSError: it is gone, or something of another kind stands in its place
                (``FileNotFoundError`` for both).
        """
        descriptor = os.open(self._name, _PIN, dir_fd=self._folder)
        try:
            pinned = Pinned(descriptor)
            if stat.S_IFMT(pinned.status.st_mode) != self.mode:
                raise FileNotFoundError(2, "something else was put in its place")
            yield pinned
        finally:
            os.close(descriptor)


class Walk(contextlib.AbstractContextManager["Walk"]):
    """Walks trees below a root.

    Args:
        root: the folder that paths start from: ``/``, or an unpacked image.
        cross: go on into other file systems and bind mounts.

    Raises:
        BackendUnavailableError: there is no such folder.
    """

    def __init__(self, root: str = "/", *, cross: bool = False) -> None:
        self.root = os.path.abspath(root)
        self._cross = cross
        try:
            self._root = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BackendUnavailableError(
                f"{self.root}: cannot be opened as a root folder: {error.strerror}"
            ) from None
        self._mounted = frozenset(mount.point for mount in read_mounts())

    def close(self) -> None:
        """Let go of the root; closing twice does no harm."""
        descriptor, self._root = self._root, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        self.close()

    def walk(self, path: bytes) -> Iterator[Union[Entry, Unreadable]]:
        """Yield what lies at *path* and below it, folders before their content.

        A symbolic link is yielded and never followed. What vanishes meanwhile is left out;
        what cannot be looked at is yielded as an :class:`Unreadable`.

        Args:
            path: absolute, below the root, without ``.`` and ``..``.

        Raises:
            BackendUnavailableError: there is nothing at *path*.
            BackendPermissionError: the way there is closed.
            BackendError: the way there leads through a symbolic link.
        """
        with contextlib.ExitStack() as stack:
            folder, name = self._descend(path, stack)
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                raise self._unreachable(path, error) from None
            mode = stat.S_IFMT(status.st_mode)
            yield Entry(path, mode, folder, name)
            if mode == stat.S_IFDIR:
                yield from self._below(path, folder, name)

    def _descend(self, path: bytes, stack: contextlib.ExitStack) -> tuple[int, bytes]:
        """Open the folder that *path* lies in, and return it with the name in there."""
        parts = [part for part in path.split(b"/") if part]
        if not path.startswith(b"/") or b"." in parts or b".." in parts:
            raise BackendError(
                f"{os.fsdecode(path)!a}: no absolute path, or one with . or .. in it"
            )
        folder = self._root
        for number, part in enumerate(parts[:-1]):
            try:
                folder = os.open(part, os.O_PATH | _FOLDER, dir_fd=folder)
            except OSError as error:
                raise self._unreachable(b"/" + b"/".join(parts[: number + 1]), error) from None
            stack.callback(os.close, folder)
        return folder, parts[-1] if parts else b"."

    def _unreachable(self, path: bytes, error: OSError) -> BackendError:
        shown = os.fsdecode(path)
        if isinstance(error, FileNotFoundError):
            return BackendUnavailableError(f"{shown!a}: there is no such file or folder")
        if isinstance(error, NotADirectoryError):
            real = os.path.join(self.root, shown.lstrip("/"))
            if os.path.islink(real):
                return BackendError(
                    f"{shown!a} is a symbolic link to {os.path.realpath(real)!a}, and none is "
                    f"followed; name the real path"
                )
        if isinstance(error, PermissionError):
            return BackendPermissionError(f"{shown!a}: {error.strerror}; run as root")
        return BackendError(f"{shown!a}: {error.strerror}")

    def _below(self, path: bytes, parent: int, name: bytes) -> Iterator[Union[Entry, Unreadable]]:
        """Yield what lies below a folder."""
        try:
            folder = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            return
        except OSError as error:
            yield self._unreadable(path, error)
            return
        try:
            start = b"" if path == b"/" else path
            device = os.fstat(folder).st_dev
            folders = []
            with os.scandir(b"/proc/self/fd/%d" % folder) as entries:
                for entry in entries:
                    below = b"%s/%s" % (start, entry.name)
                    try:
                        mode = _kind(entry)
                    except FileNotFoundError:
                        continue
                    if mode == stat.S_IFDIR:
                        folders.append(entry.name)
                    yield Entry(below, mode, folder, entry.name)
            for inner in folders:
                below = b"%s/%s" % (start, inner)
                if self._cross or not self._is_elsewhere(below, folder, inner, device):
                    yield from self._below(below, folder, inner)
        except OSError as error:
            yield self._unreadable(path, error)
        finally:
            os.close(folder)

    def _is_elsewhere(self, path: bytes, folder: int, name: bytes, device: int) -> bool:
        """Tell whether something else is mounted on a folder."""
        if os.fsencode(self.root).rstrip(b"/") + path in self._mounted:
            return True
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False).st_dev != device
        except OSError:
            # What it is, opening it tells.
            return False

    def _unreadable(self, path: bytes, error: OSError) -> Unreadable:
        hint = "; run as root" if isinstance(error, PermissionError) else ""
        return Unreadable(os.fsdecode(path), f"cannot be looked at: {error.strerror}{hint}")


def _kind(entry: os.DirEntry[bytes]) -> int:
    if entry.is_symlink():
        return stat.S_IFLNK
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def _attribute(path: Union[str, bytes], name: str, *, follow: bool = True) -> Optional[bytes]:
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno == 61:  # ENODATA
            return None
        raise
