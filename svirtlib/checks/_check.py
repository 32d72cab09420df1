"""What a rule is, and the words that the rules share."""

from __future__ import annotations

import abc
import enum
import shlex
from collections.abc import Collection, Iterator
from typing import ClassVar

from svirtlib.checks._facts import Facts
from svirtlib.findings import Finding, Severity
from svirtlib.guests import ImageMode

__all__ = ["Check", "Need", "command", "listed", "several"]


class Need(enum.Enum):
    """What an inventory must hold for a rule to be run; the value says what to do about it."""

    HOST = "there is no host: only documents were read"
    FILES = "files were not looked at; use --files on the host that holds the images"
    PROCESSES = "processes were not looked at; use --processes on the host that runs the guests"


class Check(abc.ABC):
    """One rule. The metadata is its only place: lists, documents and SARIF are made of it.

    Attributes:
        ident: the rule's identifier.
        severity: of its findings, unless one says otherwise.
        summary: when it is true, in one line.
        since: version that brought it.
        needs: what it needs to be looked at.
    """

    ident: ClassVar[str]
    severity: ClassVar[Severity]
    summary: ClassVar[str]
    since: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()

    @abc.abstractmethod
    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield what the rule finds, in any order."""


def listed(names: Collection[str], shown: int = 4) -> str:
    """Return names for a sentence: all of a few, the first of many with their number."""
    ordered = sorted(names)
    if len(ordered) == 1:
        return ordered[0]
    if len(ordered) <= shown:
        return f"{', '.join(ordered[:-1])} and {ordered[-1]}"
    return f"{', '.join(ordered[: shown - 1])} and {len(ordered) - shown + 1} others"


def several(count: int, one: str, many: str = "") -> str:
    """Return a number with its noun: ``several(2, "guest")`` is ``2 guests``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def command(*words: str) -> str:
    """Return a shell command that runs with these words, whatever they hold."""
    return shlex.join(words)


#: How a message calls the way in which a guest uses an image.
MODE_WORDS = {
    ImageMode.PRIVATE: "the guest's own disk",
    ImageMode.SHAREABLE: "shareable",
    ImageMode.READONLY: "read-only",
}
