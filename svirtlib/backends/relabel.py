"""Compare the labels of a tree with what rules give it, and change those that differ.

Files are changed in batches. Each file of a batch is held by a descriptor from the moment it is
judged until its label is set, so that what was judged is what is changed; before the first of
a batch is changed, the journal tells of all of them and is on the disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import pickle
import resource
import select
import signal
import stat
import struct
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NoReturn, Optional, Protocol, Union

from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.inuse import Users
from svirtlib.backends.walk import (
    LABEL,
    Descent,
    Folder,
    Share,
    Walk,
    attribute,
    kind_of,
    unreadable,
)
from svirtlib.errors import BackendError, BackendPermissionError, BackendUnavailableError
from svirtlib.guests import Unreadable
from svirtlib.storage import Change, FileKept, Verdict, decide
from svirtlib.storagetypes import belongs_elsewhere

__all__ = ["REFERENCES", "LabelJournal", "Relabelling"]

#: libvirt's count of guests that hold a file.
REFERENCES = "trusted.libvirt.security.ref_selinux"

#: Files that are changed between two writes of the journal; each takes a descriptor.
_BATCH = 4096

#: Descriptors that are left for everything else.
_SPARE = 200

#: Seconds after which users of files are looked for again.
_FRESH = 5.0

#: Folders to each process before work is shared out, so that all end at about the same time.
_SHARES = 8

_KIND = 0o170000

_PIN = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: A file that is open for reading takes questions about its attributes itself; one that is only
#: pinned is asked through /proc, which takes the kernel three times as long. What was put in a
#: regular file's place meanwhile does not block, and is not read.
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: Why a label that differs stays.
_REASONS = {
    Verdict.CUSTOMIZABLE: "its type is one that the policy leaves to the administrator",
    Verdict.GUEST_LABEL: (
        "it has the label of a guest; 'svirt-label image inspect' tells whether one needs it"
    ),
}


class LabelJournal(Protocol):
    """Where changes of labels are written down before they are made."""

    def labels(
        self,
        paths: Sequence[bytes],
        inodes: Sequence[int],
        old: Sequence[Optional[bytes]],
        new: Sequence[bytes],
    ) -> None:
        """Write down labels that are about to be changed; on the disk when this returns."""


class Relabelling:
    """Goes over trees, once.

    Args:
        walk: walks below the right root.
        contexts: tells what the rules give a path.
        customizable: types that are left alone.
        users: tells who uses which file now; asked again when its answer has become old.
        force: set whole contexts, see :func:`svirtlib.storage.decide`.
        most: how many changes and kept files are remembered by name.
        progress: told now and then how many files were looked at.
        journal: where changes are written down before they are made, or None to make none.
        jobs: how many processes may work at it.

    Attributes:
        checked: how many files were looked at.
        to_change: how many differ and may be changed.
        changed: how many were changed.
        changes: the first that differ.
        kept_count: how many differ and stay.
        kept: the first of these.
        unreadable: what could not be looked at, the first of it.
        left_out: folders that are other file systems.
    """

    def __init__(
        self,
        walk: Walk,
        contexts: FileContexts,
        *,
        customizable: frozenset[str],
        users: Callable[[], Users],
        force: bool = False,
        most: int = 1000,
        progress: Callable[[int], None] = lambda _: None,
        journal: Optional[LabelJournal] = None,
        jobs: int = 1,
    ) -> None:
        self._walk = walk
        self._contexts = contexts
        self._customizable = customizable
        self._find_users = users
        self._users = users()
        self._looked = time.monotonic()
        self._force = force
        self._most = most
        self._progress = progress
        self._journal = journal
        self._jobs = jobs
        self._decisions: dict[tuple[Optional[bytes], Optional[str]], tuple[Verdict, bytes]] = {}
        # Side by side, not as tuples: the garbage collector would look at each of them.
        self._held: list[int] = []
        self._handles: list[Union[int, str]] = []
        self._paths: list[bytes] = []
        self._inodes: list[int] = []
        self._old: list[Optional[bytes]] = []
        self._new: list[bytes] = []
        self._limit = _descriptors() if journal is not None else 0
        self._changing = False
        self._links = "/proc/self/fd/"
        self.checked = 0
        self.to_change = 0
        self.changed = 0
        self.changes: list[Change] = []
        self.kept_count = 0
        self.kept: list[FileKept] = []
        self.unreadable: list[Unreadable] = list(self._users.unreadable)
        self.left_out: list[bytes] = []

    def run(self, paths: Iterable[bytes]) -> None:
        """Go over these trees.

        Raises:
            BackendError: it cannot go on; :attr:`changed` tells what was done.
        """
        try:
            for path in paths:
                self._tree(path)
            self._change()
        finally:
            self._drop()

    def _tree(self, path: bytes) -> None:
        with self._walk.reach(path) as (entry, parent, name):
            wanted = self._contexts.lookup_text(entry.path, entry.mode)
            self._look(entry.path, parent, name, entry.mode, wanted)
            if entry.mode != stat.S_IFDIR:
                return
            with contextlib.closing(Descent(self._walk, parent, name, entry.path)) as descent:
                for folder in descent:
                    self._folder(folder)
                    if self._jobs > 1 and descent.pending() >= self._jobs * _SHARES:
                        self._change()
                        self._share(descent.share(self._jobs * _SHARES))
                self.left_out += descent.left_out

    def _folder(self, folder: Union[Folder, Unreadable]) -> None:
        """Look at all that lies right in a folder; note the folders in there for the walk."""
        if isinstance(folder, Unreadable):
            self._gap(folder)
            return
        start = folder.path if folder.path != b"/" else b""
        rules = self._contexts.folder(start)
        files = self._contexts.constant(rules, start, stat.S_IFREG)
        parent = folder.descriptor
        try:
            with os.scandir(folder.place) as entries:
                for entry in entries:
                    name = entry.name
                    path = b"%s/%s" % (start, name)
                    if not isinstance(files, bool) and entry.is_file(follow_symlinks=False):
                        wanted = None if files is None else files.context
                        self._look(path, parent, name, stat.S_IFREG, wanted)
                        continue
                    try:
                        mode = kind_of(entry)
                    except FileNotFoundError:
                        continue
                    if mode == stat.S_IFDIR:
                        folder.inner.append(name)
                    wanted = self._contexts.in_folder(rules, start, name, mode)
                    self._look(path, parent, name, mode, wanted)
        except OSError as error:
            self._gap(unreadable(folder.path, error))

    def _look(
        self, path: bytes, parent: int, name: bytes, mode: int, wanted: Optional[str]
    ) -> None:
        """Look at one file, and take it into the batch if its label is to be changed."""
        self.checked += 1
        if not self.checked & 1023:
            self._progress(self.checked)
        descriptor = -1
        try:
            # Where one file differs, its neighbours will: then hold first, and look once.
            if not self._changing:
                old = attribute(f"{self._links}{parent}/".encode() + name, LABEL, follow=False)
                if self._decided(old, wanted)[0] is not Verdict.CHANGE:
                    self._stays(path, old, wanted)
                    return
            descriptor, handle = self._hold(parent, name, mode)
            status = os.fstat(descriptor)
            if status.st_mode & _KIND != mode:
                # What came in its place was not asked for.
                return
            old = attribute(handle, LABEL)
            known = self._decisions.get((old, wanted))
            verdict, new = self._decided(old, wanted) if known is None else known
            self._changing = verdict is Verdict.CHANGE
            if not self._changing:
                self._stays(path, old, wanted)
                return
            reason = self._reason(handle, status, old)
            if reason is not None:
                self._keep(path, old, reason)
                return
        except FileNotFoundError:
            return
        except OSError as error:
            self._failed(path, error)
            return
        else:
            self.to_change += 1
            if len(self.changes) < self._most:
                self.changes.append(
                    Change(os.fsdecode(path), _text(old), os.fsdecode(new.rstrip(b"\0")))
                )
            if self._journal is not None:
                self._held.append(descriptor)
                self._handles.append(handle)
                descriptor = -1
                self._paths.append(path)
                self._inodes.append(status.st_ino)
                self._old.append(old)
                self._new.append(new)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if len(self._held) >= self._limit:
            self._change()

    def _hold(self, parent: int, name: bytes, mode: int) -> tuple[int, Union[int, str]]:
        """Return a descriptor of a file, and what its attributes are asked by.

        Raises:
            OSError: it is gone, or cannot be held.
        """
        if mode == stat.S_IFREG:
            try:
                descriptor = os.open(name, _OPEN, dir_fd=parent)
            except OSError:
                # Somebody's lease is in the way, or a policy that lets us relabel and not read.
                pass
            else:
                return descriptor, descriptor
        descriptor = os.open(name, _PIN, dir_fd=parent)
        return descriptor, f"{self._links}{descriptor}"

    def _reason(
        self, handle: Union[int, str], status: os.stat_result, old: Optional[bytes]
    ) -> Optional[str]:
        """Return why a file must stay as it is, or None.

        Raises:
            OSError: it cannot be looked at.
        """
        users = self._users.of(status)
        if users:
            return users[0]
        if status.st_mode & _KIND in (stat.S_IFDIR, stat.S_IFLNK):
            return None
        # One question for all names is cheaper than one for a name that is hardly ever there.
        if REFERENCES in os.listxattr(handle):
            count = attribute(handle, REFERENCES)
            return (
                f"libvirt counts {_text(count)!a} users of it; if that is a leftover, "
                f"'svirt-label image restore' mends it"
            )
        if status.st_nlink > 1 and old is not None and belongs_elsewhere(old):
            return "it has other names (hard links), and the label of something else"
        return None

    def _decided(self, old: Optional[bytes], wanted: Optional[str]) -> tuple[Verdict, bytes]:
        """Return what becomes of a label, and the new one as an attribute holds it."""
        key = (old, wanted)
        known = self._decisions.get(key)
        if known is None:
            decision = decide(_text(old), wanted, self._customizable, force=self._force)
            known = decision.verdict, os.fsencode(decision.context or "") + b"\0"
            if len(self._decisions) > 10_000:
                # A hostile tree may hold as many labels as files.
                self._decisions.clear()
            self._decisions[key] = known
        return known

    def _stays(self, path: bytes, old: Optional[bytes], wanted: Optional[str]) -> None:
        reason = _REASONS.get(self._decided(old, wanted)[0])
        if reason is not None:
            self._keep(path, old, reason)

    def _keep(self, path: bytes, old: Optional[bytes], reason: str) -> None:
        self.kept_count += 1
        if len(self.kept) < self._most:
            self.kept.append(FileKept(os.fsdecode(path), _text(old), reason))

    def _failed(self, path: bytes, error: OSError) -> None:
        if error.errno == errno.EOPNOTSUPP:
            self._gap(Unreadable(os.fsdecode(path), "its file system carries no labels of files"))
        else:
            self._gap(unreadable(path, error))

    def _gap(self, gap: Unreadable) -> None:
        """Note what could not be looked at; of very many the first ones tell enough."""
        if len(self.unreadable) <= self._most:
            self.unreadable.append(gap)

    def _change(self) -> None:
        """Write the batch down, then change it.

        Raises:
            BackendError: it cannot be written down, or a label cannot be set.
        """
        if self._journal is None or not self._held:
            return
        recent: Optional[Users] = None
        if time.monotonic() - self._looked > _FRESH:
            recent = self._users = self._find_users()
            self._looked = time.monotonic()
        self._journal.labels(self._paths, self._inodes, self._old, self._new)
        path = b""
        try:
            for handle, path, old, new in zip(self._handles, self._paths, self._old, self._new):
                users = () if recent is None else recent.of(os.stat(handle))
                if users:
                    self._keep(path, old, users[0])
                elif attribute(handle, LABEL) != old:
                    # A guest may have started with it meanwhile.
                    self._keep(path, old, "its label was changed meanwhile")
                else:
                    os.setxattr(handle, LABEL, new)
                    self.changed += 1
        except OSError as error:
            raise _not_set(path, error) from None
        finally:
            self._drop()

    def _drop(self) -> None:
        """Let go of the batch."""
        held = self._held
        if held and held[-1] - held[0] == len(held) - 1 and sorted(held) == held:
            # Nothing else lies between them: one call closes all.
            os.closerange(held[0], held[-1] + 1)
        else:
            for descriptor in held:
                os.close(descriptor)
        columns: tuple[list[Any], ...] = (
            self._held,
            self._handles,
            self._paths,
            self._inodes,
            self._old,
            self._new,
        )
        for column in columns:
            column.clear()

    # -----------------------------------------------------------------------------------------
    # Several processes
    # -----------------------------------------------------------------------------------------

    def _share(self, shares: Sequence[Share]) -> None:
        """Have other processes go on with these folders, and add up what they found.

        Raises:
            BackendError: one of them could not go on; the others have stopped too.
        """
        takes, gives = os.pipe()
        # All numbers fit into the pipe; who reads four bytes has one for itself.
        os.write(gives, b"".join(struct.pack("=I", number) for number in range(len(shares))))
        os.close(gives)
        counts = mmap.mmap(-1, 8 * self._jobs)
        results: dict[int, bytearray] = {}
        children = []
        try:
            for job in range(self._jobs):
                reads, writes = os.pipe()
                pid = os.fork()
                if pid == 0:
                    self._work(shares, takes, writes, memoryview(counts)[8 * job : 8 * job + 8])
                os.close(writes)
                children.append(pid)
                results[reads] = bytearray()
            self._collect(results, counts)
        finally:
            os.close(takes)
            for reads in results:
                os.close(reads)
            for pid in children:
                os.waitpid(pid, 0)
            counts.close()
        failures = []
        for data in results.values():
            failure = self._add(bytes(data))
            if failure is not None:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _collect(self, results: dict[int, bytearray], counts: mmap.mmap) -> None:
        waiting = set(results)
        while waiting:
            try:
                ready, _, _ = select.select(list(waiting), [], [], 0.2)
            except KeyboardInterrupt:
                # The terminal interrupts all; what they say of what they did is waited for.
                continue
            for reads in ready:
                data = os.read(reads, 1 << 16)
                if data:
                    results[reads] += data
                else:
                    waiting.discard(reads)
            done = sum(struct.unpack(f"={self._jobs}Q", counts[:]))
            self._progress(self.checked + done)

    def _work(
        self, shares: Sequence[Share], takes: int, writes: int, count: memoryview
    ) -> NoReturn:
        """Take shares until none is left; tell what was done; end this process."""
        failure: Optional[BaseException] = None
        try:
            parent = os.getppid()
            with contextlib.suppress(OSError, AttributeError):
                # With its parent gone, nobody holds it to its journal's end.
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            self.checked = self.to_change = self.changed = self.kept_count = 0
            self.changes, self.kept, self.unreadable, self.left_out = [], [], [], []
            self._progress = lambda checked: count.__setitem__(
                slice(None), struct.pack("=Q", checked)
            )
            # What is made here is freed by its counts; to look for circles takes time.
            gc.disable()
            # From there each of them is one step away, which is a good part of the kernel's time.
            os.chdir(self._links)
            self._links = ""
            while os.getppid() == parent:
                taken = os.read(takes, 4)
                if len(taken) < 4:
                    break
                share = shares[struct.unpack("=I", taken)[0]]
                for name in share.names:
                    self._below(share.folder, name)
            self._change()
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            failure = error
            with contextlib.suppress(OSError):
                # The others shall stop as well.
                while os.read(takes, 4096):
                    pass
        try:
            self._drop()
            result = (
                self.checked,
                self.to_change,
                self.changed,
                self.changes,
                self.kept_count,
                self.kept,
                self.unreadable,
                self.left_out,
                failure,
            )
            with os.fdopen(writes, "wb") as stream:
                pickle.dump(result, stream)
        finally:
            os._exit(0)

    def _below(self, folder: Folder, name: bytes) -> None:
        path = folder.child(name)
        descent = Descent(self._walk, folder.descriptor, name, path, folder.device)
        with contextlib.closing(descent):
            for inner in descent:
                self._folder(inner)
            self.left_out += descent.left_out

    def _add(self, data: bytes) -> Optional[BaseException]:
        """Add what another process found; return what stopped it."""
        if not data:
            return BackendError("one of the processes that set labels was killed")
        checked, to_change, changed, changes, kept_count, kept, gaps, left_out, failure = (
            pickle.loads(data)  # noqa: S301 - from a process that we forked
        )
        self.checked += checked
        self.to_change += to_change
        self.changed += changed
        self.changes += changes[: self._most - len(self.changes)]
        self.kept_count += kept_count
        self.kept += kept[: self._most - len(self.kept)]
        for gap in gaps:
            self._gap(gap)
        self.left_out += left_out
        error: Optional[BaseException] = failure
        return error


def _not_set(path: bytes, error: OSError) -> BackendError:
    """Return what to raise for a label that could not be set."""
    shown = ascii(os.fsdecode(path))
    if error.errno in (errno.EPERM, errno.EACCES):
        return BackendPermissionError(
            f"{shown}: its label cannot be set: {error.strerror}; run as root with "
            f"CAP_SYS_ADMIN (and, under SELinux, as a domain that may relabel)"
        )
    if error.errno == errno.EOPNOTSUPP:
        return BackendUnavailableError(f"{shown}: its file system carries no labels of files")
    if error.errno == errno.EROFS:
        return BackendPermissionError(
            f"{shown}: its file system is read-only; mount it for writing"
        )
    return BackendError(f"{shown}: its label cannot be set: {error.strerror}")


def _text(label: Optional[bytes]) -> Optional[str]:
    return None if label is None else os.fsdecode(label.rstrip(b"\0"))


def _descriptors() -> int:
    """Return how many files may be held at once; allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _BATCH + _SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        top = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (top, hard))
        soft = top
    return _BATCH if soft == resource.RLIM_INFINITY else max(1, min(_BATCH, soft - _SPARE))
