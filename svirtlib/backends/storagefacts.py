"""What this host says of the storage of images, put into an inventory for the checks.

Which file-context rule is for each image, which file system it lies on, and whether the booleans
are on that this file system calls for.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from typing import Callable, Optional

from attr import evolve

from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.mounts import Mount, mount_of, read_mounts
from svirtlib.context import Context
from svirtlib.errors import BackendError, BackendUnavailableError, InvalidContextError
from svirtlib.filesystems import boolean_for
from svirtlib.guests import BooleanState, FileLabel, Inventory, PathRule, Unreadable
from svirtlib.storagetypes import is_for_guests

__all__ = ["added", "placed", "with_storage"]


def with_storage(inventory: Inventory) -> Inventory:
    """Return the inventory of this host with what it says of the storage of images.

    Where there is no policy no rule is for anything, and the inventory says nothing of rules.
    """
    if not inventory.files:
        return inventory
    gaps: list[Unreadable] = []
    contexts: Optional[FileContexts] = None
    mounts: tuple[Mount, ...] = ()
    try:
        mounts = read_mounts()
        contexts = FileContexts.open()
    except BackendUnavailableError:
        pass
    except BackendError as error:
        gaps.append(Unreadable("file-context rules", str(error)))
    return added(
        inventory,
        inventory.files,
        lambda label: _placed(label, contexts, mounts),
        _states,
        gaps,
    )


def added(
    inventory: Inventory,
    labels: Iterable[FileLabel],
    place: Callable[[FileLabel], FileLabel],
    states: Callable[[], dict[str, bool]],
    gaps: Sequence[Unreadable],
) -> Inventory:
    """Return an inventory with these files, each with what is known of its place.

    Args:
        inventory: what is known without.
        labels: the files.
        place: adds what the rules and the file systems say; may raise a BackendError.
        states: tells the state of each boolean of the policy; may raise a BackendError.
        gaps: what could not be learnt so far.
    """
    files = []
    missed = list(gaps)
    for label in labels:
        try:
            files.append(place(label))
        except BackendError as error:
            missed.append(Unreadable(label.path, f"its file-context rule is not known: {error}"))
            files.append(label)
    booleans, problem = _booleans(files, states)
    if problem is not None:
        missed.append(problem)
    return evolve(
        inventory,
        files=tuple(files),
        booleans=booleans,
        unreadable=(*inventory.unreadable, *missed),
    )


def _placed(
    label: FileLabel, contexts: Optional[FileContexts], mounts: Iterable[Mount]
) -> FileLabel:
    """Return a label with the rule and the file system of the file.

    Raises:
        BackendError: libselinux cannot tell the rule.
    """
    if label.path.startswith("/dev/"):
        # A guest has a /dev of its own, and device nodes lie in the memory of the kernel.
        return label
    try:
        # Rules are for real paths; restorecon resolves them too.
        real = os.path.realpath(os.fsencode(label.path))
        mode = os.stat(real).st_mode
    except (OSError, ValueError):
        return label
    return placed(label, real, mode, contexts, mounts)


def placed(
    label: FileLabel,
    path: bytes,
    mode: int,
    contexts: Optional[FileContexts],
    mounts: Iterable[Mount],
) -> FileLabel:
    """Return a label with the rule and the file system of the file.

    Args:
        label: what is known of the file.
        path: its real path.
        mode: its ``st_mode``.
        contexts: the rules, or None where there are none.
        mounts: what is mounted on its host.

    Raises:
        BackendError: libselinux cannot tell the rule.
    """
    mount = mount_of(path, mounts)
    label = evolve(label, filesystem=None if mount is None else mount.kind)
    context = None if contexts is None else contexts.lookup_text(path, mode)
    if contexts is None or context is None:
        return label
    rule = contexts.rule(path, mode)
    return evolve(
        label,
        rule=PathRule(
            context=context,
            pattern="" if rule is None else os.fsdecode(rule.pattern),
            place=contexts.path if rule is None else rule.place,
            shadowed=None if _is_for_guests(context) else _shadowed(contexts, path, mode),
        ),
    )


def _shadowed(contexts: FileContexts, path: bytes, mode: int) -> Optional[str]:
    for rule in contexts.matching(path, stat.S_IFMT(mode)):
        if rule.context is not None and _is_for_guests(rule.context):
            return f"{os.fsdecode(rule.pattern)} ({rule.place})"
    return None


def _is_for_guests(context: str) -> bool:
    try:
        return is_for_guests(Context.parse(context).type)
    except InvalidContextError:
        return False


def _booleans(
    files: Iterable[FileLabel], all_states: Callable[[], dict[str, bool]]
) -> tuple[tuple[BooleanState, ...], Optional[Unreadable]]:
    """Return the booleans that the file systems of images call for, or why they are not known."""
    wanted = sorted(
        {
            name
            for label in files
            if not label.labelable and label.filesystem is not None
            for name in [boolean_for(label.filesystem)]
            if name is not None
        }
    )
    if not wanted:
        return (), None
    try:
        states = all_states()
    except (OSError, BackendError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return (), Unreadable("booleans", f"not decided whether they are on: {reason}")
    return tuple(BooleanState(name, states.get(name)) for name in wanted), None


def _states() -> dict[str, bool]:
    # Few hosts have images where booleans decide.
    from svirtlib.backends.rulestore import live_booleans

    return live_booleans() or _stored()


def _stored() -> dict[str, bool]:
    """Return the booleans of the policy on disk.

    Raises:
        BackendError: there is none, or it cannot be read.
    """
    from svirtlib.backends.policy import open_policy

    policy = open_policy()
    if policy is None:
        raise BackendUnavailableError("there is no policy")
    with policy:
        return policy.booleans()
