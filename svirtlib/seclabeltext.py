"""Seclabels as XML text, in the form in which libvirt writes them; nothing is read here.

Attribute order, quoting and the order of the children are those of libvirt's
``virSecurityLabelDefFormat`` and ``virSecurityDeviceLabelDefFormat``. What libvirt would never
write (a seclabel without a type, a ``relabel`` that contradicts the type) is written too, so
that reading the text gives the same value back; whether libvirt takes it is judged elsewhere.
"""

from __future__ import annotations

import re
from typing import Optional
from xml.sax.saxutils import escape

from svirtlib.seclabel import DeviceSeclabel, Seclabel, SeclabelType

__all__ = ["format_device_seclabel", "format_seclabel"]

#: Characters that no XML 1.0 document can hold, not even as a reference (production Char).
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: A reader turns a raw carriage return into a newline, and white space in an attribute into
#: a blank (XML 1.0 sections 2.11 and 3.3.3).
_IN_TEXT = {"\r": "&#13;"}
_IN_ATTRIBUTE = {"'": "&apos;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}

_RELABEL_BY_DEFAULT = {
    SeclabelType.DYNAMIC: True,
    SeclabelType.DEFAULT: True,
    SeclabelType.STATIC: False,
    SeclabelType.NONE: False,
}
#: libvirt writes the attribute for these whatever its value.
_RELABEL_TOLD = (SeclabelType.DYNAMIC, SeclabelType.STATIC)


def format_seclabel(seclabel: Seclabel, *, newline: str = "\n", unit: str = "  ") -> str:
    """Return a domain's ``<seclabel>`` as libvirt writes it, without a newline at the end.

    Args:
        seclabel: its ``line`` is not written.
        newline: what ends a line, the indentation of ``<seclabel>`` itself included; empty
            to write all in one line.
        unit: by how much children are indented.

    Raises:
        ValueError: a text that no XML document can hold.
    """
    attributes: dict[str, Optional[str]] = {}
    if seclabel.type is not SeclabelType.DEFAULT:
        attributes["type"] = seclabel.type.value
    attributes["model"] = seclabel.model
    told = seclabel.type in _RELABEL_TOLD
    if told or seclabel.relabel is not _RELABEL_BY_DEFAULT[seclabel.type]:
        attributes["relabel"] = _yes_no(seclabel.relabel)
    children = {
        "label": seclabel.label,
        "imagelabel": seclabel.imagelabel,
        "baselabel": seclabel.baselabel,
    }
    return _element(attributes, children, newline, unit)


def format_device_seclabel(
    seclabel: DeviceSeclabel, *, newline: str = "\n", unit: str = "  "
) -> str:
    """Return a ``<seclabel>`` of a ``<source>`` as libvirt writes it.

    Args:
        seclabel: its ``line`` is not written.
        newline: as for :func:`format_seclabel`.
        unit: as for :func:`format_seclabel`.

    Raises:
        ValueError: a text that no XML document can hold.
    """
    attributes = {"model": seclabel.model, "relabel": _yes_no(seclabel.relabel)}
    return _element(attributes, {"label": seclabel.label}, newline, unit)


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def _element(
    attributes: dict[str, Optional[str]],
    children: dict[str, Optional[str]],
    newline: str,
    unit: str,
) -> str:
    start = "".join(
        f" {name}='{_escaped(value, _IN_ATTRIBUTE)}'"
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(
        f"{newline}{unit if newline else ''}<{name}>{_escaped(value, _IN_TEXT)}</{name}>"
        for name, value in children.items()
        if value is not None
    )
    return f"<seclabel{start}>{inside}{newline}</seclabel>" if inside else f"<seclabel{start}/>"


def _escaped(text: str, entities: dict[str, str]) -> str:
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        raise ValueError(f"XML cannot hold the character {forbidden[0]!a}")
    return escape(text, entities)
