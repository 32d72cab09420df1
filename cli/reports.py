"""A report in the format that was asked for, and the exit status that goes with it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Callable

import svirtlib
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.findings import Report, Severity

__all__ = ["FORMATS", "format_report", "status"]

#: What a report of rules about guests can be written as.
FORMATS = ("table", "json", "ndjson", "sarif", "prometheus", "nagios")


def format_report(
    options: argparse.Namespace,
    report: Report,
    rules: Mapping[str, tuple[Severity, str]],
    table: Callable[[Report], str],
) -> str:
    """Return the report as text.

    Args:
        options: the command line's; ``format`` and ``fail_on`` are looked at.
        report: the report.
        rules: every rule that can be in it, with its severity and its summary.
        table: makes the one for people.
    """
    name = options.format
    if name == "json":
        from svirtlib.formats import json_report

        return json_report.format_report(report)
    if name == "ndjson":
        from svirtlib.formats import lines

        return lines.format_report(report)
    if name == "sarif":
        from svirtlib.formats import sarif

        return sarif.format_report(report, rules, version=svirtlib.__version__)
    if name == "prometheus":
        from svirtlib.formats import prometheus

        severities = {rule: severity for rule, (severity, _) in rules.items()}
        return prometheus.format_report(report, severities)
    if name == "nagios":
        from svirtlib.formats import nagios

        return nagios.format_report(report, nagios.state(report, options.fail_on))
    return table(report)


def status(options: argparse.Namespace, report: Report) -> int:
    """Return the exit status that a report calls for."""
    if options.format == "nagios":
        from svirtlib.formats import nagios

        outcome = nagios.state(report, options.fail_on)
        clean = options.exit_zero and outcome is not nagios.State.UNKNOWN
        return nagios.State.OK if clean else outcome
    worst = report.worst
    if worst is not None and worst >= options.fail_on and not options.exit_zero:
        return ExitCode.FINDINGS
    # Even --exit-zero does not make a guest judged that was not.
    return ExitCode.OK if report.complete else ExitCode.INCOMPLETE
