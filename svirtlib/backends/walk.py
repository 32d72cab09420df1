"""A walk over files that nobody can lead astray: what lies in a tree, each behind a handle.

Guests, and whoever may write to an image folder, can rename, replace and link while the walk
goes on. So a path is opened one component at a time, each below the descriptor of the one
before and never through a symbolic link; what is found is named by the descriptor of its
folder, and changed through a descriptor of its own. A folder that is moved away while it is
read stays the folder that it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Optional, Union

from svirtlib.backends.mounts import read_mounts
from svirtlib.errors import BackendError, BackendPermissionError, BackendUnavailableError
from svirtlib.guests import Unreadable

__all__ = [
    "LABEL",
    "Descent",
    "Entry",
    "Folder",
    "Names",
    "Pinned",
    "Share",
    "Walk",
    "attribute",
    "kind_of",
    "unreadable",
]

LABEL = "security.selinux"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: So many folders are kept open on the way down; one above them is opened again when the walk
#: comes back to it, and known by its inode.
_OPEN_FOLDERS = 64

#: A folder may hold a million others: their names are kept packed, so many to a piece.
_NAMES = 512


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
        return attribute(self._link, name)

    def names(self) -> list[str]:
        """Return the names of all extended attributes that we may see.

        Raises:
            OSError: they cannot be listed.
        """
        return os.listxattr(self._link)

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
        value = attribute(link, LABEL, follow=False)
        return None if value is None else value.rstrip(b"\0")

    def hold(self) -> Pinned:
        """Hold the file until its descriptor is closed, which is the caller's to do.

        Raises:
            OSError: it is gone, or something of another kind stands in its place
                (``FileNotFoundError`` for both).
        """
        descriptor = os.open(self._name, _PIN, dir_fd=self._folder)
        try:
            pinned = Pinned(descriptor)
            if stat.S_IFMT(pinned.status.st_mode) != self.mode:
                raise FileNotFoundError(errno.ENOENT, "something else was put in its place")
        except BaseException:
            os.close(descriptor)
            raise
        return pinned

    @contextlib.contextmanager
    def pin(self) -> Iterator[Pinned]:
        """Hold the file for as long as the block lasts.

        Raises:
            OSError: as :meth:`hold`.
        """
        pinned = self.hold()
        try:
            yield pinned
        finally:
            os.close(pinned.descriptor)


class Names:
    """Names of files, first in last out, packed where they are many."""

    __slots__ = ("_last", "_packed")

    def __init__(self) -> None:
        self._last: list[bytes] = []
        self._packed: list[bytes] = []

    def append(self, name: bytes) -> None:
        """Add a name."""
        if len(self._last) >= _NAMES:
            self._packed.append(b"\0".join(self._last))
            self._last = []
        self._last.append(name)

    def pop(self) -> Optional[bytes]:
        """Take a name away and return it, or None where there is none."""
        if not self._last:
            if not self._packed:
                return None
            self._last = self._packed.pop().split(b"\0")
        return self._last.pop()

    def __len__(self) -> int:
        return len(self._last) + _NAMES * len(self._packed)


class Folder:
    """An open folder in a walk; valid until the walk is asked for the next one.

    Attributes:
        path: absolute, below the walk's root.
        descriptor: the folder, opened for reading.
        device: its file system.
        inode: its number there.
        inner: the folders in it that the walk is to go on with; who reads the entries adds them.
    """

    __slots__ = ("descriptor", "device", "inner", "inode", "path")

    def __init__(self, path: bytes, descriptor: int) -> None:
        status = os.fstat(descriptor)
        self.path = path
        self.descriptor = descriptor
        self.device = status.st_dev
        self.inode = status.st_ino
        self.inner = Names()

    @property
    def place(self) -> bytes:
        """A path that leads to this very folder, wherever it was moved."""
        return b"/proc/self/fd/%d" % self.descriptor

    def child(self, name: bytes) -> bytes:
        """Return the path of something in it."""
        return b"/" + name if self.path == b"/" else b"%s/%s" % (self.path, name)


class Share:
    """Folders that a walk has still to look at, for another process to do so.

    Attributes:
        folder: the open folder in which they lie.
        names: their names.
    """

    __slots__ = ("folder", "names")

    def __init__(self, folder: Folder, names: list[bytes]) -> None:
        self.folder = folder
        self.names = names


class Descent(Iterator[Union[Folder, Unreadable]]):
    """Goes down from one folder: yields it and all below it, each before those in it.

    Attributes:
        left_out: folders on which something else is mounted.
    """

    def __init__(
        self, walk: Walk, parent: int, name: bytes, path: bytes, device: Optional[int] = None
    ) -> None:
        """Start with the folder *name* in the open folder *parent*.

        Args:
            walk: says where something is mounted, and whether to go on there.
            parent: descriptor of the folder in which it lies; stays the caller's.
            name: its name there.
            path: its path below the walk's root.
            device: file system of *parent*, or None if any will do.
        """
        self._walk = walk
        self._stack: list[Folder] = []
        self._first: Optional[tuple[int, bytes, bytes, Optional[int]]] = (
            parent,
            name,
            path,
            device,
        )
        self.left_out: list[bytes] = []

    def __next__(self) -> Union[Folder, Unreadable]:
        if self._first is not None:
            first, self._first = self._first, None
            found = self._enter(*first)
            if found is not None:
                return found
        while self._stack:
            above = self._stack[-1]
            name = above.inner.pop()
            if name is None:
                trouble = self._leave()
                if trouble is not None:
                    return trouble
                continue
            found = self._enter(above.descriptor, name, above.child(name), above.device)
            if found is not None:
                return found
        raise StopIteration

    def _enter(
        self, parent: int, name: bytes, path: bytes, device: Optional[int]
    ) -> Union[Folder, Unreadable, None]:
        try:
            descriptor = os.open(name, _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            # It was one when its name was read.
            return Unreadable(os.fsdecode(path), "was replaced while it was looked at; run again")
        except OSError as error:
            return unreadable(path, error)
        folder = Folder(path, descriptor)
        if device is not None and self._walk.is_elsewhere(folder, device):
            self.left_out.append(path)
            os.close(descriptor)
            return None
        self._stack.append(folder)
        if len(self._stack) > _OPEN_FOLDERS:
            # The first one stays open: from there all others can be found again.
            self._shut(self._stack[len(self._stack) - _OPEN_FOLDERS])
        return folder

    def _shut(self, folder: Folder) -> None:
        if folder.descriptor >= 0 and folder is not self._stack[0]:
            os.close(folder.descriptor)
            folder.descriptor = -1

    def _leave(self) -> Optional[Unreadable]:
        """Close the folder that is done with, and open the one above it if need be."""
        done = self._stack.pop()
        trouble = None
        if self._stack and self._stack[-1].descriptor < 0:
            above = self._stack[-1]
            if not self._reopen(above, done.descriptor) and len(above.inner):
                trouble = Unreadable(
                    os.fsdecode(above.path),
                    "was moved while it was looked at, with folders in it that were not yet; "
                    "run again",
                )
                above.inner = Names()
        if done.descriptor >= 0:
            os.close(done.descriptor)
        return trouble

    def _reopen(self, folder: Folder, below: int) -> bool:
        """Open a folder again, through one in it or on its path; tell whether it is the same."""
        with contextlib.suppress(OSError):
            if below >= 0 and self._is_same(folder, os.open(b"..", _FOLDER, dir_fd=below)):
                return True
            descriptor = self._stack[0].descriptor
            opened = []
            try:
                for step in self._stack[1 : self._stack.index(folder) + 1]:
                    name = step.path.rpartition(b"/")[2]
                    descriptor = os.open(name, _FOLDER, dir_fd=descriptor)
                    opened.append(descriptor)
                return bool(opened) and self._is_same(folder, opened.pop())
            finally:
                for descriptor in opened:
                    os.close(descriptor)
        return False

    @staticmethod
    def _is_same(folder: Folder, descriptor: int) -> bool:
        status = os.fstat(descriptor)
        if (status.st_dev, status.st_ino) == (folder.device, folder.inode):
            folder.descriptor = descriptor
            return True
        os.close(descriptor)
        return False

    def pending(self) -> int:
        """Return about how many folders are still to be entered, as far as they are known."""
        return sum(len(folder.inner) for folder in self._stack if folder.descriptor >= 0)

    def share(self, pieces: int) -> list[Share]:
        """Give all that is still to be done away, in about so many pieces.

        Their folders stay open until :meth:`close`. What lies above folders that were shut for
        being too far up stays with this walk.
        """
        size = max(1, self.pending() // pieces)
        shares = []
        for folder in self._stack:
            if folder.descriptor < 0:
                continue
            names: list[bytes] = []
            name = folder.inner.pop()
            while name is not None:
                names.append(name)
                name = folder.inner.pop()
                if len(names) >= size or name is None:
                    shares.append(Share(folder, names))
                    names = []
        return shares

    def close(self) -> None:
        """Close all folders."""
        while self._stack:
            folder = self._stack.pop()
            if folder.descriptor >= 0:
                os.close(folder.descriptor)


class Walk(contextlib.AbstractContextManager["Walk"]):
    """Walks trees below a root.

    Args:
        root: the folder that paths start from: ``/``, or an unpacked image.
        cross: go on into other file systems and bind mounts.

    Attributes:
        left_out: folders of walks that have ended, on which something else is mounted.

    Raises:
        BackendUnavailableError: there is no such folder.
    """

    def __init__(self, root: str = "/", *, cross: bool = False) -> None:
        self.root = os.path.abspath(root)
        self.left_out: list[bytes] = []
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
        with self.reach(path) as (entry, parent, name):
            yield entry
            if entry.mode != stat.S_IFDIR:
                return
            with contextlib.closing(Descent(self, parent, name, entry.path)) as descent:
                for folder in descent:
                    if isinstance(folder, Unreadable):
                        yield folder
                    else:
                        yield from self._entries(folder)
                self.left_out += descent.left_out

    @contextlib.contextmanager
    def reach(self, path: bytes) -> Iterator[tuple[Entry, int, bytes]]:
        """Open the way to *path*; yield what is there, its open folder, and its name in there.

        Raises:
            BackendUnavailableError: there is nothing at *path*.
            BackendPermissionError: the way there is closed.
            BackendError: the way there leads through a symbolic link.
        """
        parts = [part for part in path.split(b"/") if part]
        if not path.startswith(b"/") or b"." in parts or b".." in parts or b"\0" in path:
            raise BackendError(f"{os.fsdecode(path)!a}: no absolute path without . and ..")
        with contextlib.ExitStack() as stack:
            folder = self._root
            for number, part in enumerate(parts[:-1], 1):
                try:
                    folder = os.open(part, os.O_PATH | _FOLDER, dir_fd=folder)
                except OSError as error:
                    raise self._unreachable(b"/" + b"/".join(parts[:number]), error) from None
                stack.callback(os.close, folder)
            name = parts[-1] if parts else b"."
            clean = b"/" + b"/".join(parts)
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError as error:
                raise self._unreachable(clean, error) from None
            yield Entry(clean, stat.S_IFMT(status.st_mode), folder, name), folder, name

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

    def is_elsewhere(self, folder: Folder, device: int) -> bool:
        """Tell whether a folder is one to leave out: something else is mounted on it.

        Bind mounts of the same file system count too; only the kernel's list tells those.

        Args:
            folder: the folder.
            device: file system of the folder in which it lies.
        """
        if self._cross:
            return False
        return folder.device != device or self.is_mount_point(folder.path)

    def leaves_out(self, path: bytes) -> bool:
        """Tell whether a path is left out: something else is mounted on it."""
        return not self._cross and self.is_mount_point(path)

    def is_mount_point(self, path: bytes) -> bool:
        """Tell whether something was mounted on a path when the walk began."""
        return (path if self.root == "/" else os.fsencode(self.root) + path) in self._mounted

    def _entries(self, folder: Folder) -> Iterator[Union[Entry, Unreadable]]:
        try:
            with os.scandir(folder.place) as entries:
                for entry in entries:
                    path = folder.child(entry.name)
                    try:
                        mode = kind_of(entry)
                    except FileNotFoundError:
                        continue
                    if mode == stat.S_IFDIR:
                        folder.inner.append(entry.name)
                    if not self.leaves_out(path):
                        yield Entry(path, mode, folder.descriptor, entry.name)
                    elif mode != stat.S_IFDIR:
                        self.left_out.append(path)
        except OSError as error:
            yield unreadable(folder.path, error)


def kind_of(entry: os.DirEntry[bytes]) -> int:
    """Return the kind of an entry, as ``stat.S_IFMT`` has it; most folders tell it for free.

    Raises:
        OSError: it had to be looked at, and is gone.
    """
    if entry.is_file(follow_symlinks=False):
        return stat.S_IFREG
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    if entry.is_symlink():
        return stat.S_IFLNK
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def unreadable(path: bytes, error: OSError) -> Unreadable:
    """Return what to report of a path that could not be looked at."""
    hint = "; run as root" if isinstance(error, PermissionError) else ""
    return Unreadable(os.fsdecode(path), f"cannot be looked at: {error.strerror}{hint}")


def attribute(path: Union[str, bytes, int], name: str, *, follow: bool = True) -> Optional[bytes]:
    """Return an extended attribute of a path or an open file, or None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return os.getxattr(path, name, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return None
        raise
