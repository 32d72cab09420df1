"""Text from the host, made safe for a terminal or a log."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return *text* with everything that is not printable written as an escape.

    Guest names, paths and labels may hold control characters, which could forge a line or
    drive a terminal, and bytes that are no text.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
