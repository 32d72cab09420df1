"""The program's standard streams: what is written there, and what becomes of it if it cannot be."""

from __future__ import annotations

import os
import sys
from typing import TextIO, Union

from svirtlib.errors import BackendError

__all__ = ["prepare", "tell", "write_result"]


def prepare() -> None:
    """Make the streams take any text."""
    if sys.stderr is None:
        from pathlib import Path

        # It was closed, and nobody can be told; the status still tells.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not stop a report.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def write_result(result: Union[str, bytes]) -> None:
    """Write a result to standard output.

    That nobody reads on is no error: what the result says, the exit status says too.

    Raises:
        BackendError: standard output is closed, on a full disk, ...
    """
    if sys.stdout is None:
        raise BackendError("the result cannot be written: standard output is closed")
    try:
        if isinstance(result, str):
            sys.stdout.write(result)
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(result)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget(sys.stdout)
    except OSError as error:
        _forget(sys.stdout)
        raise BackendError(f"the result cannot be written: {error.strerror}") from None


def tell(text: str) -> None:
    """Write to standard error; where that takes nothing, the status still tells."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        _forget(sys.stderr)


def _forget(stream: TextIO) -> None:
    """Drop what is still to be written to a stream, or the exit would fail on it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
