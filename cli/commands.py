"""One short function per verb: call the library, format, write, return the exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Callable, Optional, Union

from svirtlib import Context, Level, Range
from svirtlib.cli import reports
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.streams import tell, write_result
from svirtlib.findings import Report, Severity
from svirtlib.guests import Guest, Inventory
from svirtlib.mls import DEFAULT_SPACE, Relation

__all__ = ["COMMANDS"]


def check(options: argparse.Namespace) -> int:
    """Take the inventory, apply the rules, report."""
    from svirtlib.checks import ALL_CHECKS, cut, run_checks, select_checks

    if options.list_rules:
        rows = [(rule.ident, rule.severity.label, rule.summary) for rule in ALL_CHECKS]
        return _write_rows(options, ("rule", "severity", "summary"), rows, "rules")
    checks = select_checks(options.only)
    ignore = _ignored(options)
    for rule, _ in ignore:
        select_checks([rule])
    report = run_checks(
        _inventory(options, policy=options.policy or True),
        checks,
        guests=options.guests,
        ignore=ignore,
        subjects=options.max_subjects,
    )
    if options.format not in (None, "table"):
        report = cut(report, options.max_subjects)
    rules = {rule.ident: (rule.severity, rule.summary) for rule in checks}
    _write_report(options, report, rules)
    return reports.status(options, report)


def audit(options: argparse.Namespace) -> int:
    """Apply the rules about consoles, devices and the host's configuration."""
    from svirtlib.cli.audit import run

    if options.list_rules:
        from svirtlib.audit import ALL_RULES

        rows = [(rule.ident, rule.severity.label, rule.summary) for rule in ALL_RULES]
        return _write_rows(options, ("rule", "severity", "summary"), rows, "rules")

    def write(report: Report) -> None:
        from svirtlib.audit import select_audit_rules

        chosen = select_audit_rules(options.only)
        rules = {rule.ident: (rule.severity, rule.summary) for rule in chosen}
        _write_report(options, report, rules)

    def status(report: Report) -> int:
        return reports.status(options, report)

    progress = _Progress() if _wants_progress(options) else None
    return run(options, _ignored(options), progress, write, status, _write)


def console_rules(options: argparse.Namespace) -> int:
    """Make the rules that keep users to their own consoles."""
    from svirtlib.cli.consolerules import run

    return run(options, _write)


def _ignored(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the rules, and the guests, that the user wants left out."""
    from svirtlib.errors import SelectionError

    ignore = []
    for text in options.ignore:
        rule, equals, guest = text.partition("=")
        if equals and not guest:
            # A variable that is empty must not ignore the rule for all guests.
            raise SelectionError(f"--ignore {text}: a guest is missing after the '='")
        ignore.append((rule, guest))
    return ignore


def list_labels(options: argparse.Namespace) -> int:
    """List the labels in use, or those that are reserved."""
    if options.reserved:
        from svirtlib.cli.allocation import list_reserved

        return list_reserved(options, _write, _write_rows)
    inventory = _inventory(options)
    if options.format == "json":
        return _write_guests(options, inventory, inventory.guests)
    rows = [
        (
            guest.name,
            "running" if guest.running else "shut off",
            _pid(guest),
            _context(guest) or "-",
            _learnt(guest),
        )
        for guest in inventory.guests
    ]
    headings = ("guest", "state", "pid", "context", "learnt from")
    _write_rows(options, headings, rows, "guests")
    return _incomplete(inventory)


def show(options: argparse.Namespace) -> int:
    """Show one guest with its images."""
    from svirtlib.checks import find_guests

    inventory = _inventory(options)
    guests = find_guests(inventory, options.guest)
    if options.format == "json":
        return _write_guests(options, inventory, guests)
    labels = {label.path: label for label in inventory.files if label.seen}
    for guest in guests:
        seclabel = guest.seclabel
        rows = [
            ("guest", guest.name),
            ("uuid", guest.uuid or "-"),
            ("state", "running" if guest.running else "shut off"),
            ("seclabel", "none stated" if seclabel is None else seclabel.type.value),
            ("pid", _pid(guest)),
            ("context", _context(guest) or "-"),
            ("learnt from", _learnt(guest)),
        ]
        for image in guest.images:
            label = labels.get(image.path or "")
            context = "not looked at" if label is None else label.context or "no label"
            rows.append(
                (image.target or image.use.value, f"{image.name} ({image.mode.value}): {context}")
            )
        _write_rows(options, ("what", "value"), rows, "guest")
    return _incomplete(inventory)


def export(options: argparse.Namespace) -> int:
    """Write the inventory as a snapshot."""
    from svirtlib.snapshot import dump_snapshot

    inventory = _inventory(options, policy=options.policy or True, devices=True)
    _write(options, dump_snapshot(inventory))
    return _incomplete(inventory)


def explain(options: argparse.Namespace) -> int:
    """Explain one label or compare two."""
    label = _label(options.label)
    facts: dict[str, object] = {
        "input": options.label,
        "canonical": str(label),
        "kind": type(label).__name__.lower(),
    }
    lines = [("canonical", str(label)), ("kind", type(label).__name__.lower())]
    level = _high(label)
    if isinstance(label, Context):
        lines += [("user", label.user), ("role", label.role), ("type", label.type)]
    if level is not None:
        lines.append(("sensitivity", level.space.sensitivities[level.sensitivity]))
        lines.append(("categories", f"{len(level.categories)}: {level.categories or 'none'}"))
        lines.append(("use", _use_of(level)))
    if options.other is not None:
        other = _label(options.other)
        other_level = _high(other)
        if level is None or other_level is None:
            from svirtlib.errors import SelectionError

            raise SelectionError("a context without a range has no level to compare")
        relation = level.relation_to(other_level)
        facts.update(
            other=str(other),
            relation=relation.value,
            join=str(level.join(other_level)),
            meet=str(level.meet(other_level)),
        )
        lines += [
            ("compared with", str(other)),
            ("relation", relation.value),
            ("meaning", _MEANINGS[relation]),
            ("join", str(facts["join"])),
            ("meet", str(facts["meet"])),
        ]
    if options.format == "json":
        _write(options, json.dumps(facts, indent=2) + "\n")
        return ExitCode.OK
    return _write_rows(options, ("label", options.label), lines, "label")


def access(options: argparse.Namespace) -> int:
    """Ask the policy what one context may do to another."""
    from svirtlib.cli.access import run

    return run(options, _write, _write_rows)


def generate(options: argparse.Namespace) -> int:
    """Print a seclabel, or a document with it."""
    from svirtlib.cli.generate import run

    return run(options, _inventory, _write)


def validate(options: argparse.Namespace) -> int:
    """Judge the seclabels of files as libvirt would."""
    from svirtlib.cli.validate import run
    from svirtlib.formats import table

    def format_table(report: Report) -> str:
        color = _color(options)
        return table.format_report(report, width=_width(), color=color, verbose=options.verbose)

    def status(report: Report) -> int:
        return reports.status(options, report)

    return run(options, _write, format_table, status)


def allocate(options: argparse.Namespace) -> int:
    """Reserve free levels."""
    from svirtlib.cli import allocation

    return allocation.allocate(options, _inventory, _write)


def reserve(options: argparse.Namespace) -> int:
    """Reserve a level that was chosen elsewhere."""
    from svirtlib.cli import allocation

    return allocation.reserve(options, _write)


def release(options: argparse.Namespace) -> int:
    """End a reservation."""
    from svirtlib.cli import allocation

    return allocation.release(options, _write)


def collect(options: argparse.Namespace) -> int:
    """Drop reservations that nobody needs."""
    from svirtlib.cli import allocation

    return allocation.collect(options, _inventory, _write, _write_rows)


def sync(options: argparse.Namespace) -> int:
    """Take note of what this host uses."""
    from svirtlib.cli import allocation

    return allocation.sync(options, _inventory, _write)


def hook(options: argparse.Namespace) -> int:
    """Judge a guest that starts, or install what does so."""
    from svirtlib.cli.hook import run

    return run(options, _write)


def storage(options: argparse.Namespace) -> int:
    """Label storage for guests."""
    from svirtlib.cli import storage

    return storage.run(options, _write)


def image(options: argparse.Namespace) -> int:
    """Look at single images, and mend leftovers."""
    from svirtlib.cli import image

    return image.run(options, _write)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "check": check,
    "audit": audit,
    "console-rules": console_rules,
    "list": list_labels,
    "show": show,
    "export": export,
    "explain": explain,
    "access": access,
    "generate": generate,
    "validate": validate,
    "allocate": allocate,
    "reserve": reserve,
    "release": release,
    "gc": collect,
    "sync": sync,
    "hook": hook,
    "storage": storage,
    "image": image,
}


def _inventory(
    options: argparse.Namespace, *, policy: Union[str, bool] = False, devices: bool = False
) -> Inventory:
    from svirtlib.backends import host, output
    from svirtlib.errors import SelectionError

    elsewhere = options.xml or options.snapshot is not None or options.sosreport is not None
    if options.connect is not None and elsewhere:
        raise SelectionError(
            "--connect is one place to look, --xml, --snapshot and --sosreport are others"
        )
    if options.sosreport is not None:
        if options.files or options.processes:
            raise SelectionError("a sosreport holds all there is; leave out --files, --processes")
        return host.read_sosreport(options.sosreport, policy=policy)
    if options.snapshot is not None:
        from svirtlib.snapshot import MAX_BYTES, load_snapshot

        if options.files or options.processes:
            raise SelectionError("a snapshot holds all there is; leave out --files, --processes")
        found = load_snapshot(output.read_file(options.snapshot, MAX_BYTES), options.snapshot)
        # What the policy of its host said is in it; only a named one is asked anew.
        return host.judged_by(found, policy) if isinstance(policy, str) else found
    progress = _Progress() if _wants_progress(options) else None
    if options.xml:
        return host.read_documents(
            options.xml,
            files=bool(options.files),
            processes=bool(options.processes),
            policy=policy,
            devices=devices,
            progress=progress,
        )
    return host.read_host(
        options.connect,
        files=options.files,
        processes=options.processes,
        policy=policy,
        devices=devices,
        timeout=options.timeout,
        progress=progress,
    )


class _Progress:
    """Shows on a terminal how far the reading has come, for hosts with many guests."""

    _FROM = 50

    def __call__(self, done: int, total: int) -> None:
        if total < self._FROM:
            return
        if done == total:
            sys.stderr.write("\r\033[K")
        elif done % max(1, total // 100) == 0:
            sys.stderr.write(f"\rreading guests: {done} of {total}")
        sys.stderr.flush()


def _wants_progress(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr.isatty()


def _write_report(
    options: argparse.Namespace, report: Report, rules: Mapping[str, tuple[Severity, str]]
) -> None:
    def format_table(report: Report) -> str:
        from svirtlib.formats import table

        color = _color(options)
        return table.format_report(report, width=_width(), color=color, verbose=options.verbose)

    _write(options, reports.format_report(options, report, rules, format_table))


def _incomplete(inventory: Inventory) -> int:
    for gap in dict.fromkeys(f"{entry.what}: {entry.reason}" for entry in inventory.unreadable):
        from svirtlib.formats.plain import printable

        tell(f"svirt-label: not read: {printable(gap)}\n")
    return ExitCode.INCOMPLETE if inventory.unreadable else ExitCode.OK


def _write(options: argparse.Namespace, text: str) -> None:
    if options.output is None or options.output == "-":
        write_result(text)
    else:
        from svirtlib.backends.output import write_file

        # Metrics hold no names, and whoever collects them is another user.
        write_file(options.output, text, mode=0o644 if options.format == "prometheus" else None)


def _write_rows(
    options: argparse.Namespace,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    name: str,
) -> int:
    if options.format == "json":
        listed = [dict(zip(headings, row)) for row in rows]
        _write(options, json.dumps({name: listed}, indent=2) + "\n")
    else:
        from svirtlib.formats.table import format_rows

        _write(options, format_rows(headings, rows, width=_width(), color=_color(options)))
    return ExitCode.OK


def _write_guests(
    options: argparse.Namespace, inventory: Inventory, guests: Sequence[Guest]
) -> int:
    labels = {label.path: label for label in inventory.files if label.seen}
    document = {
        "schema": "svirt-label/list/1",
        "guests": [
            {
                "name": guest.name,
                "uuid": guest.uuid,
                "running": guest.running,
                "pid": None if guest.process is None else guest.process.pid,
                "context": _context(guest),
                "learnt_from": _learnt(guest),
                "images": [
                    {
                        "name": image.name,
                        "path": image.path,
                        "target": image.target,
                        "mode": image.mode.value,
                        "context": label.context if label else None,
                    }
                    for image in guest.images
                    for label in [labels.get(image.path or "")]
                ],
            }
            for guest in guests
        ],
    }
    _write(options, json.dumps(document, indent=2) + "\n")
    return _incomplete(inventory)


def _context(guest: Guest) -> Optional[str]:
    if guest.process is not None:
        return guest.process.context
    return None if guest.seclabel is None else guest.seclabel.label


def _learnt(guest: Guest) -> str:
    return guest.source if guest.process is None else guest.process.source


def _pid(guest: Guest) -> str:
    return "-" if guest.process is None or guest.process.pid is None else str(guest.process.pid)


def _label(text: str) -> Union[Level, Range, Context]:
    """Parse a label of any kind: what starts with a sensitivity is no context."""
    start = text.partition(":")[0].partition("-")[0]
    if start not in DEFAULT_SPACE.sensitivities and text.count(":") > 1:
        return Context.parse(text)
    return Range.parse(text) if "-" in text else Level.parse(text)


def _high(label: Union[Level, Range, Context]) -> Optional[Level]:
    if isinstance(label, Context):
        return label.level
    return label.high if isinstance(label, Range) else label


#: What a relation of two levels means for a guest and the images of another.
_MEANINGS = {
    Relation.EQUAL: "a guest with either reaches the images with the other: no separation",
    Relation.DOMINATES: "a guest with the first reaches images with the second, not the reverse",
    Relation.DOMINATED: "a guest with the second reaches images with the first, not the reverse",
    Relation.INCOMPARABLE: "neither reaches images with the other: guests are kept apart",
}


def _use_of(level: Level) -> str:
    count = len(level.categories)
    if count == 0:
        return "no categories: every guest reaches an image with this level"
    if count == 1:
        return "one category: every guest that has it among its own reaches an image with it"
    if count == 2:
        return "two categories: what libvirt gives each dynamic guest"
    return (
        f"{count} categories: a guest with it reaches every image whose categories are among them"
    )


def _color(options: argparse.Namespace) -> bool:
    if options.color != "auto":
        return bool(options.color == "always")
    if options.output not in (None, "-"):
        return False
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout is not None and sys.stdout.isatty() and not plain


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns
