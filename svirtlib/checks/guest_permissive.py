"""A guest whose type is permissive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

from svirtlib.checks._check import Check, Need, command, listed, one_or_many
from svirtlib.checks._facts import Confined, Facts, Unconfined
from svirtlib.findings import Evidence, Finding, Severity

_SHOWN = 10


class GuestPermissive(Check):
    """The policy declares the type of a running guest permissive.

    The kernel logs what such a process may not do, and lets it do it: no category keeps it from
    anything. ``getenforce`` says enforcing all the same.
    """

    ident = "guest-permissive"
    severity = Severity.CRITICAL
    summary = "the policy makes the guest's type permissive: it may do all, and is only logged"
    since = "0.1"
    needs = frozenset({Need.POLICY})

    def run(self, facts: Facts) -> Iterator[Finding]:
        """Yield a finding for each permissive type that a running guest has."""
        types: dict[str, list[Union[Confined, Unconfined]]] = {}
        running: list[Union[Confined, Unconfined]] = [*facts.confined, *facts.unconfined]
        for one in running:
            context = one.context
            if isinstance(context, str):
                context = facts.context(context)
            domain = None if context is None else facts.domain(context)
            if context is not None and domain is not None and domain.permissive:
                types.setdefault(context.type, []).append(one)
        for type_, guests in types.items():
            names = tuple(sorted(one.guest.name for one in guests))
            others = tuple(
                sorted(guest.name for guest in facts.running if guest.name not in set(names))
            )
            policy = facts.inventory.policy
            yield Finding(
                rule=self.ident,
                severity=self.severity,
                guests=names,
                reaches=others,
                reaches_count=len(others),
                labels=tuple(sorted({str(one.context) for one in guests})),
                message=(
                    f"{listed(names)} {one_or_many(names, 'runs', 'run')} with the permissive type "
                    f"{type_}: the kernel logs what the policy denies "
                    f"{one_or_many(names, 'it', 'them')}, and lets it happen"
                ),
                remedy=(
                    f"look at what would be denied (`ausearch -m AVC -c qemu`), allow what is "
                    f"needed, then {command('semanage', 'permissive', '-d', type_)}"
                ),
                evidence=(
                    Evidence(policy.source if policy else "policy", f"{type_} is permissive"),
                    *(
                        Evidence(one.source, f"{one.guest.name}: {one.context}")
                        for one in guests[:_SHOWN]
                    ),
                ),
            )
