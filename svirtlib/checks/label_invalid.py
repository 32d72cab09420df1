"""A context that the kernel would refuse."""

from __future__ import annotations

from collections.abc import Iterator

from attr import field, mutable

from svirtlib.checks._check import Check, command, listed, one_or_many, several
from svirtlib.checks._facts import Facts
from svirtlib.errors import quote
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.seclabel import SeclabelType

_SHOWN = 10


@mutable
class _Holders:
    reason: str
    #: The grammar would take it.
    by_policy: bool = False
    #: The contexts; several only where the policy refuses all of them for one reason.
    texts: set[str] = field(factory=set)
    #: Guests whose XML states it.
    stating: set[str] = field(factory=set)
    guests: set[str] = field(factory=set)
    paths: set[str] = field(factory=set)
    evidence: list[Evidence] = field(factory=list)


class LabelInvalid(Check):
    """A context of a guest or an image that the policy, or the grammar of contexts, refuses.

    libvirt looks at no label before it uses it: the guest fails to start, or, with a
    permissive kernel, runs without one. A file with such a label is unlabeled to the kernel.
    """

    ident = "label-invalid"
    severity = Severity.HIGH
    summary = "a context that the policy, or the grammar of contexts, refuses"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each such context."""
        found: dict[str, _Holders] = {}
        policy = facts.inventory.policy
        unknown = {} if policy is None else {one.context: one.reason for one in policy.refused}
        beyond = set[str]() if policy is None else set(policy.beyond)
        for guest, purpose, text in facts.labels():
            if text in beyond:
                continue
            reason = _refusal(facts, text) or unknown.get(text, "")
            if reason:
                holders = _holders(facts, found, text, reason)
                if guest.name not in holders.stating:
                    holders.evidence.append(
                        Evidence(guest.source, f"{guest.name}: {purpose} {text}")
                    )
                holders.stating.add(guest.name)
        self._baselabels(facts, found, unknown)
        for label in facts.inventory.files:
            reason = ""
            if label.context is not None and label.context not in beyond:
                reason = _refusal(facts, label.context) or unknown.get(label.context, "")
            if reason and label.context is not None:
                holders = _holders(facts, found, label.context, reason)
                holders.paths.add(label.path)
                holders.evidence.append(
                    Evidence(label.path, f"{label.path}: label {label.context}")
                )
                holders.guests.update(use.guest.name for use in facts.uses.get(label.identity, ()))
        for holders in found.values():
            yield self._finding(holders)

    def _finding(self, holders: _Holders) -> Finding:
        texts = tuple(sorted(holders.texts))
        guests = tuple(sorted(holders.stating | holders.guests))
        paths = tuple(sorted(holders.paths))
        bearers = sorted(holders.stating) or paths
        if holders.stating and holders.by_policy:
            remedy = (
                f"{command('virsh', 'edit', bearers[0])}, and write a context that the policy "
                f"knows; or load the policy module that brings it: `semodule -i`"
            )
        elif holders.stating:
            remedy = (
                f"{command('virsh', 'edit', bearers[0])}, and write it as user:role:type:range, "
                f"such as system_u:system_r:svirt_t:s0:c87,c520 (the lower category first)"
            )
        else:
            remedy = (
                f"give it a label of files while no guest uses it: "
                f"{command('restorecon', '-F', paths[0])}"
            )
        if len(texts) == 1:
            what = f"{quote(texts[0])}, {'a' if holders.stating else 'the'} label"
        else:
            what = f"{quote(texts[0])} and {several(len(texts) - 1, 'other label')}"
        return Finding(
            rule=self.ident,
            severity=self.severity,
            guests=guests,
            paths=paths,
            labels=texts,
            message=(
                f"{what} of {listed(bearers)}, "
                f"{one_or_many(texts, 'is no context', 'are no contexts')}: "
                f"{holders.reason}"
            ),
            remedy=remedy,
            evidence=tuple(holders.evidence[:_SHOWN]),
        )

    def _baselabels(
        self, facts: Facts, found: dict[str, _Holders], unknown: dict[str, str]
    ) -> None:
        """Look at baselabels: only their type takes effect, and a range may be left out."""
        for guest in facts.inventory.guests:
            seclabel = guest.seclabel
            if seclabel is None or seclabel.type is not SeclabelType.DYNAMIC:
                continue
            text = seclabel.baselabel
            reason = ""
            if text is not None:
                # A policy is asked with the level that libvirt puts in.
                asked = text if text.count(":") > 2 else f"{text}:s0"
                reason = _refusal(facts, text, range_needed=False) or unknown.get(asked, "")
            if reason and text is not None:
                holders = _holders(facts, found, text, reason, range_needed=False)
                holders.stating.add(guest.name)
                holders.evidence.append(Evidence(guest.source, f"{guest.name}: baselabel {text}"))


def _holders(
    facts: Facts, found: dict[str, _Holders], text: str, reason: str, *, range_needed: bool = True
) -> _Holders:
    """Return the entry that a context belongs to: its own, or that of the policy's reason."""
    by_policy = not _refusal(facts, text, range_needed=range_needed)
    holders = found.setdefault(reason if by_policy else text, _Holders(reason, by_policy))
    holders.texts.add(text)
    return holders


def _refusal(facts: Facts, text: str, *, range_needed: bool = True) -> str:
    """Return why *text* is no context of a guest or an image, or an empty text."""
    fault = facts.fault(text)
    if fault is not None:
        return fault.reason
    context = facts.context(text)
    if range_needed and context is not None and context.range is None:
        return "the range is missing; sVirt separates guests by it"
    return ""
