"""The verb ``storage verify``: options to a call, its result to text."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, Optional

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.options import add_cross, add_jobs, add_offline, add_root
from svirtlib.cli.storagechange import show_progress
from svirtlib.cli.streams import tell
from svirtlib.formats.plain import printable

if TYPE_CHECKING:
    from svirtlib.backends.verify import Verification
    from svirtlib.guests import Mode

__all__ = ["SCHEMA", "add_options", "verify"]

SCHEMA = "svirt-label/storage-verify/1"

Write = Callable[[argparse.Namespace, str], None]

#: Files and gaps that are told by name in text; JSON has more (``--max-changes``).
_SHOWN = 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``verify``."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a folder with all that is in it, or a file; a symbolic link is compared itself",
    )
    group = parser.add_argument_group("what counts as different")
    group.add_argument(
        "-F",
        "--force",
        action="store_true",
        help="compare whole contexts as 'restorecon -F' sets them: user, role and range too, "
        "customizable types, and labels of guests (default: the type, as restorecon does)",
    )
    add_cross(group)
    group = parser.add_argument_group("where")
    add_offline(group)
    add_root(group)
    group = parser.add_argument_group("result")
    add_jobs(group, "compare")
    group.add_argument(
        "--max-changes",
        metavar="N",
        type=_most,
        default=1000,
        help="name at most N files that differ (default: 1000), or 'all'; all are counted",
    )


def verify(options: argparse.Namespace, write: Write) -> int:
    """Compare labels with rules, write the result and return the exit status."""
    from svirtlib.backends.verify import check_path, state_of
    from svirtlib.backends.verify import verify as compare

    paths = [check_path(path) for path in options.paths]
    mode = state_of(options.root, offline=options.offline)
    with show_progress(options, "files looked at") as progress:
        result = compare(
            list(dict.fromkeys(paths)),
            root=options.root,
            enforced=mode is not None and mode.value != "disabled",
            cross=options.cross,
            force=options.force,
            jobs=options.jobs or _processors(),
            most=options.max_changes,
            progress=progress,
        )
    if options.format == "json":
        document = _document(result, options, mode)
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(options, "\n".join(_text(result, options)) + "\n")
    _tell(result, options, mode)
    if result.drift_count:
        return ExitCode.FINDINGS
    return ExitCode.OK if result.complete else ExitCode.INCOMPLETE


def _tell(result: Verification, options: argparse.Namespace, mode: Optional[Mode]) -> None:
    if options.root == "/" and (mode is None or mode.value != "enforcing"):
        state = "off" if mode is None else mode.value
        tell(f"svirt-label: SELinux is {state} here: no label keeps anybody out\n")
    for note in result.notes:
        tell(f"svirt-label: {printable(note)}\n")
    for path in result.left_out[:_SHOWN]:
        tell(
            f"svirt-label: left out: {printable(path)}: something else is mounted there "
            f"(--cross-filesystems)\n"
        )
    for entry in result.unreadable[:_SHOWN]:
        tell(f"svirt-label: not read: {printable(entry.what)}: {printable(entry.reason)}\n")
    for what, count in (("left out", len(result.left_out)), ("not read", result.unreadable_count)):
        if count > _SHOWN:
            tell(f"svirt-label: {what}: {count - _SHOWN} more\n")


def _document(
    result: Verification, options: argparse.Namespace, mode: Optional[Mode]
) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "complete": result.complete,
        "host": {
            "selinux": {"mode": None if mode is None else mode.value, "policy": result.policy},
        },
        "root": options.root,
        "paths": options.paths,
        "whole_contexts": options.force,
        "files": {
            "checked": result.checked,
            "right": result.right,
            "drift": result.drift_count,
            "no_rule": result.no_rule,
            "customizable": result.customizable,
            "guest_labels": result.guest_labels,
            "other_parts": result.other_parts,
            "unreadable": result.unreadable_count,
        },
        "drift": [
            {"path": drift.path, "from": drift.old, "to": drift.new} for drift in result.drifts
        ],
        "drift_complete": len(result.drifts) == result.drift_count,
        "left_out": list(result.left_out),
        "unreadable": [{"what": entry.what, "reason": entry.reason} for entry in result.unreadable],
        "notes": list(result.notes),
    }


def _text(result: Verification, options: argparse.Namespace) -> Iterator[str]:
    files = "file" if result.checked == 1 else "files"
    if result.drift_count:
        word = "differs" if result.drift_count == 1 else "differ"
        yield f"{result.drift_count} of {result.checked} {files} {word} from the rules"
    elif result.complete:
        yield f"{result.checked} {files} looked at: none differs from the rules"
    else:
        yield f"{result.checked} {files} looked at: none of them differs, but not all could be read"
    for drift in result.drifts[:_SHOWN]:
        old = "no label" if drift.old is None else printable(drift.old)
        yield f"  {printable(drift.path)}: {old} -> {drift.new}"
    if result.drift_count > _SHOWN:
        yield f"  and {result.drift_count - _SHOWN} more"
    counts = (
        (result.no_rule, "have no rule, or one that leaves them alone"),
        (result.guest_labels, "have the label of a guest, and keep it"),
        (result.customizable, "have a type that the policy leaves to the administrator"),
        (result.other_parts, "have the right type, and another user, role or range (-F)"),
    )
    for count, what in counts:
        if count:
            yield f"{count} {what}"
    if result.drift_count:
        yield f"to set them right: {_remedy(options)}"


def _remedy(options: argparse.Namespace) -> str:
    from svirtlib.storagepaths import system_path

    if any(system_path(os.fsencode(path)) for path in options.paths):
        # apply leaves the system's own files to the system's own tool.
        words = ["restorecon", "-R", "-v", *["-F"] * options.force, *options.paths]
        return printable(shlex.join(words))
    words = ["svirt-label", "storage", "apply"]
    words += ["--force"] * options.force
    words += ["--cross-filesystems"] * options.cross
    words += ["--offline"] * options.offline
    words += ["--root", options.root] if options.root != "/" else []
    command = printable(shlex.join([*words, *options.paths]))
    return f"{command} ('plan' in place of 'apply' shows it first)"


def _processors() -> int:
    return min(8, len(os.sched_getaffinity(0)))


def _most(text: str) -> Optional[int]:
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'all'")
    return int(text)
