"""Plan, make and take back labels for storage of guests: the parts put together.

Nothing is changed before the journal tells of it. Rules are changed in one transaction of
libsemanage; labels by :mod:`svirtlib.backends.relabel`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

from attr import evolve, frozen

from svirtlib.backends import journal as log
from svirtlib.backends import policycheck
from svirtlib.backends.changes import (
    AttributesRecord,
    Journal,
    JournalHeader,
    Journals,
    LabelRecord,
    RuleRecord,
)
from svirtlib.backends.filecontexts import FileContexts, policy_folder
from svirtlib.backends.inuse import Users, find_users
from svirtlib.backends.mounts import mount_of, read_mounts
from svirtlib.backends.relabel import Relabelling
from svirtlib.backends.rulestore import LocalRule, RuleStore
from svirtlib.backends.walk import LABEL, Pinned, Walk
from svirtlib.context import Context
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    PartialChangeError,
    SelectionError,
    StorageError,
    SvirtError,
    quote,
)
from svirtlib.filerules import KINDS, Rule, kind_letter
from svirtlib.filesystems import FileSystemFacts, advice_for
from svirtlib.guests import Inventory, Mode
from svirtlib.mls import Range
from svirtlib.storage import Change, FileKept, Plan, RuleAction, RuleChange, Target, plan_rule
from svirtlib.storagepaths import check_path, looks_like_pattern, shown, system_path
from svirtlib.storagetypes import Purpose, check_type

__all__ = [
    "Outcome",
    "Request",
    "Undone",
    "apply",
    "list_changes",
    "plan",
    "refuse_without_selinux",
    "undo",
]

Progress = Callable[[int], None]


@frozen
class Request:
    """What an administrator asks for.

    Attributes:
        paths: folders, files and block devices, below *root*.
        purpose: what they are for; decides the type unless *type* does.
        type: the type of the rules, or None.
        range: the range of the rules, or None for the lowest level.
        kind: a letter of ``semanage fcontext -f``, or None: all files, for a device its kind.
        any_type: take a type that is none for storage of guests.
        override: replace rules that give a path another service's type.
        force: set whole contexts, also on customizable types and leftovers of guests.
        cross: go on into other file systems.
        root: the folder below which host, policy and paths lie.
        offline: SELinux need not run: change the stored policy and the labels all the same.
        most: how many changes are told by name.
    """

    paths: tuple[str, ...]
    purpose: Purpose = Purpose.IMAGES
    type: Optional[str] = None
    range: Optional[str] = None
    kind: Optional[str] = None
    any_type: bool = False
    override: bool = False
    force: bool = False
    cross: bool = False
    root: str = "/"
    offline: bool = False
    most: int = 1000


@frozen
class Outcome:
    """What ``apply`` did.

    Attributes:
        plan: as it was made before.
        rules: how many rules were changed.
        files: how many labels were changed.
        changes: the first of these.
        ident: name of the change, for undo; None where nothing was changed.
        resumed: it went on with a change that had stopped part way.
    """

    plan: Plan
    rules: int = 0
    files: int = 0
    changes: tuple[Change, ...] = ()
    ident: Optional[str] = None
    resumed: bool = False


@frozen
class Undone:
    """What ``undo`` did.

    Attributes:
        header: the change that was taken back.
        rules: how many rules were put back.
        files: how many files were put back.
        kept: what was not put back, and why.
        kept_count: how many these are; *kept* holds the first.
        gone: how many files are gone.
    """

    header: JournalHeader
    rules: int = 0
    files: int = 0
    kept: tuple[FileKept, ...] = ()
    kept_count: int = 0
    gone: int = 0


# ---------------------------------------------------------------------------------------------
# Plan
# ---------------------------------------------------------------------------------------------


def plan(
    request: Request,
    inventory: Optional[Inventory] = None,
    *,
    progress: Progress = lambda _: None,
) -> Plan:
    """Return what :func:`apply` would do; change nothing.

    Args:
        request: what is asked for.
        inventory: the guests of this host, or None where libvirt was not asked.
        progress: told now and then how many files were looked at.

    Raises:
        StorageError: a path or type must not be labelled, or cannot be.
        BackendError: there is no policy, or something cannot be read at all.
    """
    contexts = FileContexts.open(request.root)
    with Walk(request.root, cross=request.cross) as walk:
        made = _targets(request, contexts, walk)
        pending = [target.rule for target in made.targets if target.rule.pending]
        with _as_planned(contexts, pending) as planned:
            work = Relabelling(
                walk,
                planned,
                customizable=contexts.customizable,
                users=lambda: find_users(inventory),
                force=request.force,
                most=request.most,
                progress=progress,
            )
            work.run(_trees(made.targets))
    return _filled(made, work)


def _filled(made: Plan, work: Relabelling) -> Plan:
    return evolve(
        made,
        checked=work.checked,
        to_change=work.to_change,
        changes=tuple(work.changes),
        kept_count=work.kept_count,
        kept=tuple(work.kept),
        unreadable=tuple((gap.what, gap.reason) for gap in work.unreadable),
        notes=(
            *made.notes,
            *(
                f"{shown(path)} is another file system and was left out; --cross-filesystems takes "
                f"it in"
                for path in sorted(work.left_out)
            ),
        ),
    )


def _trees(targets: Sequence[Target]) -> list[bytes]:
    """Return the paths to go over, none of them inside another one."""
    trees: list[bytes] = []
    for path in sorted({target.path for target in targets if target.labels}):
        if not any(path.startswith(tree + b"/") for tree in trees):
            trees.append(path)
    return trees


def _targets(request: Request, contexts: FileContexts, walk: Walk) -> Plan:
    """Return the plan without its files.

    Raises:
        SvirtError: something was asked for that cannot be.
    """
    if not request.paths:
        raise StorageError("nothing is named; name a folder, a file, a block device or a pool")
    context = _context(request, contexts)
    notes = []
    selinux = request.root == "/" and _mode() in (Mode.ENFORCING, Mode.PERMISSIVE)
    if request.root == "/" and not selinux:
        notes.append(
            "SELinux does not run here: nothing would be enforced, and apply changes the stored "
            "policy and labels only with --offline"
        )
    homes = _homes(request.root)
    targets = []
    seen = set()
    for text in request.paths:
        target = _target(text, request, context, contexts, walk, homes, selinux)
        if target.path not in seen:
            seen.add(target.path)
            targets.append(target)
    return Plan(targets=tuple(targets), notes=tuple(notes))


def _target(
    text: str,
    request: Request,
    context: Context,
    contexts: FileContexts,
    walk: Walk,
    homes: Sequence[bytes],
    selinux: bool,
) -> Target:
    notes: list[str] = []
    path = check_path(text)
    if path.startswith(b"/dev/") and request.root == "/":
        # Names of devices are links that udev makes; only root can.
        real = os.path.realpath(path)
        if real != path:
            notes.append(f"{shown(path)} is {shown(real)}, the device that the kernel labels")
            path = real
    in_dev = path.startswith(b"/dev/")
    reason = None if in_dev else system_path(path, homes)
    if reason is not None:
        raise StorageError(f"{quote(shown(path))} must not be labelled for guests: {reason}")
    mode, refuses = _look_at(path, walk, request.root)
    kind = stat.S_IFMT(mode)
    if kind == stat.S_IFLNK:
        raise StorageError(
            f"{quote(shown(path))} is a symbolic link, and none is followed; name what it leads "
            f"to: {quote(os.path.realpath(path).decode('utf-8', 'replace'))}"
        )
    if kind in (stat.S_IFIFO, stat.S_IFSOCK):
        raise StorageError(f"{quote(shown(path))} is a pipe or socket, which holds no image")
    device = kind in (stat.S_IFBLK, stat.S_IFCHR)
    if in_dev and not device:
        raise StorageError(
            f"{quote(shown(path))} must not be labelled for guests: /dev belongs to the system; "
            f"name a block device in it"
        )
    if device:
        mounted = _mounted_on(os.lstat(path).st_rdev) if request.root == "/" else None
        if mounted is not None:
            raise StorageError(
                f"{quote(shown(path))} must not be labelled for guests: it, or a part of it, is "
                f"mounted on {quote(mounted)}; name a device that this host does not use itself"
            )
        notes.append(
            "libvirt labels a device itself when a guest starts with it; the rule is for the time "
            "in which none does"
        )
        if os.path.basename(path).startswith(b"dm-"):
            notes.append(
                "the number of a device-mapper device can change at each boot; the rule then is "
                "for another one"
            )
    if request.kind is not None:
        rule_kind = KINDS[request.kind]
        if rule_kind and kind not in (stat.S_IFDIR, rule_kind):
            raise StorageError(
                f"{quote(shown(path))} is of kind {kind_letter(kind)}; a rule of kind "
                f"{request.kind} is not for it"
            )
    else:
        rule_kind = kind if device else 0
    resolved = contexts.translate(path)
    if resolved != path:
        notes.append(
            f"{shown(path)} has the rules of {shown(resolved)} (an equivalence), so the rule is "
            f"for that path"
        )
    rule = plan_rule(
        resolved, mode, rule_kind, context, contexts.rules, _is_local, contexts.lookup_text
    )
    facts = _file_system(path, request.root, selinux, refuses=refuses)
    advice = None if facts is None else advice_for(facts, str(context))
    if advice is not None:
        rule = evolve(rule, action=RuleAction.USELESS)
    return Target(
        path=path,
        folder=kind == stat.S_IFDIR,
        rule=rule,
        labels=advice is None,
        advice=advice,
        satisfied=facts is not None
        and facts.fixed_context is not None
        and f":{context.type}:" in f"{facts.fixed_context}:",
        notes=tuple(notes),
    )


def _mounted_on(number: int) -> Optional[str]:
    """Return where a block device, or a partition of it, is mounted, or None."""
    device = f"{os.major(number)}:{os.minor(number)}"
    devices = {device}
    folder = f"/sys/dev/block/{device}"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError), open(f"{folder}/{name}/dev", "rb") as stream:
                devices.add(stream.read(32).decode("ascii").strip())
    return next((shown(mount.point) for mount in read_mounts() if mount.device in devices), None)


def _look_at(path: bytes, walk: Walk, root: str) -> tuple[int, bool]:
    """Return the kind of a file that an administrator named, and whether it can have no label.

    Raises:
        StorageError: there is none, or the way to it leads through a symbolic link.
        BackendPermissionError: it cannot be reached.
    """
    try:
        with walk.reach(path) as (entry, _, _):
            try:
                entry.label()
            except OSError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                return entry.mode, True
            return entry.mode, False
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{shown(path)!a}: cannot be looked at: {error.strerror}") from None
    except BackendUnavailableError as error:
        hint = "name what exists"
        if looks_like_pattern(path):
            hint = (
                "that looks like a regular expression; name the folder itself, and the pattern for "
                "it and all that is in it is worked out"
            )
        elif root != "/" and path.startswith(os.fsencode(os.path.abspath(root)) + b"/"):
            hint = f"paths start below --root {root}: leave that part out"
        raise StorageError(f"{error}; {hint}") from None
    except BackendPermissionError:
        raise
    except BackendError as error:
        raise StorageError(str(error)) from None


def _context(request: Request, contexts: FileContexts) -> Context:
    type = request.type or request.purpose.type
    mls = any(rule.context is not None and rule.context.count(":") > 2 for rule in contexts.rules)
    if request.range is not None and not mls:
        raise StorageError("this policy has no levels; leave --range out")
    range = Range.parse(request.range or "s0") if mls else None
    context = Context("system_u", "object_r", type, range)
    # A type that a rule has is known to the policy, and to load a policy costs time and memory.
    known = request.range is None and any(
        rule.context is not None and f":{type}:" in f"{rule.context}:" for rule in contexts.rules
    )
    problem = None
    if not known:
        problem = policycheck.check_context(_policy_file(request.root), str(context))
    if problem is not None:
        raise StorageError(
            f"{quote(str(context))}: {problem}; 'seinfo -t' lists the policy's types"
        )
    if not request.any_type:
        check_type(type)
    return context


def _is_local(rule: Rule) -> bool:
    return rule.source.endswith((".local", ".local.bin"))


def _policy_file(root: str) -> Optional[str]:
    """Return the newest binary policy below a root, or None where there is none."""
    folder = os.path.join(policy_folder(root), "policy")
    try:
        versions = [
            int(name[len("policy.") :])
            for name in os.listdir(folder)
            if name.startswith("policy.") and name[len("policy.") :].isdigit()
        ]
    except OSError:
        return None
    return os.path.join(folder, f"policy.{max(versions)}") if versions else None


def _homes(root: str) -> list[bytes]:
    """Return the home folders of people who log in."""
    if root == "/":
        entries = [(entry.pw_uid, entry.pw_dir) for entry in pwd.getpwall()]
    else:
        entries = []
        try:
            with open(os.path.join(root, "etc/passwd"), encoding="utf-8", errors="replace") as file:
                for line in file:
                    fields = line.rstrip("\n").split(":")
                    if len(fields) > 5 and fields[2].isdigit():
                        entries.append((int(fields[2]), fields[5]))
        except OSError:
            pass
    # System users' homes are folders of services, such as /var/lib/libvirt/qemu.
    return [os.fsencode(home) for uid, home in entries if 1000 <= uid < 65534 and home != "/"]


def _mode() -> Optional[Mode]:
    from svirtlib.backends._selinux import mode_of_host

    return mode_of_host()


def _file_system(
    path: bytes, root: str, selinux: bool, *, refuses: bool
) -> Optional[FileSystemFacts]:
    real = path if root == "/" else os.path.join(os.fsencode(os.path.abspath(root)), path[1:])
    mount = mount_of(real, read_mounts())
    if mount is None or stat.S_ISBLK(os.lstat(real).st_mode):
        # Labels of device nodes live in a file system of memory that always has them.
        return None
    return FileSystemFacts(shown(mount.point), mount.kind, mount.options, selinux, refuses=refuses)


@contextlib.contextmanager
def _as_planned(contexts: FileContexts, pending: Sequence[RuleChange]) -> Iterator[FileContexts]:
    """Yield the rules as they will be: read anew from a copy with the new ones added."""
    if not pending:
        yield contexts
        return
    with tempfile.TemporaryDirectory(prefix="svirt-label.") as folder:
        real = os.path.abspath(contexts.path)
        copy = os.path.join(folder, os.path.basename(real))
        for suffix in ("", ".homedirs", ".subs", ".subs_dist"):
            for end in ("", ".bin"):
                if os.path.exists(real + suffix + end):
                    os.symlink(real + suffix + end, copy + suffix + end)
        with open(f"{copy}.local", "w", encoding="ascii") as stream:
            stream.writelines(_local_lines(contexts, pending))
        yield FileContexts(copy)


def _local_lines(contexts: FileContexts, pending: Sequence[RuleChange]) -> Iterator[str]:
    """Yield the local rules as libsemanage would write them: replaced in place, or added."""
    changed = {(rule.pattern, rule.kind): rule for rule in pending}
    # They are in order of strength: the last line is the strongest pattern.
    for rule in reversed([rule for rule in contexts.rules if _is_local(rule)]):
        key = rule.pattern.decode("ascii"), kind_letter(rule.kind)
        change = changed.pop(key, None)
        yield _line(*key, rule.context if change is None else change.context)
    for key, change in changed.items():
        yield _line(*key, change.context)


def _line(pattern: str, kind: str, context: Optional[str]) -> str:
    flag = "" if kind == "a" else " --" if kind == "f" else f" -{kind}"
    return f"{pattern}{flag} {context or '<<none>>'}\n"


# ---------------------------------------------------------------------------------------------
# Apply
# ---------------------------------------------------------------------------------------------


class _Recorder:
    """The journal of one call: made when the first change is about to be made.

    A change of the same things that stopped part way is gone on with in its own journal, so
    that one undo takes back all of it.
    """

    def __init__(
        self, journals: Journals, command: str, paths: Sequence[str], root: str, fingerprint: str
    ) -> None:
        self._journals = journals
        self._wanted = (command, paths, root, fingerprint)
        self.journal: Optional[Journal] = None
        self.resumed = False
        for header in journals.list():
            if header.state == "open" and header.fingerprint == fingerprint:
                self.journal = journals.open(header.ident)
                self.resumed = True

    def open(self) -> Journal:
        """Return the journal; processes that write to it together must all have the same one."""
        if self.journal is None:
            self.journal = self._journals.create(*self._wanted)
        return self.journal

    def rules(self, record: RuleRecord) -> None:
        self.open().rules(record)

    def labels(
        self,
        paths: Sequence[bytes],
        inodes: Sequence[int],
        old: Sequence[Optional[bytes]],
        new: Sequence[bytes],
    ) -> None:
        self.open().labels(paths, inodes, old, new)

    @property
    def ident(self) -> Optional[str]:
        """Name of the change, or None while nothing was changed."""
        if self.journal is None or self.journal.empty():
            return None
        return self.journal.header.ident

    def done(self) -> None:
        """Note that all was done."""
        if self.ident is not None:
            self.open().state("done")

    def close(self) -> None:
        """Close the journal; one that tells of nothing is removed."""
        if self.journal is not None:
            if self.journal.empty():
                self.journal.remove()
            self.journal.close()


def apply(
    request: Request,
    journals: Journals,
    inventory: Optional[Inventory] = None,
    *,
    jobs: int = 1,
    progress: Progress = lambda _: None,
) -> Outcome:
    """Write the rules that are missing, then set the labels that differ.

    Args:
        request: what is asked for.
        journals: where changes are written down before they are made.
        inventory: the guests of this host, or None where libvirt was not asked.
        jobs: how many processes set labels; 0 for as many as there are processors.
        progress: told now and then how many files were looked at.

    Raises:
        StorageError: a path or type must not be labelled, or cannot be; nothing was changed.
        BackendError: nothing could be changed.
        PartialChangeError: it stopped after the first change; it says how to take that back.
    """
    refuse_without_selinux(request.root, offline=request.offline)
    contexts = FileContexts.open(request.root)
    with Walk(request.root, cross=request.cross) as walk:
        made = _targets(request, contexts, walk)
        _refuse(made, request)
        recorder = _Recorder(
            journals,
            "storage apply",
            request.paths,
            os.path.abspath(request.root),
            _fingerprint(request),
        )
        work: Optional[Relabelling] = None
        rules = 0
        try:
            rules = _write_rules(made, request, recorder)
            if rules:
                contexts = FileContexts.open(request.root)
            work = Relabelling(
                walk,
                contexts,
                customizable=contexts.customizable,
                users=lambda: find_users(inventory),
                force=request.force,
                most=request.most,
                progress=progress,
                journal=recorder,
                jobs=jobs or len(os.sched_getaffinity(0)),
            )
            recorder.open()
            work.run(_trees(made.targets))
            recorder.done()
        except (SvirtError, OSError, KeyboardInterrupt) as error:
            changed = 0 if work is None else work.changed
            if isinstance(error, SvirtError) and not rules and not changed:
                raise
            ident = recorder.ident
            if ident is None:
                raise
            _announce_apply(request, ident, rules, changed, stopped=str(error) or "interrupted")
            raise PartialChangeError(
                done=f"{_several(rules, 'rule')} and {_several(changed, 'label')} were changed",
                reason=str(error) or "interrupted",
                undo=(
                    f"'svirt-label storage undo {ident}' takes that back, and the same command "
                    f"again goes on"
                ),
            ) from None
        else:
            ident = recorder.ident
        finally:
            recorder.close()
    useless = tuple(
        (shown(target.path), target.advice)
        for target in made.targets
        if target.advice is not None and not target.satisfied
    )
    if ident is not None:
        _announce_apply(request, ident, rules, work.changed)
    made = _filled(made, work)
    return Outcome(
        plan=evolve(made, unreadable=made.unreadable + useless),
        rules=rules,
        files=work.changed,
        changes=tuple(work.changes),
        ident=ident,
        resumed=recorder.resumed,
    )


def _announce_apply(
    request: Request, ident: str, rules: int, labels: int, *, stopped: Optional[str] = None
) -> None:
    log.changed(
        f"changed {_several(rules, 'rule')} and {_several(labels, 'label')} of "
        f"{', '.join(request.paths)}{'' if stopped is None else f', and stopped: {stopped}'}",
        "storage apply",
        done=stopped is None,
        ID=ident,
        PATH=request.paths,
        ROOT=os.path.abspath(request.root),
        RULES=rules,
        FILES=labels,
    )


def refuse_without_selinux(root: str, *, offline: bool) -> None:
    """Refuse to change labels that nothing enforces, unless that is what is asked for.

    Raises:
        BackendUnavailableError: SELinux does not run here.
    """
    if offline or root != "/":
        return
    mode = _mode()
    if mode is Mode.DISABLED:
        raise BackendUnavailableError(
            "SELinux does not run here, so labels would protect nothing, and nothing was changed; "
            "--offline changes the stored policy and the labels all the same, for the time when "
            "it runs; --root does so below another folder"
        )
    if mode is None:
        raise BackendUnavailableError(
            "whether SELinux runs here cannot be told, so nothing was changed; run on the host "
            "itself, or with --offline"
        )


def _refuse(made: Plan, request: Request) -> None:
    """Refuse what would take storage from another service, or could have no effect."""
    for target in made.targets:
        if target.rule.replaces is not None and not request.override:
            raise StorageError(
                f"{quote(shown(target.path))}: the rules give it the type {target.rule.replaces}, "
                f"so it belongs to something else, which would lose it; name another folder, or "
                f"say --override"
            )
    if not any(target.labels or target.satisfied for target in made.targets):
        advice = "; ".join(dict.fromkeys(target.advice or "" for target in made.targets))
        raise BackendUnavailableError(f"nothing can be labelled, and nothing was changed: {advice}")


def _fingerprint(request: Request) -> str:
    wanted = [
        sorted(request.paths),
        request.purpose.value,
        request.type,
        request.range,
        request.kind,
        request.force,
        request.cross,
        os.path.abspath(request.root),
    ]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]


def _write_rules(made: Plan, request: Request, recorder: _Recorder) -> int:
    """Make the rules be as planned, in one transaction; return how many were changed.

    Raises:
        SvirtError: it cannot be done; the store is as it was.
    """
    planned = [
        target.rule
        for target in made.targets
        if target.rule.action not in (RuleAction.COVERED, RuleAction.USELESS)
    ]
    if not planned:
        return 0
    policy = os.path.basename(policy_folder(request.root))
    pending = [rule for rule in planned if rule.pending]
    try:
        store = RuleStore(request.root, policy)
        held = store.local_rules()
    except BackendError:
        if not pending:
            # The rules are in effect; whether the store has them, too, cannot be asked.
            return 0
        raise
    after = {(rule.pattern, rule.kind): rule.context for rule in planned}
    differ = [key for key, context in after.items() if held.get(key) != context]
    # A commit that was cut off leaves rules in the store that the policy's files lack.
    again = [(rule.pattern, rule.kind) for rule in pending]
    keys = list(dict.fromkeys([*differ, *again]))
    if not keys:
        return 0
    wanted = tuple(LocalRule(*key, after[key]) for key in keys)
    recorder.rules(
        RuleRecord(policy, tuple(LocalRule(*key, held.get(key)) for key in keys), wanted)
    )
    store.change(wanted, again=bool(again))
    # Now, for what comes next may be cut off.
    log.changed(
        f"wrote {_several(len(keys), 'file-context rule')}",
        "storage apply",
        ID=recorder.ident or "",
        ROOT=os.path.abspath(request.root),
        FCONTEXT=[f"{rule.pattern} {rule.kind} {rule.context}" for rule in wanted],
        RULES=len(keys),
    )
    return len(keys)


def _installed(root: str) -> dict[tuple[str, str], str]:
    """Return the contexts of the local rules that are in effect, by pattern and kind."""
    return {
        (rule.pattern.decode("ascii"), kind_letter(rule.kind)): rule.context or "<<none>>"
        for rule in FileContexts.open(root).rules
        if _is_local(rule)
    }


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


# ---------------------------------------------------------------------------------------------
# Undo
# ---------------------------------------------------------------------------------------------


def list_changes(journals: Journals) -> list[JournalHeader]:
    """Return the changes that are known, the oldest first.

    Raises:
        BackendError: a journal is damaged.
    """
    return journals.list()


def undo(
    journals: Journals,
    ident: Optional[str] = None,
    *,
    root: str = "/",
    inventory: Optional[Inventory] = None,
    progress: Progress = lambda _: None,
    most: int = 1000,
) -> Undone:
    """Put rules and labels back as they were before a change.

    What was changed by others since, and what a running guest uses, stays; the change then
    counts as not undone, and undoing it again goes on.

    Args:
        journals: where the changes are written down.
        ident: which change; None for the last one below *root* that was not undone.
        root: the folder below which it was made.
        inventory: the guests of this host, or None where libvirt was not asked.
        progress: told now and then how many files were looked at.
        most: how many kept files are told by name.

    Raises:
        SelectionError: there is no such change.
        BackendError: nothing could be put back.
        PartialChangeError: it stopped part way; undoing again goes on.
    """
    if ident is None:
        root = os.path.abspath(root)
        known = [
            header for header in journals.list() if header.state != "undone" and header.root == root
        ]
        if not known:
            raise SelectionError(
                f"there is no change to undo below {root} in {journals.folder}; 'svirt-label "
                f"storage undo --list' shows all"
            )
        ident = known[-1].ident
    journal = journals.open(ident)
    try:
        if journal.header.state == "undone":
            raise SelectionError(f"{ident} was undone already")
        with Walk(journal.header.root) as walk:
            work = _Undoing(walk, find_users(inventory), most, progress)
            try:
                for record in journal.records():
                    work.take(record)
                work.put_rules_back(journal.header.root)
                if not work.kept_count:
                    journal.state("undone")
                _announce_undo(journal.header, work)
            except (SvirtError, OSError, KeyboardInterrupt) as error:
                if isinstance(error, SvirtError) and not work.files and not work.rules:
                    raise
                _announce_undo(journal.header, work, stopped=str(error) or "interrupted")
                raise PartialChangeError(
                    done=(
                        f"{_several(work.files, 'file')} and {_several(work.rules, 'rule')} were "
                        f"put back"
                    ),
                    reason=str(error) or "interrupted",
                    undo=f"'svirt-label storage undo {ident}' goes on",
                ) from None
        return Undone(
            header=journal.header,
            rules=work.rules,
            files=work.files,
            kept=tuple(work.kept),
            kept_count=work.kept_count,
            gone=work.gone,
        )
    finally:
        journal.close()


def _announce_undo(header: JournalHeader, work: _Undoing, *, stopped: Optional[str] = None) -> None:
    if not (work.rules or work.files):
        return
    kept = f"; {work.kept_count} stay as they are" if work.kept_count else ""
    log.changed(
        f"put back {_several(work.rules, 'rule')} and {_several(work.files, 'file')} of "
        f"{header.ident}{kept}{'' if stopped is None else f', and stopped: {stopped}'}",
        "storage undo",
        done=stopped is None and not work.kept_count,
        ID=header.ident,
        PATH=header.paths,
        ROOT=header.root,
        RULES=work.rules,
        FILES=work.files,
        KEPT=work.kept_count,
    )


class _Undoing:
    """Takes the records of one journal and puts back what they tell of."""

    def __init__(self, walk: Walk, users: Users, most: int, progress: Progress) -> None:
        self._walk = walk
        self._users = users
        self._most = most
        self._progress = progress
        self._rules: list[RuleRecord] = []
        self._seen = 0
        self.files = 0
        self.rules = 0
        self.gone = 0
        self.kept: list[FileKept] = []
        self.kept_count = 0

    def take(self, record: object) -> None:
        """Put back one file; keep rules for the end.

        Raises:
            BackendError: it cannot be put back.
        """
        if isinstance(record, RuleRecord):
            self._rules.append(record)
        elif isinstance(record, LabelRecord):
            self._file(
                record.path,
                record.inode,
                lambda pinned: self._swap(pinned, {LABEL: record.new}, {LABEL: record.old}),
            )
        elif isinstance(record, AttributesRecord):
            self._file(record.path, record.inode, lambda pinned: self._attributes(pinned, record))

    def _attributes(self, pinned: Pinned, record: AttributesRecord) -> Optional[bool]:
        owner = (pinned.status.st_uid, pinned.status.st_gid)
        if record.owner_before is not None and owner not in (
            record.owner_before,
            record.owner_after,
        ):
            return None
        done = self._swap(pinned, record.after, record.before)
        if done is not None and record.owner_before is not None and owner != record.owner_before:
            os.chown(f"/proc/self/fd/{pinned.descriptor}", *record.owner_before)
            done = True
        return done

    def _swap(
        self,
        pinned: Pinned,
        after: dict[str, Optional[bytes]],
        before: dict[str, Optional[bytes]],
    ) -> Optional[bool]:
        """Put attributes back; True if that was needed, None if others changed them since."""
        now = {name: pinned.get(name) for name in before}
        if any(now[name] not in (before[name], after[name]) for name in before):
            return None
        needed = False
        for name, value in before.items():
            if now[name] == value:
                continue
            needed = True
            if value is None:
                pinned.remove(name)
            else:
                pinned.set(name, value)
        return needed

    def _file(self, path: bytes, inode: int, put: Callable[[Pinned], Optional[bool]]) -> None:
        self._seen += 1
        if not self._seen & 1023:
            self._progress(self._seen)
        try:
            with self._walk.reach(path) as (entry, _, _), entry.pin() as pinned:
                users = self._users.of(pinned.status)
                if pinned.status.st_ino != inode:
                    self._keep(path, "another file has its name now")
                elif users:
                    self._keep(path, users[0])
                else:
                    done = put(pinned)
                    if done is None:
                        self._keep(path, "its label was changed again since")
                    elif done:
                        self.files += 1
        except (FileNotFoundError, BackendUnavailableError):
            self.gone += 1
        except BackendPermissionError:
            raise
        except BackendError as error:
            self._keep(path, str(error))
        except PermissionError as error:
            raise BackendPermissionError(
                f"{shown(path)!a}: its label cannot be put back: {error.strerror}; run as root"
            ) from None
        except OSError as error:
            raise BackendError(
                f"{shown(path)!a}: its label cannot be put back: {error.strerror}"
            ) from None

    def put_rules_back(self, root: str) -> None:
        """Put all rules back in one transaction.

        Raises:
            SvirtError: it cannot be done; the store is as it was.
        """
        if not self._rules:
            return
        store = RuleStore(root, self._rules[0].policy)
        held = store.local_rules()
        wanted: dict[tuple[str, str], Optional[str]] = {}
        for record in reversed(self._rules):
            for before, after in zip(record.before, record.after):
                key = (after.pattern, after.kind)
                current = wanted.get(key, held.get(key))
                if current in (after.context, before.context):
                    wanted[key] = before.context
                else:
                    self.kept_count += 1
                    self.kept.append(
                        FileKept(after.pattern, current, "the rule was changed again since")
                    )
        changes = [
            LocalRule(*key, context) for key, context in wanted.items() if held.get(key) != context
        ]
        # A commit that was cut off leaves rules in the policy's files that the store lacks.
        installed = _installed(root)
        stale = [
            LocalRule(*key, context)
            for key, context in wanted.items()
            if installed.get(key) != context
        ]
        store.change(list(dict.fromkeys([*changes, *stale])), again=bool(stale))
        self.rules = len(changes)

    def _keep(self, path: bytes, reason: str) -> None:
        self.kept_count += 1
        if len(self.kept) < self._most:
            self.kept.append(FileKept(shown(path), None, reason))
