"""libvirt's ``<seclabel>`` elements as values; how they are written in XML is not known here.

The text of a label is kept as it was written, because libvirt keeps it so too: it neither
trims nor checks it (libvirt ``virSecurityLabelDefParseXML``), and a label that the kernel
will refuse must still be reported. ``context()`` of each value parses it on demand.
"""

from __future__ import annotations

import enum
from typing import Optional

from attr import frozen

from svirtlib.context import Context
from svirtlib.rawseclabel import SELINUX

__all__ = ["SELINUX", "DeviceSeclabel", "Seclabel", "SeclabelType"]


class SeclabelType(enum.Enum):
    """The ``type`` of a domain's seclabel.

    ``DEFAULT`` is an absent type: libvirt decides at start by ``security_default_confined``
    and does not write the element into inactive XML.
    """

    DYNAMIC = "dynamic"
    STATIC = "static"
    NONE = "none"
    DEFAULT = "default"


@frozen
class Seclabel:
    """One ``/domain/seclabel``.

    Attributes:
        type: how the label comes about.
        model: the security model, or None where the XML names none.
        relabel: whether libvirt relabels the guest's images, its default filled in (yes for
            dynamic and an absent type, no for static and none).
        label: text of ``<label>``: the process's context.
        imagelabel: text of ``<imagelabel>``; libvirt writes it for running guests only.
        baselabel: text of ``<baselabel>``; only its type takes effect.
        line: line of the element in its document, counted from 1.
    """

    type: SeclabelType
    model: Optional[str] = None
    relabel: bool = True
    label: Optional[str] = None
    imagelabel: Optional[str] = None
    baselabel: Optional[str] = None
    line: Optional[int] = None

    @property
    def judged(self) -> bool:
        """Whether this seclabel is SELinux's.

        One without a model is taken for SELinux's, as libvirt fills in the host's first
        security model (libvirt ``virSecurityLabelDefsParseXML``), and only hosts whose first
        model is SELinux are this project's concern.
        """
        return self.model in (None, SELINUX)

    def context(self) -> Optional[Context]:
        """Return the process's context, or None where the XML states none.

        Raises:
            InvalidContextError: the label is no context.
        """
        return None if self.label is None else Context.parse(self.label)


@frozen
class DeviceSeclabel:
    """One ``<source><seclabel>``: an override for one image and its backing chain.

    Attributes:
        model: the security model, or None where the XML names none; such an element
            overrides nothing (libvirt compares the names).
        relabel: whether libvirt relabels this image.
        label: text of ``<label>``, set on the file as it stands.
        line: line of the element in its document, counted from 1.
    """

    model: Optional[str] = None
    relabel: bool = True
    label: Optional[str] = None
    line: Optional[int] = None
