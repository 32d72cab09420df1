"""Write rules and set labels for storage of guests, as planned.

Nothing is changed before the journal tells of it. Rules are changed in one transaction of
libsemanage; labels by :mod:`svirtlib.backends.relabel`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Optional

from attr import evolve, frozen

from svirtlib.backends import journal as log
from svirtlib.backends.changes import Journals, Recorder, RuleRecord
from svirtlib.backends.filecontexts import FileContexts, policy_folder
from svirtlib.backends.inuse import find_users
from svirtlib.backends.relabel import Relabelling
from svirtlib.backends.rulestore import LocalRule, RuleStore
from svirtlib.backends.storageplan import (
    Progress,
    Request,
    filled,
    local_rules,
    mode_here,
    targets_of,
    trees,
)
from svirtlib.backends.walk import Walk
from svirtlib.errors import (
    BackendError,
    BackendUnavailableError,
    PartialChangeError,
    StorageError,
    SvirtError,
    quote,
)
from svirtlib.guests import Inventory, Mode
from svirtlib.storage import Change, LocalLine, Plan, RuleAction, RuleChange, in_new_order
from svirtlib.storagepaths import shown
from svirtlib.wording import several

__all__ = [
    "Outcome",
    "apply",
    "refuse_without_selinux",
]


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
        made = targets_of(request, contexts, walk)
        _refuse(made, request)
        recorder = Recorder(
            journals,
            "storage apply",
            (*request.paths, *request.volumes),
            os.path.abspath(request.root),
            _fingerprint(request),
        )
        work: Optional[Relabelling] = None
        rules = 0
        try:
            rules = _write_rules(made, request, contexts, recorder)
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
            work.run(trees(made.targets))
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
                done=f"{several(rules, 'rule')} and {several(changed, 'label')} were changed",
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
    made = filled(made, work)
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
    paths = (*request.paths, *request.volumes)
    log.changed(
        f"changed {several(rules, 'rule')} and {several(labels, 'label')} of "
        f"{', '.join(paths)}{'' if stopped is None else f', and stopped: {stopped}'}",
        "storage apply",
        done=stopped is None,
        ID=ident,
        PATH=paths,
        ROOT=os.path.abspath(request.root),
        RULES=rules,
        FILES=labels,
    )


def refuse_without_selinux(root: str, *, offline: bool) -> None:
    """Refuse to change what nothing enforces, unless that is what is asked for.

    Raises:
        BackendUnavailableError: SELinux does not run here.
    """
    if offline or root != "/":
        return
    mode = mode_here()
    if mode is Mode.DISABLED:
        raise BackendUnavailableError(
            "SELinux does not run here, so nothing would be enforced, and nothing was changed; "
            "--offline changes the stored policy, and labels, all the same, for the time when it "
            "runs; --root does so below another folder"
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
        sorted([*request.paths, *request.volumes]),
        request.purpose.value,
        request.type,
        request.range,
        request.kind,
        request.force,
        request.cross,
        os.path.abspath(request.root),
    ]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]


def _write_rules(made: Plan, request: Request, contexts: FileContexts, recorder: Recorder) -> int:
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
    moved = _moved(local_rules(contexts), pending, held)
    store.change(moved or wanted, again=bool(again))
    # Now, for what comes next may be cut off.
    log.changed(
        f"wrote {several(len(keys), 'file-context rule')}",
        "storage apply",
        ID=recorder.ident or "",
        ROOT=os.path.abspath(request.root),
        FCONTEXT=[f"{rule.pattern} {rule.kind} {rule.context}" for rule in wanted],
        RULES=len(keys),
    )
    return len(keys)


def _moved(
    local: Sequence[LocalLine], pending: Sequence[RuleChange], held: Mapping[tuple[str, str], str]
) -> list[LocalRule]:
    """Return what puts new rules before others: those and all behind them are written anew.

    Empty where all new ones are the last, as libsemanage puts them.
    """
    ordered = in_new_order(local, pending)
    first = next(
        (n for n, (old, new) in enumerate(zip(local, ordered)) if old[:2] != new[:2]), len(local)
    )
    if first == len(local) or {line[:2] for line in local} != set(held):
        return []
    gone = [LocalRule(pattern, kind, None) for pattern, kind, _ in local[first:]]
    replaced = [
        LocalRule(pattern, kind, context or "<<none>>")
        for (pattern, kind, context), old in zip(ordered[:first], local)
        if context != old[2]
    ]
    anew = [
        LocalRule(pattern, kind, context or "<<none>>")
        for pattern, kind, context in ordered[first:]
    ]
    return [*replaced, *gone, *anew]
