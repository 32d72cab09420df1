"""The verb ``audit``: what to look at, the rules to apply, and a report out."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Callable, Optional

from svirtlib.cli import booleans
from svirtlib.errors import SelectionError
from svirtlib.findings import Report

if TYPE_CHECKING:
    from svirtlib.guests import Inventory
    from svirtlib.hostconfig import HostConfig
    from svirtlib.ports import Progress

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments, those about rules excepted."""
    group = parser.add_argument_group("what to look at")
    group.add_argument(
        "--xml",
        metavar="PATH",
        nargs="+",
        action="extend",
        help="guests from files or folders of 'virsh dumpxml' output instead of libvirt; - is "
        "standard input",
    )
    group.add_argument(
        "--snapshot",
        metavar="FILE",
        help="guests from a file that 'svirt-label export' wrote; it has no host's configuration "
        "and no passwords",
    )
    group.add_argument(
        "--root",
        metavar="DIR",
        help="the configuration, and without --xml the guests, of a host that was unpacked to DIR",
    )
    group.add_argument(
        "--host-name",
        metavar="NAME",
        action="append",
        default=[],
        help="a name that clients know the host by, for its certificates (default: what the "
        "host's files say)",
    )
    group.add_argument(
        "--map",
        metavar="FILE",
        help="who may use which console, as for console-rules: have the rules about that look "
        "for drift",
    )
    group.add_argument(
        "--initrd",
        action="store_true",
        help="look into the initial RAM disks too, which takes seconds",
    )
    group.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="give libvirt up after so long without an answer (default: 30)",
    )
    group.add_argument(
        "--profile",
        choices=("default", "public-cloud", "confidential"),
        default="default",
        help="whom the host is for, which makes some devices graver",
    )
    booleans.add_options(parser)


def run(
    options: argparse.Namespace,
    ignore: list[tuple[str, str]],
    progress: Optional[Progress],
    write: Callable[[Report], None],
    status: Callable[[Report], int],
    write_text: Callable[[argparse.Namespace, str], None],
) -> int:
    """Audit, write the report and return the exit status."""
    from svirtlib.audit import run_audit, select_audit_rules

    booleans.check_options(options)
    if options.apply_booleans == "undo":
        return booleans.undo(options, write_text)
    if options.apply_booleans is not None:
        return booleans.run(options, *_read(options, progress), write_text)
    rules = select_audit_rules(options.only)
    inventory, host = _read(options, progress)
    report = run_audit(
        inventory,
        host,
        rules,
        profile=options.profile,
        guests=options.guests,
        ignore=ignore,
    )
    write(report)
    return status(report)


def _read(
    options: argparse.Namespace, progress: Optional[Progress]
) -> tuple[Inventory, Optional[HostConfig]]:
    from svirtlib.backends import audit

    given = [options.connect, options.xml, options.snapshot]
    if sum(one is not None for one in given) > 1 or (
        options.connect is not None and options.root is not None
    ):
        raise SelectionError(
            "--connect is one place to look, --xml and --snapshot, with or without --root, are "
            "others"
        )
    if options.snapshot is not None:
        from svirtlib.backends import output
        from svirtlib.snapshot import MAX_BYTES, load_snapshot

        found = load_snapshot(output.read_file(options.snapshot, MAX_BYTES), options.snapshot)
        return audit.audit_inventory(
            found,
            root=options.root,
            names=options.host_name,
            console_map=options.map,
            initrd=options.initrd,
        )
    if options.xml:
        return audit.audit_documents(
            options.xml,
            root=options.root,
            names=options.host_name,
            console_map=options.map,
            initrd=options.initrd,
            progress=progress,
        )
    if options.root is not None:
        return audit.audit_tree(
            options.root, names=options.host_name, console_map=options.map, initrd=options.initrd
        )
    return audit.audit_host(
        options.connect,
        timeout=options.timeout,
        names=options.host_name,
        console_map=options.map,
        initrd=options.initrd,
        progress=progress,
    )
