"""The verb group ``storage``: which verbs it has, and what their options are."""

from __future__ import annotations

import argparse
from typing import Any, Callable

from svirtlib.cli import storagechange, storageverify
from svirtlib.cli.options import add_group_verb

__all__ = ["add_verbs", "run"]

Write = Callable[[argparse.Namespace, str], None]

#: Each verb's options, what it does, and its help.
_VERBS: dict[str, tuple[Callable[[argparse.ArgumentParser], None], Callable[..., int], str]] = {
    "plan": (
        storagechange.add_plan_options,
        storagechange.plan,
        "tell which rules and labels storage for guests needs; change nothing",
    ),
    "apply": (
        storagechange.add_apply_options,
        storagechange.apply,
        "write these rules in one transaction and set the labels; can be undone",
    ),
    "verify": (
        storageverify.add_options,
        storageverify.verify,
        "compare labels with the file-context rules; change nothing",
    ),
    "undo": (
        storagechange.add_undo_options,
        storagechange.undo,
        "put rules and labels back as they were before a change",
    ),
}


def add_verbs(
    parser: argparse.ArgumentParser, general: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Add the verbs of the group; *general* adds the options that all have."""
    verbs: Any = parser.add_subparsers(dest="storage_verb", metavar="VERB", required=True)
    for name, (add_options, _, summary) in _VERBS.items():
        add_options(add_group_verb(verbs, parser, name, summary, general))


def run(options: argparse.Namespace, write: Write) -> int:
    """Do what the verb says and return the exit status."""
    return _VERBS[options.storage_verb][1](options, write)
