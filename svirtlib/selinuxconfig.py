"""``/etc/selinux/config``, as libselinux reads it. Opens no file."""

from __future__ import annotations

__all__ = ["policy_name"]

#: What libselinux takes where no line names a policy.
_DEFAULT = "targeted"
_KEY = "selinuxtype="


def policy_name(text: str) -> str:
    """Return the name of the policy: ``SELINUXTYPE``, or ``targeted`` where no line has it.

    Of several lines the last counts; the key's case does not, white space before the equals
    sign does (libselinux ``init_selinux_config``). The name may be none of a folder's.
    """
    name = _DEFAULT
    for line in text.split("\n"):
        line = line.strip()
        if line.lower().startswith(_KEY):
            name = line[len(_KEY) :].strip()
    return name
