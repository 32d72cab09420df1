"""Whether a policy, where there is one, takes a context; nothing else is asked of it."""

from __future__ import annotations

from typing import Optional

from svirtlib.backends.policy import open_policy
from svirtlib.errors import BackendError, PolicyError

__all__ = ["check_context"]


def check_context(policy: Optional[str], context: str) -> Optional[str]:
    """Return why a policy refuses a context, or None where it takes it or cannot be asked.

    Where it cannot be asked, libsemanage still refuses the rule before anything is changed.

    Args:
        policy: path of a binary policy, or None.
        context: canonical text of a context.
    """
    if policy is None:
        return None
    try:
        with open_policy(policy) as opened:
            return opened.refusal(context) or None
    except (BackendError, PolicyError):
        return None
