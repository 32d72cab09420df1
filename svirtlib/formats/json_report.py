"""The report as one JSON document, schema ``svirt-label/report/1``.

The schema is published as ``svirtlib/schemas/report-1.json``. Text from the host is kept as it
is and escaped to ASCII, so that a guest's name can neither forge a line nor move a cursor.
"""

from __future__ import annotations

import json

from svirtlib.findings import Finding, Report

__all__ = ["SCHEMA", "document", "format_report"]

SCHEMA = "svirt-label/report/1"


def format_report(report: Report) -> str:
    """Return the report as JSON text with a newline at its end."""
    return json.dumps(document(report), indent=2) + "\n"


def document(report: Report) -> dict[str, object]:
    """Return the report as what JSON is made of."""
    mode = report.host.mode
    return {
        "schema": SCHEMA,
        "complete": report.complete,
        "host": {
            "name": report.host.name,
            "selinux": {
                "mode": None if mode is None else mode.value,
                "policy": report.host.policy,
            },
        },
        "guests": report.guests,
        "findings": [_finding(finding) for finding in report.findings],
        "unreadable": [{"what": entry.what, "reason": entry.reason} for entry in report.unreadable],
        "not_run": [{"rule": entry.rule, "reason": entry.reason} for entry in report.not_run],
        "notes": list(report.notes),
        "ignored": report.ignored,
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.label,
        "guests": list(finding.guests),
        "reaches": list(finding.reaches),
        "reaches_count": finding.reaches_count,
        "paths": list(finding.paths),
        "labels": list(finding.labels),
        "message": finding.message,
        "remedy": finding.remedy,
        "evidence": [
            {"source": evidence.source, "text": evidence.text} for evidence in finding.evidence
        ],
        "file": finding.file,
        "line": finding.line,
        "layer": finding.layer,
        "code": finding.code,
    }
