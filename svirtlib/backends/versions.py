"""Which libvirt is installed; asks the bindings, not a daemon."""

from __future__ import annotations

from typing import Optional

__all__ = ["installed_libvirt"]


def installed_libvirt() -> Optional[tuple[int, int]]:
    """Return the version of the libvirt library, or None without its bindings."""
    try:
        import libvirt
    except ImportError:
        return None
    number = int(libvirt.getVersion())
    return number // 1_000_000, number // 1_000 % 1_000
