"""Why a policy grants or denies: libsepol's verdict to a cause.

What stands here decides nothing. It reads the text of constraints that libsepol prints beside
its decision, and has ``selinux.audit2why`` find the booleans that would change it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from types import ModuleType
from typing import Callable, Optional

from svirtlib.access import Cause, PermissionAnswer
from svirtlib.backends import _sepol

__all__ = ["booleans", "denied", "granted"]

# How libsepol prints a constraint: "mlsconstrain file { read write } ((h1 dom h2 -Fail-) ...".
_CONSTRAINED = re.compile(r"\S+ \S+ \{([^}]*)\}")
_UNMET = re.compile(r"\b[lh][12] \S+ [lh][12] -Fail-")
# A type that meets its part: "(t1 != mcs_constrained_type )"; the source's is t1.
_MET_BY_TYPE = re.compile(r"\(t([12]) ([!=]= (?:(?! -Fail-)[^()])*?)\s*\)")


def granted(
    permission: str, verdict: _sepol.Verdict, levels_matter: Callable[[], bool]
) -> PermissionAnswer:
    """Return why a permission is granted.

    Args:
        permission: its name.
        verdict: libsepol's, about this permission.
        levels_matter: tells whether it would be denied at levels that are apart; asked only
            where a part of a constraint is not met.
    """
    about_levels = [line for line in _about(verdict, permission) if line.startswith("mls")]
    if not about_levels:
        return PermissionAnswer(permission, True, Cause.UNCONSTRAINED_PERMISSION)
    unmet = [line for line in about_levels if _UNMET.search(line)]
    if not unmet or levels_matter():
        return PermissionAnswer(permission, True, Cause.TYPE_RULE)
    met = {side: what for line in reversed(unmet) for side, what in _MET_BY_TYPE.findall(line)}
    cause = Cause.UNCONSTRAINED_TYPE
    if "2" in met and "1" not in met:
        cause = Cause.UNCONSTRAINED_TARGET
    exempt = met.get("2" if cause is Cause.UNCONSTRAINED_TARGET else "1", "")
    return PermissionAnswer(permission, True, cause, constraint=unmet[0], exempt=exempt)


def denied(
    permission: str, verdict: _sepol.Verdict, booleans: tuple[tuple[str, bool], ...]
) -> PermissionAnswer:
    """Return why a permission is denied.

    Args:
        permission: its name.
        verdict: libsepol's, about this permission.
        booleans: those that alone would allow it, with the state that each would need.
    """
    constraint = ""
    if verdict.stages & _sepol.DENIED_BY_TYPE:
        cause = Cause.BOOLEAN if booleans else Cause.NO_TYPE_RULE
    elif verdict.stages & _sepol.DENIED_BY_CONSTRAINT:
        cause = Cause.CONSTRAINT
        refusing = [line for line in _about(verdict, permission) if "DENIED" in line]
        constraint = refusing[0] if refusing else ""
    elif verdict.stages & _sepol.DENIED_BY_ROLE:
        cause = Cause.ROLE
    else:
        cause = Cause.BOUNDS
    return PermissionAnswer(permission, False, cause, booleans, constraint)


def booleans(
    image: bytes, source: str, target: str, target_class: str, permissions: Sequence[str]
) -> Optional[dict[str, tuple[tuple[str, bool], ...]]]:
    """Return each boolean that alone would allow a permission; None if nobody can be asked.

    ``selinux.audit2why`` flips one after the other and decides anew. It holds one policy in
    a process, as libsepol does, and refuses a second user.
    """
    if not permissions:
        return {}
    audit2why = _audit2why()
    if audit2why is None:
        return None
    found = {}
    descriptor = _sepol.memory_file(image)
    try:
        if audit2why.init(f"/proc/self/fd/{descriptor}"):
            return None
        try:
            for name in permissions:
                code, helpful = audit2why.analyze(source, target, target_class, [name])
                if code == audit2why.BOOLEAN:
                    found[name] = tuple(sorted((one, bool(state)) for one, state in helpful))
        finally:
            audit2why.finish()
    except RuntimeError:
        return None
    finally:
        os.close(descriptor)
    return found


def _audit2why() -> Optional[ModuleType]:
    try:
        from selinux import audit2why
    except ImportError:
        return None
    return audit2why if hasattr(audit2why, "analyze") else None


def _about(verdict: _sepol.Verdict, permission: str) -> list[str]:
    """Return the constraints of a verdict that speak of a permission."""
    found = []
    for line in verdict.constraints:
        match = _CONSTRAINED.match(line)
        if match and permission in match.group(1).split():
            found.append(line)
    return found
