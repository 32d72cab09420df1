"""Being somebody else for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from needs import require

__all__ = ["NOBODY", "as_nobody"]

NOBODY = 65534


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Have this process be an ordinary user, for all that the kernel judges.

    What is imported in there may lie where only the superuser looks; import it before.
    """
    require(os.geteuid() == 0, "only the superuser can become another user")
    group, groups = os.getegid(), os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)
