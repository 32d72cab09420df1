"""Guests from files and folders of ``virsh dumpxml`` output."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from svirtlib.domainxml import MAX_BYTES, OtherDocumentError, parse_document
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    DomainXMLError,
    SvirtError,
)
from svirtlib.guests import Guest, Host, Image, Unreadable
from svirtlib.ports import Progress

__all__ = ["Documents", "read_bytes"]

#: How a file without the ending .xml starts that is worth a look: markup, or a byte order mark.
_MARKUP = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<")


class Documents:
    """Guests from XML documents; there is no host to look at.

    Args:
        paths: files, folders (their own files, not those of folders inside), or ``-`` for
            standard input. In a folder, files that are no domain XML are passed over with a
            note; a file that looks like one and cannot be read is reported.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._notes: list[str] = []

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return no host."""
        return None, ()

    def notes(self) -> Sequence[str]:
        """Return which files were passed over."""
        return self._notes

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return None: without libvirt a pool has no path."""
        del image, in_use
        return None

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield the guests of all documents.

        Raises:
            DomainXMLError: no document at all is one of a guest.
            BackendError: no document at all could be opened.
        """
        read = 0
        failures: list[SvirtError] = []
        for path in self._paths:
            documents = self._folder(path) if os.path.isdir(path) else [path]
            for done, document in enumerate(documents, 1):
                try:
                    if isinstance(document, Unreadable):
                        raise BackendError(f"{document.what}: {document.reason}")
                    guests = self._document(document, in_folder=document is not path)
                except SvirtError as error:
                    failures.append(error)
                    yield _unreadable(error, path)
                    continue
                read += len(guests)
                yield from guests
                progress(done, len(documents))
            if os.path.isdir(path) and not read and not failures:
                failures.append(
                    DomainXMLError(path, "the folder holds no output of 'virsh dumpxml'")
                )
        if not read and failures:
            raise failures[0]

    def _folder(self, path: str) -> list[Union[str, Unreadable]]:
        """Return the files of a folder that may be documents, in the order of their names."""
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError as error:
            raise _cannot_open(path, error) from None
        inside = os.path.join(os.path.realpath(path), "")
        documents: list[Union[str, Unreadable]] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside):
                # Followed, it could have us read any file of the host, with our privileges.
                documents.append(
                    Unreadable(entry.path, "a symbolic link that leads out of the folder")
                )
            elif entry.is_file():
                documents.append(entry.path)
            else:
                self._notes.append(f"{entry.path}: passed over, no file")
        return documents

    def _document(self, path: str, *, in_folder: bool) -> tuple[Guest, ...]:
        data = read_bytes(path)
        expected = not in_folder or path.endswith(".xml")
        if not expected and not data.lstrip()[:4].startswith(_MARKUP):
            self._notes.append(f"{path}: passed over, no XML")
            return ()
        try:
            return parse_document(data, "standard input" if path == "-" else path)
        except OtherDocumentError as error:
            if not in_folder:
                raise
            self._notes.append(f"{path}: passed over, its root element is <{error.root}>")
        except DomainXMLError:
            if expected or b"<domain" in data:
                raise
            self._notes.append(f"{path}: passed over, no domain XML")
        return ()


def _unreadable(error: SvirtError, path: str) -> Unreadable:
    if isinstance(error, DomainXMLError):
        where = error.source if error.line is None else f"{error.source}:{error.line}"
        return Unreadable(where, error.reason)
    what, _, reason = str(error).partition(": ")
    return Unreadable(what, reason) if reason else Unreadable(path, what)


def read_bytes(path: str) -> bytes:
    """Return at most one byte more than a document may have.

    Raises:
        BackendError: the file cannot be read.
    """
    try:
        if path == "-":
            return sys.stdin.buffer.read(MAX_BYTES + 1)
        # Non-blocking, or a FIFO that nobody writes to would hold us for ever at the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise BackendError(f"{path}: a folder where a file was expected")
            os.set_blocking(descriptor, True)
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _cannot_open(path, error) from None


def _cannot_open(path: str, error: OSError) -> SvirtError:
    reason = f"{path}: cannot be read: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        return DomainXMLError(path, "there is no such file; --xml takes files and folders")
    if isinstance(error, PermissionError):
        return BackendPermissionError(f"{reason}; run as a user who may read it")
    return BackendUnavailableError(reason)
