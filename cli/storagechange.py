"""The verbs ``storage plan``, ``apply`` and ``undo``: options to calls, results to text."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.options import (
    add_cross,
    add_guests,
    add_jobs,
    add_journal,
    add_offline,
    add_root,
    count,
)
from svirtlib.cli.streams import tell
from svirtlib.formats.plain import printable

if TYPE_CHECKING:
    from svirtlib.backends.storageplan import Request
    from svirtlib.guests import Inventory
    from svirtlib.storage import Plan, Target

__all__ = [
    "add_apply_options",
    "add_plan_options",
    "add_undo_options",
    "apply",
    "plan",
    "read_guests",
    "show_progress",
    "undo",
    "undo_change",
]

Write = Callable[[argparse.Namespace, str], None]

#: Files that are told by name in text; JSON has more (``--max-changes``).
_SHOWN = 20


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``plan``."""
    _add_request(parser)
    group = parser.add_argument_group("result")
    group.add_argument(
        "--exit-code", action="store_true", help="exit with 1 if apply would change anything"
    )
    add_jobs(group, "compare")
    _add_most(group)


def add_apply_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``apply``."""
    _add_request(parser)
    group = parser.add_argument_group("changing")
    group.add_argument(
        "--override",
        action="store_true",
        help="take a path although the rules give it the type of another service",
    )
    add_jobs(group, "set labels")
    add_journal(group)
    _add_most(group)


def add_undo_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``undo``."""
    parser.add_argument(
        "ident",
        metavar="ID",
        nargs="?",
        help="which change, as apply named it (default: the last one that was not undone)",
    )
    parser.add_argument("--list", action="store_true", help="list the changes that are known")
    add_root(parser)
    add_guests(parser)
    add_journal(parser)


def _add_request(parser: argparse.ArgumentParser) -> None:
    from svirtlib.filerules import KINDS

    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="a folder, mount point, image, block device or logical volume",
    )
    group = parser.add_argument_group("what it is for")
    group.add_argument(
        "--pool",
        metavar="NAME",
        action="append",
        default=[],
        help="a storage pool of libvirt: its folder, or its volumes where they are devices",
    )
    group.add_argument(
        "--for",
        dest="purpose",
        choices=("images", "content"),
        default="images",
        help="images that guests write to (default, virt_image_t), or content that they only read "
        "(virt_content_t)",
    )
    group.add_argument("--type", metavar="TYPE", help="the type of the rule, in place of --for's")
    group.add_argument(
        "--any-type", action="store_true", help="take a type that is none for storage of guests"
    )
    group.add_argument("--range", metavar="RANGE", help="the range of the rule (default: s0)")
    group.add_argument(
        "--kind",
        choices=tuple(KINDS),
        help="make the rule one for this kind of files alone, as 'semanage fcontext -f' has them "
        "(default: a, all; for a device its kind)",
    )
    group.add_argument(
        "-F",
        "--force",
        action="store_true",
        help="set whole contexts as 'restorecon -F' does: user, role and range too, customizable "
        "types, and leftovers of guests; never what is in use",
    )
    add_cross(group)
    group = parser.add_argument_group("where")
    add_offline(group)
    add_root(group)
    add_guests(group)


def _add_most(group: Any) -> None:
    group.add_argument(
        "--max-changes",
        metavar="N",
        type=count,
        default=1000,
        help="name at most N files of each sort (default: 1000); all are counted",
    )


# ---------------------------------------------------------------------------------------------
# Verbs
# ---------------------------------------------------------------------------------------------


def plan(options: argparse.Namespace, write: Write) -> int:
    """Tell what apply would do."""
    from svirtlib.backends import storageplan

    request = _request(options)
    inventory, gaps = read_guests(options)
    with show_progress(options, "files looked at") as progress:
        made = storageplan.plan(request, inventory, jobs=options.jobs, progress=progress)
    if options.format == "json":
        document = {"schema": "svirt-label/storage-plan/1", **_plan_document(made, request, gaps)}
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(options, "\n".join(_plan_text(made, request, "would change")) + "\n")
    incomplete = _tell_gaps(made, gaps)
    if options.exit_code and made.pending:
        return ExitCode.FINDINGS
    return ExitCode.INCOMPLETE if incomplete else ExitCode.OK


def apply(options: argparse.Namespace, write: Write) -> int:
    """Write the rules and set the labels."""
    from svirtlib.backends import storageapply
    from svirtlib.backends.changes import Journals

    request = _request(options)
    inventory, gaps = read_guests(options)
    with Journals(options.journal) as journals, show_progress(options, "files done") as progress:
        outcome = storageapply.apply(
            request, journals, inventory, jobs=options.jobs, progress=progress
        )
    made = outcome.plan
    if options.format == "json":
        document = {
            "schema": "svirt-label/storage-apply/1",
            "id": outcome.ident,
            "resumed": outcome.resumed,
            "rules_changed": outcome.rules,
            "files_changed": outcome.files,
            **_plan_document(made, request, gaps),
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        lines = list(_plan_text(made, request, "were to change"))
        lines.append("")
        if outcome.ident is None:
            lines.append("nothing was to be done: rules and labels are as they should be")
        else:
            more = ", going on with a change that had stopped part way" if outcome.resumed else ""
            lines.append(f"changed: {outcome.rules} rules, {outcome.files} labels{more}")
            lines.append(f"to take it back: svirt-label storage undo {outcome.ident}")
        write(options, "\n".join(lines) + "\n")
    return ExitCode.INCOMPLETE if _tell_gaps(made, gaps) else ExitCode.OK


def undo(options: argparse.Namespace, write: Write) -> int:
    """Put rules and labels back."""
    from svirtlib.backends import storageundo
    from svirtlib.backends.changes import Journals

    if options.list:
        with Journals(options.journal) as journals:
            headers = storageundo.list_changes(journals)
        if options.format == "json":
            rows = [
                {
                    "id": header.ident,
                    "time": header.time,
                    "state": header.state,
                    "command": header.command,
                    "root": header.root,
                    "paths": list(header.paths),
                }
                for header in headers
            ]
            changes = {"schema": "svirt-label/storage-changes/1", "changes": rows}
            write(options, json.dumps(changes, indent=2) + "\n")
        else:
            lines = [
                f"{header.ident}  {header.time[:19]}  {_STATES.get(header.state, header.state)}  "
                f"{header.command} {printable(' '.join(header.paths))}"
                for header in headers
            ]
            write(options, "\n".join(lines or ["no change is known"]) + "\n")
        return ExitCode.OK
    inventory, gaps = read_guests(options)
    return undo_change(options, write, options.journal, options.ident, inventory, gaps)


def undo_change(
    options: argparse.Namespace,
    write: Write,
    folder: str,
    ident: Optional[str],
    inventory: Optional[Inventory] = None,
    gaps: Sequence[str] = (),
) -> int:
    """Take one change back, the last one without a name."""
    from svirtlib.backends import storageundo
    from svirtlib.backends.changes import Journals

    with Journals(folder) as journals, show_progress(options, "files done") as progress:
        done = storageundo.undo(
            journals, ident, root=options.root or "/", inventory=inventory, progress=progress
        )
    if options.format == "json":
        document: dict[str, object] = {
            "schema": "svirt-label/storage-undo/1",
            "id": done.header.ident,
            "complete": not done.kept_count,
            "rules_restored": done.rules,
            "booleans_restored": done.booleans,
            "files_restored": done.files,
            "files_gone": done.gone,
            "kept_count": done.kept_count,
            "kept": [{"path": kept.path, "reason": kept.reason} for kept in done.kept],
        }
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        lines = [
            f"put back what {done.header.ident} changed ({done.header.command} "
            f"{printable(' '.join(done.header.paths))}): {done.rules} rules, {done.files} files, "
            f"{done.booleans} booleans"
        ]
        if done.gone:
            lines.append(f"{done.gone} files are gone")
        if done.kept_count:
            lines.append(f"{done.kept_count} stay as they are:")
            lines += _some(
                done.kept_count, (f"{printable(kept.path)}: {kept.reason}" for kept in done.kept)
            )
            lines.append(f"undo {done.header.ident} again when that has changed")
        write(options, "\n".join(lines) + "\n")
    for gap in gaps:
        tell(f"svirt-label: not read: {printable(gap)}\n")
    return ExitCode.INCOMPLETE if done.kept_count or gaps else ExitCode.OK


_STATES = {"open": "stopped part way", "done": "done", "undone": "undone"}


# ---------------------------------------------------------------------------------------------
# Options to values
# ---------------------------------------------------------------------------------------------


def _request(options: argparse.Namespace) -> Request:
    from svirtlib.backends.storageplan import Request
    from svirtlib.storagetypes import Purpose

    volumes: list[str] = []
    if options.pool:
        from svirtlib.backends.host import read_pool

        for name in options.pool:
            volumes += read_pool(name, options.connect)
    return Request(
        paths=tuple(options.paths),
        volumes=tuple(volumes),
        purpose=Purpose(options.purpose),
        type=options.type,
        range=options.range,
        kind=options.kind,
        any_type=options.any_type,
        override=getattr(options, "override", False),
        force=options.force,
        cross=options.cross,
        root=options.root,
        offline=options.offline,
        most=options.max_changes,
    )


def read_guests(options: argparse.Namespace) -> tuple[Optional[Inventory], list[str]]:
    """Return the guests that libvirt knows, or None, and what could not be learnt of them.

    Without a libvirt daemon there is none to ask; which images are open, the kernel tells.

    Raises:
        BackendError: a libvirt was named and cannot be asked.
    """
    from svirtlib.backends import host
    from svirtlib.backends.inuse import status_files
    from svirtlib.errors import BackendError, BackendUnavailableError

    if options.xml:
        inventory = host.read_documents(options.xml, files=True)
        return inventory, [f"{gap.what}: {gap.reason}" for gap in inventory.unreadable]
    if options.root != "/" and options.connect is None:
        # The guests of this host do not run from an image that is being built; if one does,
        # its process has it open.
        return None, []
    try:
        inventory = host.read_host(options.connect, processes=False)
    except BackendUnavailableError:
        if options.connect is not None:
            raise
        noted = status_files()
        if noted:
            return None, [
                f"libvirt does not run, but guests do: {', '.join(noted[:10])}; start it, so that "
                f"it can tell which images are theirs"
            ]
        return None, []
    except BackendError as error:
        if options.connect is not None:
            raise
        return None, [f"libvirt: {error}"]
    return inventory, [f"{gap.what}: {gap.reason}" for gap in inventory.unreadable]


@contextlib.contextmanager
def show_progress(options: argparse.Namespace, what: str) -> Iterator[Callable[[int], None]]:
    """On a terminal, show how many files were done."""
    wanted = not options.quiet and sys.stderr.isatty()
    shown = False

    def show(count: int) -> None:
        nonlocal shown
        if wanted:
            shown = True
            tell(f"\r{count} {what}")

    try:
        yield show
    finally:
        if shown:
            tell("\r\033[K")


# ---------------------------------------------------------------------------------------------
# Values to text
# ---------------------------------------------------------------------------------------------


def _tell_gaps(made: Plan, gaps: Sequence[str]) -> bool:
    """Tell what could not be looked at; return whether there is any."""
    for note in made.notes:
        tell(f"svirt-label: {printable(note)}\n")
    told = [*gaps, *(f"{what}: {reason}" for what, reason in made.unreadable)]
    for gap in dict.fromkeys(told[:_SHOWN]):
        tell(f"svirt-label: not read: {printable(gap)}\n")
    if len(told) > _SHOWN:
        tell(f"svirt-label: not read: {len(told) - _SHOWN} more\n")
    return bool(told)


def _plan_document(made: Plan, request: Request, gaps: Sequence[str]) -> dict[str, object]:
    from svirtlib.storage import shell_commands

    return {
        "rules": [_rule_document(target) for target in made.targets],
        "files": {
            "checked": made.checked,
            "to_change": made.to_change,
            "kept": made.kept_count,
        },
        "changes": [
            {"path": change.path, "from": change.old, "to": change.new} for change in made.changes
        ],
        "changes_complete": len(made.changes) == made.to_change,
        "kept": [
            {"path": kept.path, "label": kept.label, "reason": kept.reason} for kept in made.kept
        ],
        "commands": shell_commands(made.targets, force=request.force),
        "notes": list(made.notes),
        "unreadable": [
            *({"what": "guests", "reason": gap} for gap in gaps),
            *({"what": what, "reason": reason} for what, reason in made.unreadable),
        ],
        "pending": made.pending,
        "complete": not gaps and not made.unreadable,
    }


def _rule_document(target: Target) -> dict[str, object]:
    from svirtlib.storagepaths import shown

    rule = target.rule
    return {
        "path": shown(target.path),
        "action": rule.action.value,
        "pattern": rule.pattern,
        "kind": rule.kind,
        "context": rule.context,
        "before": rule.before,
        "replaces": rule.replaces,
        "shadowed_by": [
            {
                "pattern": conflict.pattern,
                "place": conflict.place,
                "context": conflict.context,
                "path": conflict.path,
            }
            for conflict in rule.shadowed_by
        ],
        "labels": target.labels,
        "advice": target.advice,
        "notes": list(target.notes),
    }


def _plan_text(made: Plan, request: Request, verb: str) -> Iterator[str]:
    from svirtlib.storage import shell_commands
    from svirtlib.storagepaths import shown

    for target in made.targets:
        rule = target.rule
        yield printable(shown(target.path))
        kind = "" if rule.kind == "a" else f" (kind {rule.kind})"
        yield f"  rule      {_ACTIONS[rule.action.value]}: {rule.pattern}{kind} {rule.context}"
        if rule.before is not None and rule.before != rule.context:
            yield f"  before    {rule.before}"
        if rule.replaces is not None:
            yield (
                f"  conflict  the rules give it {rule.replaces} now, the type of another service; "
                f"apply takes it only with --override"
            )
        for conflict in rule.shadowed_by:
            yield (
                f"  shadowed  for {printable(conflict.path)} by {printable(conflict.pattern)} "
                f"({conflict.place}): {conflict.context or '<<none>>'}"
            )
        if target.advice is not None:
            yield f"  instead   {printable(target.advice)}"
        for note in target.notes:
            yield f"  note      {printable(note)}"
    yield ""
    yield f"{made.checked} files looked at, {made.to_change} {verb}"
    yield from _some(
        made.to_change,
        (
            f"{printable(change.path)}: {printable(change.old or 'no label')} -> {change.new}"
            for change in made.changes
        ),
    )
    if made.kept_count:
        yield f"{made.kept_count} more have another label and stay as they are"
        yield from _some(
            made.kept_count,
            (
                f"{printable(kept.path)} ({printable(kept.label or 'no label')}): {kept.reason}"
                for kept in made.kept
            ),
        )
    commands = shell_commands(made.targets, force=request.force)
    if made.pending and commands:
        yield "the same by hand:"
        yield from (f"  {printable(command)}" for command in commands)


_ACTIONS = {
    "add": "add",
    "modify": "change",
    "present": "there already",
    "covered": "not needed, other rules do",
    "useless": "without effect",
}


def _some(count: int, lines: Iterator[str]) -> Iterator[str]:
    """Yield the first lines, indented, and how many more there are."""
    number = 0
    for number, line in enumerate(lines, 1):
        yield f"  {line}"
        if number == _SHOWN:
            break
    if count > number:
        yield f"  and {count - number} more"
