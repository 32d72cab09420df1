"""Compare the labels of whole trees with what the file-context rules give; change nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Sequence
from typing import Callable, Optional

from attr import frozen

from svirtlib.backends._selinux import mode_of_host
from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.mounts import mount_of, read_mounts
from svirtlib.backends.walk import (
    LABEL,
    Descent,
    Entry,
    Folder,
    Names,
    Share,
    Walk,
    kind_of,
    unreadable,
)
from svirtlib.context import Context
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    InvalidContextError,
    StorageError,
    quote,
)
from svirtlib.filerules import clean_path
from svirtlib.filesystems import FileSystemFacts, advice_for
from svirtlib.guests import Mode, Unreadable
from svirtlib.storage import Verdict, decide

__all__ = ["Drift", "Verification", "check_path", "state_of", "verify"]

#: Types of file systems that hold what the kernel says of itself.
_KERNELS_OWN = frozenset(
    {
        *("autofs", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "efivarfs", "fusectl"),
        *("mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs"),
    }
)

#: Told how many files were looked at.
Progress = Callable[[int], None]

#: Other processes are not worth their start before so many files were looked at.
_ALONE = 4000

#: So many pieces for each process: trees are uneven.
_PIECES = 8

#: So many pairs of a label and a rule's context are remembered with what they mean.
_REMEMBERED = 4096

#: So many things that could not be looked at are named; all are counted.
_NAMED = 1000


@frozen
class Drift:
    """A file with another label than the rules give it.

    Attributes:
        path: where it lies, below the root; bytes that are no text are surrogates.
        old: its label, or None where it has none.
        new: the label that a relabel would set.
    """

    path: str
    old: Optional[str]
    new: str


@frozen
class Verification:
    """What a comparison found.

    Attributes:
        policy: name of the policy whose rules were asked.
        checked: how many files were looked at.
        right: how many have the label that the rules give them.
        no_rule: for how many there is no rule, or one that says ``<<none>>``.
        customizable: how many have a type that the policy leaves to the administrator.
        guest_labels: how many have the label of a guest.
        other_parts: how many have the right type, and another user, role or range.
        drift_count: how many have another label than they should.
        drifts: the first of these by their paths.
        unreadable_count: how many could not be looked at.
        unreadable: the first of these.
        left_out: folders on which something else is mounted.
        notes: what there is to say of how answers were found.
    """

    policy: str
    checked: int
    right: int
    no_rule: int
    customizable: int
    guest_labels: int
    other_parts: int
    drift_count: int
    drifts: tuple[Drift, ...]
    unreadable_count: int
    unreadable: tuple[Unreadable, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether all could be looked at."""
        return not self.unreadable_count


def check_path(text: str) -> bytes:
    """Return a path that an administrator named, cleaned, or say why it is none.

    Raises:
        StorageError: it is empty, relative, or has ``.`` or ``..`` in it.
    """
    parts = text.split("/")
    if not text.startswith("/"):
        raise StorageError(
            f"{quote(text)}: {'a relative path' if text else 'an empty path'}; file-context rules "
            f"are for absolute ones: name it from / on"
        )
    if "." in parts or ".." in parts:
        raise StorageError(
            f"{quote(text)}: names a folder by '.' or '..'; name it as it is called from / on"
        )
    return clean_path(os.fsencode(text))


def state_of(root: str, *, offline: bool) -> Optional[Mode]:
    """Return what SELinux does here, or None where that is not known or does not count.

    Raises:
        BackendUnavailableError: it is off, and nobody said that this does not matter.
    """
    mode = mode_of_host() if os.path.abspath(root) == "/" else None
    if mode is Mode.DISABLED and not offline:
        raise BackendUnavailableError(
            "SELinux is off: no label is enforced here, and nothing was compared. --offline "
            "compares the labels with the stored policy all the same; --root does so below "
            "another folder"
        )
    return mode


def verify(
    paths: Sequence[bytes],
    *,
    root: str = "/",
    enforced: bool = False,
    cross: bool = False,
    force: bool = False,
    jobs: int = 1,
    most: Optional[int] = 1000,
    progress: Optional[Progress] = None,
) -> Verification:
    """Compare what lies at *paths* and below with the rules of the policy below *root*.

    A symbolic link is compared itself, and never followed.

    Args:
        paths: absolute, below *root*.
        root: ``/``, or the folder of an unpacked image, with its policy.
        enforced: SELinux runs, so that the kernel tells which mounts carry labels.
        cross: go on into file systems that are mounted below.
        force: compare whole contexts, also of customizable types and of guests' images, as
            ``restorecon -F`` would set them; else the type alone decides, as for ``restorecon``.
        jobs: how many processes may share the work.
        most: how many files that differ are named, None for all.
        progress: told from time to time how many files were looked at.

    Raises:
        StorageError: there is nothing at any of the paths, or a symbolic link on the way.
        BackendUnavailableError: there is no policy.
        BackendPermissionError: none of the paths can be reached.
        BackendDataError: libselinux would not load the policy's rules.
    """
    contexts = FileContexts.open(root)
    with Walk(root, cross=cross) as walk:
        work = _Work(walk, contexts, enforced=enforced, force=force, most=most)
        failures = []
        for path in paths:
            with contextlib.ExitStack() as stack:
                try:
                    entry, parent, name = stack.enter_context(walk.reach(path))
                except BackendError as error:
                    failures.append(error)
                    work.tally.miss(Unreadable(os.fsdecode(path), str(error)))
                    continue
                if work.start(entry):
                    descent = Descent(walk, parent, name, entry.path)
                    stack.enter_context(contextlib.closing(descent))
                    work.descend(descent, jobs, progress or _no_progress)
        if failures and len(failures) == len(paths):
            if isinstance(failures[0], BackendPermissionError):
                raise failures[0]
            raise StorageError(str(failures[0]))
        work.tally.notes |= {*contexts.notes}
        return work.tally.result(contexts.policy)


def _no_progress(_count: int) -> None:
    """Take no note."""


class _Tally:
    """What was found so far, in one process."""

    def __init__(self, most: Optional[int]) -> None:
        self.checked = 0
        self.right = 0
        self.no_rule = 0
        self.verdicts = dict.fromkeys(Verdict, 0)
        self.other_parts = 0
        self.drifts: list[tuple[bytes, Optional[str], str]] = []
        self.missed = 0
        self.unreadable: list[Unreadable] = []
        self.left_out: list[bytes] = []
        self.notes: set[str] = set()
        self._most = most

    def drift(self, path: bytes, old: Optional[str], new: str) -> None:
        """Note a file with another label; those with the first paths are kept by name."""
        self.verdicts[Verdict.CHANGE] += 1
        self.drifts.append((path, old, new))
        if self._most is not None and len(self.drifts) > 2 * self._most + 64:
            self._cut()

    def miss(self, what: Unreadable) -> None:
        """Note what could not be looked at."""
        self.missed += 1
        if len(self.unreadable) < _NAMED:
            self.unreadable.append(what)

    def add(self, other: _Tally) -> None:
        """Add what another process found."""
        self.checked += other.checked
        self.right += other.right
        self.no_rule += other.no_rule
        for verdict, count in other.verdicts.items():
            self.verdicts[verdict] += count
        self.other_parts += other.other_parts
        self.drifts += other.drifts
        self._cut()
        self.missed += other.missed
        self.unreadable += other.unreadable[: _NAMED - len(self.unreadable)]
        self.left_out += other.left_out
        self.notes |= other.notes

    def _cut(self) -> None:
        self.drifts.sort(key=lambda drift: drift[0])
        if self._most is not None:
            del self.drifts[self._most :]

    def result(self, policy: str) -> Verification:
        """Return what was found, in an order that does not depend on the processes."""
        self._cut()
        return Verification(
            policy=policy,
            checked=self.checked,
            right=self.right,
            no_rule=self.no_rule,
            customizable=self.verdicts[Verdict.CUSTOMIZABLE],
            guest_labels=self.verdicts[Verdict.GUEST_LABEL],
            other_parts=self.other_parts,
            drift_count=self.verdicts[Verdict.CHANGE],
            drifts=tuple(Drift(os.fsdecode(path), old, new) for path, old, new in self.drifts),
            unreadable_count=self.missed,
            unreadable=tuple(sorted(self.unreadable, key=lambda entry: (entry.what, entry.reason))),
            left_out=tuple(os.fsdecode(path) for path in sorted(self.left_out)),
            notes=tuple(sorted(self.notes)),
        )


#: What the rules give all files of a kind in a folder: a label, None for nothing, or this
#: where it depends on the names.
_DEPENDS = b""


class _Work:
    """The comparison, in one process."""

    def __init__(
        self,
        walk: Walk,
        contexts: FileContexts,
        *,
        enforced: bool,
        force: bool,
        most: Optional[int],
    ) -> None:
        self.tally = _Tally(most)
        self._most = most
        self._walk = walk
        self._contexts = contexts
        self._force = force
        self._enforced = enforced
        self._mounts = read_mounts()
        self._device = -1
        self._unlabelled: set[int] = set()
        self._encoded: dict[str, bytes] = {}
        self._judged: dict[tuple[Optional[bytes], bytes], tuple[Verdict, Optional[str], bool]] = {}

    def start(self, entry: Entry) -> bool:
        """Compare what lies at a path itself; tell whether to go on below it."""
        if not self._carries_labels(entry.path):
            return False
        text = self._contexts.lookup_text(entry.path, entry.mode)
        label: Optional[bytes] = None
        if text is not None:
            try:
                label = entry.label()
            except OSError as error:
                return self._trouble(entry.path, error) and entry.mode == stat.S_IFDIR
        self.tally.checked += 1
        if text is None:
            self.tally.no_rule += 1
        else:
            self._compare(entry.path, label, self._label(text))
        return entry.mode == stat.S_IFDIR

    def descend(self, descent: Descent, jobs: int, progress: Progress) -> None:
        """Compare all that lies below a folder, with other processes where it is much."""
        alone_until = self.tally.checked + _ALONE
        for found in descent:
            if isinstance(found, Unreadable):
                self.tally.miss(found)
                continue
            self.folder(found, found.place)
            progress(self.tally.checked)
            if jobs > 1 and self.tally.checked >= alone_until:
                # Too few folders would leave processes without work; the next ones may have more.
                alone_until = self.tally.checked + _ALONE
                if descent.pending() >= 2 * jobs:
                    self._spread(descent.share(_PIECES * jobs), jobs, progress)
        self.tally.left_out += descent.left_out

    def _spread(self, shares: Sequence[Share], jobs: int, progress: Progress) -> None:
        """Have other processes look at shares of a tree."""
        import concurrent.futures
        import multiprocessing

        _inherited.append((self, shares))
        pool = concurrent.futures.ProcessPoolExecutor(
            min(jobs, len(shares)),
            # The folders are open in this process, and the rules are loaded.
            mp_context=multiprocessing.get_context("fork"),
            initializer=_leave_interrupts,
        )
        try:
            waiting = [pool.submit(_do_share, number) for number in range(len(shares))]
            for done in concurrent.futures.as_completed(waiting):
                self.tally.add(done.result())
                progress(self.tally.checked)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            _inherited.clear()

    def share(self, share: Share) -> _Tally:
        """Look at one share in a process of its own, whose working folder nobody else needs."""
        self.tally = _Tally(self._most)
        for name in share.names:
            path = share.folder.child(name)
            descent = Descent(self._walk, share.folder.descriptor, name, path, share.folder.device)
            with contextlib.closing(descent):
                for found in descent:
                    if isinstance(found, Unreadable):
                        self.tally.miss(found)
                    else:
                        os.fchdir(found.descriptor)
                        self.folder(found, b".")
            self.tally.left_out += descent.left_out
        self.tally.notes |= {*self._contexts.notes}
        return self.tally

    def folder(self, folder: Folder, place: bytes) -> None:
        """Compare all that lies right in a folder.

        Args:
            folder: the folder.
            place: a path that leads there, short if possible: the kernel resolves it each time.
        """
        if folder.device != self._device:
            if folder.device in self._unlabelled:
                return
            if not self._carries_labels(folder.path):
                self._unlabelled.add(folder.device)
                return
            self._device = folder.device
        contexts, tally, inner = self._contexts, self.tally, folder.inner
        rules = contexts.folder(folder.path)
        above = b"" if folder.path == b"/" else folder.path
        fixed: dict[int, Optional[bytes]] = {}
        regular = fixed[stat.S_IFREG] = self._fixed(folder, stat.S_IFREG)
        getxattr = os.getxattr
        checked = right = no_rule = 0
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_file(follow_symlinks=False):
                        kind, wanted = stat.S_IFREG, regular
                    else:
                        try:
                            kind = kind_of(entry)
                        except FileNotFoundError:
                            continue
                        if kind == stat.S_IFDIR:
                            inner.append(entry.name)
                        if kind not in fixed:
                            fixed[kind] = self._fixed(folder, kind)
                        wanted = fixed[kind]
                    if wanted is _DEPENDS:
                        text = contexts.in_folder(rules, above, entry.name, kind)
                        wanted = None if text is None else self._label(text)
                    checked += 1
                    if wanted is None:
                        no_rule += 1
                        continue
                    label: Optional[bytes]
                    try:
                        label = getxattr(entry.path, LABEL, follow_symlinks=False)
                    except OSError as error:
                        if error.errno != errno.ENODATA:
                            checked -= 1
                            if self._trouble(folder.child(entry.name), error, folder):
                                continue
                            # Nothing below it has labels either.
                            inner = folder.inner = Names()
                            break
                        label = None
                    if label == wanted:
                        right += 1
                    else:
                        self._compare(folder.child(entry.name), label, wanted)
        except OSError as error:
            tally.miss(unreadable(folder.path, error))
        tally.checked += checked
        tally.right += right
        tally.no_rule += no_rule

    def _fixed(self, folder: Folder, kind: int) -> Optional[bytes]:
        above = b"" if folder.path == b"/" else folder.path
        rule = self._contexts.constant(self._contexts.folder(folder.path), above, kind)
        if isinstance(rule, bool):
            return _DEPENDS
        return None if rule is None or rule.context is None else self._label(rule.context)

    def _label(self, text: str) -> bytes:
        """Return a context as the kernel tells it: with a NUL at its end."""
        label = self._encoded.get(text)
        if label is None:
            label = self._encoded[text] = os.fsencode(text) + b"\0"
        return label

    def _compare(self, path: bytes, label: Optional[bytes], wanted: bytes) -> None:
        key = label, wanted
        judged = self._judged.get(key)
        if judged is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            judged = self._judged[key] = self._judge(label, wanted)
        verdict, new, other_parts = judged
        if verdict is not Verdict.RIGHT and self._walk.leaves_out(path):
            # The label is the other file system's; this one's lies below it.
            self.tally.checked -= 1
            return
        self.tally.other_parts += other_parts
        if verdict is Verdict.RIGHT:
            self.tally.right += not other_parts
        elif verdict is Verdict.CHANGE and new is not None:
            self.tally.drift(path, _text(label), new)
        else:
            self.tally.verdicts[verdict] += 1

    def _judge(self, label: Optional[bytes], wanted: bytes) -> tuple[Verdict, Optional[str], bool]:
        """Return what becomes of a label, the new one, and whether its type alone is right."""
        old, new = _text(label), os.fsdecode(wanted.rstrip(b"\0"))
        # Tells where a rule has no context.
        self._contexts.context(new)
        decision = decide(old, new, self._contexts.customizable, force=self._force)
        other_parts = False
        if decision.verdict is Verdict.RIGHT and old is not None and old != new:
            with contextlib.suppress(InvalidContextError):
                other_parts = Context.parse(old) != Context.parse(new)
        return decision.verdict, decision.context, other_parts

    def _carries_labels(self, path: bytes) -> bool:
        """Tell whether files where a path lies have labels; if not, note what to do instead."""
        real = path if self._walk.root == "/" else os.fsencode(self._walk.root) + path
        mount = mount_of(real, self._mounts)
        if mount is None:
            return True
        if mount.kind in _KERNELS_OWN:
            advice: Optional[str] = (
                f"{os.fsdecode(mount.point)} ({mount.kind}) is the kernel's own and holds no "
                f"storage; the policy labels it without rules"
            )
        else:
            facts = FileSystemFacts(
                os.fsdecode(mount.point),
                mount.kind,
                mount.options,
                self._enforced,
                source=mount.source,
            )
            advice = advice_for(facts, "system_u:object_r:virt_image_t:s0")
        if advice is not None:
            self.tally.miss(Unreadable(os.fsdecode(path), advice))
        return advice is None

    def _trouble(self, path: bytes, error: OSError, folder: Optional[Folder] = None) -> bool:
        """Note why a label could not be read; tell whether others in the folder may be."""
        if isinstance(error, FileNotFoundError):
            return True
        if error.errno != errno.EOPNOTSUPP:
            self.tally.miss(unreadable(path, error))
            return True
        if folder is not None and self._walk.is_mount_point(path):
            return True
        self.tally.miss(
            Unreadable(
                os.fsdecode(path if folder is None else folder.path),
                "its file system carries no labels of files",
            )
        )
        if folder is not None:
            self._unlabelled.add(folder.device)
            self._device = -1
        return False


def _text(label: Optional[bytes]) -> Optional[str]:
    return None if label is None else os.fsdecode(label.rstrip(b"\0"))


#: What processes that are forked for a share of the work find there.
_inherited: list[tuple[_Work, Sequence[Share]]] = []


def _leave_interrupts() -> None:
    # The terminal interrupts all processes; the first one then waits for the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _do_share(number: int) -> _Tally:
    ((work, shares),) = _inherited
    return work.share(shares[number])
