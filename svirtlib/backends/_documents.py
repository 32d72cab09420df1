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

__all__ = ["Documents", "list_folder", "read_bytes"]

#: How a file without the ending .xml starts that is worth a look: markup, or a byte order mark.
_MARKUP = (b"<", b"\xef\xbb\xbf<", b"\xff\xfe<\0", b"\xfe\xff\0<")


class Documents:
    """Guests from XML documents; there is no host to look at.

    Args:
        paths: files, folders (their own files, not those of folders inside), or ``-`` for
            standard input. In a folder, files that are no domain XML are passed over with a
            note; a file that looks like one and cannot be read is reported.
        devices: read consoles and other devices too.
    """

    def __init__(self, paths: Sequence[str], *, devices: bool = False) -> None:
        self._paths = tuple(paths)
        self._devices = devices
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
        """Yield the guests of all documents, and the documents that could not be read.

        Raises:
            DomainXMLError: no document at all is one of a guest.
            BackendError: no document at all could be opened.
        """
        any_read = False
        first_failure: Optional[SvirtError] = None
        for path in self._paths:
            for found in self._below(path, progress):
                if isinstance(found, Guest):
                    any_read = True
                    yield found
                else:
                    document, failure = found
                    first_failure = first_failure or failure
                    yield _unreadable(document, failure)
        if first_failure is not None and not any_read:
            raise first_failure

    def _below(
        self, path: str, progress: Progress
    ) -> Iterator[Union[Guest, tuple[str, SvirtError]]]:
        """Yield what a file or a folder holds: guests, and documents that failed with an error."""
        in_folder = path != "-" and os.path.isdir(path)
        try:
            documents = list_folder(path, self._notes) if in_folder else [path]
        except BackendError as error:
            yield path, error
            return
        empty = True
        for done, document in enumerate(documents, 1):
            if isinstance(document, Unreadable):
                empty = False
                yield document.what, BackendError(f"{document.what}: {document.reason}")
                continue
            try:
                guests = self._document(document, in_folder=in_folder)
            except SvirtError as error:
                empty = False
                yield document, error
                continue
            empty = empty and not guests
            yield from guests
            progress(done, len(documents))
        if empty:
            yield path, DomainXMLError(path, "the folder holds no output of 'virsh dumpxml'")

    def _document(self, path: str, *, in_folder: bool) -> tuple[Guest, ...]:
        data = read_bytes(path)
        expected = not in_folder or path.endswith(".xml")
        if not expected and not data.lstrip()[:4].startswith(_MARKUP):
            self._notes.append(f"{path}: passed over, no XML")
            return ()
        try:
            source = "standard input" if path == "-" else path
            return parse_document(data, source, devices=self._devices)
        except OtherDocumentError as error:
            if not in_folder:
                raise
            self._notes.append(f"{path}: passed over, its root element is <{error.root}>")
        except DomainXMLError:
            # Without NUL bytes UTF-16 is found too.
            if expected or b"<domain" in data.replace(b"\0", b""):
                raise
            self._notes.append(f"{path}: passed over, no domain XML")
        return ()


def list_folder(path: str, notes: list[str]) -> list[Union[str, Unreadable]]:
    """Return the files of a folder that may be documents, in the order of their names.

    Args:
        path: the folder; folders inside are passed over.
        notes: gets what was passed over.

    Raises:
        BackendError: the folder cannot be read.
    """
    try:
        with os.scandir(path) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _cannot_read(path, error) from None
    inside = os.path.join(os.path.realpath(path), "")
    documents: list[Union[str, Unreadable]] = []
    for entry in ordered:
        if entry.name.startswith("."):
            continue
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            documents.append(_unreadable(entry.path, _cannot_read(entry.path, error)))
            continue
        leads_out = entry.is_symlink() and not os.path.realpath(entry.path).startswith(inside)
        if stat.S_ISDIR(mode) or not (leads_out or stat.S_ISREG(mode)):
            notes.append(f"{entry.path}: passed over, no file")
        elif leads_out:
            # Followed, it could have us read any file of the host, with our privileges.
            documents.append(
                Unreadable(
                    entry.path,
                    "a symbolic link that leads out of the folder; name what it leads to",
                )
            )
        else:
            documents.append(entry.path)
    return documents


def _unreadable(path: str, error: SvirtError) -> Unreadable:
    if isinstance(error, DomainXMLError):
        where = error.source if error.line is None else f"{error.source}:{error.line}"
        return Unreadable(where, error.reason)
    return Unreadable(path, str(error).removeprefix(f"{path}: "))


def read_bytes(path: str) -> bytes:
    """Return at most one byte more than a document may have.

    Raises:
        DomainXMLError: there is no such file.
        BackendError: the file cannot be read.
    """
    if path == "-":
        if sys.stdin is None:
            raise BackendUnavailableError("standard input: it is closed")
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        # Non-blocking, or a FIFO that nobody writes to would hold us for ever at the opening.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb") as stream:
            os.set_blocking(descriptor, True)
            return stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DomainXMLError(path, "there is no such file; --xml takes files and folders") from None
    except OSError as error:
        raise _cannot_read(path, error) from None


def _cannot_read(path: str, error: OSError) -> BackendError:
    reason = f"{path}: cannot be read: {error.strerror}"
    if isinstance(error, PermissionError):
        return BackendPermissionError(f"{reason}; run as a user who may read it")
    return BackendUnavailableError(reason)
