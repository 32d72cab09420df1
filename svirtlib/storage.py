"""File-context rules for storage: which rule a path needs, and what becomes of a label.

Everything here is worked out from values; nothing looks at the system. Paths are bytes, as
names of files are; contexts are text.

The sources are libselinux's ``label_file.c`` (which rule wins), libsemanage's
``fcontext_record.c`` and ``validate_handler`` (what a rule may be), and
``selinux_restorecon`` (what becomes of a label that differs).
"""

from __future__ import annotations

import enum
import re
import shlex
import stat
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from attr import evolve, field, frozen

from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.filepattern import Pattern
from svirtlib.filerules import Rule, kind_letter, literal_path
from svirtlib.storagepaths import escape_path, pattern_for, shown
from svirtlib.storagetypes import UNDECIDED, type_of

__all__ = [
    "Change",
    "Conflict",
    "Decision",
    "FileKept",
    "LocalLine",
    "Lookup",
    "Plan",
    "RuleAction",
    "RuleChange",
    "Target",
    "Verdict",
    "decide",
    "in_new_order",
    "plan_rule",
    "shell_commands",
]

#: The context that a path would get from rules, or None where none gives it one.
Lookup = Callable[[bytes, int], Optional[str]]


# ---------------------------------------------------------------------------------------------
# Rules
# ---------------------------------------------------------------------------------------------


class RuleAction(enum.Enum):
    """What a plan does about one rule."""

    #: There is none for this pattern and kind.
    ADD = "add"
    #: There is a local one with another context.
    MODIFY = "modify"
    #: The same local rule is there already.
    PRESENT = "present"
    #: Other rules give the path and all below it this context already.
    COVERED = "covered"
    #: The file system has one label for all its files; a rule has no effect.
    USELESS = "useless"


@frozen
class Conflict:
    """A rule that wins over the planned one somewhere.

    Attributes:
        pattern: its pattern.
        place: where it stands.
        context: what it gives, or None for ``<<none>>``.
        path: a path for which it wins.
        kind: which files it is for, a letter of ``semanage fcontext -f``.
        local: it is a pattern of the administrator's own.
    """

    pattern: str
    place: str
    context: Optional[str]
    path: str
    kind: str = "a"
    local: bool = False


@frozen
class RuleChange:
    """What is done about the rule of one path.

    Attributes:
        action: what is done.
        pattern: the pattern of the rule.
        kind: which files it is for, a letter of ``semanage fcontext -f``.
        context: what they get.
        before: the context that a local rule of this pattern and kind gives now.
        replaces: the type that the rules give the path now, where it is another service's.
        shadowed_by: rules that win over it below the path.
        ahead_of: pattern and kind of the first local rule that has to stay stronger than a new
            one, as it is for a part of the path alone; None where there is none.
    """

    action: RuleAction
    pattern: str
    kind: str
    context: str
    before: Optional[str] = None
    replaces: Optional[str] = None
    shadowed_by: tuple[Conflict, ...] = ()
    ahead_of: Optional[tuple[str, str]] = None

    @property
    def pending(self) -> bool:
        """Whether the store has to be changed."""
        return self.action in (RuleAction.ADD, RuleAction.MODIFY)


_NONE = "<<none>>"

#: A local rule as its file has it: pattern, kind, and context or None for ``<<none>>``.
LocalLine = tuple[str, str, Optional[str]]

#: Names below a folder that stand for all there may be.
_PROBES = (
    (b"", stat.S_IFDIR),
    (b"/x", stat.S_IFREG),
    (b"/x", stat.S_IFDIR),
    (b"/x/y.z", stat.S_IFREG),
)


def plan_rule(
    path: bytes,
    mode: int,
    kind: int,
    context: Context,
    rules: Sequence[Rule],
    is_local: Callable[[Rule], bool],
    now: Lookup,
) -> RuleChange:
    """Return what to do about the rule of a path.

    Args:
        path: cleaned path of a folder, file or device, with equivalences applied.
        mode: its ``st_mode``.
        kind: which files the rule is for (``stat.S_IFMT``), 0 for all.
        context: what they shall get.
        rules: all rules, the strongest first.
        is_local: tells which of them are the administrator's.
        now: what the rules give a path now.
    """
    folder = stat.S_ISDIR(mode)
    pattern = pattern_for(path, folder=folder)
    wanted = str(context)
    before = next(
        (
            rule
            for rule in rules
            if rule.kind == kind and rule.pattern == pattern.encode() and is_local(rule)
        ),
        None,
    )
    probes = [
        (path + tail, at)
        for tail, at in (_PROBES if folder else ((b"", mode),))
        if kind in (0, stat.S_IFMT(at))
    ]
    answers = [now(*probe) for probe in probes]
    current = now(path, stat.S_IFMT(mode))
    replaces = type_of(current)
    if before is not None or replaces in UNDECIDED or replaces == context.type:
        replaces = None
    action = RuleAction.ADD
    if before is not None:
        action = RuleAction.PRESENT if before.context == wanted else RuleAction.MODIFY
    elif answers and all(_same(answer, context) for answer in answers):
        action = RuleAction.COVERED
    shadows = (
        ()
        if action is RuleAction.COVERED
        else tuple(_stronger(path, kind, wanted, before, rules, is_local, probes))
    )
    ahead_of = None
    if action is RuleAction.ADD:
        parts = [
            rule
            for rule in rules
            if is_local(rule) and rule.context != wanted and _is_for_a_part(rule, path, kind)
        ]
        if parts:
            ahead_of = parts[-1].pattern.decode("ascii"), kind_letter(parts[-1].kind)
    return RuleChange(
        ahead_of=ahead_of,
        action=action,
        pattern=pattern,
        kind=kind_letter(kind),
        context=wanted,
        before=None if before is None else before.context or "<<none>>",
        replaces=replaces,
        shadowed_by=shadows,
    )


def _stronger(
    path: bytes,
    kind: int,
    wanted: str,
    before: Optional[Rule],
    rules: Sequence[Rule],
    is_local: Callable[[Rule], bool],
    probes: Sequence[tuple[bytes, int]],
) -> Iterable[Conflict]:
    """Yield rules that win over one for *path*.

    Rules for one path alone win over patterns. Of patterns the later one wins, and a new rule
    is the last one but for the administrator's own for parts of the path; one that is there
    already may have others behind it.
    """
    alone = literal_path(escape_path(path).encode()) is not None and len(probes) == 1
    weaker = before is None
    for rule in rules:
        weaker = weaker or rule is before
        if rule is before or rule.context == wanted or (rule.kind and kind and rule.kind != kind):
            continue
        exact = literal_path(rule.pattern)
        if exact is not None:
            if exact.startswith(path + b"/") or (exact == path and not (alone and weaker)):
                yield _conflict(rule, exact)
        elif is_local(rule) and _is_for_a_part(rule, path, kind):
            if before is None or not weaker:
                yield evolve(_conflict(rule, Pattern(rule, 0).start), local=True)
        elif not weaker and is_local(rule):
            for probe, mode in probes:
                if rule.kind in (0, stat.S_IFMT(mode)) and _matches(rule.pattern, probe):
                    yield _conflict(rule, probe)
                    break


def _is_for_a_part(rule: Rule, path: bytes, kind: int) -> bool:
    """Tell whether a pattern is for a part of what a rule for a path and a kind is for."""
    if literal_path(rule.pattern) is not None or (kind and rule.kind and kind != rule.kind):
        return False
    start = Pattern(rule, 0).start
    same = rule.pattern == pattern_for(path, folder=True).encode()
    return start.startswith(path + b"/") or bool(same and rule.kind and not kind)


def in_new_order(local: Sequence[LocalLine], pending: Iterable[RuleChange]) -> list[LocalLine]:
    """Return the local rules as they are to stand in their file, the strongest last.

    Args:
        local: pattern, kind and context of those that are there, the strongest last.
        pending: what is to be done: replaced in its place, or added; new ones are the strongest
            but for those that they have to be ahead of.
    """
    lines = list(local)
    for change in pending:
        key = change.pattern, change.kind
        keys = [(pattern, kind) for pattern, kind, _ in lines]
        line = (*key, change.context)
        if key in keys:
            lines[keys.index(key)] = line
        elif change.ahead_of in keys:
            lines.insert(keys.index(change.ahead_of), line)
        else:
            lines.append(line)
    return lines


def _matches(pattern: bytes, path: bytes) -> bool:
    try:
        return re.fullmatch(pattern, path, re.DOTALL) is not None
    except re.error:
        return False


def _conflict(rule: Rule, path: bytes) -> Conflict:
    return Conflict(
        rule.pattern.decode("ascii", "replace"),
        rule.place,
        rule.context,
        shown(path),
        kind_letter(rule.kind),
    )


def _same(answer: Optional[str], context: Context) -> bool:
    if answer is None:
        return False
    try:
        return Context.parse(answer) == context
    except InvalidContextError:
        return False


# ---------------------------------------------------------------------------------------------
# Labels
# ---------------------------------------------------------------------------------------------


class Verdict(enum.Enum):
    """What becomes of a file's label."""

    RIGHT = "right"
    CHANGE = "change"
    #: No rule gives it a context, or a rule says ``<<none>>``.
    NO_RULE = "no rule"
    #: The policy leaves files of its type to the administrator.
    CUSTOMIZABLE = "customizable"
    #: It has a guest's label; which guest's, and whether it is needed, `image inspect` tells.
    GUEST_LABEL = "label of a guest"


@frozen
class Decision:
    """What becomes of a label, and the new one where it changes."""

    verdict: Verdict
    context: Optional[str] = None


#: What libvirt gives images of guests.
_GUEST_LABELS = frozenset({"svirt_image_t", "svirt_home_t", "svirt_tmp_t", "svirt_tmpfs_t"})


def decide(
    current: Optional[str],
    wanted: Optional[str],
    customizable: frozenset[str] = frozenset(),
    *,
    force: bool = False,
) -> Decision:
    """Decide what becomes of a file's label, as ``restorecon`` does.

    A file without a label gets the whole context. Of one with a label only the type is
    changed; user, role and range stay. A label with a customizable type stays, and so does one
    that libvirt gave: a type of guests' images with categories.

    Args:
        current: the label that the file has, or None.
        wanted: the context that the rules give it, or None.
        customizable: types that the policy leaves to the administrator.
        force: set the whole context, whatever it is now (``restorecon -F``).
    """
    if wanted is None:
        return Decision(Verdict.NO_RULE)
    if current == wanted:
        return Decision(Verdict.RIGHT)
    # In canonical form, or it would never equal what the kernel says of the file.
    new = Context.parse(wanted)
    wanted = str(new)
    if current is None:
        return Decision(Verdict.CHANGE, wanted)
    try:
        old = Context.parse(current)
    except InvalidContextError:
        return Decision(Verdict.CHANGE, wanted)
    if old == new:
        # Spelt otherwise; the kernel itself writes it in one way alone.
        return Decision(Verdict.RIGHT)
    if force:
        return Decision(Verdict.CHANGE, wanted)
    if old.type == new.type:
        return Decision(Verdict.RIGHT)
    if old.type in _GUEST_LABELS and old.level is not None and old.level.mask:
        return Decision(Verdict.GUEST_LABEL)
    if old.type in customizable:
        return Decision(Verdict.CUSTOMIZABLE)
    return Decision(Verdict.CHANGE, str(old.with_type(new.type)))


# ---------------------------------------------------------------------------------------------
# Plans
# ---------------------------------------------------------------------------------------------


@frozen
class Target:
    """One thing that was named, and what is done about it.

    Attributes:
        path: where it lies, as rules see it.
        folder: whether it is a folder.
        rule: what is done about its rule.
        labels: whether files there carry labels.
        advice: what to do instead where they do not.
        satisfied: their one label has the wanted type already.
        notes: what else there is to say.
    """

    path: bytes
    folder: bool
    rule: RuleChange
    labels: bool = True
    advice: Optional[str] = None
    satisfied: bool = False
    notes: tuple[str, ...] = ()


@frozen
class Change:
    """A file whose label changes."""

    path: str
    old: Optional[str]
    new: str


@frozen
class FileKept:
    """A file whose label differs and is left alone, and why."""

    path: str
    label: Optional[str]
    reason: str


@frozen
class Plan:
    """What ``apply`` would do.

    Attributes:
        targets: one for each path.
        checked: how many files were looked at.
        to_change: how many of them would change.
        changes: the first of these.
        kept_count: how many differ and would be left alone.
        kept: the first of these.
        unreadable: what could not be looked at, each with a reason.
        notes: what holds for the whole plan.
    """

    targets: tuple[Target, ...]
    checked: int = 0
    to_change: int = 0
    changes: tuple[Change, ...] = ()
    kept_count: int = 0
    kept: tuple[FileKept, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def pending(self) -> bool:
        """Whether ``apply`` would change anything."""
        return self.to_change > 0 or any(target.rule.pending for target in self.targets)


def _semanage(option: str, pattern: str, kind: str, context: Optional[str]) -> str:
    words = ["semanage", "fcontext", option]
    if kind != "a":
        words += ["-f", kind]
    if context == _NONE:
        words += ["-t", _NONE]
    elif context is not None:
        parsed = Context.parse(context)
        if parsed.user != "system_u":
            words += ["-s", parsed.user]
        if parsed.range is not None and str(parsed.range) != "s0":
            words += ["-r", str(parsed.range)]
        words += ["-t", parsed.type]
    return shlex.join([*words, pattern])


def shell_commands(targets: Iterable[Target], *, force: bool = False) -> list[str]:
    """Return what an administrator would type to do the same by hand."""
    commands = []
    targets = tuple(targets)
    for target in targets:
        rule = target.rule
        if rule.pending:
            option = "-a" if rule.action is RuleAction.ADD else "-m"
            commands.append(_semanage(option, rule.pattern, rule.kind, rule.context))
            for shadow in rule.shadowed_by if rule.ahead_of is not None else ():
                # semanage puts a new rule last; what is to be stronger has to come after it.
                if not shadow.local:
                    continue
                commands.append(_semanage("-d", shadow.pattern, shadow.kind, None))
                commands.append(
                    _semanage("-a", shadow.pattern, shadow.kind, shadow.context or _NONE)
                )
    for target in targets:
        if target.labels:
            options = ["-R"] if target.folder else []
            options += ["-v", *(["-F"] if force else [])]
            commands.append(shlex.join(["restorecon", *options, shown(target.path)]))
    return commands
