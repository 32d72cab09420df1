"""Ask libsepol whether a binary policy knows a context; nothing else is asked of it."""

from __future__ import annotations

import ctypes
import os
from typing import Optional

__all__ = ["check_context"]

_LIBRARY = "libsepol.so.2"


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
        sepol = ctypes.CDLL(_LIBRARY)
        libc = ctypes.CDLL(None)
        check, load = sepol.sepol_check_context, sepol.sepol_set_policydb_from_file
    except (OSError, AttributeError):
        return None
    libc.fopen.restype = ctypes.c_void_p
    libc.fclose.argtypes = (ctypes.c_void_p,)
    load.argtypes = (ctypes.c_void_p,)
    check.argtypes = (ctypes.c_char_p,)
    # It would write to standard error what we say ourselves.
    sepol.sepol_debug(0)
    stream = libc.fopen(os.fsencode(policy), b"re")
    if not stream:
        return None
    try:
        if load(stream) < 0:
            return None
    finally:
        libc.fclose(stream)
    if check(context.encode()) >= 0:
        return None
    fields = context.split(":", 3)
    known = ":".join([*fields[:2], "unlabeled_t", *fields[3:]])
    if check(known.encode()) >= 0:
        return f"the policy has no type {fields[2]}"
    return "the policy knows no such context"
