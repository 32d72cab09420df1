"""Entry point: parse, dispatch, and turn errors into messages and exit statuses."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Optional

from svirtlib.cli import commands
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.parser import FORMATS, make_parser
from svirtlib.errors import (
    BackendError,
    CategoriesExhaustedError,
    DomainXMLError,
    LabelError,
    SelectionError,
    SnapshotError,
    SvirtError,
)
from svirtlib.formats.plain import printable

__all__ = ["main"]

_USER_ERRORS = (LabelError, DomainXMLError, SnapshotError, SelectionError)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``svirt-label`` with these arguments (default: the process's) and return its status."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not stop a report.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = make_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else ExitCode.USAGE
    if options.format is not None and options.format not in FORMATS[options.verb]:
        return _fail(
            f"{options.verb} cannot write {options.format}; it writes "
            f"{' and '.join(FORMATS[options.verb])}",
            ExitCode.USAGE,
        )
    try:
        return commands.COMMANDS[options.verb](options)
    except KeyboardInterrupt:
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # Who read the result has enough of it.
        _forget_output()
        return ExitCode.OK
    except SvirtError as error:
        if options.debug:
            traceback.print_exc()
        return _fail(str(error), _status(error), _caret(error))
    except OSError as error:
        # The library tells of its own; this is standard output, on a full disk for example.
        if options.debug:
            traceback.print_exc()
        _forget_output()
        return _fail(f"the result cannot be written: {error.strerror}", ExitCode.ENVIRONMENT)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is told as such
        if options.debug:
            traceback.print_exc()
        return _fail(
            f"internal error, {type(error).__name__}: {error} (--debug shows where)",
            ExitCode.INTERNAL,
        )


def _forget_output() -> None:
    """Drop what is still to be written, or the exit would fail on it once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _status(error: SvirtError) -> ExitCode:
    if isinstance(error, _USER_ERRORS):
        return ExitCode.USAGE
    if isinstance(error, (BackendError, CategoriesExhaustedError)):
        return ExitCode.ENVIRONMENT
    return ExitCode.USAGE


def _caret(error: SvirtError) -> str:
    """Return the refused text with a mark under the offending part, if it fits a line."""
    if not isinstance(error, LabelError) or error.span is None or len(error.text) > 70:
        return ""
    if not error.text.isprintable():
        return ""
    start, end = error.span
    return f"    {error.text}\n    {' ' * start}{'^' * max(1, end - start)}\n"


def _fail(message: str, code: ExitCode, more: str = "") -> int:
    sys.stderr.write(f"svirt-label: error: {printable(message)}\n{more}")
    return code
