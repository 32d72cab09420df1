"""The policy that is asked: which one, what it decides, and why.

    with open_policy() as policy:            # the loaded one, else the installed one
        policy.allowed(process, image, "file", "read")
        policy.explain(process, image, "file", ("read", "write"))

The decisions are libsepol's (:mod:`svirtlib.backends._sepol`). Kept are decisions by source,
target and class. Contexts that differ in their levels alone share a decision if the levels
stand to each other in the same way: a constraint can compare levels, and nothing else of them
(the ``l1 dom l2`` and so on of the policy language; kernel ``constraint_expr_eval``).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Optional, Union, overload

from attr import evolve, frozen

from svirtlib.backends import _sepol
from svirtlib.context import Context
from svirtlib.errors import (
    BackendDataError,
    BackendPermissionError,
    BackendUnavailableError,
    InvalidContextError,
    PolicyError,
    quote,
)
from svirtlib.mls import Level
from svirtlib.selinuxconfig import policy_name

if TYPE_CHECKING:
    from svirtlib.access import AccessAnswer, DomainAccess

__all__ = ["Policy", "Target", "find_policy", "open_policy", "target_of"]

LOADED = "/sys/fs/selinux/policy"
_CONFIGURATION = "/etc/selinux/config"
_STORE = "/etc/selinux"

#: Largest policy that is read, in bytes; those of distributions have less than 10 MiB.
MAX_BYTES = 256 * 1024 * 1024

#: Decisions that are kept; a host has some hundred.
_MOST_DECISIONS = 500_000

#: The class of a file by the kind of its inode.
_CLASSES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFBLK: "blk_file",
    stat.S_IFCHR: "chr_file",
    stat.S_IFIFO: "fifo_file",
    stat.S_IFSOCK: "sock_file",
}


@frozen
class Target:
    """What is acted on: its context, and its class where that is known."""

    context: str
    target_class: Optional[str] = None


@frozen
class _Subject:
    """A context, as it was given, taken apart; ``key`` is the part before the range."""

    context: Union[Context, str]
    key: str
    low: Level
    high: Level


def _taken_apart(context: Context, given: Union[Context, str]) -> Optional[_Subject]:
    if context.range is None:
        return None
    return _Subject(given, context.user_role_type, context.range.low, context.range.high)


def find_policy() -> Optional[str]:
    """Return the path of the policy to ask by default, or None if this host has none.

    That is the loaded one where the kernel runs SELinux, else the installed one of the
    configured type: ``/etc/selinux/TYPE/policy/policy.VERSION``, the highest version.
    """
    if os.path.lexists(LOADED):
        return LOADED
    folder = os.path.join(_STORE, _configured_type(), "policy")
    versions = []
    try:
        names = os.listdir(folder)
    except OSError:
        return None
    for name in names:
        stem, _, version = name.partition(".")
        if stem == "policy" and version.isdigit():
            versions.append(int(version))
    return os.path.join(folder, f"policy.{max(versions)}") if versions else None


def _configured_type() -> str:
    try:
        with open(_CONFIGURATION, encoding="utf-8", errors="surrogateescape") as stream:
            return os.path.basename(policy_name(stream.read()))
    except OSError:
        return policy_name("")


@overload
def open_policy(path: str, booleans: Optional[Mapping[str, bool]] = None) -> Policy: ...


@overload
def open_policy(
    path: Optional[str] = None, booleans: Optional[Mapping[str, bool]] = None
) -> Optional[Policy]: ...


def open_policy(
    path: Optional[str] = None, booleans: Optional[Mapping[str, bool]] = None
) -> Optional[Policy]:
    """Open a policy, or return None if none was given and this host has none.

    Args:
        path: a binary policy; None for the one of this host, see :func:`find_policy`.
        booleans: states that are to hold in place of the policy's own.

    Raises:
        PolicyError: *path* is no policy that libsepol here reads.
        BackendError: this host's policy cannot be read, or there is no libsepol.
        SelectionError: the policy has no such boolean.
    """
    found = find_policy() if path is None else path
    if found == "":
        raise PolicyError("the path of the policy is empty; --policy takes a binary policy")
    if found is None:
        return None
    image = _read(found)
    try:
        engine = _sepol.Engine(image, found)
    except BackendDataError as error:
        if path is None:
            raise
        raise PolicyError(str(error)) from None
    if booleans:
        image = engine.with_booleans(booleans)
        engine = _sepol.Engine(image, found)
    return Policy(engine, image, found)


def _read(path: str) -> bytes:
    try:
        # Not blocking: a pipe in its place must not hold the program.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyError(f"{path} is no file; --policy takes a binary policy")
            with open(descriptor, "rb", closefd=False) as stream:
                image = stream.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except PermissionError as error:
        raise BackendPermissionError(
            f"the policy {path} cannot be read: {error.strerror}; run as root, or name another "
            f"with --policy"
        ) from None
    except OSError as error:
        raise BackendUnavailableError(
            f"the policy {path} cannot be read: {error.strerror or error}; name one with --policy, "
            f"such as /etc/selinux/<type>/policy/policy.<version>"
        ) from None
    if len(image) > MAX_BYTES:
        raise PolicyError(f"{path} is too large for a policy (over {MAX_BYTES} bytes)")
    return image


def target_of(text: str) -> Target:
    """Return what a target on the command line means: a context, or the label of a path.

    A link means what it leads to.

    Raises:
        PolicyError: it can be neither.
        BackendError: the path, or its label, cannot be read.
    """
    # A context has two colons at least, and never a slash.
    if "/" not in text and (text.count(":") > 1 or not os.path.lexists(text)):
        return Target(text)
    try:
        # As the guest's process does: /dev/vg/web01 is a link, its label says nothing.
        status = os.stat(text)
        label = os.getxattr(text, "security.selinux")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            raise BackendUnavailableError(
                f"{quote(text)} has no SELinux label; say which context it would have instead"
            ) from None
        raise BackendUnavailableError(
            f"the label of {quote(text)} cannot be read: {error.strerror}"
        ) from None
    except ValueError:
        raise PolicyError(f"{quote(text)} is neither a path nor a context") from None
    return Target(
        label.rstrip(b"\0").decode("utf-8", "surrogateescape"),
        _CLASSES.get(stat.S_IFMT(status.st_mode)),
    )


class Policy:
    """A policy that is open. Use it as a context manager, or close it.

    Attributes:
        source: path of the policy.
    """

    def __init__(self, engine: _sepol.Engine, image: bytes, source: str) -> None:
        self.source = source
        self._engine = engine
        self._image = image
        self._subjects: dict[str, Union[_Subject, None]] = {}
        self._valid: dict[object, bool] = {}
        self._decisions: dict[tuple[str, str, str], Optional[int]] = {}
        self._by_relation: dict[tuple[str, str, str, object], Optional[int]] = {}
        self._permissive: Optional[frozenset[str]] = None
        self._statements: Optional[Mapping[str, tuple[tuple[str, ...], ...]]] = None

    def __enter__(self) -> Policy:  # noqa: PYI034 - typing has no Self before 3.11
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what was worked out; libsepol keeps the policy until it reads another."""
        for kept in (self._subjects, self._valid, self._decisions, self._by_relation):
            kept.clear()

    # --- Decisions ----------------------------------------------------------------------------

    def permissions(self, target_class: str) -> tuple[str, ...]:
        """Return the names of a class's permissions.

        Raises:
            PolicyError: the policy has no such class.
        """
        return tuple(self._engine.target_class(target_class).permissions)

    def allowed(self, source: str, target: str, target_class: str, permission: str) -> bool:
        """Tell whether the policy allows one permission.

        A permissive type is not looked at: that is for :meth:`explain`.

        Raises:
            PolicyError: the policy does not know a context, the class or the permission.
        """
        bit = self._bit(target_class, permission)
        return bool(self.decide(source, target, target_class) & bit)

    def granted(self, source: str, target: str, target_class: str) -> tuple[str, ...]:
        """Return the names of all permissions that the policy allows.

        Raises:
            PolicyError: the policy does not know a context or the class.
        """
        bits = self.decide(source, target, target_class)
        return self._engine.target_class(target_class).names(bits)

    def decide(self, source: str, target: str, target_class: str) -> int:
        """Return all that *source* may do to *target*, as the sum of the permissions' bits.

        Raises:
            PolicyError: the policy does not know a context or the class.
        """
        key = (source, target, target_class)
        try:
            bits = self._decisions[key]
        except KeyError:
            if len(self._decisions) >= _MOST_DECISIONS:
                self._decisions.clear()
            bits = self._decisions[key] = self._decide(source, target, target_class)
        if bits is None:
            for text in (source, target):
                reason = self.refusal(text)
                if reason:
                    raise PolicyError(f"{quote(text)} is no context of {self.source}: {reason}")
            raise BackendDataError(f"libsepol cannot decide by {self.source}")
        return bits

    def _decide(self, source: str, target: str, target_class: str) -> Optional[int]:
        one, other = self._subject(source), self._subject(target)
        known = self._engine.target_class(target_class)
        if one is None or other is None:
            # In words of another policy than the usual; libsepol alone can read them.
            return self._engine.allowed(source, target, known)
        if not self._is_valid(one) or not self._is_valid(other):
            return None
        key = (one.key, other.key, target_class, _stance(one, other))
        try:
            return self._by_relation[key]
        except KeyError:
            bits = self._by_relation[key] = self._engine.allowed(source, target, known)
            return bits

    def _bit(self, target_class: str, permission: str) -> int:
        known = self._engine.target_class(target_class)
        bit = known.permissions.get(permission)
        if bit is None:
            near = get_close_matches(permission, known.permissions, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PolicyError(
                f"the class {target_class} of {self.source} has no permission "
                f"{quote(permission)}{hint} (it has {', '.join(sorted(known.permissions))})"
            )
        return bit

    def _subject(self, text: str) -> Optional[_Subject]:
        try:
            return self._subjects[text]
        except KeyError:
            pass
        subject = None
        with contextlib.suppress(InvalidContextError):
            subject = _taken_apart(Context.parse(text), text)
        if len(self._subjects) >= _MOST_DECISIONS:
            self._subjects.clear()
        self._subjects[text] = subject
        return subject

    def _is_valid(self, subject: _Subject) -> bool:
        """Tell whether the policy accepts a context; asked once for many levels.

        If a user may have all categories with a sensitivity, it may have some of them: a range
        is valid if it lies within the user's (kernel ``mls_context_isvalid``).
        """
        sensitivity = subject.low.sensitivity
        if sensitivity == subject.high.sensitivity:
            key = (subject.key, sensitivity)
            valid = self._valid.get(key)
            if valid is None:
                name = subject.low.space.sensitivities[sensitivity]
                everything = f"{name}-{name}:c0.c1023"
                asked = self._engine.context_id(f"{subject.key}:{everything}")
                valid = self._valid[key] = asked is not None
            if valid:
                return True
        return self._engine.context_id(str(subject.context)) is not None

    # --- Contexts -----------------------------------------------------------------------------

    def accepts(self, context: Union[Context, str]) -> bool:
        """Tell whether the policy accepts a context, parsed or not."""
        if isinstance(context, Context):
            # Its text is made only where that is asked about.
            subject = _taken_apart(context, context)
        else:
            subject = self._subject(context)
        if subject is None:
            return self._engine.context_id(str(context)) is not None
        return self._is_valid(subject)

    def refusal(self, text: str) -> str:
        """Return why the policy refuses a context, or an empty text if it accepts it."""
        if self._engine.context_id(text) is not None:
            return ""
        parts = text.split(":", 3)
        if len(parts) < 3:
            return "a context is user:role:type:range"
        user, role, type_ = parts[:3]
        users = {words[0] for words in self._listed("user")}
        if user not in users:
            return f"the policy has no user {quote(user)}{_near(user, users)}"
        roles = {words[0] for words in self._listed("role") if words} | {"object_r"}
        if role not in roles:
            return f"the policy has no role {quote(role)}{_near(role, roles)}"
        if not self.has_type(type_):
            return f"the policy has no type {quote(type_)}{_near(type_, self.types())}"
        if len(parts) < 4:
            return "the range is missing, and the policy has levels"
        if self._engine.context_id(f"{user}:object_r:{type_}:{parts[3]}") is None:
            return f"the policy has no range {quote(parts[3])}"
        if (user, role) not in self._listed("userrole"):
            return f"the user {user} may not have the role {role}"
        primary = self._aliases().get(type_, type_)
        if (role, primary) not in self._listed("roletype"):
            return f"the role {role} may not have the type {type_}"
        return f"the user {user} may not have the range {parts[3]}"

    def has_type(self, name: str) -> bool:
        """Tell whether the policy has a type, by its name or an alias of it."""
        return name in self._aliases() or (name,) in self._listed("type")

    def _aliases(self) -> dict[str, str]:
        """Return the primary name of each alias."""
        return {words[0]: words[1] for words in self._listed("typealiasactual")}

    def canonical(self, context: str) -> Optional[str]:
        """Return a context as the kernel prints it, or None if the policy refuses it."""
        return self._engine.canonical(context)

    def booleans(self) -> dict[str, bool]:
        """Return the state of each boolean of the policy, by its name."""
        return self._engine.booleans()

    def tcp_ports(self) -> tuple[tuple[int, int, str], ...]:
        """Return first port, last port and type of each statement about TCP; the first holds."""
        return self._engine.tcp_ports()

    def is_permissive(self, type: str, /) -> bool:
        """Tell whether a type is permissive."""
        if self._permissive is None:
            names: Iterable[str] = ()
            if self._engine.may_be_permissive:
                names = [words[0] for words in self._listed("typepermissive")]
            self._permissive = frozenset(names)
        if not self._permissive or type in self._permissive:
            return type in self._permissive
        return self._aliases().get(type) in self._permissive

    def _listed(self, keyword: str) -> Sequence[tuple[str, ...]]:
        if self._statements is None:
            self._statements = self._engine.statements()
        return self._statements[keyword]

    # --- Reasons ------------------------------------------------------------------------------

    def explain(
        self, source: str, target: str, target_class: str, permissions: Sequence[str]
    ) -> AccessAnswer:
        """Return the decision on each permission with its reason.

        Raises:
            PolicyError: the policy does not know a context, the class or a permission.
        """
        # Most that is asked needs no reasons, and check is not to wait for them.
        from svirtlib.access import AccessAnswer, Cause
        from svirtlib.backends import _reasons

        bits = self.decide(source, target, target_class)
        wanted = tuple(dict.fromkeys(permissions))
        verdicts = {name: self._verdict(source, target, target_class, name) for name in wanted}
        untyped = [name for name in wanted if verdicts[name].stages & _sepol.DENIED_BY_TYPE]
        booleans = _reasons.booleans(self._image, source, target, target_class, untyped)
        permissive = not all(bits & self._bit(target_class, name) for name in wanted) and (
            self.is_permissive(_type_of(source))
        )
        answers = []
        for name in wanted:
            if bits & self._bit(target_class, name):
                matter = partial(self._levels_matter, source, target, target_class, name)
                answers.append(_reasons.granted(name, verdicts[name], matter))
            else:
                found = () if booleans is None else booleans.get(name, ())
                answer = _reasons.denied(name, verdicts[name], found)
                if permissive:
                    answer = evolve(answer, allowed=True, cause=Cause.PERMISSIVE)
                answers.append(evolve(answer, booleans_known=booleans is not None))
        return AccessAnswer(source, target, target_class, tuple(answers), self.source)

    def _levels_matter(self, source: str, target: str, target_class: str, permission: str) -> bool:
        """Tell whether contexts of these kinds are denied a permission at levels that are apart."""
        one, other = self._subject(source), self._subject(target)
        if one is None or other is None:
            return False
        names = one.low.space.sensitivities
        granted = self._engine.allowed(
            f"{one.key}:{names[one.low.sensitivity]}:c0",
            f"{other.key}:{names[other.low.sensitivity]}:c1",
            self._engine.target_class(target_class),
        )
        return granted is not None and not granted & self._bit(target_class, permission)

    def _verdict(
        self, source: str, target: str, target_class: str, permission: str
    ) -> _sepol.Verdict:
        bit = self._bit(target_class, permission)
        known = self._engine.target_class(target_class)
        verdict = self._engine.verdict(source, target, known, bit)
        if verdict is None:
            raise BackendDataError(f"libsepol cannot decide by {self.source}")
        return verdict

    # --- Who can ------------------------------------------------------------------------------

    def who_can(
        self, target: str, target_class: str, permissions: Sequence[str]
    ) -> tuple[DomainAccess, ...]:
        """Return every domain of the policy that has one of the permissions on *target*.

        Domains are the types that a role other than ``object_r`` may have. Each is asked with
        levels that the target's constraints refuse, and with the target's own.

        Raises:
            PolicyError: the policy does not know the context, the class or a permission.
        """
        from svirtlib.access import DomainAccess

        wanted = {name: self._bit(target_class, name) for name in dict.fromkeys(permissions)}
        everything = sum(wanted.values())
        # Refuses, with the reason, a target that is not in order.
        self.decide(target, target, target_class)
        subject = self._subject(target)
        found = []
        for domain, user, role in self.domains():
            head = f"{user}:{role}:{domain}"
            range_ = _range_of(target)
            low = high = self._ask(f"{head}:{range_}" if range_ else head, target, target_class)
            if subject is not None:
                low = self._ask(f"{head}:{_apart_from(subject)}", target, target_class)
            bits = (low | high) & everything
            if not bits:
                continue
            found.append(
                DomainAccess(
                    domain=domain,
                    permissions=tuple(name for name, bit in wanted.items() if bits & bit),
                    any_level=bits == low & everything,
                    permissive=self.is_permissive(domain),
                )
            )
        return tuple(sorted(found, key=lambda entry: (not entry.any_level, entry.domain)))

    def _ask(self, source: str, target: str, target_class: str) -> int:
        known = self._engine.target_class(target_class)
        return self._engine.allowed(source, target, known) or 0

    def types(self) -> tuple[str, ...]:
        """Return the names of the policy's types, sorted."""
        return tuple(sorted(words[0] for words in self._listed("type") if words))

    def domains(self) -> Iterable[tuple[str, str, str]]:
        """Yield each domain (a type that a process can have) with a user and a role for it."""
        user_of: dict[str, str] = {}
        for words in self._listed("userrole"):
            # UBAC exempts system_u; another user may be refused for its name alone.
            if words[1] not in user_of or words[0] == "system_u":
                user_of[words[1]] = words[0]
        seen: set[str] = set()
        # system_r first: it is the role of daemons and guests.
        pairs = sorted(
            (words for words in self._listed("roletype") if words[0] != "object_r"),
            key=lambda words: (words[1], words[0] != "system_r", words[0]),
        )
        for role, domain in pairs:
            if domain not in seen and role in user_of:
                seen.add(domain)
                yield domain, user_of[role], role


def _type_of(context: str) -> str:
    return context.split(":", 3)[2]


def _range_of(context: str) -> str:
    parts = context.split(":", 3)
    return parts[3] if len(parts) > 3 else ""


def _stance(one: _Subject, other: _Subject) -> object:
    """Return how the levels of two contexts stand to each other: all that constraints compare."""
    if one.low == one.high and other.low == other.high:
        return _relation(one.high, other.high)
    return (
        _relation(one.low, other.low),
        _relation(one.low, other.high),
        _relation(one.high, other.low),
        _relation(one.high, other.high),
        _relation(one.low, one.high),
        _relation(other.low, other.high),
    )


def _relation(one: Level, other: Level) -> int:
    return 2 * one.dominates(other) + other.dominates(one)


def _apart_from(subject: _Subject) -> str:
    """Return a level that neither dominates the target's high level nor has more than it takes.

    Where the target has no categories every level dominates it; then the target's own does.
    """
    level = subject.high
    name = level.space.sensitivities[level.sensitivity]
    if not level.mask:
        return str(level)
    for category in range(1024):
        if not level.mask >> category & 1:
            return f"{name}:c{category}"
    return name


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(known), 1)
    return f" (did you mean {near[0]}?)" if near else ""
