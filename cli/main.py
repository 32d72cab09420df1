"""Entry point: parse, dispatch, and turn errors into messages and exit statuses."""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import sys
from collections.abc import Sequence
from typing import NamedTuple, Optional, Union

from svirtlib.cli import commands, streams
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.parser import FORMATS, make_parser
from svirtlib.errors import (
    BackendError,
    CategoriesExhaustedError,
    DomainXMLError,
    LabelError,
    PartialChangeError,
    SelectionError,
    SnapshotError,
    SvirtError,
)
from svirtlib.formats.plain import printable

__all__ = ["main", "run"]

_USER_ERRORS = (LabelError, DomainXMLError, SnapshotError, SelectionError)


def run() -> int:
    """Run ``svirt-label`` as a program that ends right after it; return its status."""
    status = main()
    # At its end the interpreter looks for cycles among all that there is, which takes as long
    # as to read a hundred guests. The system takes the memory back anyhow.
    gc.freeze()
    return status


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``svirt-label`` with these arguments (default: the process's) and return its status."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:2] == ["hook", "qemu"]:
        from svirtlib.backends.hook import quick

        # libvirt's: whatever it calls us with, a usage error could kill a guest.
        return quick.main(words[2:])
    streams.prepare()
    if "nagios" in words or "--format=nagios" in words:
        return _main_for_nagios(words)
    return _main(words)


def _main_for_nagios(words: Sequence[str]) -> int:
    """Run with what monitoring systems expect: a line on standard output, and their statuses."""
    from svirtlib.formats import nagios

    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        code = _main(words)
    streams.tell(err.getvalue())
    if code in (ExitCode.OK, *nagios.State) and "svirt-label: error: " not in err.getvalue():
        return code
    message = err.getvalue().rpartition("error: ")[2].strip() or "svirt-label was stopped"
    streams.write_result(nagios.format_error(" ".join(message.split())))
    return nagios.State.UNKNOWN


def _main(argv: Sequence[str]) -> int:
    debug = False
    try:
        options = _parse(argv)
        if isinstance(options, int):
            return options
        debug = options.debug
        return commands.COMMANDS[options.verb](options)
    except KeyboardInterrupt:
        return _fail("interrupted", ExitCode.INTERRUPTED)
    except SvirtError as error:
        more = _traceback() if debug else _caret(error)
        return _fail(str(error), _status(error), more)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a bug is told as such
        return _fail(
            f"internal error, {type(error).__name__}: {error} (--debug shows where)",
            ExitCode.INTERNAL,
            _traceback() if debug else "",
        )


def _parse(words: Sequence[str]) -> Union[argparse.Namespace, int]:
    """Return the options, or the status where there is nothing to do: help, a usage error."""
    options = _attempt(make_parser(words), words)
    if isinstance(options, _Stop):
        # Only a parser of all verbs can tell of them: in a help, or what would be right.
        options = _attempt(make_parser(), words)
    if isinstance(options, _Stop):
        if options.out:
            streams.write_result(options.out)
        streams.tell(options.err)
        return options.status
    if options.format is not None and options.format not in FORMATS[options.verb]:
        return _fail(
            f"{options.verb} cannot write {options.format}; it writes "
            f"{' and '.join(FORMATS[options.verb])}",
            ExitCode.USAGE,
        )
    return options


class _Stop(NamedTuple):
    """How argparse ended the program, or wanted to."""

    status: int
    out: str
    err: str


def _attempt(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> Union[argparse.Namespace, _Stop]:
    # argparse writes by itself, and knows of no stream that takes nothing.
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return parser.parse_args(words)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else ExitCode.USAGE
        return _Stop(status, out.getvalue(), err.getvalue())


def _status(error: SvirtError) -> ExitCode:
    if isinstance(error, PartialChangeError):
        return ExitCode.PARTIAL_CHANGE
    if isinstance(error, _USER_ERRORS):
        return ExitCode.USAGE
    if isinstance(error, CategoriesExhaustedError) and error.wanted > error.capacity:
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


def _traceback() -> str:
    import traceback

    return traceback.format_exc()


def _fail(message: str, code: ExitCode, more: str = "") -> int:
    streams.tell(f"svirt-label: error: {printable(message)}\n{more}")
    return code
