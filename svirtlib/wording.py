"""Words that messages share; nothing here knows what a message is about."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sized

__all__ = ["command", "listed", "one_or_many", "several"]


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


def one_or_many(subjects: Sized, one: str, many: str) -> str:
    """Return the word that goes with one subject, or the one that goes with several."""
    return one if len(subjects) == 1 else many


def command(*words: str) -> str:
    """Return a shell command for a message, in backticks, whatever its words hold."""
    return f"`{shlex.join(words)}`"
