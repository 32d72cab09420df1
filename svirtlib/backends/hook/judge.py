"""libvirt's qemu hook: the full look at a guest that the quick one was not sure of.

Status 0: nothing against the guest. 1: it would reach another guest's images, or be reached;
standard error says which guest that is, and the way out. 2: not judged. The words go to the
journal too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Optional, Union

from attr import evolve, field, frozen

from svirtlib.backends import journal
from svirtlib.backends._procfs import ProcessTable
from svirtlib.backends.hook.quick import BLOCKING
from svirtlib.backends.hook.state import FOLDER, State
from svirtlib.checks import command, run_checks, select_checks
from svirtlib.domainxml import parse_document
from svirtlib.errors import DomainXMLError, SelectionError, SvirtError
from svirtlib.findings import Finding, Report
from svirtlib.formats.plain import printable
from svirtlib.guests import Guest, Host, Image, Process, Unreadable
from svirtlib.inventory import take_inventory
from svirtlib.ports import Files, Progress
from svirtlib.seclabel import SeclabelType

__all__ = ["STOPPING", "Verdict", "check_ignores", "judge", "judge_document", "main"]

#: The rules whose findings keep a guest from starting: one guest reaches another's images.
STOPPING = ("label-collision", "label-exposure", "image-exposure")

#: What else is worth a line in the journal at each phase.
_ALSO = {
    "prepare": ("seclabel-rejected", "seclabel-ignored", "label-invalid", "guest-unconfined"),
    "start": ("label-invalid", "guest-unconfined"),
    "started": ("image-label-drift", "process-label-drift", "guest-unconfined"),
    "reconnect": ("guest-unconfined", "process-label-drift"),
}

#: Seconds after which a guest without a process counts as gone; its start takes far less.
_START_TAKES = 600


@frozen
class Verdict:
    """What became of a guest at one phase.

    Attributes:
        stops: why it may not run; the gravest first.
        told: what else was found.
        unknown: what could not be looked at.
        text: for standard error; empty if nothing stops it.
    """

    stops: tuple[Finding, ...] = ()
    told: tuple[Finding, ...] = ()
    unknown: tuple[Unreadable, ...] = ()
    text: str = ""


@frozen
class _Known:
    """The guests of which the hook knows, as a source of an inventory."""

    found: tuple[Guest, ...] = field(factory=tuple)

    def host(self) -> tuple[Optional[Host], Sequence[Unreadable]]:
        """Return no host: what SELinux does here is no matter of one guest."""
        return None, ()

    def guests(self, progress: Progress) -> Iterator[Union[Guest, Unreadable]]:
        """Yield the guest itself and all others with a label."""
        del progress
        yield from self.found

    def notes(self) -> Sequence[str]:
        """Return nothing."""
        return ()

    def volume_path(self, image: Image, *, in_use: bool) -> Union[str, Unreadable, None]:
        """Return None: only libvirt knows, and must not be asked."""
        del image, in_use
        return None


def check_ignores(ignores: Sequence[str]) -> None:
    """Check the rules of ``RULE`` or ``RULE=GUEST``.

    Raises:
        SelectionError: a rule that does not exist, or a guest that is missing after the sign.
    """
    for text in ignores:
        rule, equals, guest = text.partition("=")
        select_checks([rule])
        if equals and not guest:
            raise SelectionError(f"--ignore {text}: a guest is missing after the '='")


def judge(
    guest: Guest,
    phase: str,
    others: Sequence[Guest] = (),
    *,
    ignore: Sequence[str] = (),
    files: Optional[Files] = None,
) -> Verdict:
    """Judge a guest that is about to run among others.

    Args:
        guest: as its XML at that phase states it.
        phase: libvirt's name for it: ``prepare``, ``start``, ``started`` or ``reconnect``.
        others: the guests that run or start, each with its process's context.
        ignore: ``RULE`` or ``RULE=GUEST``: findings that stop no start.
        files: the files of the host, to look at images that are labelled already.

    Raises:
        SelectionError: *ignore* names no rule.
    """
    check_ignores(ignore)
    mine = guest
    if phase == "prepare" and guest.seclabel is not None and guest.seclabel.label is None:
        # libvirt draws the label later; a guest that runs without one would look unconfined.
        mine = evolve(guest, running=guest.seclabel.type is SeclabelType.NONE)
    elif phase == "prepare" and guest.seclabel is None:
        mine = evolve(guest, running=False)
    else:
        mine = evolve(guest, running=True)
    inventory = take_inventory(_Known((mine, *others)), files=files)
    known = {one.name for one in inventory.guests}
    pairs = [tuple(text.partition("=")[::2]) for text in ignore]
    report: Report = run_checks(
        inventory,
        select_checks([*STOPPING, *_ALSO.get(phase, ())]),
        guests=[mine.name],
        ignore=[(rule, name) for rule, name in pairs if not name or name in known],
    )
    stops = tuple(finding for finding in report.findings if finding.rule in STOPPING)
    told = tuple(finding for finding in report.findings if finding.rule not in STOPPING)
    return Verdict(stops, told, report.unreadable, _text(mine, stops))


def _text(guest: Guest, stops: Sequence[Finding]) -> str:
    if not stops:
        return ""
    lines = [f"svirt-label: guest {guest.name} is kept from running, for with it:"]
    lines += [f"{finding.message} [{finding.rule}]." for finding in stops]
    return " ".join([*lines, f"Way out: {_way_out(guest, stops[0])}."]) + "\n"


def _way_out(guest: Guest, finding: Finding) -> str:
    others = sorted({*finding.guests, *finding.reaches} - {guest.name})
    seclabel = guest.seclabel
    own_static = seclabel is not None and seclabel.type is SeclabelType.STATIC
    if finding.rule == "image-exposure" and not others:
        first = "give it categories of its own, or a seclabel of type 'dynamic'"
    elif own_static:
        first = (
            f"give it a level that is free (`svirt-label allocate` prints one) or a seclabel of "
            f"type 'dynamic', with `virsh edit {guest.name}`"
        )
    else:
        first = "start it again, and libvirt draws another level"
    if others:
        first += f"; or shut {others[0]} down and give that one another level"
    ignores = [f"--ignore={finding.rule}={name}" for name in finding.guests]
    return (
        f"{first}; to accept it, {command('svirt-label', 'hook', 'install', *ignores, '--apply')}"
    )


def _others(guest: Guest, state: State, proc: str) -> tuple[Guest, list[Guest]]:
    """Return the guest with its process, and the others; forget those that are gone.

    The kernel's word on a process wins over what was noted at its start.
    """
    _, running = ProcessTable(proc=proc).of_guests(())
    noted = dict(state.entries)
    others: list[Guest] = []
    alive = set()
    for process in running:
        alive.add(process.uuid)
        if process.uuid == guest.uuid:
            guest = evolve(guest, process=process.process)
            continue
        if process.process is None and process.uuid in noted:
            label = noted[process.uuid][0]
            process = evolve(process, process=Process(None, label, "noted at its start"))
        if process.process is not None:
            others.append(evolve(process, known_to_libvirt=True))
    for uuid, (label, name, since) in noted.items():
        if uuid in alive or uuid == guest.uuid:
            continue
        if time.time() - since > _START_TAKES:
            state.forget(uuid)
            continue
        others.append(
            Guest(
                name=name,
                uuid=uuid,
                running=True,
                virt_type="kvm",
                source=f"{FOLDER}/state",
                process=Process(None, label, "noted at its start"),
            )
        )
    return guest, others


def judge_document(
    document: bytes,
    phase: str,
    *,
    ignore: Sequence[str] = (),
    folder: str = FOLDER,
    proc: str = "/proc",
) -> tuple[Guest, Verdict]:
    """Judge domain XML among the guests of this machine, and take note of its label.

    Args:
        document: the domain XML.
        phase: as of :func:`judge`.
        ignore: as of :func:`judge`.
        folder: where the labels of guests are noted.
        proc: where the kernel's process file system is mounted.

    Raises:
        DomainXMLError: the document is not one guest's.
        SelectionError: *ignore* names no rule.
    """
    source = "the domain XML"
    guests = parse_document(document, source)
    if len(guests) != 1:
        raise DomainXMLError(source, f"it describes {len(guests)} guests, not one")
    guest = guests[0]
    files: Optional[Files] = None
    if phase == "started":
        from svirtlib.backends import _selinux
        from svirtlib.backends._files import FileSystem
        from svirtlib.guests import Mode

        enforced = _selinux.mode_of_host() is not Mode.DISABLED
        files = FileSystem(enforced=enforced)
    with State(folder) as state:
        guest, others = _others(guest, state, proc)
        verdict = judge(guest, phase, others, ignore=ignore, files=files)
        label = None if guest.seclabel is None else guest.seclabel.label
        kept = not verdict.stops or phase == "reconnect"
        if kept and phase != "prepare" and label is not None and guest.uuid is not None:
            state.note(guest.uuid, label, guest.name)
    return guest, verdict


def _log(guest: Guest, phase: str, verdict: Verdict, socket: str) -> None:
    stopped = bool(verdict.stops) and phase in BLOCKING
    for finding in (*verdict.stops, *verdict.told):
        stops = stopped and finding.rule in STOPPING
        journal.tell(
            f"guest {guest.name}, {phase}: {finding.message} [{finding.rule}]"
            + ("; it was kept from running" if stops else f"; {finding.remedy}"),
            journal.ERR if finding.rule in STOPPING else journal.WARNING,
            kind=journal.STOPPED if stops else journal.NOTE,
            socket=socket,
            VERB="hook",
            GUEST=guest.name,
            UUID=guest.uuid or "",
            PHASE=phase,
            RULE=finding.rule,
            LABEL=", ".join(finding.labels),
            OTHERS=", ".join(sorted({*finding.guests, *finding.reaches} - {guest.name})),
            VERDICT="stopped" if stops else "told",
        )
    for gap in verdict.unknown:
        journal.tell(
            f"guest {guest.name}, {phase}: not decided: {gap.what}: {gap.reason}",
            journal.WARNING,
            socket=socket,
            VERB="hook",
            GUEST=guest.name,
            UUID=guest.uuid or "",
            PHASE=phase,
            VERDICT="unknown",
        )


def main(words: Optional[Sequence[str]] = None) -> int:
    """Judge the domain XML on standard input; the words are those that ``quick`` gives."""
    left = list(sys.argv[1:] if words is None else words)
    settings = {"--state": FOLDER, "--proc": "/proc", "--journal": journal.SOCKET}
    ignore: list[str] = []
    while left and left[0] != "--":
        option, value = left[:2]
        if option == "--ignore":
            ignore.append(value)
        else:
            settings[option] = value
        del left[:2]
    phase = left[2]
    try:
        guest, verdict = judge_document(
            sys.stdin.buffer.read(),
            phase,
            ignore=ignore,
            folder=settings["--state"],
            proc=settings["--proc"],
        )
    except SvirtError as error:
        sys.stderr.write(printable(str(error)))
        return 2
    _log(guest, phase, verdict, settings["--journal"])
    sys.stderr.write(printable(verdict.text.rstrip("\n")) + "\n" if verdict.text else "")
    return 1 if verdict.stops else 0


if __name__ == "__main__":
    sys.exit(main())
