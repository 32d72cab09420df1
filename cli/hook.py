"""The verb ``hook``: what libvirt, vdsm and KubeVirt call, and putting it in its place."""

from __future__ import annotations

import argparse
import os
from typing import Any, Callable

from svirtlib.backends.hook import quick
from svirtlib.backends.hook.state import FOLDER
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.options import seconds_up_to
from svirtlib.cli.streams import tell, write_result
from svirtlib.formats.plain import printable

__all__ = ["add_verbs", "run"]

_Write = Callable[[argparse.Namespace, str], None]

#: What vdsm understands: this hook failed, and the guest may start; the guest must not start.
_VDSM_FAILED, _VDSM_STOP = 1, 2


def add_verbs(parser: argparse.ArgumentParser) -> None:
    """Add what stands behind ``hook``."""
    verbs = parser.add_subparsers(dest="hook", metavar="WHAT", required=True)
    called = verbs.add_parser(
        "qemu",
        help="called by libvirt, with the domain XML on standard input",
        description="Judge a guest at a phase of its life. libvirt calls this; nothing is "
        "written to standard output, and the status is 0 unless the guest must not start.",
        allow_abbrev=False,
    )
    called.add_argument(
        "arguments", metavar="GUEST PHASE begin|end EXTRA", nargs=argparse.REMAINDER
    )
    vdsm = verbs.add_parser(
        "vdsm",
        help="called by vdsm before a guest starts: $_hook_domxml names its XML",
        description="Judge the domain XML in the file that the variable _hook_domxml names. "
        "Status 2 keeps vdsm from starting the guest; 1 says that it could not be judged.",
        allow_abbrev=False,
    )
    _judging(vdsm)
    kubevirt = verbs.add_parser(
        "kubevirt",
        help="called by KubeVirt's sidecar as onDefineDomain: prints the XML as it is",
        description="Judge the seclabels of the domain XML that KubeVirt is about to define, "
        "and print it unchanged.",
        allow_abbrev=False,
    )
    kubevirt.add_argument("--vmi", metavar="JSON", default="{}", help="the VirtualMachineInstance")
    kubevirt.add_argument("--domain", metavar="XML", required=True, help="the domain XML")
    _judging(kubevirt)
    install = verbs.add_parser(
        "install",
        help="show the hook's file, and with --apply write it",
        description="Show what installing the hook writes, with its mode and label; with --apply, "
        "write it. An installed hook gets new settings in the same way.",
        allow_abbrev=False,
    )
    _placing(install)
    _judging(install)
    install.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=seconds_up_to(3600),
        default=quick.SECONDS,
        help=f"give up after so long (default: {quick.SECONDS:g})",
    )
    install.add_argument(
        "--state",
        metavar="FOLDER",
        default=FOLDER,
        help=f"where labels of guests are noted (default: {FOLDER})",
    )
    remove = verbs.add_parser(
        "remove",
        help="show what removing the hook takes away, and with --apply do it",
        description="Show which file goes; with --apply, remove it.",
        allow_abbrev=False,
    )
    _placing(remove)


def _placing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for",
        dest="caller",
        choices=("libvirt", "vdsm", "kubevirt"),
        default="libvirt",
        help="who calls it (default: libvirt)",
    )
    parser.add_argument(
        "--root", metavar="FOLDER", default="/", help="the host's files lie below this folder"
    )
    parser.add_argument("--apply", action="store_true", help="do it; otherwise it is only shown")


def _judging(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fail",
        choices=("open", "closed"),
        default="open",
        help="what becomes of a guest that could not be judged: it starts (open, default), or not",
    )
    parser.add_argument(
        "--ignore",
        metavar="RULE[=GUEST]",
        action="append",
        default=[],
        help="findings of this rule, or those about one guest, stop no start",
    )


def run(options: argparse.Namespace, write: _Write) -> int:
    """Do what stands behind ``hook``."""
    chosen: dict[str, Callable[[argparse.Namespace, _Write], int]] = {
        "qemu": lambda options, _: quick.main(options.arguments),
        "vdsm": _vdsm,
        "kubevirt": _kubevirt,
        "install": _install,
        "remove": _remove,
    }
    return chosen[options.hook](options, write)


def _install(options: argparse.Namespace, write: _Write) -> int:
    from svirtlib.backends.hook import install
    from svirtlib.backends.hook.judge import check_ignores

    check_ignores(options.ignore)
    plan = install.plan(
        options.caller,
        root=options.root,
        fail=options.fail,
        seconds=options.time_limit,
        ignore=options.ignore,
        state=options.state,
    )
    lines = [f"mkdir  {folder}  mode 755\n" for folder in plan.folders]
    lines.append(
        f"{plan.change}  {plan.path}  mode {plan.mode:o}  label {plan.context or '(none)'}\n"
    )
    lines += [f"    {line}\n" for line in plan.content.splitlines()]
    write(options, "".join(lines))
    if options.apply:
        install.apply(plan)
    _outcome(plan.change == "keep", options.apply, "written")
    for note in plan.notes:
        tell(f"svirt-label: note: {printable(note)}\n")
    return ExitCode.OK


def _remove(options: argparse.Namespace, write: _Write) -> int:
    from svirtlib.backends.hook import install

    plan = install.plan_removal(options.caller, root=options.root)
    write(options, f"{plan.change}  {plan.path}\n")
    if options.apply:
        install.remove(plan)
    _outcome(plan.change == "none", options.apply, "removed")
    return ExitCode.OK


def _outcome(nothing: bool, applied: bool, word: str) -> None:
    if nothing:
        tell("svirt-label: there is nothing to do\n")
    elif applied:
        tell(f"svirt-label: {word}\n")
    else:
        tell(f"svirt-label: nothing was {word}; --apply does it\n")


def _vdsm(options: argparse.Namespace, write: _Write) -> int:
    """Judge as vdsm's hooks do; see ``Return Codes`` of its hooks."""
    del write
    from svirtlib.errors import SvirtError

    try:
        path = os.environ.get("_hook_domxml")  # noqa: SIM112 - vdsm's name for it
        if not path:
            return _unjudged(options, "the variable _hook_domxml is not set: vdsm calls this")
        with open(path, "rb") as stream:  # noqa: PTH123 - a path as it was given
            document = stream.read()
        text = _judge_document(document, options)
    except (OSError, SvirtError) as error:
        return _unjudged(options, str(error))
    if text:
        tell(text)
        return _VDSM_STOP
    return 0


def _unjudged(options: argparse.Namespace, reason: str) -> int:
    from svirtlib.backends import journal

    stopped = options.fail == "closed"
    text = f"the guest could not be judged: {reason}; it {'may not' if stopped else 'may'} start"
    tell(f"svirt-label: {printable(text)}\n")
    journal.tell(text, journal.ERR, kind=journal.UNJUDGED, VERB="hook", VERDICT=options.fail)
    return _VDSM_STOP if stopped else _VDSM_FAILED


def _judge_document(document: bytes, options: argparse.Namespace) -> str:
    from svirtlib.backends.hook.judge import judge_document

    _, verdict = judge_document(document, "prepare", ignore=options.ignore)
    return printable(verdict.text.rstrip("\n")) + "\n" if verdict.text else ""


def _kubevirt(options: argparse.Namespace, write: _Write) -> int:
    """Judge what KubeVirt will define; its libvirt runs without a security driver."""
    del write
    from svirtlib.errors import SvirtError
    from svirtlib.findings import Severity
    from svirtlib.validation import NEWEST, Target
    from svirtlib.validationreport import File, validate_files

    document = os.fsencode(options.domain)
    try:
        outcome = validate_files(
            [File("the domain XML", document)],
            Target("qemu", ("none",), NEWEST),
            libvirt_only=False,
        )
        problems = [str(error) for error in outcome.malformed]
        problems += [
            f"{finding.message}; {finding.remedy}"
            for finding in outcome.report.findings
            if finding.severity >= Severity.HIGH and finding.rule not in options.ignore
        ]
        notes = _pod_notes(options.vmi)
    except SvirtError as error:
        problems, notes = [str(error)], []
    for text in (*problems, *notes):
        tell(f"svirt-label: {printable(text)}\n")
    if problems:
        return ExitCode.FINDINGS
    write_result(options.domain)
    return ExitCode.OK


def _pod_notes(text: str) -> list[str]:
    """Return what the pod's own context, which confines the guest there, leaves to be said."""
    import json

    from svirtlib import Context
    from svirtlib.errors import LabelError

    try:
        vmi: Any = json.loads(text)
        context = vmi.get("status", {}).get("selinuxContext")
    except (ValueError, AttributeError, RecursionError):
        return ["--vmi holds no JSON of a VirtualMachineInstance; its context was not judged"]
    if not isinstance(context, str) or context in ("", "none"):
        return []
    try:
        level = Context.parse(context).level
    except LabelError as error:
        return [f"status.selinuxContext: {error}"]
    if level is None or not level.categories:
        return [
            f"the pod runs with {context}, without categories of its own: every other guest of "
            "the node reaches its volumes"
        ]
    return []
