"""What is known of types without asking a policy: where Debian's and Fedora's agree.

Types are data of a policy. This table serves where no policy can be asked, and tells only
what holds in the reference policy (Debian 12) and in Fedora's alike; for every other type the
answer is None, *not decided*, and the caller must say so. The sources are the compiled
policies' ``mcs_constrained_type`` attribute and their allow rules for ``svirt_t``.
"""

from __future__ import annotations

import enum
from typing import Optional

__all__ = ["Access", "access_of_guests", "bound_by_categories"]


class Access(enum.Enum):
    """What a guest's process may do to files of a type, categories permitting."""

    NONE = "none"
    READ = "read"
    WRITE = "read and write"

    @property
    def verb(self) -> str:
        """The access as a message says it."""
        return self.value


_BOUND = frozenset(
    {
        "svirt_t",
        "svirt_tcg_t",
        "svirt_kvm_net_t",
        "svirt_qemu_net_t",
        "svirt_prot_exec_t",
        "container_t",
        "container_kvm_t",
        "container_init_t",
        "container_userns_t",
        "container_engine_t",
        "svirt_lxc_net_t",
    }
)

_UNBOUND = frozenset(
    {
        "init_t",
        "initrc_t",
        "kernel_t",
        "spc_t",
        "sysadm_t",
        "unconfined_qemu_t",
        "unconfined_service_t",
        "unconfined_t",
        "virsh_t",
        "virtd_t",
        "virtqemud_t",
        "virtstoraged_t",
        "virtlogd_t",
    }
)

_ACCESS = {
    "svirt_image_t": Access.WRITE,
    "svirt_home_t": Access.WRITE,
    "svirt_tmp_t": Access.WRITE,
    "svirt_tmpfs_t": Access.WRITE,
    "virt_cache_t": Access.WRITE,
    "virt_content_t": Access.READ,
    "virt_var_lib_t": Access.READ,
    "default_t": Access.NONE,
    "unlabeled_t": Access.NONE,
}

#: Both refuse to let a guest write to these; whether it may read them differs.
_NEVER_WRITTEN = frozenset({"etc_t", "root_t", "user_home_t", "usr_t", "virt_image_t"})


def bound_by_categories(type: str, /) -> Optional[bool]:
    """Tell whether categories bind processes of a type; None where that is not decided."""
    if type in _BOUND:
        return True
    if type in _UNBOUND:
        return False
    return None


def access_of_guests(type: str, /, *, write: bool = False) -> Optional[Access]:
    """Tell what guests may do to files of a type; None where that is not decided.

    With *write*, tell only whether they may write: that is decided for more types.
    """
    if write and type in _NEVER_WRITTEN:
        return Access.NONE
    return _ACCESS.get(type)
