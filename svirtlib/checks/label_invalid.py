"""A context that the kernel would refuse."""

from __future__ import annotations

from collections.abc import Iterator

from attr import field, mutable

from svirtlib.checks._check import Check, listed
from svirtlib.checks._facts import Facts
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, quote
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.seclabel import SeclabelType


@mutable
class _Holders:
    reason: str
    guests: set[str] = field(factory=set)
    paths: set[str] = field(factory=set)
    evidence: list[Evidence] = field(factory=list)


class LabelInvalid(Check):
    """A context of a guest or an image does not fit the grammar that the kernel reads.

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
        for guest, purpose, text in facts.labels():
            reason = _refusal(text)
            if reason:
                holders = found.setdefault(text, _Holders(reason))
                if guest.name not in holders.guests:
                    holders.evidence.append(Evidence(guest.source, f"{guest.name}: {purpose}"))
                holders.guests.add(guest.name)
        self._baselabels(facts, found)
        for label in facts.inventory.files:
            reason = "" if label.context is None else _refusal(label.context)
            if reason and label.context is not None:
                holders = found.setdefault(label.context, _Holders(reason))
                holders.paths.add(label.path)
                holders.guests.update(
                    use.guest.name for use in facts.uses.get(label.identity, ())
                )
        for text, holders in found.items():
            bearer = "the label" if not holders.paths else f"the label of {listed(holders.paths)}"
            of = f" of {listed(holders.guests)}" if holders.guests and not holders.paths else ""
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=tuple(sorted(holders.guests)),
                paths=tuple(sorted(holders.paths)),
                labels=(text,),
                message=f"{bearer}{of} is no context, {quote(text)}: {holders.reason}",
                remedy=(
                    "write it as user:role:type:range, for example "
                    "system_u:system_r:svirt_t:s0:c87,c520 (two categories, the lower first); "
                    + (
                        f"virsh edit {sorted(holders.guests)[0]}"
                        if not holders.paths and holders.guests
                        else "set the image's label with chcon while its guest is off"
                    )
                ),
                evidence=tuple(holders.evidence[:10]),
            )

    def _baselabels(self, facts: Facts, found: dict[str, _Holders]) -> None:
        """Look at baselabels: only their type takes effect, and a range may be left out."""
        for guest in facts.inventory.guests:
            seclabel = guest.seclabel
            if seclabel is None or seclabel.type is not SeclabelType.DYNAMIC:
                continue
            text = seclabel.baselabel
            reason = "" if text is None else _refusal(text, range_needed=False)
            if reason and text is not None:
                holders = found.setdefault(text, _Holders(reason))
                holders.guests.add(guest.name)
                holders.evidence.append(Evidence(guest.source, f"{guest.name}: baselabel"))


def _refusal(text: str, *, range_needed: bool = True) -> str:
    """Return why *text* is no context of a guest or an image, or an empty text."""
    try:
        context = Context.parse(text)
    except InvalidContextError as error:
        return error.reason
    if range_needed and context.range is None:
        return "the range is missing; sVirt separates guests by it"
    return ""
