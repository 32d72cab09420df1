"""Whether guests can use storage of a type, by what a policy says of guests and of libvirt."""

from __future__ import annotations

import os
from typing import Optional

from svirtlib.backends.policy import Policy, open_policy
from svirtlib.context import Context
from svirtlib.errors import InvalidContextError, SvirtError
from svirtlib.generate import DEFAULT_CONTEXTS

__all__ = ["usable_by_guests"]

#: libvirt's daemons: the one of QEMU's driver in newer policies, the one for all in others.
_DAEMONS = ("virtqemud_t", "virtd_t")

#: No daemon of libvirt has a business with it: one that may relabel it may relabel anything, and
#: its permission says nothing of storage.
_FOREIGN = "shadow_t"


def usable_by_guests(
    policy: Optional[str], contexts: str, context: Context, *, write: bool, device: bool
) -> Optional[bool]:
    """Return whether guests can use files of a context, or None where the policy does not tell.

    They can if their own domain may, or if libvirt's daemon may take the label off, as it does
    when it gives an image to a guest.

    Args:
        policy: path of a binary policy, or None where there is none.
        contexts: folder of the policy's contexts, whose ``virtual_domain_context`` names the
            domain of guests.
        context: what files get.
        write: guests are to write to them too.
        device: they are block devices.
    """
    if policy is None:
        return None
    try:
        domain = _domain(contexts)
        with open_policy(policy) as opened:
            if not opened.has_type(domain.type):
                return None
            return _decided(opened, domain, context, write=write, device=device)
    except SvirtError:
        return None


def _decided(
    policy: Policy, domain: Context, context: Context, *, write: bool, device: bool
) -> Optional[bool]:
    kind = "blk_file" if device else "file"
    target = str(context)
    wanted = {"read", "write"} if write else {"read"}
    if wanted <= set(policy.granted(_source(domain, context), target, kind)):
        return True
    daemons = [name for name in _DAEMONS if policy.has_type(name)]
    if not daemons:
        return None
    foreign = str(context.with_type(_FOREIGN)) if policy.has_type(_FOREIGN) else None
    for name in daemons:
        daemon = _source(domain.with_type(name), context)
        if policy.allowed(daemon, target, kind, "relabelfrom"):
            if foreign and policy.allowed(daemon, foreign, "file", "relabelfrom"):
                return None
            return True
    return False


def _source(domain: Context, target: Context) -> str:
    """Return a context of a domain at the level of what it is to use."""
    base = f"{domain.user}:{domain.role}:{domain.type}"
    return base if target.range is None else f"{base}:{target.range}"


def _domain(contexts: str) -> Context:
    try:
        path = os.path.join(contexts, "virtual_domain_context")
        with open(path, encoding="ascii", errors="replace") as stream:
            return Context.parse(stream.readline().strip())
    except (OSError, InvalidContextError):
        return DEFAULT_CONTEXTS.kvm
