"""The verb ``console-rules``: a map to files, printed, checked, installed or removed."""

from __future__ import annotations

import argparse
import json
from typing import Callable

from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.streams import tell

__all__ = ["add_options", "run"]

_NEXT = {
    "install": "then: systemctl daemon-reload; systemctl enable svirt-user-console.service; "
    "systemctl restart svirt-user-console.service",
    "remove": "first: systemctl disable --now svirt-user-console.service; "
    "afterwards: systemctl daemon-reload",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "map", metavar="MAP", help="lines GUEST USER ADDRESS PORT; the address may be NAME/ADDRESS"
    )
    group = parser.add_argument_group("what to do (default: print)")
    action = group.add_mutually_exclusive_group()
    action.add_argument(
        "--check", action="store_true", help="have nft and visudo check the files, print nothing"
    )
    action.add_argument("--install", action="store_true", help="check the files and install them")
    action.add_argument("--remove", action="store_true", help="take the installed files away")
    group.add_argument(
        "--dry-run", action="store_true", help="with --install and --remove: only tell"
    )
    group.add_argument(
        "--root", metavar="DIR", default="/", help="install below DIR, for an image (default: /)"
    )
    group = parser.add_argument_group("what the files say")
    group.add_argument(
        "--only",
        choices=("firewall", "unit", "sudoers"),
        help="print one of the files alone",
    )
    group.add_argument(
        "--ports",
        metavar="LOW-HIGH",
        type=_ports,
        help="the ports to keep from everybody else (default: from the lowest to the highest of "
        "the map)",
    )
    group.add_argument(
        "--group",
        metavar="GROUP",
        default="spicegrp",
        help="the group that may execute the viewer (default: spicegrp)",
    )
    group.add_argument(
        "--viewer",
        metavar="PATH",
        default="/usr/bin/remote-viewer",
        help="the viewer (default: /usr/bin/remote-viewer)",
    )


def _ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    if dash and low.isdigit() and high.isdigit() and 0 < int(low) <= int(high) < 65536:
        return int(low), int(high)
    raise argparse.ArgumentTypeError(f"{text!r} is no range of ports, such as 20001-20010")


def run(options: argparse.Namespace, write: Callable[[argparse.Namespace, str], None]) -> int:
    """Make the files, and do with them what was asked for."""
    from svirtlib import consolerules
    from svirtlib.backends import consolefiles

    if options.remove:
        return _told(options, write, consolefiles.remove(options.root, dry_run=options.dry_run))
    users = consolefiles.read_map(options.map)
    texts = {
        "firewall": consolerules.firewall(users, options.ports),
        "unit": consolerules.unit(),
        "sudoers": consolerules.sudoers(users, group=options.group, viewer=options.viewer),
    }
    if options.check or options.install:
        consolefiles.check(texts["firewall"], texts["sudoers"])
    if options.install:
        changes = consolefiles.install(texts, options.root, dry_run=options.dry_run)
        return _told(options, write, changes)
    if options.check:
        tell("nft and visudo accept the files\n")
        return ExitCode.OK
    if options.format == "json":
        files = {consolerules.FILES[name][0]: text for name, text in texts.items()}
        write(options, json.dumps({"files": files}, indent=2) + "\n")
    elif options.only:
        write(options, texts[options.only])
    else:
        parts = [f"## {consolerules.FILES[name][0]}\n{text}" for name, text in texts.items()]
        write(options, "\n".join(parts))
    return ExitCode.OK


def _told(
    options: argparse.Namespace,
    write: Callable[[argparse.Namespace, str], None],
    changes: tuple[object, ...],
) -> int:
    from svirtlib.backends.consolefiles import Change

    done = [change for change in changes if isinstance(change, Change)]
    if options.format == "json":
        listed = [{"path": one.path, "action": one.action} for one in done]
        document = {"dry_run": bool(options.dry_run), "changes": listed}
        write(options, json.dumps(document, indent=2) + "\n")
        return ExitCode.OK
    would = "would " if options.dry_run else ""
    lines = [f"{would}{one.action} {one.path}" for one in done] or ["nothing to do"]
    action = "remove" if options.remove else "install"
    write(options, "\n".join([*lines, _NEXT[action]]) + "\n")
    return ExitCode.OK
