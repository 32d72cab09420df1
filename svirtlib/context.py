"""Security contexts: ``user:role:type[:range]``.

Only the first three colons separate; what follows them is the range (kernel
``string_to_context_struct``). Whether a user, role or type exists, and whether they may be
combined, is a question for the policy; here they need only be names that a policy can have.
This module knows nothing of XML or the system.
"""

from __future__ import annotations

import re
from typing import Optional

from attr import frozen

from svirtlib.errors import InvalidContextError, InvalidRangeError
from svirtlib.mls import DEFAULT_SPACE, MAX_TEXT, TOO_LONG, LabelSpace, Level, Range

__all__ = ["Context"]

# What the policy compilers accept as a name (checkpolicy's and CIL's identifiers).
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*", re.ASCII)
_NAMES = re.compile(":".join([_NAME.pattern] * 3), re.ASCII)


@frozen(repr=False)
class Context:
    """A security context, such as ``system_u:system_r:svirt_t:s0:c87,c520``.

    Immutable and hashable; two contexts are equal when the kernel takes them for the same,
    however they were written.

    Attributes:
        user: the SELinux user.
        role: the role.
        type: the type; of a process also called its domain.
        range: the range, or None in a policy without MLS and MCS.

    Raises:
        InvalidContextError: a user, role or type that no policy can have.
    """

    user: str
    role: str
    type: str
    range: Optional[Range] = None

    @classmethod
    def parse(cls, text: str, space: LabelSpace = DEFAULT_SPACE) -> Context:
        """Parse ``user:role:type`` or ``user:role:type:range``.

        Raises:
            InvalidContextError: *text* is no context; its ``span`` tells which part.
        """
        if len(text) > MAX_TEXT:
            raise InvalidContextError(text, TOO_LONG)
        parts = text.split(":", 3)
        if len(parts) < 3:
            raise InvalidContextError(text, "a context is user:role:type:range")
        range: Optional[Range] = None
        fault: Optional[InvalidContextError] = None
        if len(parts) > 3:
            try:
                range = Range.parse(parts[3], space)
            except InvalidRangeError as error:
                offset = len(text) - len(parts[3])
                span = error.span and (error.span[0] + offset, error.span[1] + offset)
                fault = InvalidContextError(text, error.reason, span)
        try:
            context = cls(parts[0], parts[1], parts[2], range)
        except InvalidContextError as error:
            raise InvalidContextError(text, error.reason, error.span) from None
        if fault is not None:
            raise fault
        return context

    def __attrs_post_init__(self) -> None:
        # All at once, and one by one only to find the culprit.
        if _NAMES.fullmatch(self.user_role_type):
            return
        offset = 0
        for kind, name in (("user", self.user), ("role", self.role), ("type", self.type)):
            if not _NAME.fullmatch(name):
                if not name:
                    reason = f"the {kind} is missing"
                elif name != name.strip():
                    reason = f"white space in the {kind}"
                else:
                    reason = f"no policy can have such a {kind}"
                raise InvalidContextError(str(self), reason, (offset, offset + len(name)))
            offset += len(name) + 1

    @property
    def level(self) -> Optional[Level]:
        """The high level, which MCS policies compare; None where there is no range."""
        return None if self.range is None else self.range.high

    @property
    def user_role_type(self) -> str:
        """Text of the context without its range, which is what a policy's rules are about."""
        return f"{self.user}:{self.role}:{self.type}"

    def with_range(self, range: Optional[Range], /) -> Context:
        """Return the same context with another range, or with none."""
        return Context(self.user, self.role, self.type, range)

    def with_type(self, type: str, /) -> Context:
        """Return the same context with another type."""
        return Context(self.user, self.role, type, self.range)

    def __str__(self) -> str:
        text = self.user_role_type
        return text if self.range is None else f"{text}:{self.range}"

    def __repr__(self) -> str:
        return f"Context.parse({str(self)!r})"
