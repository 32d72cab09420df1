"""The journal of changes to labels and rules: written before each change, read to undo it.

A journal is a file of lines, each a JSON document, that is only ever appended to. A line is on
the disk before any of the changes that it tells of is made; so whatever stops a change, even
a power cut, the journal tells of all that may have been changed. What it tells of and was not
done any more is harmless: undoing looks at what is there. A last line without its end was
being written when the machine stopped; nothing of it was done.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import itertools
import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from attr import frozen

from svirtlib.backends._records import (
    AttributesRecord,
    BooleanRecord,
    LabelRecord,
    Record,
    RuleRecord,
    attributes_document,
    booleans_document,
    labels_document,
    records_in,
    rules_document,
)
from svirtlib.errors import (
    BackendDataError,
    BackendError,
    BackendPermissionError,
    BackendTimeoutError,
    SelectionError,
    quote,
)

__all__ = [
    "DEFAULT_FOLDER",
    "AttributesRecord",
    "BooleanRecord",
    "Journal",
    "JournalHeader",
    "Journals",
    "LabelRecord",
    "Recorder",
    "RuleRecord",
]

DEFAULT_FOLDER = "/var/lib/svirt-label/changes"

_SCHEMA = "svirt-label/journal/1"
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{6}", re.ASCII)
_SUFFIX = ".journal"

#: No line that tells a state is longer.
_TAIL = 4096


@frozen
class JournalHeader:
    """What a journal is about.

    Attributes:
        ident: its name.
        command: the verb that made the changes.
        paths: what the verb was given.
        root: the folder that paths start from.
        fingerprint: what tells whether another call wants the same.
        time: when it began, UTC.
        state: ``open`` (stopped part way), ``done`` or ``undone``.
    """

    ident: str
    command: str
    paths: tuple[str, ...]
    root: str
    fingerprint: str
    time: str
    state: str = "open"


class Journal:
    """One journal, open for more lines.

    Attributes:
        header: what it is about.
    """

    def __init__(self, header: JournalHeader, path: str, descriptor: int) -> None:
        self.header = header
        self.path = path
        self._descriptor = descriptor

    def rules(self, record: RuleRecord) -> None:
        """Write down rules that are about to be changed.

        Raises:
            BackendError: it cannot be written; nothing must be changed then.
        """
        self._append(rules_document(record))

    def booleans(self, record: BooleanRecord) -> None:
        """Write down booleans that are about to be changed.

        Raises:
            BackendError: it cannot be written; nothing must be changed then.
        """
        self._append(booleans_document(record))

    def labels(
        self,
        paths: Sequence[bytes],
        inodes: Sequence[int],
        old: Sequence[Optional[bytes]],
        new: Sequence[bytes],
    ) -> None:
        """Write down labels that are about to be changed: one sequence each, of equal length.

        Raises:
            BackendError: it cannot be written; nothing must be changed then.
        """
        self._append(labels_document(paths, inodes, old, new))

    def attributes(self, records: Sequence[AttributesRecord]) -> None:
        """Write down attributes and owners that are about to be changed.

        Raises:
            BackendError: it cannot be written; nothing must be changed then.
        """
        self._append(attributes_document(records))

    def state(self, state: str) -> None:
        """Write down that all was done, or undone.

        Raises:
            BackendError: it cannot be written.
        """
        self._append({"state": state, "time": _now()})

    def records(self) -> Iterator[Record]:
        """Yield all that may have been changed, in the order of the changes.

        Raises:
            BackendDataError: the journal is damaged.
        """
        for line in _lines(self.path):
            try:
                yield from records_in(line)
            except (KeyError, IndexError, TypeError, ValueError):
                raise BackendDataError(f"{self.path}: damaged: {quote(repr(line))}") from None

    def empty(self) -> bool:
        """Tell whether nothing but its header was written."""
        return next(itertools.islice(_lines(self.path), 1, None), None) is None

    def remove(self) -> None:
        """Remove it; for one that tells of nothing."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def _append(self, document: dict[str, Any]) -> None:
        data = (json.dumps(document, separators=(",", ":")) + "\n").encode("ascii")
        try:
            # Several processes of ours may write; each line is whole before the next begins.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            size = os.fstat(self._descriptor).st_size
            try:
                _write_all(self._descriptor, data)
            except OSError:
                # A part of a line would hide what comes after it.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, size)
                raise
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
            os.fdatasync(self._descriptor)
        except OSError as error:
            raise BackendError(
                f"{self.path}: the journal cannot be written: {error.strerror}; what it does not "
                f"tell of was not changed"
            ) from None


class Journals(contextlib.AbstractContextManager["Journals"]):
    """The folder of journals, locked against other processes of ours.

    Args:
        folder: where they lie.

    Raises:
        BackendTimeoutError: another process makes changes now.
        BackendError: the folder cannot be made or written to.
    """

    def __init__(self, folder: str = DEFAULT_FOLDER) -> None:
        self.folder = folder
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._lock = os.open(
                os.path.join(folder, "lock"),
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
        except OSError as error:
            kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
            raise kind(
                f"{folder}: no journal can be written there: {error.strerror}; run as root, or "
                f"name another folder with --journal"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BackendTimeoutError(
                f"{folder}: another svirt-label changes labels now; try again when it has ended"
            ) from None

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def create(self, command: str, paths: Sequence[str], root: str, fingerprint: str) -> Journal:
        """Begin a journal.

        Raises:
            BackendError: it cannot be written.
        """
        time = _now()
        ident = f"{time.replace('-', '').replace(':', '')[:15]}-{secrets.token_hex(3)}"
        header = JournalHeader(ident, command, tuple(paths), root, fingerprint, time)
        path = self._path(ident)
        try:
            descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
        except OSError as error:
            raise BackendError(f"{path}: cannot be made: {error.strerror}") from None
        journal = Journal(header, path, descriptor)
        try:
            journal._append(
                {
                    "schema": _SCHEMA,
                    "id": ident,
                    "command": command,
                    "paths": list(paths),
                    "root": root,
                    "fingerprint": fingerprint,
                    "time": time,
                }
            )
            self._sync_folder()
        except BackendError:
            journal.close()
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return journal

    def list(self) -> list[JournalHeader]:
        """Return all journals, the oldest first.

        Raises:
            BackendError: one is damaged, or cannot be read.
        """
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise BackendError(f"{self.folder}: cannot be listed: {error.strerror}") from None
        headers = []
        for name in names:
            ident, suffix = os.path.splitext(name)
            if suffix == _SUFFIX and _NAME.fullmatch(ident):
                header = self._header(ident)
                if header is not None:
                    headers.append(header)
        return sorted(headers, key=lambda header: (header.time, header.ident))

    def open(self, ident: str) -> Journal:
        """Open a journal for more lines.

        Raises:
            SelectionError: there is none of this name.
            BackendError: it is damaged, or cannot be opened.
        """
        path = self._path(ident)
        header = None
        if _NAME.fullmatch(ident) and os.path.lexists(path):
            header = self._header(ident)
        if header is None:
            raise SelectionError(
                f"{quote(ident)}: no such change is known in {self.folder}; 'svirt-label storage "
                f"undo --list' shows which are"
            )
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            # What was cut off while it was written says nothing, and must not spoil the next line.
            os.ftruncate(descriptor, _whole(path))
        except OSError as error:
            raise BackendError(f"{path}: cannot be opened: {error.strerror}") from None
        return Journal(header, path, descriptor)

    def _path(self, ident: str) -> str:
        return os.path.join(self.folder, ident + _SUFFIX)

    def _header(self, ident: str) -> Optional[JournalHeader]:
        """Return what a journal is about, or None where it was cut off before it said so."""
        path = self._path(ident)
        first = next(_lines(path), None)
        if first is None:
            return None
        line = first
        try:
            document = json.loads(first)
            if document["schema"] != _SCHEMA:
                raise ValueError
            line = _last_line(path)
            state = json.loads(line)["state"] if line.startswith(b'{"state"') else "open"
            return JournalHeader(
                ident,
                document["command"],
                tuple(document["paths"]),
                document["root"],
                document["fingerprint"],
                document["time"],
                state,
            )
        except (KeyError, TypeError, ValueError):
            raise BackendDataError(
                f"{path}: damaged: {quote(os.fsdecode(line))}; move it away to go on"
            ) from None

    def _sync_folder(self) -> None:
        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise BackendError(f"{self.folder}: cannot be written: {error.strerror}") from None


class Recorder:
    """The journal of one call: made when the first change is about to be made.

    A change of the same things that stopped part way is gone on with in its own journal, so
    that one undo takes back all of it.
    """

    def __init__(
        self, journals: Journals, command: str, paths: Sequence[str], root: str, fingerprint: str
    ) -> None:
        self._journals = journals
        self._wanted = (command, paths, root, fingerprint)
        self.journal: Optional[Journal] = None
        self.resumed = False
        for header in journals.list():
            if header.state == "open" and header.fingerprint == fingerprint:
                self.journal = journals.open(header.ident)
                self.resumed = True

    def open(self) -> Journal:
        """Return the journal; processes that write to it together must all have the same one."""
        if self.journal is None:
            self.journal = self._journals.create(*self._wanted)
        return self.journal

    def rules(self, record: RuleRecord) -> None:
        """Write rules down, as :meth:`Journal.rules` does."""
        self.open().rules(record)

    def booleans(self, record: BooleanRecord) -> None:
        """Write booleans down, as :meth:`Journal.booleans` does."""
        self.open().booleans(record)

    def labels(
        self,
        paths: Sequence[bytes],
        inodes: Sequence[int],
        old: Sequence[Optional[bytes]],
        new: Sequence[bytes],
    ) -> None:
        """Write labels down, as :meth:`Journal.labels` does."""
        self.open().labels(paths, inodes, old, new)

    @property
    def ident(self) -> Optional[str]:
        """Name of the change, or None while nothing was changed."""
        if self.journal is None or self.journal.empty():
            return None
        return self.journal.header.ident

    def done(self) -> None:
        """Note that all was done."""
        if self.ident is not None:
            self.open().state("done")

    def drop(self) -> None:
        """Remove the journal of a call that changed nothing, whatever it was about to."""
        if self.journal is not None and not self.resumed:
            self.journal.remove()
            self.journal.close()
            self.journal = None

    def close(self) -> None:
        """Close the journal; one that tells of nothing is removed."""
        if self.journal is not None:
            if self.journal.empty():
                self.journal.remove()
            self.journal.close()


def _lines(path: str) -> Iterator[bytes]:
    """Yield the whole lines of a journal.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    yield line
    except OSError as error:
        raise BackendError(f"{path}: cannot be read: {error.strerror}") from None


def _last_line(path: str) -> bytes:
    """Return the last whole line, or its end if it is long; a journal may be, too.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL))
            whole, _, _ = stream.read(_TAIL).rpartition(b"\n")
    except OSError as error:
        raise BackendError(f"{path}: cannot be read: {error.strerror}") from None
    return whole.rpartition(b"\n")[2]


def _whole(path: str) -> int:
    """Return how many bytes of a journal are whole lines."""
    size = 0
    with open(path, "rb") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                size += len(line)
    return size


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat("T", "microseconds")
