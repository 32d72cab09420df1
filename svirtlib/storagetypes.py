"""Types that storage has, or gets: those for guests, and those that nobody decided on."""

from __future__ import annotations

import enum
from typing import Optional

from svirtlib.errors import StorageError, quote

__all__ = [
    "UNDECIDED",
    "Purpose",
    "belongs_elsewhere",
    "check_type",
    "is_for_guests",
    "type_of",
]


class Purpose(enum.Enum):
    """What storage is for, which decides the type of its rule."""

    #: Guests write to it. libvirt gives each image its guest's label for as long as it runs.
    IMAGES = "images"
    #: Guests only read it: installation media, base images.
    CONTENT = "content"

    @property
    def type(self) -> str:
        """The type that Debian's and Fedora's policies have for it."""
        return "virt_image_t" if self is Purpose.IMAGES else "virt_content_t"


#: Types of storage for guests in Debian's and Fedora's policies: libvirt relabels images of
#: the first ones when a guest starts, and guests themselves may use the others.
_GUEST_TYPES = frozenset(
    {
        "virt_image_t",
        "virt_content_t",
        "virt_cache_t",
        "virt_var_lib_t",
        "svirt_image_t",
        "svirt_home_t",
        "virt_home_t",
        "fixed_disk_device_t",
        "removable_device_t",
        "public_content_t",
        "public_content_rw_t",
        "container_file_t",
        "container_ro_file_t",
    }
)

#: What storage has where nobody decided on a type for it.
UNDECIDED = frozenset(
    {
        "default_t",
        "device_t",
        "etc_runtime_t",
        "file_t",
        "home_root_t",
        "mnt_t",
        "nfs_t",
        "root_t",
        "srv_t",
        "tmp_t",
        "unlabeled_t",
        "user_home_t",
        "user_tmp_t",
        "usr_t",
        "var_lib_t",
        "var_t",
        "svirt_tmp_t",
        "svirt_tmpfs_t",
    }
) | (_GUEST_TYPES)


def is_for_guests(type: str) -> bool:
    """Tell whether a type is one for storage of guests.

    Besides those that are known, all whose names say so: policies differ, and have more of them.
    """
    return type in _GUEST_TYPES or type.startswith(("virt_", "svirt_", "qemu_"))


def check_type(type: str) -> None:
    """Refuse a type that guests cannot use storage of.

    Raises:
        StorageError: guests have no business with files of it.
    """
    if type in _GUEST_TYPES:
        return
    raise StorageError(
        f"{quote(type)} is no type for storage of guests: neither may guests use it, nor does "
        f"the policy let libvirt relabel it for them; take virt_image_t, or virt_content_t for "
        f"what is only read, or say --any-type where your policy has a type of its own"
    )


def belongs_elsewhere(label: bytes) -> bool:
    """Tell whether a label's type is one that some other rule gave on purpose."""
    parts = label.rstrip(b"\0").split(b":", 3)
    return len(parts) > 2 and parts[2].decode("ascii", "replace") not in UNDECIDED


def type_of(context: Optional[str]) -> Optional[str]:
    """Return the type of a context's text, or None where it has none."""
    parts = (context or "").split(":")
    return parts[2] if len(parts) > 2 else None
