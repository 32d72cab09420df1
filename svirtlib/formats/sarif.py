"""The report as SARIF 2.1.0, which code hosts show beside the lines of a file.

One run; each rule with its summary and its page, each finding with its file and line where it
has them. What could not be read, and input that is no document, are notifications, and make
``executionSuccessful`` false.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Optional
from urllib.parse import quote as percent_encode

from svirtlib.errors import DomainXMLError
from svirtlib.findings import Finding, Report, Severity

__all__ = ["format_report"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_LEVELS = {
    Severity.CRITICAL: "error",
    Severity.HIGH: "error",
    Severity.MEDIUM: "warning",
    Severity.LOW: "note",
    Severity.INFO: "note",
}

#: What code hosts sort by: 9 and up is critical, 7 high, 4 medium.
_SCORES = {
    Severity.CRITICAL: "9.5",
    Severity.HIGH: "8.0",
    Severity.MEDIUM: "5.5",
    Severity.LOW: "2.0",
    Severity.INFO: "0.5",
}


def format_report(
    report: Report,
    rules: Mapping[str, tuple[Severity, str]],
    *,
    version: str,
    malformed: Sequence[DomainXMLError] = (),
) -> str:
    """Return the report as SARIF text with a newline at its end.

    Args:
        report: what to show.
        rules: for each identifier its severity and its summary.
        version: of the program.
        malformed: input that could not be judged.
    """
    names = sorted({finding.rule for finding in report.findings} | rules.keys())
    notifications: list[dict[str, object]] = [
        {"level": "error", "message": {"text": f"{entry.what}: {entry.reason}"}}
        for entry in report.unreadable
    ]
    notifications += [
        {
            "level": "error",
            "message": {"text": error.reason},
            "locations": [_location(error.source, error.line)],
        }
        for error in malformed
    ]
    notifications += [{"level": "note", "message": {"text": note}} for note in report.notes]
    run = {
        "tool": {
            "driver": {
                "name": "svirt-label",
                "version": version,
                "rules": [_rule(name, *rules.get(name, (None, name))) for name in names],
            }
        },
        "invocations": [
            {
                "executionSuccessful": report.complete and not malformed,
                "toolExecutionNotifications": notifications,
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, names.index(finding.rule)) for finding in report.findings],
    }
    document = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2) + "\n"


def _rule(name: str, severity: Optional[Severity], summary: str) -> dict[str, object]:
    rule: dict[str, object] = {
        "id": name,
        "shortDescription": {"text": f"{summary[:1].upper()}{summary[1:]}."},
        "help": {"text": f"docs/rules/{name}.md tells how it happens and how to mend it."},
    }
    if severity is not None:
        rule["defaultConfiguration"] = {"level": _LEVELS[severity]}
        rule["properties"] = {"security-severity": _SCORES[severity], "tags": ["security"]}
    return rule


def _result(finding: Finding, index: int) -> dict[str, object]:
    result: dict[str, object] = {
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.message}. Mend: {finding.remedy}"},
    }
    if finding.file is not None:
        result["locations"] = [_location(finding.file, finding.line)]
        result["properties"] = {"layer": finding.layer, "code": finding.code}
    elif finding.guests:
        result["locations"] = [
            {"logicalLocations": [{"name": guest, "kind": "resource"} for guest in finding.guests]}
        ]
    return result


def _location(file: str, line: Optional[int]) -> dict[str, object]:
    physical: dict[str, object] = {"artifactLocation": {"uri": _uri(file)}}
    if line is not None:
        physical["region"] = {"startLine": line}
    return {"physicalLocation": physical}


def _uri(file: str) -> str:
    """Return a path as a URI: relative to the place of the run, or absolute."""
    path = PurePath(file)
    # A name that is no text holds surrogates for its bytes.
    encoded = percent_encode(file.encode("utf-8", "surrogateescape"))
    if path.is_absolute():
        return f"file://{encoded}"
    return encoded[2:] if encoded.startswith("./") else encoded
