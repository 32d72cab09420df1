"""A context in another spelling than the kernel's."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, listed
from svirtlib.checks._facts import Facts
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError
from svirtlib.findings import Finding, Severity


class LabelNotCanonical(Check):
    """A valid context is not written as the kernel prints it.

    The kernel reads it well. libvirt and container engines compare texts, and take
    ``s0:c2,c1`` for another label than ``s0:c1,c2``.
    """

    ident = "label-not-canonical"
    severity = Severity.LOW
    summary = "a label in another spelling than the kernel's, which string comparison misses"
    since = "0.1"

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each such spelling."""
        guests: dict[str, set[str]] = {}
        paths: dict[str, set[str]] = {}
        for guest, _, text in facts.labels():
            guests.setdefault(text, set()).add(guest.name)
        for label in facts.inventory.files:
            if label.context is not None:
                paths.setdefault(label.context, set()).add(label.path)
                guests.setdefault(label.context, set()).update(
                    use.guest.name for use in facts.uses.get(label.identity, ())
                )
        for text, names in guests.items():
            try:
                canonical = str(Context.parse(text))
            except InvalidContextError:
                continue
            if canonical == text:
                continue
            where = paths.get(text, set())
            bearer = listed(names) if names else listed(where)
            edit = f"virsh edit {sorted(names)[0]}: " if names and not where else ""
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=tuple(sorted(names)),
                paths=tuple(sorted(where)),
                labels=(text, canonical),
                message=(
                    f"the label {text} of {bearer} is {canonical} to the kernel: whoever compares "
                    f"texts, as libvirt does, takes the two for different labels"
                ),
                remedy=f"{edit}write {canonical}",
            )
