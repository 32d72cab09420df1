"""Files and folders of XML as bytes; what cannot be read is an Unreadable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Union

from svirtlib.backends._documents import list_folder, read_bytes
from svirtlib.errors import BackendError, DomainXMLError
from svirtlib.guests import Unreadable
from svirtlib.validationreport import File

__all__ = ["read_files"]


def read_files(paths: Sequence[str]) -> Iterator[Union[File, Unreadable, DomainXMLError]]:
    """Yield the content of files, of the XML files in folders, and of ``-``, standard input.

    Of a folder only names that end in ``.xml`` are read, and not those of folders inside. A
    file that does not exist is an error, but not the end.
    """
    for path in paths:
        if path != "-" and os.path.isdir(path):
            for entry in list_folder(path, []):
                if isinstance(entry, Unreadable):
                    yield entry
                elif entry.endswith(".xml"):
                    yield _file(entry, asked_for=False)
        else:
            yield _file(path, asked_for=True)


def _file(path: str, *, asked_for: bool) -> Union[File, Unreadable, DomainXMLError]:
    try:
        data = read_bytes(path)
    except DomainXMLError:
        return DomainXMLError(path, "there is no such file")
    except BackendError as error:
        return Unreadable(path, str(error).removeprefix(f"{path}: "))
    return File("standard input" if path == "-" else path, data, asked_for)
