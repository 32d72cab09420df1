"""Booleans for guests: plan and set them, put together; ``storage undo`` takes them back.

They are set in the policy store and, on the host that runs, in the kernel, in one transaction
of libsemanage. The journal tells of it before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Optional

from attr import frozen

from svirtlib.backends import journal as log
from svirtlib.backends._selinux import mode_of_host
from svirtlib.backends.changes import BooleanRecord, JournalHeader, Journals, Recorder
from svirtlib.backends.filecontexts import policy_folder
from svirtlib.backends.rulestore import BooleanStore, LocalBoolean
from svirtlib.backends.storageapply import refuse_without_selinux
from svirtlib.errors import PartialChangeError, SelectionError, SvirtError
from svirtlib.guests import Mode
from svirtlib.hostconfig import HostConfig

__all__ = ["COMMAND", "BooleansSet", "enforcement", "last_change", "set_booleans"]

#: How journals name these changes.
COMMAND = "audit --apply-booleans"


@frozen
class BooleansSet:
    """What was done.

    Attributes:
        changed: the booleans that were set, with their new states.
        ident: name of the change, for undo; None where nothing was changed.
        unknown: those that the policy store does not know.
    """

    changed: Mapping[str, bool]
    ident: Optional[str] = None
    unknown: tuple[str, ...] = ()


def set_booleans(
    wanted: Mapping[str, bool], journals: Journals, *, root: str = "/", offline: bool = False
) -> BooleansSet:
    """Give booleans their states, for good and in the kernel, all in one transaction.

    Args:
        wanted: states by name, of those that differ in the kernel or in the policy's file; what
            a commit that was cut off left in the store alone is finished so.
        journals: where changes are written down before they are made.
        root: the folder below which the policy store lies.
        offline: SELinux need not run here.

    Raises:
        BackendUnavailableError: SELinux does not run here, or there is no policy store.
        BackendError: nothing could be changed.
        PartialChangeError: it is not known how much was changed.
    """
    refuse_without_selinux(root, offline=offline)
    policy = os.path.basename(policy_folder(root))
    store = BooleanStore(root, policy)
    now = store.states([*wanted])
    after = [
        LocalBoolean(name, value, None if now[name].live is None else value)
        for name, value in wanted.items()
        if name in now
    ]
    unknown = tuple(name for name in wanted if name not in now)
    if not after:
        return BooleansSet({}, unknown=unknown)
    before = tuple(LocalBoolean(one.name, now[one.name].local, now[one.name].live) for one in after)
    names = tuple(one.name for one in after)
    recorder = Recorder(journals, COMMAND, names, os.path.abspath(root), f"booleans {root}")
    try:
        recorder.booleans(BooleanRecord(policy, before, tuple(after)))
        store.change(after)
        recorder.done()
        ident = recorder.ident
    except (SvirtError, KeyboardInterrupt) as error:
        left = store.states(names)
        if all(left[one.name].stored == now[one.name].stored for one in after):
            # The transaction is one: nothing of it was done.
            recorder.drop()
            raise
        raise PartialChangeError(
            done=f"{', '.join(names)} may have been set",
            reason=str(error) or "interrupted",
            undo=f"'svirt-label storage undo {recorder.ident}' takes that back",
        ) from None
    finally:
        recorder.close()
    words = [f"{one.name}={'on' if wanted[one.name] else 'off'}" for one in after]
    log.changed(
        f"set {', '.join(words)}",
        COMMAND,
        ID=ident or "",
        ROOT=os.path.abspath(root),
        BOOLEANS=len(words),
    )
    return BooleansSet({one.name: wanted[one.name] for one in after}, ident, unknown)


def enforcement(host: HostConfig) -> Iterator[str]:
    """Yield why nothing that a plan says would be enforced."""
    selinux = host.practices.selinux
    off = selinux is not None and (selinux.mode == "disabled" or selinux.switched_off is not None)
    if host.root == "/" and mode_of_host() is Mode.DISABLED:
        yield (
            "SELinux does not run here: nothing would be enforced, and apply changes the stored "
            "policy only with --offline"
        )
    elif off:
        yield "SELinux is switched off at the next boot of this host: nothing would be enforced"


def last_change(journals: Journals, root: str) -> JournalHeader:
    """Return the last change of booleans below a root that was not undone.

    Raises:
        SelectionError: there is none.
    """
    root = os.path.abspath(root)
    for header in reversed(journals.list()):
        if header.command == COMMAND and header.root == root and header.state != "undone":
            return header
    raise SelectionError(
        f"there is no change of booleans to undo below {root} in {journals.folder}; 'svirt-label "
        f"storage undo --list' shows all changes"
    )
