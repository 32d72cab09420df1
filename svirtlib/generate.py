"""Make seclabels: the four configurations of the Red Hat guide, and none.

The Red Hat Virtualization Security Guide (sVirt, "sVirt Configuration") knows dynamic labels,
dynamic labels with a base label, static labels with and without resource labelling. A
:class:`Request` says which one is wanted; :func:`generate` returns it, with what the
administrator should know, or refuses it (:class:`~svirtlib.errors.GenerationError`) with a
reason: because libvirt would refuse it, because it would do something else than it says, or
because it would not keep the guest apart. :func:`insert` puts it into a document. Nothing here
reads the system.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Callable, Optional, Union

from attr import evolve, field, frozen

from svirtlib.allocator import LevelAllocator
from svirtlib.context import Context
from svirtlib.errors import CategoriesExhaustedError, GenerationError
from svirtlib.levelsinuse import InUse, UsedLevel
from svirtlib.mls import Level, Range, Relation
from svirtlib.policyfacts import DomainFacts, RefusedContext
from svirtlib.seclabel import SELINUX, DeviceSeclabel, Seclabel, SeclabelType
from svirtlib.seclabelxml import read_seclabels
from svirtlib.standard_types import Access, access_of_guests, bound_by_categories
from svirtlib.validation import Target, validate
from svirtlib.xmltext import set_seclabels

__all__ = [
    "AUTO",
    "DEFAULT_CONTEXTS",
    "MAX_LABEL",
    "Auto",
    "DomainContexts",
    "Generated",
    "Request",
    "generate",
    "image_context",
    "insert",
]

#: Longest label text that libvirt reads (``VIR_SECURITY_LABEL_BUFLEN`` without its end).
MAX_LABEL = 4096

#: A static level is too wide when a dynamic guest draws a pair inside it with a chance of one
#: in so many. libvirt draws among 1024 categories, so that 103 are the fewest of this kind.
_WIDE = 100
_DRAWN = 1024

#: Holders that one message names.
_NAMED = 3


@frozen
class DomainContexts:
    """What libvirt builds the labels of guests and images from.

    libvirt reads them when its daemon starts (``virSecuritySELinuxQEMUInitialize``): the
    guests' from ``virtual_domain_context``, whose first line is for KVM and whose second, if
    there is one, for emulated guests (TCG); the images' from ``virtual_image_context``.

    Attributes:
        kvm: context of guests of the type ``kvm``.
        tcg: context of guests of the type ``qemu``; None where that is not known.
        image: of a guest's own images; also of shared ones, then as it stands.
        content: of images that are only read.
        source: where they come from.
    """

    kvm: Context
    tcg: Optional[Context]
    image: Context
    content: Context
    source: str

    def base(self, virt_type: str) -> Context:
        """Return the context of a guest before it has a level of its own.

        Raises:
            GenerationError: it is not known.
        """
        if virt_type == "lxc":
            raise GenerationError(
                "no context for a container (domain type 'lxc')",
                "libvirt takes those of containers from lxc_contexts, not from "
                "virtual_domain_context",
                "give the whole context with --label or --baselabel",
            )
        if virt_type != "qemu":
            return self.kvm
        if self.tcg is None:
            raise GenerationError(
                "no type for an emulated guest (domain type 'qemu')",
                "this machine has no virtual_domain_context, and distributions differ: "
                "svirt_tcg_t on Fedora and RHEL, svirt_t on Debian",
                "say it with --type, or run this on the guest's host",
            )
        return self.tcg


#: Where no host can be asked: what Debian's and Fedora's files have in common. They differ in
#: the second line of virtual_domain_context: Fedora has svirt_tcg_t there, Debian has none.
DEFAULT_CONTEXTS = DomainContexts(
    kvm=Context.parse("system_u:system_r:svirt_t:s0"),
    tcg=None,
    image=Context.parse("system_u:object_r:svirt_image_t:s0"),
    content=Context.parse("system_u:object_r:virt_content_t:s0"),
    source="the defaults of Debian and Fedora",
)


def image_context(
    label: Context, contexts: DomainContexts, *, user: Optional[str] = None
) -> Context:
    """Return the imagelabel that libvirt gives to the images of a guest with a label.

    It is the image context with the label's range as it stands, a low end included, and with
    the user of libvirt's daemon (``virSecuritySELinuxGenNewContext``; role and type are the
    file's own).

    Args:
        label: context of the guest's process.
        contexts: the host's.
        user: the daemon's SELinux user; None where it is that of the context file, as for a
            daemon that the system started.
    """
    context = contexts.image.with_range(label.range)
    return context if user is None else evolve(context, user=user)


#: Asks a policy about the context of a guest's process.
Ask = Callable[[Context], Union[DomainFacts, RefusedContext]]


class Auto:
    """Asks for a level to be picked."""


#: Pick a level that nobody in use can reach or be reached from.
AUTO = Auto()


@frozen
class Request:
    """What seclabel is wanted.

    Attributes:
        type: dynamic, static or none.
        relabel: whether libvirt is to relabel the images; None for libvirt's default.
        label: a static guest's whole context.
        baselabel: a dynamic guest's base context.
        selinux_type: a type to put into the host's context, instead of a label or baselabel.
        level: a static guest's level or range, or :data:`AUTO`.
        virt_type: ``kvm`` or ``qemu``, which tells the host's context.
        devices: overrides by device: a context, or None to leave the device's label alone.
        allow_unsafe: give also what would not keep the guest apart, with a warning.
    """

    type: SeclabelType
    relabel: Optional[bool] = None
    label: Optional[Context] = None
    baselabel: Optional[Context] = None
    selinux_type: Optional[str] = None
    level: Union[Range, Auto, None] = None
    virt_type: str = "kvm"
    devices: Mapping[str, Optional[Context]] = field(factory=dict)
    allow_unsafe: bool = False


@frozen
class Generated:
    """A seclabel and what to know about it.

    Attributes:
        seclabel: the domain's.
        devices: the sources' by device.
        imagelabel: the context of the guest's own images, where it is known beforehand.
        warnings: what will not be as an administrator may expect.
        notes: what was done to the input, and what is left to do.
    """

    seclabel: Seclabel
    devices: Mapping[str, DeviceSeclabel]
    imagelabel: Optional[Context]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def generate(
    request: Request,
    contexts: DomainContexts = DEFAULT_CONTEXTS,
    in_use: Optional[InUse] = None,
    ask: Optional[Ask] = None,
) -> Generated:
    """Return the seclabel that is asked for.

    Args:
        request: what is wanted.
        contexts: the host's.
        in_use: what a static level is to be compared with; None for nothing.
        ask: asks a policy about the context of the guest's process; None where there is none,
            and what is known of types without one must do.

    Raises:
        GenerationError: libvirt would refuse it or not do what it says, or it is unsafe.
        CategoriesExhaustedError: a level was to be picked, and none is free.
    """
    report = _Report(request.allow_unsafe, asked=ask is not None)
    if request.type is SeclabelType.DYNAMIC:
        seclabel = _dynamic(request, contexts, report)
        label = None
    elif request.type is SeclabelType.STATIC:
        label = _static_label(request, contexts, in_use, report)
        seclabel = Seclabel(
            SeclabelType.STATIC, SELINUX, relabel=bool(request.relabel), label=str(label)
        )
    elif request.type is SeclabelType.NONE:
        seclabel = _none(request, report)
        label = None
    else:
        raise ValueError("a seclabel without a type is not generated: libvirt forgets it")
    if ask is not None and request.type is not SeclabelType.NONE:
        process = label or contexts.base(request.virt_type)
        if seclabel.baselabel is not None:
            process = process.with_type(Context.parse(seclabel.baselabel).type)
        _judge_by_policy(ask(process), process, report)
    devices = {
        target: _device(target, context, seclabel, label, in_use, report)
        for target, context in request.devices.items()
    }
    imagelabel = None if label is None else image_context(label, contexts)
    if imagelabel is not None and not seclabel.relabel:
        report.note(
            f"libvirt will label none of this guest's images: give those that it writes the "
            f"context {imagelabel}"
        )
    return Generated(seclabel, devices, imagelabel, tuple(report.warnings), tuple(report.notes))


def insert(generated: Generated, data: bytes, source: str) -> bytes:
    """Return a domain's XML with a generated seclabel, all else byte for byte as it was.

    Args:
        generated: what :func:`generate` returned.
        data: the document.
        source: where it came from, for messages.

    Raises:
        DomainXMLError: the document is malformed, or lacks what the seclabel needs.
        GenerationError: libvirt would refuse the document with this seclabel in it.
    """
    result = set_seclabels(data, source, generated.seclabel, generated.devices)
    # Which models a host has besides SELinux is not known here; theirs are taken as they are.
    target = Target(models=None)
    for document in read_seclabels(result, source):
        for problem in validate(document, target, libvirt_only=True):
            raise GenerationError(
                f"{source} with this seclabel",
                f"line {problem.line} would be: {problem.message}",
                problem.remedy,
            )
    return result


class _Report:
    """Collects what to tell, and refuses what is unsafe unless that is allowed."""

    def __init__(self, allow_unsafe: bool, *, asked: bool) -> None:
        self._allow_unsafe = allow_unsafe
        #: The policy judges types, not what is known of them without it.
        self.asked = asked
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def unsafe(self, what: str, why: str, remedy: str) -> None:
        """Refuse, or warn.

        Raises:
            GenerationError: it is not allowed.
        """
        if not self._allow_unsafe:
            remedy = f"{remedy}; --allow-unsafe gives it all the same"
            raise GenerationError(what, why, remedy, unsafe=True)
        self.warn(f"{what}: {why}")


def _refuse_given(kind: str, why: str, remedy: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            option = {"selinux_type": "type"}.get(name, name)
            raise GenerationError(f"--{option} with {kind}", why, remedy)


def _dynamic(request: Request, contexts: DomainContexts, report: _Report) -> Seclabel:
    if request.relabel is False:
        # libvirt virSecurityLabelDefParseXML: "dynamic label type must use resource relabeling".
        raise GenerationError(
            "dynamic without relabelling",
            "libvirt refuses it: nobody but libvirt knows the level that it draws, so nobody "
            "else could label the images",
            "leave out --relabel no, or make the label static",
        )
    _refuse_given(
        "dynamic",
        "libvirt draws a fresh level at each start and drops a label that is given",
        "make it static, or give --baselabel or --type to choose the type alone",
        label=request.label,
        level=request.level,
    )
    baselabel = request.baselabel
    if request.selinux_type is not None:
        if baselabel is not None:
            raise GenerationError(
                "--type with --baselabel", "a baselabel has a type already", "leave out one"
            )
        base = contexts.base(request.virt_type)
        low = None if base.range is None else Level(base.range.low.sensitivity)
        baselabel = base.with_type(request.selinux_type)
        baselabel = baselabel.with_range(None if low is None else Range(low))
    if baselabel is not None:
        _judge_baselabel(baselabel, contexts.kvm, report)
    return Seclabel(
        SeclabelType.DYNAMIC,
        SELINUX,
        relabel=True,
        baselabel=None if baselabel is None else _text(baselabel, "the baselabel"),
    )


def _judge_baselabel(baselabel: Context, base: Context, report: _Report) -> None:
    """Of a baselabel the type alone takes effect (``virSecuritySELinuxGenNewContext``)."""
    if baselabel.range is not None and (
        baselabel.range.high.categories or baselabel.range.low.categories
    ):
        raise GenerationError(
            f"a baselabel with categories ({baselabel.range})",
            "libvirt discards them and draws others at each start, so that they would mislead "
            "whoever reads them",
            f"leave them out ({baselabel.with_range(Range(Level(0)))}), or make the label static",
        )
    if baselabel.range is not None and baselabel.range != Range(Level(0)):
        report.warn(
            f"the level {baselabel.range} of the baselabel has no effect: libvirt takes the "
            f"sensitivity of its own daemon"
        )
    if (baselabel.user, baselabel.role) != (base.user, base.role):
        report.note(
            f"only the type of a baselabel takes effect; user and role of the guest will be "
            f"those of libvirt's daemon, not {baselabel.user}:{baselabel.role}"
        )
    _judge_type(baselabel.type, report)


def _judge_type(type: str, report: _Report) -> None:
    """Judge the type of a guest's process as far as it is known without a policy."""
    if report.asked:
        return
    bound = bound_by_categories(type)
    if bound is None and access_of_guests(type, write=True) is not None:
        raise GenerationError(
            f"{type} for a guest",
            "it is a type of files; the kernel lets no process enter it, and the guest would "
            "not start",
            "give a type of guests, such as svirt_t",
        )
    if bound is False:
        report.unsafe(
            f"{type} for a guest",
            "categories do not bind this type: the guest would reach the images of all others",
            "give a type of guests, such as svirt_t",
        )
    elif bound is None:
        report.note(
            f"whether categories bind the type {type} is for the policy to say: --policy FILE "
            f"asks it"
        )


def _judge_by_policy(
    answer: Union[DomainFacts, RefusedContext], process: Context, report: _Report
) -> None:
    """Judge the context of a guest's process by what the policy says of it."""
    type_ = process.type
    if isinstance(answer, RefusedContext):
        raise GenerationError(
            f"{process} for a guest",
            f"{answer.reason}, and the guest would not start",
            "give a context that the policy knows, or load the policy module that brings it",
        )
    if answer.bound is False:
        report.unsafe(
            f"{type_} for a guest",
            "categories do not bind this type: the guest would reach the images of all others",
            "give a type of guests, such as svirt_t",
        )
    elif answer.bound is None:
        report.note(f"nothing in the policy shows whether categories bind the type {type_}")
    if answer.permissive:
        report.unsafe(
            f"{type_} for a guest",
            "the type is permissive: the kernel would log what the policy denies the guest, and "
            "let it happen",
            f"`semanage permissive -d {type_}`, or give another type",
        )


def _none(request: Request, report: _Report) -> Seclabel:
    if request.relabel:
        # libvirt virSecurityLabelDefParseXML, the same words.
        raise GenerationError(
            "none with relabelling",
            "libvirt refuses it: without a label for the guest there is none for its images",
            "leave out --relabel yes",
        )
    _refuse_given(
        "none",
        "libvirt drops it: such a guest runs without a label of its own",
        "make it static or dynamic",
        label=request.label,
        baselabel=request.baselabel,
        selinux_type=request.selinux_type,
        level=request.level,
    )
    report.warn(
        "nothing will confine this guest: QEMU runs in the context of libvirt's daemon and "
        "reaches every guest's images (a host with security_require_confined=1 refuses it)"
    )
    return Seclabel(SeclabelType.NONE, SELINUX, relabel=False)


def _static_label(
    request: Request, contexts: DomainContexts, in_use: Optional[InUse], report: _Report
) -> Context:
    _refuse_given(
        "static",
        "libvirt drops it: a static label is taken as it stands",
        "give --label, or --type with --level",
        baselabel=request.baselabel,
    )
    label = request.label
    if label is not None:
        _refuse_given(
            "--label",
            "a label has its type and level already",
            "leave out one",
            selinux_type=request.selinux_type,
            level=request.level,
        )
    elif request.level is None:
        # libvirt virSecurityLabelDefParseXML: "security label is missing".
        raise GenerationError(
            "static without a label",
            "libvirt refuses it, and draws no level for a static guest",
            "give --label CONTEXT, --level LEVEL, or --level auto to have one picked",
        )
    else:
        base = contexts.base(request.virt_type)
        if request.selinux_type is not None:
            base = base.with_type(request.selinux_type)
        if isinstance(request.level, Range):
            label = base.with_range(request.level)
        else:
            sensitivity = 0 if base.range is None else base.range.low.sensitivity
            label = base.with_range(Range(_picked(sensitivity, in_use, report)))
    _text(label, "the label")
    _judge_label(label, in_use, report)
    return label


def _picked(sensitivity: int, in_use: Optional[InUse], report: _Report) -> Level:
    if in_use is None:
        report.warn(
            "the level was compared with nothing: another guest may have it (name what to "
            "compare with: -c URI, --xml PATH or --snapshot FILE)"
        )
        in_use = InUse()
    # A file with more categories than two is dominated by no level that can be picked.
    levels = [
        used.level for used in in_use.levels if used.process or len(used.level.categories) <= 2
    ]
    try:
        return LevelAllocator(sensitivity=sensitivity, in_use=levels).allocate()
    except CategoriesExhaustedError as error:
        wide = [used for used in in_use.levels if used.process and _is_wide(used.level)]
        if not wide:
            raise
        raise CategoriesExhaustedError(
            error.wanted, error.capacity, error.free, f"{_holders(wide)} dominates most levels"
        ) from None


def _judge_label(label: Context, in_use: Optional[InUse], report: _Report) -> None:
    if label.role == "object_r":
        raise GenerationError(
            "the role object_r for a guest",
            "it is the role of files; the kernel lets no process enter it, and the guest would "
            "not start",
            f"give the role of guests: {evolve(label, role='system_r')}",
        )
    _judge_type(label.type, report)
    if label.range is None:
        # libvirt virSecuritySELinuxGenLabel: "unable to get selinux context range".
        raise GenerationError(
            f"the label {label} without a level",
            "libvirt refuses to start such a guest",
            f"add one of two categories, for example {label}:s0:c87,c520, or give --level auto",
        )
    high = label.range.high
    if label.range.low != high:
        report.note(
            f"guests are kept apart by the high end, {high}; libvirt gives the images the whole "
            f"range {label.range}"
        )
    count = len(high.categories)
    if count == 0:
        report.unsafe(
            f"a static label without categories ({label.range})",
            "every other guest would reach this guest's images",
            "give it two categories, for example with --level auto",
        )
    elif count == 1:
        report.unsafe(
            f"a static label with one category ({label.range})",
            "every guest with that category among its own would reach this guest's images "
            "(CVE-2021-3631)",
            "give it two categories, for example with --level auto",
        )
    elif _is_wide(high):
        report.unsafe(
            f"a static label with {count} categories",
            f"it would reach the images of every guest whose two are among them: "
            f"{_share(count)} of all that libvirt draws",
            "give it two categories, for example with --level auto",
        )
    elif count > 2:
        report.note(
            f"with {count} categories this guest reaches the images of every guest whose two "
            f"are among them"
        )
    if in_use is not None:
        _compare(high, in_use, report)


def _compare(level: Level, in_use: InUse, report: _Report) -> None:
    if not level.categories:
        return
    found: dict[Relation, list[UsedLevel]] = {}
    for used in in_use.levels:
        relation = level.relation_to(used.level)
        if used.process or relation in (Relation.EQUAL, Relation.DOMINATES):
            found.setdefault(relation, []).append(used)
    for relation, why in (
        (Relation.EQUAL, "{} has it already: this guest would reach its images, and it this one's"),
        (Relation.DOMINATES, "it includes the level of {}: this guest would reach its images"),
        (Relation.DOMINATED, "the level of {} includes it, and would reach this guest's images"),
    ):
        holders = found.get(relation)
        if holders:
            report.unsafe(
                f"the level {level}",
                why.format(_holders(holders)),
                "take another level, for example with --level auto",
            )
    for note in in_use.notes:
        report.note(note)


def _holders(used: Iterable[UsedLevel]) -> str:
    names = [f"{entry.holder} ({entry.level})" for entry in used]
    more = len(names) - _NAMED
    text = ", ".join(names[:_NAMED])
    return f"{text} and {more} more" if more > 0 else text


def _is_wide(level: Level) -> bool:
    count = len(level.categories)
    return count * (count - 1) * _WIDE >= _DRAWN * (_DRAWN - 1)


def _share(count: int) -> str:
    return f"{count * (count - 1) / (_DRAWN * (_DRAWN - 1)):.0%}"


def _device(
    target: str,
    context: Optional[Context],
    seclabel: Seclabel,
    label: Optional[Context],
    in_use: Optional[InUse],
    report: _Report,
) -> DeviceSeclabel:
    if not seclabel.relabel:
        # libvirt virSecurityDeviceLabelDefValidate: "label overrides require relabeling to be
        # enabled at the domain level", even for an override that says relabel='no'.
        raise GenerationError(
            f"an override for {target}",
            "libvirt refuses overrides where the guest's own seclabel does not relabel",
            "leave out --device (libvirt will not touch that image anyway), or give --relabel yes",
        )
    if context is None:
        report.note(f"libvirt will not touch the label of {target}: give it one that fits")
        return DeviceSeclabel(SELINUX, relabel=False)
    _text(context, f"the label of {target}")
    access = access_of_guests(context.type)
    if access is Access.NONE or bound_by_categories(context.type) is not None:
        raise GenerationError(
            f"the label {context} for {target}",
            f"guests may not use files of the type {context.type}",
            "give a type of images, such as svirt_image_t",
        )
    level = context.level
    if level is not None and level.categories:
        _judge_device_level(target, context, level, label, in_use, report)
    elif access is Access.WRITE:
        report.warn(f"{target} will have no categories: every guest reaches it, to write as well")
    return DeviceSeclabel(SELINUX, relabel=True, label=str(context))


def _judge_device_level(
    target: str,
    context: Context,
    level: Level,
    label: Optional[Context],
    in_use: Optional[InUse],
    report: _Report,
) -> None:
    if label is None:
        raise GenerationError(
            f"the label {context} for {target} of a dynamic guest",
            "the guest draws a fresh level at each start and would not reach an image with "
            "fixed categories",
            "leave the categories out, or make the guest's label static",
        )
    if label.level is None or not label.level.dominates(level):
        raise GenerationError(
            f"the label {context} for {target}",
            f"the guest's own level ({label.level}) does not include it: the guest could not "
            f"open that image",
            "give it the guest's own level, or leave the categories out",
        )
    reaching = [
        used
        for used in (in_use.levels if in_use is not None else ())
        if used.process and used.level.dominates(level)
    ]
    if reaching and level != label.level:
        report.unsafe(
            f"the label {context} for {target}",
            f"{_holders(reaching)} would reach that image too",
            "give it the guest's own level",
        )


def _text(context: Context, what: str) -> str:
    """Return a context's text, held to libvirt's limit.

    Raises:
        GenerationError: it is longer.
    """
    text = str(context)
    if len(text) > MAX_LABEL:
        raise GenerationError(
            f"{what} with {len(text)} characters",
            f"libvirt reads {MAX_LABEL} of them at most, and takes a longer one for a missing one",
            "give it fewer categories; two are what keeps a guest apart",
        )
    return text
