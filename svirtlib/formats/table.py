"""The report for a person to read, with rich; the only module that imports it."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from svirtlib.findings import Finding, Report, Severity
from svirtlib.formats.plain import printable

__all__ = ["format_report", "format_rows"]

_STYLES = {
    Severity.CRITICAL: "bold red",
    Severity.HIGH: "red",
    Severity.MEDIUM: "yellow",
    Severity.LOW: "cyan",
    Severity.INFO: "dim",
}


def format_report(report: Report, *, width: int, color: bool, verbose: bool = False) -> str:
    """Return the report as text for a terminal of *width* columns.

    Args:
        report: what to show.
        width: columns to wrap at.
        color: whether to write terminal colour codes.
        verbose: show the evidence of each finding, and what was passed over.
    """
    console = _console(width, color)
    for severity in sorted(Severity, reverse=True):
        findings = [finding for finding in report.findings if finding.severity is severity]
        if findings:
            console.print(
                Rule(Text(severity.label.upper(), _STYLES[severity]), align="left", style="dim")
            )
            for finding in findings:
                _print_finding(console, finding, verbose)
    if report.unreadable:
        console.print(Rule(Text("NOT JUDGED", "magenta"), align="left", style="dim"))
        for entry in report.unreadable:
            console.print(_line(f"{entry.what}: {entry.reason}"))
        console.print()
    if verbose:
        for skipped in report.not_run:
            console.print(_line(f"rule {skipped.rule} was not run: {skipped.reason}", "dim"))
        for note in report.notes:
            console.print(_line(note, "dim"))
    console.print(_summary(report))
    return _text(console)


def format_rows(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, color: bool
) -> str:
    """Return rows of text as a table."""
    console = _console(width, color)
    table = Table(box=None, pad_edge=False, header_style="bold" if color else "")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
    return _text(console)


def _console(width: int, color: bool) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        highlight=False,
        emoji=False,
        markup=False,
        legacy_windows=False,
    )


def _text(console: Console) -> str:
    stream = console.file
    if not isinstance(stream, io.StringIO):
        raise TypeError("the console must write to memory")
    return "\n".join(line.rstrip() for line in stream.getvalue().split("\n"))


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style)


def _print_finding(console: Console, finding: Finding, verbose: bool) -> None:
    head = Text(finding.rule, _STYLES[finding.severity])
    head.append(f"  {printable(finding.message)}", "default")
    console.print(head)
    lines = [("mend", finding.remedy)]
    lines += [("label", label) for label in finding.labels[:4]]
    if finding.reaches_count > 1 and tuple(finding.reaches) != tuple(finding.guests):
        lines.append(("reaches", f"{finding.reaches_count} guests"))
    if verbose:
        lines += [("seen", f"{item.source}: {item.text}") for item in finding.evidence]
    grid = Table.grid(padding=(0, 1))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in lines:
        grid.add_row(name, Text(printable(text)))
    console.print(Padding(grid, (0, 0, 1, 4)))


def _summary(report: Report) -> Text:
    counts = [
        f"{number} {severity.label}"
        for severity in sorted(Severity, reverse=True)
        for number in [sum(finding.severity is severity for finding in report.findings)]
        if number
    ]
    guests = "1 guest" if report.guests == 1 else f"{report.guests} guests"
    text = f"{guests} checked: {', '.join(counts) or 'no findings'}"
    if report.ignored:
        text += f"; {report.ignored} ignored"
    if report.not_run:
        text += f"; {len(report.not_run)} rules not run (-v tells why)"
    if not report.complete:
        text += f"; INCOMPLETE: {len(report.unreadable)} not judged"
    style = "bold" if report.findings or not report.complete else "bold green"
    return Text(text, style)
