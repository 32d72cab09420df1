"""The report as lines of JSON (NDJSON): the summary first, then a line for each finding and gap.

Each line says what it is in ``kind``: ``report``, ``finding``, ``unreadable`` or ``not_run``; the
other keys are those of the one-document report, ``svirt-label/report/1``. Lines of many hosts
can be put into one file: each names its host.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from svirtlib.findings import Report
from svirtlib.formats.json_report import document

__all__ = ["SCHEMA", "format_report"]

SCHEMA = "svirt-label/report-line/1"

_PARTS = (("finding", "findings"), ("unreadable", "unreadable"), ("not_run", "not_run"))


def format_report(report: Report) -> str:
    """Return the report as text with a newline at the end of each line."""
    return "".join(json.dumps(line) + "\n" for line in _lines(document(report)))


def _lines(whole: dict[str, object]) -> Iterator[dict[str, object]]:
    host = whole["host"]
    name = host.get("name") if isinstance(host, dict) else None
    parts = {kind: whole.pop(key) for kind, key in _PARTS}
    lists = {kind: entries for kind, entries in parts.items() if isinstance(entries, list)}
    counts = {kind: len(entries) for kind, entries in lists.items()}
    yield {**whole, "schema": SCHEMA, "kind": "report", "counts": counts}
    for kind, entries in lists.items():
        for entry in entries:
            yield {"schema": SCHEMA, "kind": kind, "host": name, **entry}
