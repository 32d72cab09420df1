"""The report as metrics in Prometheus's text format, for a textfile collector.

Counts alone: names of guests would make a series of each, and the file is for all to read.
Every rule has a line, those without findings too, so that an alert on a rule never waits for
a series that is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from svirtlib.findings import Report, Severity
from svirtlib.guests import Mode

__all__ = ["format_report"]


def format_report(report: Report, rules: Mapping[str, Severity]) -> str:
    """Return the report as metrics.

    Args:
        report: what to show.
        rules: every rule that could have been applied, with its usual severity.
    """
    not_run = {entry.rule for entry in report.not_run}
    found: Counter[tuple[str, str]] = Counter()
    affected: dict[str, set[str]] = {rule: set() for rule in sorted(rules) if rule not in not_run}
    for rule in affected:
        found[rule, rules[rule].label] = 0
    for finding in report.findings:
        found[finding.rule, finding.severity.label] += 1
        affected.setdefault(finding.rule, set()).update(finding.guests)
    lines = [
        *_metric(
            "svirt_findings",
            "Findings of svirt-label, by rule and severity.",
            (({"rule": rule, "severity": label}, count) for (rule, label), count in found.items()),
        ),
        *_metric(
            "svirt_guests_affected",
            "Guests that cause findings of a rule.",
            (({"rule": rule}, len(guests)) for rule, guests in affected.items()),
        ),
        *_metric("svirt_guests", "Guests that were judged.", [({}, report.guests)]),
        *_metric(
            "svirt_unreadable",
            "What could not be looked at or decided.",
            [({}, len(report.unreadable))],
        ),
        *_metric("svirt_ignored", "Findings that were ignored at wish.", [({}, report.ignored)]),
        *_metric(
            "svirt_complete",
            "1 if everything could be looked at.",
            [({}, int(report.complete))],
        ),
    ]
    if report.host.mode is not None:
        lines += _metric(
            "svirt_selinux_mode",
            "What SELinux does on the host: 1 for the mode that it is in.",
            (
                ({"mode": mode.value}, int(mode is report.host.mode))
                for mode in sorted(Mode, key=lambda mode: mode.value)
            ),
        )
    return "".join(f"{line}\n" for line in lines)


def _metric(name: str, text: str, samples: Iterable[tuple[dict[str, str], int]]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        # Rules, severities and modes are words of ours: nothing in them needs an escape.
        shown = ",".join(f'{label}="{text}"' for label, text in labels.items())
        lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return lines
