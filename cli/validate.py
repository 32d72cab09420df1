"""The verb ``validate``: files in, a report with a place for each finding out."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Callable, Optional

import svirtlib
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.findings import Report
from svirtlib.formats.plain import printable

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments, ``--fail-on`` excepted."""
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="domain XML, a <seclabel> alone, a snapshot, a backup or a status file; a folder of "
        "such; - is standard input",
    )
    group = parser.add_argument_group("whose verdict")
    group.add_argument(
        "--libvirt-only",
        action="store_true",
        help="report only what libvirt refuses, no advice and no judgement of labels",
    )
    group.add_argument(
        "--libvirt-version",
        metavar="X.Y",
        type=_version,
        help="judge as this version of libvirt does (default: the installed one, else the newest "
        "known)",
    )
    group.add_argument(
        "--driver",
        choices=("qemu", "test"),
        default="qemu",
        help="qemu (default), or libvirt's test driver, which refuses less",
    )
    group.add_argument(
        "--models",
        metavar="MODEL[,MODEL]",
        type=_models,
        default=("selinux", "dac"),
        help="the host's security models, the first one first (default: selinux,dac)",
    )


def run(
    options: argparse.Namespace,
    write: Callable[[argparse.Namespace, str], None],
    table: Callable[[Report], str],
    status: Callable[[Report], int],
) -> int:
    """Validate, write the report and return the exit status."""
    from svirtlib.backends.rawfiles import read_files
    from svirtlib.validation import Target
    from svirtlib.validationreport import validate_files

    target = Target(options.driver, options.models, options.libvirt_version or _default_version())
    with contextlib.ExitStack() as stack:
        refusal = None
        if options.policy is not None:
            # Only a named one: where the documents' guests will run, is not known.
            from svirtlib.backends.policy import open_policy

            refusal = stack.enter_context(open_policy(options.policy)).refusal
        outcome = validate_files(
            read_files(options.files), target, libvirt_only=options.libvirt_only, refusal=refusal
        )
    report = outcome.report
    if options.format == "json":
        from svirtlib.formats.json_report import format_report

        write(options, format_report(report))
    elif options.format == "sarif":
        from svirtlib.checks import ALL_CHECKS
        from svirtlib.formats import sarif

        rules = {check.ident: (check.severity, check.summary) for check in ALL_CHECKS}
        own = {rule: rules[rule] for rule in _RULES if rule in rules}
        text = sarif.format_report(
            report, own, version=svirtlib.__version__, malformed=outcome.malformed
        )
        write(options, text)
    else:
        write(options, table(report))
    for error in outcome.malformed:
        sys.stderr.write(f"svirt-label: error: {printable(str(error))}\n")
    code = status(report)
    if code == ExitCode.FINDINGS:
        return code
    if outcome.malformed:
        return ExitCode.USAGE
    if code == ExitCode.INCOMPLETE and not report.guests:
        # Not one of the files could be read.
        return ExitCode.ENVIRONMENT
    return code


#: The rules that a document alone can break.
_RULES = ("seclabel-rejected", "label-invalid", "seclabel-ignored", "label-not-canonical")


def _default_version() -> tuple[int, int]:
    from svirtlib.backends.versions import installed_libvirt
    from svirtlib.validation import NEWEST

    installed: Optional[tuple[int, int]] = installed_libvirt()
    return installed or NEWEST


def _version(text: str) -> tuple[int, int]:
    parts = text.split(".")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no version, such as 9.0")
    if any(len(part) > 4 for part in parts):
        raise argparse.ArgumentTypeError(f"libvirt has no version {text[:20]!r}")
    return int(parts[0]), int(parts[1]) if len(parts) > 1 else 0


def _models(text: str) -> tuple[str, ...]:
    models = tuple(model.strip() for model in text.split(","))
    if not all(models) or len({*models}) < len(models):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of models, such as selinux,dac")
    return models
