"""Work out what storage for guests needs: rules, and labels that would change; change nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
import tempfile
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

from attr import evolve, frozen

from svirtlib.backends import policycheck
from svirtlib.backends.filecontexts import FileContexts, policy_folder
from svirtlib.backends.inuse import find_users
from svirtlib.backends.mounts import mount_of, read_mounts
from svirtlib.backends.relabel import Relabelling
from svirtlib.backends.walk import Walk
from svirtlib.context import Context
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    StorageError,
    quote,
)
from svirtlib.filerules import KINDS, Rule, kind_letter
from svirtlib.filesystems import FileSystemFacts, advice_for
from svirtlib.guests import Inventory, Mode
from svirtlib.mls import Range
from svirtlib.storage import (
    LocalLine,
    Plan,
    RuleAction,
    RuleChange,
    Target,
    in_new_order,
    plan_rule,
)
from svirtlib.storagepaths import check_path, looks_like_pattern, shown, system_path
from svirtlib.storagetypes import Purpose, check_type

__all__ = [
    "Progress",
    "Request",
    "filled",
    "is_local",
    "local_rules",
    "mode_here",
    "plan",
    "targets_of",
    "trees",
]

Progress = Callable[[int], None]


@frozen
class Request:
    """What an administrator asks for.

    Attributes:
        paths: folders, files and block devices, below *root*.
        volumes: paths that libvirt names for pools; one that is not there now is told.
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
    volumes: tuple[str, ...] = ()


def plan(
    request: Request,
    inventory: Optional[Inventory] = None,
    *,
    jobs: int = 1,
    progress: Progress = lambda _: None,
) -> Plan:
    """Return what :func:`apply` would do; change nothing.

    Args:
        request: what is asked for.
        inventory: the guests of this host, or None where libvirt was not asked.
        jobs: how many processes compare labels; 0 for as many as there are processors.
        progress: told now and then how many files were looked at.

    Raises:
        StorageError: a path or type must not be labelled, or cannot be.
        BackendError: there is no policy, or something cannot be read at all.
    """
    contexts = FileContexts.open(request.root)
    with Walk(request.root, cross=request.cross) as walk:
        made = targets_of(request, contexts, walk)
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
                jobs=jobs or len(os.sched_getaffinity(0)),
            )
            work.run(trees(made.targets))
    return filled(made, work)


def filled(made: Plan, work: Relabelling) -> Plan:
    """Return a plan with what going over its trees has shown."""
    return evolve(
        made,
        checked=work.checked,
        to_change=work.to_change,
        changes=tuple(work.changes),
        kept_count=work.kept_count,
        kept=tuple(work.kept),
        unreadable=(*made.unreadable, *((gap.what, gap.reason) for gap in work.unreadable)),
        notes=(
            *made.notes,
            *(
                f"{shown(path)} is another file system and was left out; --cross-filesystems takes "
                f"it in"
                for path in sorted(work.left_out)
            ),
        ),
    )


def trees(targets: Sequence[Target]) -> list[bytes]:
    """Return the paths to go over, none of them inside another one."""
    trees: list[bytes] = []
    for path in sorted({target.path for target in targets if target.labels}):
        if not any(path.startswith(tree + b"/") for tree in trees):
            trees.append(path)
    return trees


def targets_of(request: Request, contexts: FileContexts, walk: Walk) -> Plan:
    """Return the plan without its files.

    Raises:
        SvirtError: something was asked for that cannot be.
    """
    if not request.paths and not request.volumes:
        raise StorageError("nothing is named; name a folder, a file, a block device or a pool")
    context = _context(request, contexts)
    notes = []
    selinux = request.root == "/" and mode_here() in (Mode.ENFORCING, Mode.PERMISSIVE)
    if request.root == "/" and not selinux:
        notes.append(
            "SELinux does not run here: nothing would be enforced, and apply changes the stored "
            "policy and labels only with --offline"
        )
    homes = _homes(request.root)
    targets = []
    seen = set()
    absent = [text for text in request.volumes if not _is_there(text, request.root)]
    present = [text for text in request.volumes if text not in absent]
    if absent and not present and not request.paths:
        raise StorageError(
            f"{quote(absent[0])}: libvirt names it for the pool, and there is no such folder or "
            f"device now, nor another one; start the pool ('virsh pool-start')"
        )
    for text in (*request.paths, *present):
        target = _target(text, request, context, contexts, walk, homes, selinux)
        if target.path not in seen:
            seen.add(target.path)
            targets.append(target)
    gaps = [
        (text, "libvirt names it for the pool, and it is not there now; activate it")
        for text in absent
    ]
    return Plan(targets=tuple(targets), notes=tuple(notes), unreadable=tuple(gaps))


def _is_there(path: str, root: str) -> bool:
    return os.path.lexists(os.path.join(root, path.lstrip("/")))


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
            f"to: {quote(_target_of_link(path, request.root))}"
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
        resolved, mode, rule_kind, context, contexts.rules, is_local, contexts.lookup_text
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


def _target_of_link(path: bytes, root: str) -> str:
    """Return what a link leads to, for a message, as its own system would say it."""
    place = os.path.join(os.fsencode(os.path.abspath(root)), path.lstrip(b"/"))
    try:
        return shown(os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(place))))
    except OSError:
        return shown(path)


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
    if not request.any_type and type not in {purpose.type for purpose in Purpose}:
        # The types of the purposes are known without asking: to load a policy costs memory.
        _check_use(request, context)
    return context


def _check_use(request: Request, context: Context) -> None:
    """Refuse a type that guests cannot use, by the policy; by what is known where none tells.

    Raises:
        StorageError: guests have no business with files of it.
    """
    from svirtlib.backends.guesttypes import usable_by_guests

    policy = _policy_file(request.root)
    paths = (*request.paths, *request.volumes)
    usable = usable_by_guests(
        policy,
        os.path.join(policy_folder(request.root), "contexts"),
        context,
        write=request.purpose is Purpose.IMAGES,
        device=request.kind == "b" or all(path.startswith("/dev/") for path in paths),
    )
    if usable is None:
        check_type(context.type)
    elif not usable:
        use = "read and write" if request.purpose is Purpose.IMAGES else "read"
        raise StorageError(
            f"{quote(context.type)} is no type for storage of guests: by {policy}, guests may not "
            f"{use} what has it, nor may libvirt relabel it for them; take "
            f"{request.purpose.type}, or say --any-type where a module of your own allows it"
        )


def is_local(rule: Rule) -> bool:
    """Tell whether a rule is the administrator's own."""
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


def mode_here() -> Optional[Mode]:
    """Return what SELinux does on this host, or None where that cannot be told."""
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
            # As libsemanage will write them.
            lines = in_new_order(local_rules(contexts), pending)
            stream.writelines(_line(*line) for line in lines)
        yield FileContexts(copy)


def local_rules(contexts: FileContexts) -> list[LocalLine]:
    """Return the administrator's own rules in the order of their file: the strongest last."""
    return [
        (rule.pattern.decode("ascii"), kind_letter(rule.kind), rule.context)
        for rule in reversed([rule for rule in contexts.rules if is_local(rule)])
    ]


def _line(pattern: str, kind: str, context: Optional[str]) -> str:
    flag = "" if kind == "a" else " --" if kind == "f" else f" -{kind}"
    return f"{pattern}{flag} {context or '<<none>>'}\n"
