"""Put rules and labels of storage back as a journal tells that they were."""

from __future__ import annotations

import os
from typing import Callable, Optional

from attr import frozen

from svirtlib.backends import journal as log
from svirtlib.backends.changes import (
    AttributesRecord,
    BooleanRecord,
    JournalHeader,
    Journals,
    LabelRecord,
    RuleRecord,
)
from svirtlib.backends.filecontexts import FileContexts
from svirtlib.backends.inuse import Users, find_users
from svirtlib.backends.rulestore import BooleanStore, LocalRule, RuleStore
from svirtlib.backends.storageplan import (
    Progress,
    is_local,
)
from svirtlib.backends.walk import LABEL, Pinned, Walk
from svirtlib.errors import (
    BackendError,
    BackendPermissionError,
    BackendUnavailableError,
    PartialChangeError,
    SelectionError,
    SvirtError,
)
from svirtlib.filerules import kind_letter
from svirtlib.guests import Inventory
from svirtlib.storage import FileKept
from svirtlib.storagepaths import shown
from svirtlib.wording import several

__all__ = [
    "Undone",
    "list_changes",
    "undo",
]


@frozen
class Undone:
    """What ``undo`` did.

    Attributes:
        header: the change that was taken back.
        rules: how many rules were put back.
        booleans: how many booleans were put back.
        files: how many files were put back.
        kept: what was not put back, and why.
        kept_count: how many these are; *kept* holds the first.
        gone: how many files are gone.
    """

    header: JournalHeader
    rules: int = 0
    booleans: int = 0
    files: int = 0
    kept: tuple[FileKept, ...] = ()
    kept_count: int = 0
    gone: int = 0


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
                work.put_booleans_back(journal.header.root)
                if not work.kept_count:
                    journal.state("undone")
                _announce_undo(journal.header, work)
            except (SvirtError, OSError, KeyboardInterrupt) as error:
                if isinstance(error, SvirtError) and not (
                    work.files or work.rules or work.booleans
                ):
                    raise
                _announce_undo(journal.header, work, stopped=str(error) or "interrupted")
                raise PartialChangeError(
                    done=f"{_counted(work)} were put back",
                    reason=str(error) or "interrupted",
                    undo=f"'svirt-label storage undo {ident}' goes on",
                ) from None
        return Undone(
            header=journal.header,
            rules=work.rules,
            booleans=work.booleans,
            files=work.files,
            kept=tuple(work.kept),
            kept_count=work.kept_count,
            gone=work.gone,
        )
    finally:
        journal.close()


def _announce_undo(header: JournalHeader, work: _Undoing, *, stopped: Optional[str] = None) -> None:
    if not (work.rules or work.files or work.booleans):
        return
    kept = f"; {work.kept_count} stay as they are" if work.kept_count else ""
    log.changed(
        f"put back {_counted(work)} of "
        f"{header.ident}{kept}{'' if stopped is None else f', and stopped: {stopped}'}",
        "storage undo",
        done=stopped is None and not work.kept_count,
        ID=header.ident,
        PATH=header.paths,
        ROOT=header.root,
        RULES=work.rules,
        BOOLEANS=work.booleans,
        FILES=work.files,
        KEPT=work.kept_count,
    )


def _counted(work: _Undoing) -> str:
    return (
        f"{several(work.rules, 'rule')}, {several(work.files, 'file')} and "
        f"{several(work.booleans, 'boolean')}"
    )


class _Undoing:
    """Takes the records of one journal and puts back what they tell of."""

    def __init__(self, walk: Walk, users: Users, most: int, progress: Progress) -> None:
        self._walk = walk
        self._users = users
        self._most = most
        self._progress = progress
        self._rules: list[RuleRecord] = []
        self._booleans: list[BooleanRecord] = []
        self._seen = 0
        self.files = 0
        self.rules = 0
        self.booleans = 0
        self.gone = 0
        self.kept: list[FileKept] = []
        self.kept_count = 0

    def take(self, record: object) -> None:
        """Put back one file; keep rules and booleans for the end.

        Raises:
            BackendError: it cannot be put back.
        """
        if isinstance(record, RuleRecord):
            self._rules.append(record)
        elif isinstance(record, BooleanRecord):
            self._booleans.append(record)
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

    def put_booleans_back(self, root: str) -> None:
        """Put all booleans back in one transaction.

        Raises:
            SvirtError: it cannot be done; the store is as it was.
        """
        if not self._booleans:
            return
        store = BooleanStore(root, self._booleans[0].policy)
        # Gone on with, a change has several records; the first tells how all was before.
        before = {one.name: one for record in reversed(self._booleans) for one in record.before}
        after = {one.name: one for record in self._booleans for one in record.after}
        now = store.states([*before])
        changes = []
        for name, old in before.items():
            state = now.get(name)
            if state is None or state.local not in (old.local, after[name].local):
                self.kept_count += 1
                reason = "the boolean was changed again since"
                if state is None:
                    reason = "the policy does not know this boolean any more"
                self.kept.append(FileKept(name, None, reason))
            elif (state.local, state.live) != (old.local, old.live):
                changes.append(old)
        store.change(changes)
        self.booleans = len(changes)

    def _keep(self, path: bytes, reason: str) -> None:
        self.kept_count += 1
        if len(self.kept) < self._most:
            self.kept.append(FileKept(shown(path), None, reason))


def _installed(root: str) -> dict[tuple[str, str], str]:
    """Return the contexts of the local rules that are in effect, by pattern and kind."""
    return {
        (rule.pattern.decode("ascii"), kind_letter(rule.kind)): rule.context or "<<none>>"
        for rule in FileContexts.open(root).rules
        if is_local(rule)
    }
