"""Which context libvirt gives each image of a guest, from the XML alone.

The rules are those of libvirt's SELinux driver (``virSecuritySELinuxSetImageLabelInternal``
and ``virSecuritySELinuxSetAllLabel``), observed with libvirt 9.0 and a SELinux kernel.
"""

from __future__ import annotations

from typing import Optional

from attr import frozen

from svirtlib.guests import Guest, Host, Image, ImageKind, ImageMode
from svirtlib.seclabel import SeclabelType

__all__ = ["Labelling", "labelling"]

#: Storage that libvirt's SELinux driver leaves alone: it has no file to label, or libvirt
#: skips it (directories, with a warning in its log; sockets of vhost-user daemons).
_UNTOUCHED = frozenset(
    {
        ImageKind.DIR,
        ImageKind.NETWORK,
        ImageKind.NVME,
        ImageKind.VHOST_USER,
        ImageKind.VHOST_VDPA,
    }
)


@frozen
class Labelling:
    """What libvirt does about one image's label when the guest starts.

    Attributes:
        relabelled: libvirt sets a label; if not, the image keeps what it has, and the guest
            must be able to live with it.
        context: text of the context that it sets, or None where the XML does not tell (the
            level of a dynamic guest that does not run is not drawn yet).
    """

    relabelled: bool
    context: Optional[str] = None


_KEPT = Labelling(relabelled=False)


def labelling(guest: Guest, image: Image, host: Host) -> Labelling:
    """Return what libvirt does about the label of one image of a guest."""
    seclabel = guest.seclabel
    if image.kind in _UNTOUCHED:
        return _KEPT
    if seclabel is not None and (seclabel.type is SeclabelType.NONE or not seclabel.relabel):
        return _KEPT
    if image.seclabel is not None:
        if not image.seclabel.relabel:
            return _KEPT
        if image.seclabel.label is not None:
            return Labelling(relabelled=True, context=image.seclabel.label)
    if image.mode is ImageMode.SHAREABLE:
        return Labelling(relabelled=True, context=host.image_context)
    if image.mode is ImageMode.READONLY:
        return Labelling(relabelled=True, context=host.content_context)
    return Labelling(relabelled=True, context=None if seclabel is None else seclabel.imagelabel)
