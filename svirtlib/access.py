"""Answers of a policy: what one context may do to another, and why; values only.

Nothing here decides. The decision is libsepol's, the engine that the kernel's was made from;
``svirtlib.backends.policy`` asks it.
"""

from __future__ import annotations

import enum
from typing import Optional

from attr import frozen

__all__ = [
    "AccessAnswer",
    "Cause",
    "DomainAccess",
    "PermissionAnswer",
]


class Cause(enum.Enum):
    """Why a permission is granted or denied; the value is what JSON says."""

    #: A rule allows it, and every constraint is met.
    TYPE_RULE = "type-rule"
    #: A rule allows it, and the source's type is exempt from the constraint that is not met.
    UNCONSTRAINED_TYPE = "type-not-constrained"
    #: A rule allows it, and the target's type is exempt from the constraint that is not met.
    UNCONSTRAINED_TARGET = "target-not-constrained"
    #: A rule allows it, and no constraint looks at levels for this permission.
    UNCONSTRAINED_PERMISSION = "permission-not-constrained"
    #: It would be denied, but the source's type is permissive: the kernel logs, and lets it be.
    PERMISSIVE = "permissive-type"
    #: No rule of the policy allows it, whatever its booleans are.
    NO_TYPE_RULE = "no-type-rule"
    #: The rule that allows it is off; one of the named booleans puts it in force.
    BOOLEAN = "boolean"
    #: A constraint denies it: categories, levels, roles or users.
    CONSTRAINT = "constraint"
    #: No rule lets the one role change to the other.
    ROLE = "role"
    #: The source's type is bounded by one that may not do it.
    BOUNDS = "bounds"


@frozen
class PermissionAnswer:
    """The answer for one permission.

    Attributes:
        permission: its name.
        allowed: whether the kernel lets it happen.
        cause: why.
        booleans: with :attr:`Cause.BOOLEAN`, each boolean that alone would allow it, with the
            state that it would need.
        constraint: with a constraint as the cause, its text as libsepol prints it: the parts
            that are not met end in ``-Fail-``.
        exempt: with a type that is exempt, what makes it so: an attribute that it has or lacks, as
            the constraint says it, such as ``!= mcs_constrained_type``.
        booleans_known: it could be asked whether a boolean would allow it.
    """

    permission: str
    allowed: bool
    cause: Cause
    booleans: tuple[tuple[str, bool], ...] = ()
    constraint: str = ""
    exempt: str = ""
    booleans_known: bool = True


@frozen
class AccessAnswer:
    """What a policy says of one source, target and class.

    Attributes:
        source: context of the process.
        target: context of what it acts on.
        target_class: class of the target, such as ``file``.
        answers: one for each permission that was asked for.
        policy: path of the policy that was asked; None if there is none.
        undecided: why nothing was decided, or an empty text.
    """

    source: str
    target: str
    target_class: str
    answers: tuple[PermissionAnswer, ...] = ()
    policy: Optional[str] = None
    undecided: str = ""

    @property
    def allowed(self) -> Optional[bool]:
        """Whether all that was asked for is allowed; None where nothing was decided."""
        if self.undecided:
            return None
        return all(answer.allowed for answer in self.answers)


@frozen
class DomainAccess:
    """A domain of the policy that has access to a target.

    Attributes:
        domain: its type.
        permissions: those of the asked ones that it has.
        any_level: the policy lets it whatever its categories are; if not, only with a level
            that the policy's constraints accept.
        permissive: the type is permissive.
    """

    domain: str
    permissions: tuple[str, ...]
    any_level: bool
    permissive: bool = False
