"""The verb ``generate``: options to a request, and the seclabel to text or into a document."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from attr import evolve

from svirtlib import Context, Range
from svirtlib.cli.exitcodes import ExitCode
from svirtlib.cli.streams import write_result
from svirtlib.errors import DomainXMLError, SelectionError
from svirtlib.formats.plain import printable
from svirtlib.guests import Guest, Inventory
from svirtlib.seclabel import SELINUX, SeclabelType

if TYPE_CHECKING:
    # Slow to load; this module is part of the command line's grammar, which every verb needs.
    from svirtlib.generate import Auto, DomainContexts, Generated, Request
    from svirtlib.levelsinuse import InUse

__all__ = ["add_options", "run"]

_UNTOUCHED = "relabel-no"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own arguments."""
    parser.add_argument(
        "type",
        choices=("dynamic", "static", "none"),
        help="dynamic: libvirt draws a level at each start; static: the level given here; "
        "none: no confinement",
    )
    group = parser.add_argument_group("the label")
    group.add_argument(
        "--label", metavar="CONTEXT", help="static: the guest's whole context, taken as it stands"
    )
    group.add_argument(
        "--level",
        metavar="LEVEL|auto",
        help="static: the level to put into the host's context; auto picks one of two categories "
        "that nothing compared with can reach",
    )
    group.add_argument(
        "--type",
        metavar="TYPE",
        dest="selinux_type",
        help="the SELinux type to put into the host's context (default: the host's)",
    )
    group.add_argument(
        "--baselabel",
        metavar="CONTEXT",
        help="dynamic: the context whose type the guest gets; without categories",
    )
    group.add_argument(
        "--relabel",
        choices=("yes", "no"),
        help="whether libvirt labels the guest's images (default: dynamic yes, static no)",
    )
    group.add_argument(
        "--virt-type",
        choices=("kvm", "qemu"),
        help="the domain's type, for which hosts have contexts of their own (default: that of "
        "--into's domain, else kvm)",
    )
    group.add_argument(
        "--device",
        metavar=f"TARGET={_UNTOUCHED}|TARGET=CONTEXT",
        action="append",
        default=[],
        help="override for the image of a disk (vda) or of nvram: leave its label alone, or "
        "give it this one",
    )
    group.add_argument("--model", choices=(SELINUX,), default=SELINUX, help="(default: selinux)")
    group.add_argument(
        "--allow-unsafe",
        action="store_true",
        help="give a label that does not keep the guest apart, with a warning",
    )
    group = parser.add_argument_group("the document")
    group.add_argument(
        "--into",
        metavar="FILE",
        help="print this domain XML with the seclabel in it, all else byte for byte as it is; "
        "- is standard input",
    )


def run(
    options: argparse.Namespace,
    inventory: Callable[[argparse.Namespace], Inventory],
    write: Callable[[argparse.Namespace, str], None],
) -> int:
    """Print a seclabel, or a document with it."""
    from svirtlib.backends import host
    from svirtlib.generate import insert

    data, guest = _document(options)
    contexts = host.read_contexts()
    in_use = _in_use(options, inventory, guest)
    result = _generate(options, _request(options, guest), contexts, in_use)
    if data is not None:
        source = "standard input" if options.into == "-" else options.into
        _write_bytes(options, insert(result, data, source))
    elif options.format == "json":
        write(options, _json(options, result, contexts, in_use))
    else:
        write(options, _xml(result))
    if guest is not None and guest.running:
        note = "the document is of a running guest, whose label changes when it is started anew"
        result = evolve(result, notes=(*result.notes, note))
    return _tell(options, result, in_use)


def _generate(
    options: argparse.Namespace,
    request: Request,
    contexts: DomainContexts,
    in_use: Optional[InUse],
) -> Generated:
    """Generate by the policy that is named; the guest's host need not be this one."""
    from svirtlib.generate import generate

    if options.policy is None:
        return generate(request, contexts, in_use)
    from svirtlib.backends.policy import open_policy
    from svirtlib.backends.policyfacts import domain_facts

    with open_policy(options.policy) as policy:
        return generate(request, contexts, in_use, partial(domain_facts, policy))


def _document(options: argparse.Namespace) -> tuple[Optional[bytes], Optional[Guest]]:
    """Read the document of ``--into``, and the guest that it describes."""
    from pathlib import Path

    from svirtlib.backends.output import read_file
    from svirtlib.domainxml import MAX_BYTES, parse_document

    if options.into is None:
        return None, None
    if options.format == "json":
        raise SelectionError("--into prints the document itself; leave out --format")
    if options.into == "-":
        if options.xml is not None and "-" in options.xml:
            raise SelectionError("standard input cannot be read for --into and for --xml")
        source, data = "standard input", sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        source = options.into
        if not Path(source).exists():
            raise DomainXMLError(source, "there is no such file; --into takes a domain XML")
        data = read_file(source, MAX_BYTES)
    guests = parse_document(data, source)
    if len(guests) != 1:
        raise DomainXMLError(source, f"it holds {len(guests)} domains; --into takes one")
    guest = guests[0]
    known = guest.virt_type in ("kvm", "qemu")
    if known and options.virt_type not in (None, guest.virt_type):
        raise SelectionError(
            f"--virt-type {options.virt_type}: the domain of {source} is of the type "
            f"{guest.virt_type}; leave the option out"
        )
    return data, guest


def _in_use(
    options: argparse.Namespace,
    inventory: Callable[[argparse.Namespace], Inventory],
    guest: Optional[Guest],
) -> Optional[InUse]:
    from svirtlib.levelsinuse import levels_in_use

    named = options.xml is not None or options.snapshot is not None
    if options.type != "static":
        if named:
            raise SelectionError(
                f"--xml and --snapshot tell what a static level is compared with; a label of the "
                f"type {options.type} has none"
            )
        return None
    if not named and options.connect is None:
        return None
    return levels_in_use(inventory(options), besides=guest)


def _request(options: argparse.Namespace, guest: Optional[Guest]) -> Request:
    from svirtlib.generate import AUTO, Request

    level: Union[Range, Auto, None] = None
    if options.level is not None:
        level = AUTO if options.level == "auto" else Range.parse(options.level)
    virt_type = options.virt_type or (None if guest is None else guest.virt_type) or "kvm"
    return Request(
        type=SeclabelType(options.type),
        relabel=None if options.relabel is None else options.relabel == "yes",
        label=_context(options.label),
        baselabel=_context(options.baselabel),
        selinux_type=options.selinux_type,
        level=level,
        virt_type=virt_type,
        devices=_devices(options.device),
        allow_unsafe=options.allow_unsafe,
    )


def _context(text: Optional[str]) -> Optional[Context]:
    return None if text is None else Context.parse(text)


def _devices(texts: Sequence[str]) -> dict[str, Optional[Context]]:
    devices: dict[str, Optional[Context]] = {}
    for text in texts:
        target, equals, value = text.partition("=")
        if not equals or not target or not value:
            raise SelectionError(
                f"--device {text}: expected TARGET={_UNTOUCHED} or TARGET=CONTEXT, for example "
                f"vda={_UNTOUCHED}"
            )
        if target in devices:
            raise SelectionError(f"--device {target}: given twice")
        devices[target] = None if value == _UNTOUCHED else Context.parse(value)
    return devices


def _xml(result: Generated) -> str:
    from svirtlib.seclabeltext import format_device_seclabel, format_seclabel

    lines = [format_seclabel(result.seclabel)]
    for target, seclabel in result.devices.items():
        lines.append(f"<!-- in the <source> of {target.replace('--', '- -')}: -->")
        lines.append(format_device_seclabel(seclabel))
    return "\n".join(lines) + "\n"


def _json(
    options: argparse.Namespace,
    result: Generated,
    contexts: DomainContexts,
    in_use: Optional[InUse],
) -> str:
    from svirtlib.seclabeltext import format_device_seclabel, format_seclabel

    seclabel = result.seclabel
    document: dict[str, Any] = {
        "schema": "svirt-label/generate/1",
        "type": seclabel.type.value,
        "model": seclabel.model,
        "relabel": seclabel.relabel,
        "label": seclabel.label,
        "baselabel": seclabel.baselabel,
        "imagelabel": None if result.imagelabel is None else str(result.imagelabel),
        "xml": format_seclabel(seclabel),
        "devices": [
            {
                "target": target,
                "model": device.model,
                "relabel": device.relabel,
                "label": device.label,
                "xml": format_device_seclabel(device),
            }
            for target, device in result.devices.items()
        ],
        "contexts_from": contexts.source,
        "compared_with": None if in_use is None else len(in_use.levels),
        "not_compared": [] if in_use is None else list(in_use.unknown),
        "warnings": list(result.warnings),
        "notes": [*_respelled(options), *result.notes],
    }
    return json.dumps(document, indent=2) + "\n"


def _tell(options: argparse.Namespace, result: Generated, in_use: Optional[InUse]) -> int:
    """Tell on stderr what to know of the result, and return the exit status."""
    unknown = () if in_use is None else in_use.unknown
    lines = [f"not compared: {text}" for text in unknown]
    lines += [f"warning: {text}" for text in result.warnings]
    if not options.quiet:
        lines += [f"note: {text}" for text in (*_respelled(options), *result.notes)]
    for line in lines:
        sys.stderr.write(f"svirt-label: {printable(line)}\n")
    return ExitCode.INCOMPLETE if unknown else ExitCode.OK


def _respelled(options: argparse.Namespace) -> list[str]:
    """Return notes on labels that are written in another way than they were given."""
    devices = [text.partition("=")[2] for text in options.device]
    contexts = [options.label, options.baselabel, *devices]
    canonical = {
        text: str(Context.parse(text)) for text in contexts if text not in (None, _UNTOUCHED)
    }
    if options.level not in (None, "auto"):
        canonical[options.level] = str(Range.parse(options.level))
    return [
        f"{text} is written {kernel}, as the kernel prints it"
        for text, kernel in canonical.items()
        if text != kernel
    ]


def _write_bytes(options: argparse.Namespace, data: bytes) -> None:
    if options.output is None or options.output == "-":
        write_result(data)
    else:
        from svirtlib.backends.output import write_bytes

        write_bytes(options.output, data)
