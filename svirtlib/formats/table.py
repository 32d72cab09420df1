"""The report for a person to read, with rich; the only module that imports it.

All decoration is ASCII, so that the text comes out whole on any terminal and in any file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
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

#: Longer lines than this are hard to read; the rest of a wide terminal stays free.
_WIDEST = 100
#: Columns of the names before the details of a finding.
_NAMES = 9
#: How many lines or names are shown of many, unless the user wants all.
_FEW = 3
_FEW_NAMES = 10
#: A message names so many guests at most; where there are more, a line of their own does.
_IN_MESSAGE = 4
#: Columns between the columns of a table, and the fewest at which its last one is wrapped.
_GAP = 2
_NARROWEST = 20

#: Stands for a space at which a line is not to be broken; no printable text holds it.
_GLUE = "\ue000"


def format_report(report: Report, *, width: int, color: bool, verbose: bool = False) -> str:
    """Return the report as text for a terminal of *width* columns.

    Args:
        report: what to show.
        width: columns to wrap at.
        color: whether to write terminal colour codes.
        verbose: show all evidence, where each piece was seen, and what was passed over.
    """
    page = _Page(width, color)
    indent = len(f"{len(report.findings)}. ")
    remedies: dict[str, int] = {}
    number = 0
    for severity in sorted(Severity, reverse=True):
        findings = [finding for finding in report.findings if finding.severity is severity]
        if findings:
            page.heading(
                severity.label.upper(), _counted(len(findings), "finding"), _STYLES[severity]
            )
        for finding in findings:
            number += 1
            entry = _Entry(page, finding, indent, verbose=verbose)
            entry.put(number, remedies.setdefault(finding.remedy, number))
    if report.unreadable:
        page.heading("NOT JUDGED", str(len(report.unreadable)), "bold magenta")
        for gap in report.unreadable:
            page.text(f"{gap.what}: {gap.reason}", indent=indent, hang=2)
        page.blank()
    if verbose:
        for skipped in report.not_run:
            page.text(f"not run: {skipped.rule} ({skipped.reason})", style="dim", hang=2)
        for note in report.notes:
            page.text(f"note: {note}", style="dim", hang=2)
        if report.not_run or report.notes:
            page.blank()
    page.text(*_summary(report), hang=2)
    if not verbose and _hint(report):
        page.text(_hint(report), style="dim", hang=2)
    return page.result()


def format_rows(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, color: bool
) -> str:
    """Return rows of text as a table.

    No cell is cut and no word is broken, so that labels and paths can be searched for and
    copied; the last column is wrapped at its spaces where it has room.
    """
    page = _Page(width, color)
    cells = [[printable(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(map(cell_len, column)) + _GAP for column in zip(*cells)][:-1]
    room = page.width - sum(widths)
    for place, row in enumerate(cells):
        before = "".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths))
        for line in _wrapped(row[-1], room) if room >= _NARROWEST else [row[-1]]:
            page.line(Text(before + line, "" if place else "bold"))
            before = " " * sum(widths)
    return page.result()


def _wrapped(text: str, room: int) -> list[str]:
    """Return the lines of a text, broken at spaces alone; a longer word gets its own line."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(f"{lines[-1]} {word}") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


class _Page:
    """Text that grows downwards."""

    def __init__(self, width: int, color: bool) -> None:
        self.width = max(width, 40)
        self.console = Console(
            file=io.StringIO(),
            width=self.width,
            force_terminal=color,
            color_system="standard" if color else None,
            no_color=not color,
            highlight=False,
            emoji=False,
            markup=False,
            legacy_windows=False,
        )

    def result(self) -> str:
        """Return all that was put on the page, without spaces at the ends of lines."""
        stream = self.console.file
        if not isinstance(stream, io.StringIO):
            raise TypeError("the console must write to memory")
        text = stream.getvalue().replace(_GLUE, " ")
        return "\n".join(line.rstrip() for line in text.split("\n"))

    def blank(self) -> None:
        """Put an empty line."""
        self.console.print()

    def line(self, line: Text) -> None:
        """Put one line, however long it is."""
        self.console.print(line, soft_wrap=True)

    def heading(self, title: str, count: str, style: str) -> None:
        """Put a title that spans the page, with the number of what follows."""
        dashes = "-" * (min(self.width, _WIDEST) - len(title) - len(count) - 2)
        line = Text.assemble((title, style), (f" {dashes} {count}", "dim"))
        self.line(line)
        self.blank()

    def text(
        self,
        text: str,
        style: str = "",
        *,
        head: Text | None = None,
        indent: int = 0,
        hang: int = 0,
    ) -> None:
        """Put text from outside, wrapped.

        Args:
            text: made printable here.
            style: of the text.
            head: what stands before its first line, inside the indentation.
            indent: columns before all lines.
            hang: more columns, before all lines but the first.
        """
        room = min(self.width, _WIDEST) - indent - hang
        body = Text(_glued(printable(text), room), style)
        for span in re.finditer("`[^`]*`", body.plain):
            body.stylize("bold", *span.span())
        lines = body.wrap(self.console, room, overflow="fold")
        for number, line in enumerate(lines):
            before = head if head is not None and number == 0 else Text()
            columns = indent + (hang if number else 0)
            row = Text(" " * (columns - cell_len(before.plain)))
            self.line(Text.assemble(before, row, line))


def _glued(text: str, room: int) -> str:
    """Return *text* with the commands that fit into *room* columns made unbreakable."""

    def glue(match: re.Match[str]) -> str:
        return match[0].replace(" ", _GLUE) if cell_len(match[0]) + 1 <= room else match[0]

    return re.sub("`[^`]*`[,;:.)]*", glue, text)


class _Entry:
    """One finding on a page."""

    def __init__(self, page: _Page, finding: Finding, indent: int, *, verbose: bool) -> None:
        self._page = page
        self._finding = finding
        self._indent = indent
        self._verbose = verbose

    def put(self, number: int, mended: int) -> None:
        """Put the finding; *mended* is the number of the first one with the same remedy."""
        finding, style = self._finding, _STYLES[self._finding.severity]
        self._page.text(
            finding.message, "bold", head=Text(f"{number}.", style), indent=self._indent
        )
        if finding.file is not None:
            line = "" if finding.line is None else f":{finding.line}"
            self._put("at", [f"{finding.file}{line}"])
        self._put("rule", [finding.rule], style)
        if mended == number or self._verbose:
            self._put("seen", self._evidence())
            self._put("guests", self._names(finding.guests, len(finding.guests)))
            if set(finding.reaches) != set(finding.guests):
                self._put("reaches", self._names(finding.reaches, finding.reaches_count))
            self._put("images", self._images())
        self._put("mend", [finding.remedy if mended == number else f"as for {mended}"])
        self._page.blank()

    def _put(self, name: str, texts: Sequence[str], style: str = "") -> None:
        """Put lines with their common name before the first."""
        for place, text in enumerate(texts):
            head = Text(f"{'':{self._indent}}{name if place == 0 else ''}", "dim")
            self._page.text(text, style, head=head, indent=self._indent + _NAMES)

    def _evidence(self) -> list[str]:
        evidence = self._finding.evidence
        sources = {item.source for item in evidence}
        if self._verbose and len(sources) == 1:
            return [*(item.text for item in evidence), f"in {evidence[0].source}"]
        if self._verbose:
            return [f"{item.text}, in {item.source}" for item in evidence]
        new = [item.text for item in evidence if not self._is_told(item.text)]
        # Rules list some of much evidence, so how much more there is cannot be told.
        return new if len(new) <= _FEW + 1 else [*new[:_FEW], "..."]

    def _is_told(self, text: str) -> bool:
        """Tell whether the message says what was seen, of whomever."""
        return text.partition(": ")[2] in self._finding.message

    def _names(self, names: Sequence[str], count: int) -> list[str]:
        """Return one line, if the message cannot have named all."""
        if count <= _IN_MESSAGE:
            return []
        shown = names if self._verbose else names[:_FEW_NAMES]
        more = f" and {count - len(shown)} more" if count > len(shown) else ""
        return [f"{', '.join(shown)}{more}"]

    def _images(self) -> list[str]:
        finding = self._finding
        texts = (finding.message, *(item.text for item in finding.evidence[:_FEW]))
        paths = [path for path in finding.paths if not any(path in text for text in texts)]
        return _few(paths, len(paths) if self._verbose else _FEW)


def _few(texts: Sequence[str], shown: int) -> list[str]:
    """Return the first of many texts and how many more there are."""
    if len(texts) <= shown + 1:
        return list(texts)
    return [*texts[:shown], f"... and {len(texts) - shown} more"]


def _summary(report: Report) -> tuple[str, str]:
    """Return the last line and its style."""
    counts = [
        f"{number} {severity.label}"
        for severity in sorted(Severity, reverse=True)
        for number in [sum(finding.severity is severity for finding in report.findings)]
        if number
    ]
    text = f"{_counted(report.guests, 'guest')} checked: {', '.join(counts) or 'no findings'}"
    if report.ignored:
        text += f"; {report.ignored} ignored"
    if not report.complete:
        text += f"; INCOMPLETE: {len(report.unreadable)} not judged"
    return text, "bold" if report.findings or not report.complete else "bold green"


def _hint(report: Report) -> str:
    """Return what else the user can have shown."""
    hints = []
    if report.not_run:
        hints.append(f"tells why {_counted(len(report.not_run), 'rule')} could not be applied")
    if report.findings:
        hints.append("shows where everything was seen")
    return f"-v {' and '.join(hints)}" if hints else ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
