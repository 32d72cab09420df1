"""SELinux booleans for guests: what each opens, which are needed, what would have to change.

The names are those of the Red Hat Virtualization Security Guide's table and of the policies of
Fedora and Debian. None of these policies has all of them, so that only a policy tells which
there are; nothing here takes one for granted.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Optional

from attr import frozen

__all__ = [
    "BOOLEANS",
    "FOR_USERS",
    "Action",
    "Boolean",
    "BooleanPlan",
    "PlannedBoolean",
    "excess",
    "is_missing",
    "plan_booleans",
]

#: What each boolean lets guests use. All are off in Fedora's and Debian's policies, but
#: ``virt_use_usb``, which Fedora has on.
BOOLEANS: Mapping[str, str] = {
    "virt_use_nfs": "images on NFS",
    "virt_use_samba": "images on CIFS",
    "virt_use_fusefs": "images on FUSE",
    "virt_use_glusterd": "Gluster volumes",
    "virt_use_comm": "serial and parallel ports of the host",
    "virt_use_usb": "USB devices of the host",
    "virt_use_sysfs": "PCI devices by sysfs",
    "virt_use_vfio": "PCI devices by VFIO",
    "virt_use_evdev": "input devices of the host",
    "virt_use_xserver": "the X server of the host",
    "virt_use_sanlock": "locks of sanlock",
    "virt_use_pcscd": "smart card readers of the host",
    "virt_use_rawip": "raw IP sockets",
    "virt_use_execmem": "memory that is written and executed",
}

#: What others let users do. No guest of the system needs them, and whether somebody else does
#: no guest tells.
FOR_USERS: Mapping[str, str] = {
    "staff_use_svirt": "staff users may start confined guests of their own",
    "unprivuser_use_svirt": "unprivileged users may start confined guests of their own",
    "virt_transition_userdomain": "guests may run in the domains of users",
}

#: Where these are missing, no other rule of a known policy allows the same.
_WITHOUT_SUBSTITUTE = frozenset(
    {
        "virt_use_nfs",
        "virt_use_samba",
        "virt_use_fusefs",
        "virt_use_comm",
        "virt_use_usb",
        "virt_use_xserver",
        "virt_use_sanlock",
    }
)


@frozen
class Boolean:
    """A boolean that the policy has.

    Attributes:
        name: its name.
        stored: its state at the next boot; None where that is not known.
        live: its state in the kernel; None where SELinux does not run.
    """

    name: str
    stored: Optional[bool]
    live: Optional[bool] = None

    @property
    def on(self) -> bool:
        """It is on now; where SELinux does not run, at the next boot."""
        return bool(self.stored if self.live is None else self.live)

    @property
    def drifts(self) -> bool:
        """The next boot changes it."""
        return None not in (self.stored, self.live) and self.stored != self.live


class Action(enum.Enum):
    """What is to become of a boolean."""

    NONE = "none"
    TURN_ON = "turn-on"
    TURN_OFF = "turn-off"
    #: It is on without need, and stays so unless that is asked for.
    EXCESS = "excess"
    #: It is needed, and the policy does not have it.
    MISSING = "missing"


@frozen
class PlannedBoolean:
    """A boolean, who needs it, and what is to become of it.

    Attributes:
        name: its name.
        opens: what it lets guests, or users, do.
        state: as the policy has it; None where it has none of this name.
        needs: names of guests, and what each needs it for.
        action: what is to become of it.
    """

    name: str
    opens: str
    state: Optional[Boolean]
    needs: tuple[tuple[str, str], ...]
    action: Action


@frozen
class BooleanPlan:
    """All booleans that concern guests.

    Attributes:
        booleans: those that the policy has, and those that are needed.
        notes: what one should know of it.
        unreadable: what could not be looked at, and why.
    """

    booleans: tuple[PlannedBoolean, ...]
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def changes(self) -> dict[str, bool]:
        """The booleans that are to change, with the states that they are to have."""
        return {
            one.name: one.action is Action.TURN_ON
            for one in self.booleans
            if one.action in (Action.TURN_ON, Action.TURN_OFF)
        }

    @property
    def missing(self) -> tuple[PlannedBoolean, ...]:
        """Those that are needed and that the policy does not have."""
        return tuple(one for one in self.booleans if one.action is Action.MISSING)


def is_missing(name: str, states: Iterable[str]) -> bool:
    """Tell whether a need stays without an answer: the policy has neither it nor a substitute."""
    return name in _WITHOUT_SUBSTITUTE and name not in states


def excess(states: Mapping[str, Boolean], needed: Collection[str]) -> tuple[str, ...]:
    """Return the booleans that are on, now or at the next boot, and that nothing needs.

    ``virt_use_usb`` is none of them: a policy may have it on by itself.
    """
    return tuple(
        name
        for name in BOOLEANS
        if name in states
        and name not in needed
        and name != "virt_use_usb"
        and (states[name].on or states[name].stored)
    )


def plan_booleans(
    states: Sequence[Boolean],
    needs: Mapping[str, Sequence[tuple[str, str]]],
    *,
    guests: Collection[str] = (),
    turn_off: bool = False,
) -> tuple[PlannedBoolean, ...]:
    """Return what is to become of the booleans that concern guests.

    Args:
        states: those that the policy has.
        needs: of each boolean that is needed, names of guests and what for.
        guests: names; only what one of them needs is turned on. Empty: all.
        turn_off: turn those off that are on without need.
    """
    known = {one.name: one for one in states}
    unneeded = excess(known, needs)
    planned = []
    for name, opens in {**BOOLEANS, **FOR_USERS}.items():
        state = known.get(name)
        uses = tuple(sorted(set(needs.get(name, ()))))
        wanted = uses and (not guests or any(guest in guests for guest, _ in uses))
        action = Action.NONE
        if state is None:
            if not uses or not is_missing(name, known):
                continue
            action = Action.MISSING
        elif wanted and not (state.on and state.stored is not False):
            action = Action.TURN_ON
        elif name in unneeded:
            action = Action.TURN_OFF if turn_off else Action.EXCESS
        planned.append(PlannedBoolean(name, opens, state, uses, action))
    return tuple(planned)
