"""Options that several verbs share, and the types of their values."""

from __future__ import annotations

import argparse
from typing import Any, Callable

__all__ = [
    "add_cross",
    "add_group_verb",
    "add_guests",
    "add_jobs",
    "add_journal",
    "add_offline",
    "add_root",
    "count",
    "seconds_up_to",
]


def add_group_verb(
    verbs: Any,
    parent: argparse.ArgumentParser,
    name: str,
    summary: str,
    general: Callable[[argparse.ArgumentParser], None],
) -> argparse.ArgumentParser:
    """Add a verb to a group of them (``storage``, ``image``).

    Args:
        verbs: what ``add_subparsers`` of the group's parser returned.
        parent: the group's parser.
        name: the verb.
        summary: what it does, in a line.
        general: adds the options that all verbs have.
    """
    verb: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=parent.epilog,
        formatter_class=parent.formatter_class,
        allow_abbrev=False,
    )
    general(verb)
    return verb


def add_root(group: Any) -> None:
    """Add the option that names an unpacked system."""
    group.add_argument(
        "--root",
        metavar="DIR",
        default="/",
        help="an unpacked system: its policy and its paths, which start below DIR",
    )


def add_offline(group: Any) -> None:
    """Add the option that does without a kernel that enforces."""
    group.add_argument(
        "--offline",
        action="store_true",
        help="SELinux need not run here: the stored policy and the labels are what counts",
    )


def add_cross(group: Any) -> None:
    """Add the option that leaves a path's own file system."""
    group.add_argument(
        "--cross-filesystems",
        dest="cross",
        action="store_true",
        help="go on into file systems that are mounted below",
    )


def add_guests(group: Any) -> None:
    """Add the option that tells of guests without libvirt."""
    group.add_argument(
        "--xml",
        metavar="XML",
        action="append",
        help="files or folders of 'virsh dumpxml' output that tell which images are in use, "
        "instead of libvirt",
    )


def add_journal(group: Any) -> None:
    """Add the option that tells where changes are written down."""
    from svirtlib.backends.changes import DEFAULT_FOLDER

    group.add_argument(
        "--journal",
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help=f"where changes are written down before they are made (default: {DEFAULT_FOLDER})",
    )


def add_jobs(group: Any, does: str) -> None:
    """Add the option that says with how many processes the verb *does* its work."""
    group.add_argument(
        "--jobs",
        metavar="N",
        type=_jobs,
        default=0,
        help=f"{does} with N processes (default: as many as there are processors)",
    )


def count(text: str) -> int:
    """Return a number of things, for ``type=``; as text digits alone, no signs."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)


def _jobs(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 256")
    return int(text)


def seconds_up_to(longest: int) -> Callable[[str], float]:
    """Return what reads a time above 0 in seconds, for ``type=``."""

    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= longest:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no number of seconds above 0, up to {longest}"
            )
        return value

    return seconds
