"""A context in another spelling than the kernel's."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import Check, command, listed, one_or_many
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity

_SHOWN = 10


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
        stating: dict[str, set[str]] = {}
        guests: dict[str, set[str]] = {}
        paths: dict[str, set[str]] = {}
        evidence: dict[str, list[Evidence]] = {}
        for guest, purpose, text in facts.labels():
            if _is_canonical(facts, text):
                continue
            stating.setdefault(text, set()).add(guest.name)
            guests.setdefault(text, set()).add(guest.name)
            evidence.setdefault(text, []).append(
                Evidence(guest.source, f"{guest.name}: {purpose} {text}")
            )
        for label in facts.inventory.files:
            if label.context is None or _is_canonical(facts, label.context):
                continue
            paths.setdefault(label.context, set()).add(label.path)
            evidence.setdefault(label.context, []).append(
                Evidence(label.path, f"{label.path}: label {label.context}")
            )
            guests.setdefault(label.context, set()).update(
                use.guest.name for use in facts.uses.get(label.identity, ())
            )
        for text, names in guests.items():
            canonical = str(facts.context(text))
            where = paths.get(text, set())
            bearers = sorted(stating.get(text, ())) or sorted(where)
            if text in stating:
                remedy = f"{command('virsh', 'edit', bearers[0])}, and write {canonical}"
            else:
                remedy = command("chcon", canonical, bearers[0])
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=tuple(sorted(names)),
                paths=tuple(sorted(where)),
                labels=(text, canonical),
                message=(
                    f"{listed(bearers)} {one_or_many(bearers, 'has', 'have')} the label {text}, "
                    f"which the kernel writes {canonical}: whoever compares texts, as libvirt "
                    f"does, takes them for two labels"
                ),
                remedy=remedy,
                evidence=tuple(evidence[text][:_SHOWN]),
            )


def _is_canonical(facts: Facts, text: str) -> bool:
    """Tell whether a text is no context, which label-invalid tells of, or the kernel's spelling."""
    context = facts.context(text)
    return context is None or str(context) == text
