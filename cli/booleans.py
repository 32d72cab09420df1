"""``audit --apply-booleans``: options to calls, results to text."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable, Optional

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.streams import tell
from svirtlib.errors import SelectionError
from svirtlib.formats.plain import printable

if TYPE_CHECKING:
    from svirtlib.backends.booleans import BooleansSet
    from svirtlib.booleans import Boolean, BooleanPlan, PlannedBoolean
    from svirtlib.guests import Inventory
    from svirtlib.hostconfig import HostConfig

__all__ = ["add_options", "check_options", "run", "undo"]

Write = Callable[[argparse.Namespace, str], None]

#: Guests that are told by name in text; JSON has all.
_SHOWN = 4


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options about booleans."""
    group = parser.add_argument_group("SELinux booleans")
    group.add_argument(
        "--apply-booleans",
        nargs="?",
        choices=("plan", "apply", "undo"),
        const="plan",
        help="instead of a report: tell which booleans guests need and what would change (plan, "
        "the default), set them in one transaction, or take the last such change back",
    )
    group.add_argument(
        "--excess-off",
        action="store_true",
        help="with plan and apply: turn those off that are on and that no guest needs",
    )
    group.add_argument(
        "--exit-code", action="store_true", help="with plan: exit with 1 if apply would change any"
    )
    group.add_argument(
        "--offline",
        action="store_true",
        help="with apply: SELinux need not run here, the stored policy is what counts",
    )
    group.add_argument(
        "--journal",
        metavar="DIR",
        help="where changes are written down before they are made (default: as for storage)",
    )


def check_options(options: argparse.Namespace) -> None:
    """Refuse what does nothing.

    Raises:
        SelectionError: an option stands there without what it is for.
    """
    verb = options.apply_booleans
    for name, verbs in (
        ("excess_off", ("plan", "apply")),
        ("exit_code", ("plan",)),
        ("offline", ("apply",)),
        ("journal", ("apply", "undo")),
    ):
        if getattr(options, name) and verb not in verbs:
            words = " or ".join(f"--apply-booleans {word}" for word in verbs)
            raise SelectionError(f"--{name.replace('_', '-')} is for {words}")
    if verb is None:
        return
    if options.format not in (None, "table", "json"):
        raise SelectionError(f"--apply-booleans writes table or json, not {options.format}")
    if options.only or options.ignore:
        raise SelectionError("--only and --ignore are about rules, and --apply-booleans runs none")


def run(
    options: argparse.Namespace,
    inventory: Inventory,
    host: Optional[HostConfig],
    write: Write,
) -> int:
    """Tell or make the changes, and return the exit status."""
    from svirtlib.audit import plan_for_guests
    from svirtlib.backends import booleans
    from svirtlib.backends.changes import DEFAULT_FOLDER, Journals

    if host is None:
        raise SelectionError(
            "whose booleans are meant is not known: documents and other hosts' guests tell "
            "nothing of a host; name its files with --root (/ for this machine)"
        )
    made = plan_for_guests(inventory, host, guests=options.guests, turn_off=options.excess_off)
    root = host.root
    done = None
    if options.apply_booleans == "apply":
        from svirtlib.backends.storageapply import refuse_without_selinux

        refuse_without_selinux(root, offline=options.offline)
        done = booleans.BooleansSet({})
        if made.changes:
            with Journals(options.journal or DEFAULT_FOLDER) as journals:
                done = booleans.set_booleans(
                    made.changes, journals, root=root, offline=options.offline
                )
    notes = (*made.notes, *booleans.enforcement(host))
    if options.format == "json":
        document = _document(made, done, notes)
        write(options, json.dumps(document, indent=2) + "\n")
    else:
        write(
            options, "\n".join(_text(made, done, root=root, excess_off=options.excess_off)) + "\n"
        )
    for note in notes:
        tell(f"svirt-label: {printable(note)}\n")
    for what, reason in made.unreadable:
        tell(f"svirt-label: not read: {printable(what)}: {printable(reason)}\n")
    if options.exit_code and made.changes:
        return ExitCode.FINDINGS
    unmet = made.missing or (done is not None and done.unknown)
    return ExitCode.INCOMPLETE if made.unreadable or unmet else ExitCode.OK


def undo(options: argparse.Namespace, write: Write) -> int:
    """Take the last change of booleans back."""
    from svirtlib.backends import booleans
    from svirtlib.backends.changes import DEFAULT_FOLDER, Journals
    from svirtlib.cli import storagechange

    folder = options.journal or DEFAULT_FOLDER
    with Journals(folder) as journals:
        ident = booleans.last_change(journals, options.root or "/").ident
    return storagechange.undo_change(options, write, folder, ident)


def _document(
    made: BooleanPlan, done: Optional[BooleansSet], notes: tuple[str, ...]
) -> dict[str, object]:
    return {
        "schema": "svirt-label/booleans/1",
        "booleans": [
            {
                "name": one.name,
                "opens": one.opens,
                "exists": one.state is not None,
                "stored": None if one.state is None else one.state.stored,
                "live": None if one.state is None else one.state.live,
                "needs": [{"guest": guest, "what": what} for guest, what in one.needs],
                "action": one.action.value,
            }
            for one in made.booleans
        ],
        "pending": bool(made.changes) and done is None,
        "id": None if done is None else done.ident,
        "changed": None if done is None else dict(done.changed),
        "notes": list(notes),
        "unreadable": [{"what": what, "reason": reason} for what, reason in made.unreadable],
        "complete": not made.unreadable and not made.missing and not (done and done.unknown),
    }


def _text(
    made: BooleanPlan, done: Optional[BooleansSet], *, root: str, excess_off: bool
) -> Iterator[str]:
    from svirtlib.booleans import Action
    from svirtlib.wording import command

    for one in made.booleans:
        yield f"{one.name:<28}{_state(one.state):<24}{_ACTIONS[one.action.value]}".rstrip()
        yield from (f"  {line}" for line in _uses(one))
    yield ""
    words = [f"{name}={'on' if state else 'off'}" for name, state in made.changes.items()]
    if done is not None and done.changed:
        yield f"changed: {', '.join(words)}"
        yield f"to take it back: svirt-label storage undo {done.ident}"
    elif not words:
        yield "nothing is to be done: what guests need is on, now and after the next boot"
    else:
        yield f"would change: {', '.join(words)}"
        if root == "/":
            yield f"the same by hand: {command('setsebool', '-P', *words).strip('`')}"
    if done is not None and done.unknown:
        yield f"not changed, as the policy store does not know them: {', '.join(done.unknown)}"
    left = [one.name for one in made.booleans if one.action is Action.EXCESS]
    if left and not excess_off:
        yield f"on without need: {', '.join(left)}; --excess-off turns that off"
    for one in made.missing:
        yield f"{one.name} is needed, and this policy has none of that name"


_ACTIONS = {
    "none": "",
    "turn-on": "turn on",
    "turn-off": "turn off",
    "excess": "on without need",
    "missing": "needed, and not in this policy",
}


def _uses(one: PlannedBoolean) -> Iterator[str]:
    """Yield what needs a boolean, the guests that need it for the same thing in one line."""
    by_what: dict[str, list[str]] = {}
    for guest, what in one.needs:
        by_what.setdefault(what, []).append(guest)
    for what, guests in by_what.items():
        more = f" and {len(guests) - _SHOWN} more" if len(guests) > _SHOWN else ""
        yield printable(f"{what}: {', '.join(guests[:_SHOWN])}{more}")


def _state(state: Optional[Boolean]) -> str:
    if state is None:
        return "does not exist"
    words = {None: "unknown", True: "on", False: "off"}
    if state.live is None:
        return f"{words[state.stored]} (stored)"
    if state.drifts:
        return f"{words[state.live]}, {words[state.stored]} at boot"
    return words[state.live]
