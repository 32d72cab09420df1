"""Asks the kernel of the machine what it grants: [[source, target, class], ...] to permissions.

None stands for a context that the kernel refuses.
"""

import json
import sys

import selinux


def granted(source, target, kind):
    for context in (source, target):
        try:
            selinux.security_check_context_raw(context)
        except OSError:
            return None
    number = selinux.string_to_security_class(kind)
    decision = selinux.av_decision()
    selinux.security_compute_av_raw(source, target, number, 0, decision)
    bits = [1 << place for place in range(32) if decision.allowed >> place & 1]
    names = [selinux.security_av_perm_to_string(number, bit) for bit in bits]
    return sorted(name for name in names if name)


json.dump([granted(*question) for question in json.load(sys.stdin)], sys.stdout)
