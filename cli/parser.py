"""The command line's grammar: options, verbs and their help."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Collection
from typing import Any, Callable, Optional

import svirtlib
from svirtlib.cli import reports
from svirtlib.cli.options import count, seconds_up_to
from svirtlib.findings import Severity

__all__ = ["FORMATS", "make_parser"]

#: The formats that each verb can write.
FORMATS = {
    "check": reports.FORMATS,
    "audit": reports.FORMATS,
    "console-rules": ("table", "json"),
    "list": ("table", "json"),
    "show": ("table", "json"),
    "explain": ("table", "json"),
    "access": ("table", "json"),
    "export": ("json",),
    "generate": ("xml", "json"),
    "validate": ("table", "json", "sarif"),
    "allocate": ("table", "json"),
    "reserve": ("table", "json"),
    "release": ("table", "json"),
    "gc": ("table", "json"),
    "sync": ("table", "json"),
    "hook": ("table",),
    "storage": ("table", "json"),
    "image": ("table", "json"),
}

_EXIT_CODES = """\
exit status:
  0  done, clean, complete
  1  findings at or over --fail-on
  2  usage error, or an input that is not what the verb takes
  3  incomplete: something could not be read or decided
  4  nothing could be checked: no libvirt, no permission, no bindings
  5  a change stopped part way; what was done and how to undo it is told
"""


#: Takes a verb's summary and, where that is not enough, its description.
_Add = Callable[..., argparse.ArgumentParser]


class _Formatter(argparse.HelpFormatter):
    """Fills sentences to the width of the terminal, and leaves tables as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def make_parser(words: Optional[Collection[str]] = None) -> argparse.ArgumentParser:
    """Return the parser of ``svirt-label``; general options stand before or after the verb.

    Args:
        words: the arguments that will be parsed. The parser then knows only the verbs among
            them, which is enough to parse what is right, and takes a fraction of the time. For
            help, and for what is wrong, leave this out.
    """
    # argparse measures the terminal anew for each option, whether it writes any help or not.
    formatter: Any = _Formatter if words is None else functools.partial(_Formatter, width=80)
    parser = argparse.ArgumentParser(
        prog="svirt-label",
        description="Tell whether SELinux keeps the virtual machines of a host apart.",
        epilog=_EXIT_CODES,
        formatter_class=formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {svirtlib.__version__}")
    _general_options(parser, default=True)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, prog=parser.prog)
    add = functools.partial(verbs.add_parser, formatter_class=formatter)
    for verb, add_verb in _VERBS.items():
        if words is None or verb in words:
            add_verb(functools.partial(_verb, add, verb))
    return parser


def _general_options(parser: argparse.ArgumentParser, *, default: bool) -> None:
    """Add the options of all verbs.

    They are added to the program and to each verb. A verb's have no default, or it would
    overwrite what stood before the verb.
    """

    def unless_given(value: object) -> Any:
        return value if default else argparse.SUPPRESS

    group = parser.add_argument_group("general options")
    group.add_argument(
        "-c",
        "--connect",
        metavar="URI",
        default=unless_given(None),
        help="libvirt connection (default: LIBVIRT_DEFAULT_URI, else libvirt's own choice)",
    )
    group.add_argument(
        "--format",
        metavar="FORMAT",
        choices=sorted({name for names in FORMATS.values() for name in names}),
        default=unless_given(None),
        help="table (default), json, or another that the command can write",
    )
    group.add_argument(
        "--policy",
        metavar="FILE",
        default=unless_given(None),
        help="the binary policy to ask (default: the loaded one, else the installed one)",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default=unless_given(None),
        help="write the result to FILE, whole or not at all",
    )
    group.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default=unless_given("auto"),
        help="colour the table (auto: on a terminal, unless NO_COLOR is set)",
    )
    group.add_argument(
        "-q", "--quiet", action="store_true", default=unless_given(False), help="no progress"
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=unless_given(False),
        help="show the evidence of findings, and what was passed over",
    )
    group.add_argument(
        "--debug",
        action="store_true",
        default=unless_given(False),
        help="show the traceback of an error",
    )


def _verb(
    add: Callable[..., argparse.ArgumentParser], name: str, summary: str, description: str = ""
) -> argparse.ArgumentParser:
    parser = add(
        name,
        help=summary,
        description=description or f"{summary[0].upper()}{summary[1:]}.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    _general_options(parser, default=False)
    return parser


def _sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to look at")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--xml",
        metavar="PATH",
        nargs="+",
        action="extend",
        help="files or folders of 'virsh dumpxml' output instead of libvirt; - is standard input",
    )
    source.add_argument("--snapshot", metavar="FILE", help="a file that 'svirt-label export' wrote")
    source.add_argument(
        "--sosreport", metavar="DIR", help="an unpacked sosreport of the host that runs the guests"
    )
    group.add_argument(
        "--files",
        action=argparse.BooleanOptionalAction,
        help="look at the labels of images (default: for a local libvirt)",
    )
    group.add_argument(
        "--processes",
        action=argparse.BooleanOptionalAction,
        help="look at the contexts of QEMU processes (default: for a local libvirt)",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds_up_to(86400),
        help="give libvirt up after so long without an answer (default: 30)",
    )


def _severity(text: str) -> Severity:
    try:
        return Severity.parse(text)
    except ValueError:
        names = ", ".join(severity.label for severity in sorted(Severity, reverse=True))
        raise argparse.ArgumentTypeError(f"{text!r} is none of {names}") from None


def _check(add: _Add) -> None:
    parser = add(
        "report which guests are not kept apart, why, and what to do",
        "Take the inventory of a host, or of documents from it, and apply every rule.",
    )
    parser.add_argument(
        "guests", metavar="GUEST", nargs="*", help="report on these alone (name or UUID)"
    )
    _sources(parser)
    group = _rule_options(parser)
    group.add_argument(
        "--max-subjects",
        metavar="N",
        type=count,
        default=10_000,
        help="name at most N reached guests a finding (default: 10000)",
    )


def _audit(add: _Add) -> None:
    from svirtlib.cli import audit

    parser = add(
        "report what is unwise about consoles, devices and the host's configuration",
        "Look at the guests' consoles and devices and at the host's configuration, and apply "
        "the rules about these; 'check' is about labels.",
    )
    parser.add_argument(
        "guests", metavar="GUEST", nargs="*", help="report on these alone (name or UUID)"
    )
    audit.add_options(parser)
    _rule_options(parser)


def _rule_options(parser: argparse.ArgumentParser) -> Any:
    """Add what all verbs with rules take, and return the group."""
    group = parser.add_argument_group("rules")
    group.add_argument(
        "--fail-on",
        metavar="SEVERITY",
        type=_severity,
        default=Severity.MEDIUM,
        help="exit with 1 for findings from this severity on: critical, high, medium (default), "
        "low, info",
    )
    group.add_argument(
        "--only", metavar="RULE", action="append", default=[], help="apply this rule alone"
    )
    group.add_argument(
        "--ignore",
        metavar="RULE[=GUEST]",
        action="append",
        default=[],
        help="leave out a rule's findings, or those about one guest; they are counted",
    )
    group.add_argument(
        "--exit-zero", action="store_true", help="exit with 0 whatever the findings are"
    )
    group.add_argument("--list-rules", action="store_true", help="list the rules and exit")
    return group


def _list(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add("list the labels in use, or those that are reserved")
    parser.add_argument(
        "--reserved", action="store_true", help="list what the registry holds, not what is in use"
    )
    _sources(parser)
    allocation.add_registry_options(parser)


def _show(add: _Add) -> None:
    parser = add("show the labels of one guest, with its images")
    parser.add_argument("guest", metavar="GUEST", help="name or UUID")
    _sources(parser)


def _export(add: _Add) -> None:
    parser = add(
        "write the inventory as one JSON document",
        "Write the inventory as one JSON document, for 'check --snapshot' on another machine.",
    )
    _sources(parser)


def _explain(add: _Add) -> None:
    parser = add(
        "explain a label, or how two labels stand to each other",
        "Explain a level, a range or a context; of two, tell which dominates the other.",
    )
    parser.add_argument("label", metavar="LABEL", help="for example s0:c1,c2")
    parser.add_argument("other", metavar="LABEL", nargs="?", help="a second label to compare")


def _access(add: _Add) -> None:
    from svirtlib.cli import access

    parser = add(
        "ask the policy what one context may do to another, and why",
        "Ask the policy what a process may do to a target, and why. Status 1: denied; 3: not "
        "decided, as there is no policy.",
    )
    access.add_options(parser)


def _generate(add: _Add) -> None:
    from svirtlib.cli import generate

    parser = add(
        "print a <seclabel>, or a domain XML with it",
        "Print the <seclabel> of a guest, or its domain XML with the <seclabel> put in. Refuses "
        "what libvirt would refuse, and what would not keep the guest apart.",
    )
    generate.add_options(parser)
    _sources(parser)


def _validate(add: _Add) -> None:
    from svirtlib.cli import validate

    parser = add(
        "tell what libvirt refuses and ignores in the <seclabel>s of files",
        "Judge the <seclabel>s of files as libvirt would when it reads, defines and starts the "
        "guest; tell what it would ignore, and which labels are none.",
    )
    validate.add_options(parser)
    group = parser.add_argument_group("exit status")
    group.add_argument(
        "--fail-on",
        metavar="SEVERITY",
        type=_severity,
        default=Severity.MEDIUM,
        help="exit with 1 for findings from this severity on: critical, high, medium (default), "
        "low, info",
    )
    group.add_argument(
        "--exit-zero", action="store_true", help="exit with 0 whatever the findings are"
    )


def _allocate(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add(
        "hand out levels that no other guest can reach, and reserve them",
        "Hand out levels that are comparable with none in use or reserved, drawn at random, and "
        "reserve them. What this host uses is looked at first.",
    )
    allocation.add_allocate_options(parser)
    _sources(parser)


def _reserve(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add("reserve a level that was chosen elsewhere")
    allocation.add_reserve_options(parser)


def _release(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add("end the reservation of a level, or of an owner")
    allocation.add_release_options(parser)


def _gc(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add(
        "drop reservations of guests that no longer exist, and leases that ended",
        "Drop the reservations that this host made for guests that libvirt does not have any "
        "more, and all whose lease ended. What was last seen in use stays.",
    )
    allocation.add_gc_options(parser)
    _sources(parser)


def _sync(add: _Add) -> None:
    from svirtlib.cli import allocation

    parser = add(
        "note in the registry which levels this host uses",
        "Note in the registry which levels guests, containers and images of this host have, so "
        "that none comparable is handed out. Status 1: a level is in use that is reserved for "
        "another guest.",
    )
    allocation.add_sync_options(parser)
    _sources(parser)


def _hook(add: _Add) -> None:
    from svirtlib.cli import hook

    hook.add_verbs(add("judge guests when they start; install what does so"))


def _storage(add: _Add) -> None:
    from svirtlib.cli import storage

    parser = add(
        "label storage for guests: plan, apply, verify, undo",
        "Find out which file-context rules and labels storage for guests needs, make them so in "
        "one transaction with a journal, and take that back.",
    )
    storage.add_verbs(parser, functools.partial(_general_options, default=False))


def _image(add: _Add) -> None:
    from svirtlib.cli import image

    parser = add(
        "look at single images, and mend leftovers: inspect, restore",
        "Tell what an image carries of labels and libvirt's owner attributes, and mend what is a "
        "leftover when it is proven that nobody uses it.",
    )
    image.add_verbs(parser, functools.partial(_general_options, default=False))


def _console_rules(add: _Add) -> None:
    from svirtlib.cli import consolerules

    parser = add(
        "make the rules that keep each user to the console of its own guest",
        "From a map of guests to users, make what the machine with the SPICE viewers needs so "
        "that each user reaches the console of its own guest alone: rules for nftables with their "
        "unit, and lines for sudo.",
    )
    consolerules.add_options(parser)


#: What adds each verb, in the order of the help. It loads the verb's own module, if it has one.
_VERBS: dict[str, Callable[[_Add], None]] = {
    "check": _check,
    "audit": _audit,
    "console-rules": _console_rules,
    "list": _list,
    "show": _show,
    "export": _export,
    "explain": _explain,
    "access": _access,
    "generate": _generate,
    "validate": _validate,
    "allocate": _allocate,
    "reserve": _reserve,
    "release": _release,
    "gc": _gc,
    "sync": _sync,
    "hook": _hook,
    "storage": _storage,
    "image": _image,
}
