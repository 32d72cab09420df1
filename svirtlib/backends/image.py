"""Look at single images, and mend what is a leftover on those that nobody uses.

That nobody uses an image is proven twice: by libvirt and ``/proc``, and, for a regular file, by
the kernel itself, which grants a write lease (``fcntl(2)``, ``F_SETLEASE``) only on a file that
nobody else has open, in whatever container. While the lease is held, whoever opens the file waits
until it is mended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator, Sequence
from typing import Optional

from attr import frozen

from svirtlib.backends import journal as log
from svirtlib.backends.changes import AttributesRecord, Journal, Journals
from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.inuse import Users, find_users
from svirtlib.backends.mounts import Mount, mount_of, read_mounts
from svirtlib.backends.storageapply import refuse_without_selinux
from svirtlib.backends.walk import LABEL, Pinned, Walk, attribute
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    PartialChangeError,
    StorageError,
    SvirtError,
    quote,
)
from svirtlib.filesystems import FileSystemFacts
from svirtlib.guests import Inventory
from svirtlib.imagestate import (
    MODELS,
    GuestUse,
    ImageState,
    Owner,
    Problem,
    guest_uses,
    remembered_owner,
)
from svirtlib.storagepaths import check_path, shown

__all__ = ["Mended", "inspect", "restore"]

_PREFIX = "trusted.libvirt.security."


@frozen
class Mended:
    """What ``restore`` does, or did, about one image.

    Attributes:
        state: as it was.
        label: the label that it gets, or None where its label stays.
        owner: user and group that it gets, or None.
        removed: extended attributes that are removed.
        reason: why it stays as it is, or None.
        done: it was changed.
    """

    state: ImageState
    label: Optional[str] = None
    owner: Optional[tuple[int, int]] = None
    removed: tuple[str, ...] = ()
    reason: Optional[str] = None
    done: bool = False

    @property
    def needed(self) -> bool:
        """Whether anything is to be mended, and may be."""
        return self.reason is None and bool(self.label or self.owner or self.removed)


def inspect(
    paths: Sequence[str],
    inventory: Optional[Inventory] = None,
    gaps: Sequence[str] = (),
    *,
    root: str = "/",
) -> list[ImageState]:
    """Return what there is to say of images; change nothing.

    Args:
        paths: absolute, below *root*.
        inventory: the guests of this host, or None where libvirt was not asked.
        gaps: what could not be learnt of guests.
        root: the folder that paths start from.

    Raises:
        StorageError: a path is no image.
        BackendError: something cannot be read at all.
    """
    users = find_users(inventory)
    with Walk(root) as walk:
        named = [check_path(path, ruled=False) for path in paths]
        return [_state(walk, path, users, inventory, gaps) for path in named]


def restore(
    paths: Sequence[str],
    journals: Optional[Journals],
    inventory: Optional[Inventory] = None,
    gaps: Sequence[str] = (),
    *,
    root: str = "/",
    offline: bool = False,
    alone: bool = False,
) -> tuple[list[Mended], Optional[str]]:
    """Mend what is a leftover on images that nobody uses.

    Args:
        paths: absolute, below *root*.
        journals: where changes are written down before they are made; None to make none.
        inventory: the guests of this host, or None where libvirt was not asked.
        gaps: what could not be learnt of guests; nothing is proven then.
        root: the folder that paths start from.
        offline: SELinux need not run.
        alone: no other host uses what lies on a network or cluster file system.

    Returns:
        What was done about each, and the name of the change, None if there was none.

    Raises:
        StorageError: a path is no image.
        BackendError: nothing could be changed.
        PartialChangeError: it stopped part way; it says how to take that back.
    """
    if journals is not None:
        refuse_without_selinux(root, offline=offline)
    try:
        contexts: Optional[FileContexts] = FileContexts.open(root)
    except BackendUnavailableError:
        contexts = None
    users = find_users(inventory)
    mounts = read_mounts()
    with Walk(root) as walk:
        planned = []
        for path in dict.fromkeys(check_path(path, ruled=False) for path in paths):
            state = _state(walk, path, users, inventory, gaps)
            mount = mount_of(_real(walk, path), mounts)
            planned.append(_planned(state, path, contexts, mount, alone=alone))
        if journals is None or not any(mended.needed for mended in planned):
            return planned, None
        return _mend(planned, journals, walk, inventory)


def _planned(
    state: ImageState,
    path: bytes,
    contexts: Optional[FileContexts],
    mount: Optional[Mount],
    *,
    alone: bool,
) -> Mended:
    if state.users:
        return Mended(state, reason=state.users[0])
    if state.unknown:
        return Mended(state, reason=f"it is not proven that nobody uses it: {state.unknown[0]}")
    if not state.problems:
        return Mended(state)
    facts = mount and FileSystemFacts(shown(mount.point), mount.kind, mount.options, selinux=False)
    if facts and facts.shared and not alone:
        return Mended(
            state,
            reason=(
                f"it lies on {facts.type}, where guests of other hosts may use it; if none does, "
                f"say --no-other-host"
            ),
        )
    removed = tuple(
        name
        for owner in state.owners
        if owner.count or owner.broken
        for name in _names(owner.model)
    )
    label = None
    if Problem.STALE_LEVEL in state.problems or f"{_PREFIX}selinux" in removed:
        rule = None if contexts is None else contexts.lookup(path, stat.S_IFREG)
        label = state.label_to_restore(None if rule is None else str(rule))
        if label is None:
            return Mended(
                state,
                reason=(
                    "which label it should have is not known: libvirt remembers none, and no rule "
                    "is for it; 'svirt-label storage plan' tells which rule it needs"
                ),
            )
    owners = [remembered_owner(owner) for owner in state.owners if owner.count]
    wanted = next((numbers for numbers in owners if numbers is not None), None)
    return Mended(
        state,
        label=None if label == state.label else label,
        owner=None if wanted == state.owner else wanted,
        removed=removed,
    )


def _mend(
    planned: list[Mended], journals: Journals, walk: Walk, inventory: Optional[Inventory]
) -> tuple[list[Mended], Optional[str]]:
    outcome: list[Mended] = []
    journal: Optional[Journal] = None
    done = 0
    names = [mended.state.path for mended in planned if mended.needed]
    try:
        for mended in planned:
            if mended.needed:
                if journal is None:
                    journal = journals.create("image restore", names, walk.root, "")
                mended = _mend_one(mended, walk, journal, inventory)
                done += mended.done
            outcome.append(mended)
        if journal is not None and done:
            journal.state("done")
    except (SvirtError, OSError, KeyboardInterrupt) as error:
        if journal is None or journal.empty():
            raise
        log.changed(
            f"mended {done} of {len(names)} images, and stopped: {error}",
            "image restore",
            done=False,
            ID=journal.header.ident,
            PATH=names,
            ROOT=walk.root,
        )
        raise PartialChangeError(
            done=f"{done} of {len(names)} images were mended",
            reason=str(error) or "interrupted",
            undo=f"'svirt-label storage undo {journal.header.ident}' takes that back",
        ) from None
    finally:
        if journal is not None:
            if journal.empty():
                journal.remove()
            journal.close()
    return outcome, journal.header.ident if journal is not None and done else None


def _mend_one(
    mended: Mended, walk: Walk, journal: Journal, inventory: Optional[Inventory]
) -> Mended:
    """Mend one image, unless somebody uses it by now.

    Raises:
        BackendError: it cannot be changed.
    """
    path = os.fsencode(mended.state.path)
    try:
        with walk.reach(path) as (entry, _, _), entry.pin() as pinned, _held(pinned) as problem:
            users = find_users(inventory)
            reason = problem or next(iter(users.of(pinned.status)), None)
            if reason is None and users.unreadable:
                reason = f"it is not proven that nobody uses it: {users.unreadable[0].reason}"
            names = [*mended.removed, *([] if mended.label is None else [LABEL])]
            before = {name: pinned.get(name) for name in names}
            if reason is None and _differs(pinned, mended.state):
                reason = "it was changed meanwhile"
            if reason is not None:
                return Mended(mended.state, reason=reason)
            after: dict[str, Optional[bytes]] = dict.fromkeys(mended.removed)
            if mended.label is not None:
                after[LABEL] = mended.label.encode() + b"\0"
            owner = (pinned.status.st_uid, pinned.status.st_gid)
            journal.attributes(
                [
                    AttributesRecord(
                        path,
                        pinned.status.st_ino,
                        before,
                        after,
                        None if mended.owner is None else owner,
                        mended.owner,
                    )
                ]
            )
            # The label first: with the attributes gone, nobody knows any more what is wrong.
            for name in reversed(names):
                value = after[name]
                if value is not None:
                    pinned.set(name, value)
                elif before[name] is not None:
                    pinned.remove(name)
            if mended.owner is not None:
                os.chown(f"/proc/self/fd/{pinned.descriptor}", *mended.owner)
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{mended.state.path!a}: cannot be mended: {error.strerror}") from None
    log.changed(
        f"mended {mended.state.path}",
        "image restore",
        ID=journal.header.ident,
        PATH=mended.state.path,
        ROOT=walk.root,
        LABEL=mended.label or "",
        ATTRIBUTES=mended.removed,
    )
    return Mended(mended.state, mended.label, mended.owner, mended.removed, done=True)


def _differs(pinned: Pinned, state: ImageState) -> bool:
    label = pinned.label()
    return (
        (None if label is None else os.fsdecode(label)) != state.label
        or (pinned.status.st_uid, pinned.status.st_gid) != state.owner
        or _owners(f"/proc/self/fd/{pinned.descriptor}") != state.owners
    )


@contextlib.contextmanager
def _held(pinned: Pinned) -> Iterator[Optional[str]]:
    """Keep everybody from opening a regular file; yield why that is not possible, or None."""
    if not stat.S_ISREG(pinned.status.st_mode):
        yield None
        return
    descriptor = os.open(
        f"/proc/self/fd/{pinned.descriptor}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )
    main = threading.current_thread() is threading.main_thread()
    # The kernel tells the holder by a signal that somebody waits, which would end us.
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN) if main else None
    try:
        problem = None
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                problem = "a process has it open that is not seen from here (in a container?)"
            elif error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
                raise
        yield problem
    finally:
        os.close(descriptor)
        if main:
            signal.signal(signal.SIGIO, handler)


def _state(
    walk: Walk,
    path: bytes,
    users: Users,
    inventory: Optional[Inventory],
    gaps: Sequence[str],
) -> ImageState:
    real = _real(walk, path)
    if path.startswith(b"/dev/") and walk.root == "/":
        path = real = os.path.realpath(path)
    try:
        with walk.reach(path) as (entry, _, _):
            if entry.mode == stat.S_IFLNK:
                raise StorageError(
                    f"{quote(shown(path))} is a symbolic link, and none is followed; name what "
                    f"it leads to"
                )
            if entry.mode not in (stat.S_IFREG, stat.S_IFBLK):
                raise StorageError(
                    f"{quote(shown(path))} is no image: neither a regular file nor a block device"
                )
            with entry.pin() as pinned:
                link = f"/proc/self/fd/{pinned.descriptor}"
                label = pinned.label()
                status = pinned.status
                owners = _owners(link)
    except BackendUnavailableError as error:
        raise StorageError(f"{error}; name what exists") from None
    except BackendPermissionError:
        raise
    except BackendError as error:
        raise StorageError(str(error)) from None
    except OSError as error:
        kind = BackendPermissionError if isinstance(error, PermissionError) else BackendError
        raise kind(f"{shown(path)!a}: cannot be looked at: {error.strerror}; run as root") from None
    uses: tuple[GuestUse, ...] = ()
    if inventory is not None:
        uses = guest_uses(inventory, _same_file(inventory, status, real))
    unknown = [*gaps, *(f"{gap.what}: {gap.reason}" for gap in users.unreadable)]
    if os.geteuid() != 0:
        unknown.append("only root sees libvirt's owner attributes and all open files")
    return ImageState(
        path=shown(path),
        label=None if label is None else os.fsdecode(label),
        owner=(status.st_uid, status.st_gid),
        owners=owners,
        guests=uses,
        users=users.of(status),
        boot=_boot_time(),
        unknown=tuple(dict.fromkeys(unknown)),
    )


def _same_file(inventory: Inventory, status: os.stat_result, real: bytes) -> frozenset[str]:
    """Return the names by which guests call a file."""
    names = {shown(real)}
    for guest in inventory.guests:
        for image in guest.images:
            if image.path is not None and image.path not in names:
                with contextlib.suppress(OSError, ValueError):
                    if os.path.samestat(os.stat(image.path), status):
                        names.add(image.path)
    return frozenset(names)


def _owners(link: str) -> tuple[Owner, ...]:
    found = []
    for model in MODELS:
        values = [attribute(link, name) for name in _names(model)]
        texts = [None if value is None else os.fsdecode(value.rstrip(b"\0")) for value in values]
        owner = Owner(model, *texts)
        if owner.present:
            found.append(owner)
    return tuple(found)


def _names(model: str) -> tuple[str, str, str]:
    """Return the names of the attributes of one model: remembered, count, time."""
    return f"{_PREFIX}{model}", f"{_PREFIX}ref_{model}", f"{_PREFIX}timestamp_{model}"


def _real(walk: Walk, path: bytes) -> bytes:
    return path if walk.root == "/" else os.fsencode(walk.root) + path


def _boot_time() -> Optional[int]:
    """Return when this host was started, as the kernel says, in seconds since 1970."""
    try:
        with open("/proc/stat", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("btime "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None
