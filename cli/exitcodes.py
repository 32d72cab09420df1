"""The exit statuses of ``svirt-label``: a promise to scripts, told in docs/exit-codes.md."""

from __future__ import annotations

import enum

__all__ = ["ExitCode"]


class ExitCode(enum.IntEnum):
    """What an exit status says."""

    #: Done; clean; complete.
    OK = 0
    #: Findings at or over ``--fail-on``.
    FINDINGS = 1
    #: A usage error, or an input that is not what the verb takes.
    USAGE = 2
    #: Something could not be read or decided, and nothing worse was found.
    INCOMPLETE = 3
    #: Nothing could be checked or done.
    ENVIRONMENT = 4
    #: A change stopped part way.
    PARTIAL_CHANGE = 5
    #: A bug.
    INTERNAL = 70
    #: The user interrupted it.
    INTERRUPTED = 130
