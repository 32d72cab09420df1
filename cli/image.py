"""The verbs ``image inspect`` and ``image restore``: options to calls, results to text."""

from __future__ import annotations

import argparse
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.options import add_group_verb, add_guests, add_journal, add_offline, add_root
from svirtlib.cli.storagechange import read_guests
from svirtlib.formats.plain import printable

if TYPE_CHECKING:
    from svirtlib.backends.image import Mended
    from svirtlib.imagestate import ImageState, Owner

__all__ = ["add_verbs", "run"]

Write = Callable[[argparse.Namespace, str], None]


def add_verbs(
    parser: argparse.ArgumentParser, general: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the verbs of the group; *general* adds the options that all have."""
    verbs: Any = parser.add_subparsers(dest="image_verb", metavar="VERB", required=True)
    for name, summary in (
        ("inspect", "tell the label, libvirt's owner attributes, users and leftovers of images"),
        ("restore", "mend leaked counters and stale levels of images that nobody uses"),
    ):
        verb = add_group_verb(verbs, parser, name, summary, general)
        verb.add_argument(
            "paths", metavar="PATH", nargs="+", help="an image: a file or a block device"
        )
        add_root(verb)
        add_guests(verb)
        if name == "inspect":
            verb.add_argument(
                "--exit-code", action="store_true", help="exit with 1 if there are leftovers"
            )
        else:
            verb.add_argument(
                "--dry-run",
                action="store_true",
                help="tell what would be mended, and change nothing; exit with 1 if anything would",
            )
            add_offline(verb)
            verb.add_argument(
                "--no-other-host",
                action="store_true",
                help="no other host uses what lies on a network or cluster file system",
            )
            add_journal(verb)


def run(options: argparse.Namespace, write: Write) -> int:
    """Do what the verb says and return the exit status."""
    return (_inspect if options.image_verb == "inspect" else _restore)(options, write)


def _inspect(options: argparse.Namespace, write: Write) -> int:
    from svirtlib.backends import image

    inventory, gaps = read_guests(options)
    states = image.inspect(options.paths, inventory, gaps, root=options.root)
    if options.format == "json":
        document = {
            "schema": "svirt-label/image-inspect/1",
            "images": [_state_document(state) for state in states],
            "complete": not any(state.unknown for state in states),
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(options, "\n".join(line for state in states for line in _state_text(state)) + "\n")
    if options.exit_code and any(state.problems for state in states):
        return ExitCode.FINDINGS
    return ExitCode.INCOMPLETE if any(state.unknown for state in states) else ExitCode.OK


def _restore(options: argparse.Namespace, write: Write) -> int:
    from svirtlib.backends import image
    from svirtlib.backends.changes import Journals

    inventory, gaps = read_guests(options)

    def restore(journals: Optional[Journals]) -> tuple[list[Mended], Optional[str]]:
        return image.restore(
            options.paths,
            journals,
            inventory,
            gaps,
            root=options.root,
            offline=options.offline,
            alone=options.no_other_host,
        )

    if options.dry_run:
        outcome, ident = restore(None)
    else:
        with Journals(options.journal) as journals:
            outcome, ident = restore(journals)
    if options.format == "json":
        document = {
            "schema": "svirt-label/image-restore/1",
            "id": ident,
            "dry_run": options.dry_run,
            "images": [
                {
                    **_state_document(mended.state),
                    "new_label": mended.label,
                    "new_owner": None if mended.owner is None else list(mended.owner),
                    "removed": list(mended.removed),
                    "done": mended.done,
                    "reason": mended.reason,
                }
                for mended in outcome
            ],
            "complete": not any(mended.reason for mended in outcome),
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        lines = [line for mended in outcome for line in _mended_text(mended)]
        if ident is not None:
            lines.append(f"to take it back: svirt-label storage undo {ident}")
        write(options, "\n".join(lines) + "\n")
    if options.dry_run and any(mended.needed for mended in outcome):
        return ExitCode.FINDINGS
    return ExitCode.INCOMPLETE if any(mended.reason for mended in outcome) else ExitCode.OK


def _state_document(state: ImageState) -> dict[str, object]:
    return {
        "path": state.path,
        "label": state.label,
        "owner": list(state.owner),
        "owner_attributes": [
            {
                "model": owner.model,
                "remembered": owner.remembered,
                "references": owner.references,
                "timestamp": owner.timestamp,
                "this_boot": owner.of_this_boot(state.boot),
            }
            for owner in state.owners
        ],
        "guests": [
            {
                "name": guest.name,
                "running": guest.running,
                "target": guest.target,
                "mode": guest.mode,
            }
            for guest in state.guests
        ],
        "in_use": state.in_use,
        "users": list(state.users),
        "problems": [problem.value for problem in state.problems],
        "unknown": list(state.unknown),
    }


def _state_text(state: ImageState) -> Iterator[str]:
    from svirtlib.imagestate import Problem

    yield printable(state.path)
    yield f"  label     {printable(state.label or 'none')}"
    yield f"  owner     {state.owner[0]}:{state.owner[1]}"
    for owner in state.owners:
        yield f"  libvirt   {owner.model}: {_owner_text(owner, state.boot)}"
    for guest in state.guests:
        running = "running" if guest.running else "shut off"
        yield f"  guest     {printable(guest.name)} ({running}): {guest.target}, {guest.mode}"
    yield from _listed("in use", state.users or ("nobody is known to use it",))
    yield from _listed("unknown", state.unknown)
    told = {
        Problem.LEAKED: "libvirt's counters count users that there are not",
        Problem.BROKEN: "libvirt's owner attributes are not whole",
        Problem.STALE_LEVEL: "the categories are those of no running guest",
    }
    for problem in state.problems:
        yield f"  leftover  {told[problem]}; 'svirt-label image restore' mends it"


def _listed(name: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield f"  {name:<8}  {printable(line)}"


def _owner_text(owner: Owner, boot: Optional[int]) -> str:
    parts = [
        f"{printable(owner.references or 'no number')} users",
        f"will put back {printable(owner.remembered or 'nothing')}",
    ]
    if owner.timestamp is not None and owner.timestamp.isascii() and owner.timestamp.isdigit():
        known = owner.of_this_boot(boot)
        which = "" if known is None else " (this boot)" if known else " (another boot: ignored)"
        parts.append(f"host started {_time(int(owner.timestamp))}{which}")
    return ", ".join(parts)


def _time(seconds: int) -> str:
    try:
        return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return str(seconds)


def _mended_text(mended: Mended) -> Iterator[str]:
    path = printable(mended.state.path)
    if mended.reason is not None:
        yield f"{path}: stays as it is: {printable(mended.reason)}"
        return
    if not mended.needed:
        yield f"{path}: nothing is to be mended"
        return
    yield f"{path}: {'mended' if mended.done else 'would be mended'}"
    if mended.label is not None:
        yield f"  label     {printable(mended.state.label or 'none')} -> {mended.label}"
    if mended.owner is not None:
        before, after = mended.state.owner, mended.owner
        yield f"  owner     {before[0]}:{before[1]} -> {after[0]}:{after[1]}"
    for name in mended.removed:
        yield f"  removed   {name}"
