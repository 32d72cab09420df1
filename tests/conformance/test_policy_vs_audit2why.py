"""The policy layer against libsepol's other interface, selinux.audit2why, and against setools.

audit2why carries a libsepol of its own and makes contexts and decisions by other calls; setools
reads the structure of the policy. The policy is Debian's.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from needs import require, require_module

from svirtlib.access import Cause
from svirtlib.backends.policy import open_policy

POLICY = "/etc/selinux/default/policy/policy.33"
PAIRS = 3000
#: Denials for want of a rule that are explained; audit2why tries all booleans for each.
EXPLAINED = 60

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def policy():
    require(Path(POLICY).exists(), "no policy of Debian (package selinux-policy-default)")
    with open_policy(POLICY) as opened:
        yield opened


@pytest.fixture(scope="module")
def setools():
    module = require_module("setools", package="python3-setools")
    return module.SELinuxPolicy(POLICY)


def levels(rng):
    few = sorted(rng.sample(range(6), rng.randint(0, 3)))
    level = "s0" + (":" + ",".join(f"c{number}" for number in few) if few else "")
    return rng.choice([level, level, f"s0-{level}", "s0:c0.c1023", "s0-s0:c0.c1023"])


def test_decisions_and_causes(policy, setools):
    audit2why = require_module("selinux.audit2why", package="python3-selinux")
    rng = random.Random(6)
    domains = sorted(str(type_) for type_ in setools.lookup_role("system_r").types())
    targets = sorted(str(type_) for type_ in setools.types())
    favourites = ["svirt_t", "svirt_prot_exec_t", "qemu_t", "virtd_t", "init_t"]
    images = ["svirt_image_t", "virt_content_t", "virt_image_t", "nfs_t", "fixed_disk_device_t"]
    questions = {
        "file": ["read", "write", "getattr", "append", "open", "relabelto", "create"],
        "blk_file": ["read", "write", "getattr", "append", "open"],
        "dir": ["search", "write", "add_name"],
        "process": ["transition", "signal", "ptrace", "getattr"],
        "unix_stream_socket": ["connectto", "read"],
    }
    expected = {
        Cause.TYPE_RULE: {"ALLOW"},
        Cause.UNCONSTRAINED_TYPE: {"ALLOW"},
        Cause.UNCONSTRAINED_PERMISSION: {"ALLOW"},
        Cause.NO_TYPE_RULE: {"TERULE", "DONTAUDIT"},
        Cause.BOOLEAN: {"BOOLEAN"},
        Cause.CONSTRAINT: {"CONSTRAINT"},
        Cause.ROLE: {"RBAC"},
        Cause.BOUNDS: {"BOUNDS"},
    }
    names = {
        getattr(audit2why, name): name
        for name in [
            "ALLOW",
            "TERULE",
            "DONTAUDIT",
            "BOOLEAN",
            "CONSTRAINT",
            "RBAC",
            "BOUNDS",
            "BADSCON",
            "BADTCON",
        ]
    }
    asked = []
    for _ in range(PAIRS):
        kind = rng.choice(sorted(questions))
        permission = rng.choice(questions[kind])
        known = rng.random() < 0.7
        source = f"system_u:system_r:{rng.choice(favourites if known else domains)}:{levels(rng)}"
        if kind in ("process", "unix_stream_socket"):
            type_ = rng.choice(favourites if known else domains)
            target = f"system_u:system_r:{type_}:{levels(rng)}"
        else:
            type_ = rng.choice(images if known else targets)
            target = f"system_u:object_r:{type_}:{levels(rng)}"
        asked.append((source, target, kind, permission))
    # It has room for one user, and the policy layer is one.
    assert audit2why.init(POLICY) == 0
    try:
        told = [audit2why.analyze(*question[:3], [question[3]]) for question in asked]
    finally:
        audit2why.finish()
    seen = dict.fromkeys(Cause, 0)
    for (source, target, kind, permission), (code, more) in zip(asked, told):
        allowed = names[code] == "ALLOW"
        assert policy.allowed(source, target, kind, permission) is allowed
        explained = seen[Cause.NO_TYPE_RULE] + seen[Cause.BOOLEAN]
        if names[code] in ("TERULE", "DONTAUDIT", "BOOLEAN") and explained >= EXPLAINED:
            continue
        (answer,) = policy.explain(source, target, kind, (permission,)).answers
        assert names[code] in expected[answer.cause], (source, target, kind, permission)
        assert answer.allowed is allowed
        if answer.cause is Cause.BOOLEAN:
            assert dict(answer.booleans) == {name: bool(state) for name, state in more}
        if answer.cause is Cause.CONSTRAINT:
            assert answer.constraint in more.splitlines()
        seen[answer.cause] += 1
    for cause in (Cause.TYPE_RULE, Cause.CONSTRAINT, Cause.UNCONSTRAINED_TYPE, Cause.NO_TYPE_RULE):
        assert seen[cause] > 20, seen


def test_structure(policy, setools):
    assert policy.booleans() == {str(one): one.state for one in setools.bools()}
    assert {words[0] for words in policy._listed("user")} == {str(user) for user in setools.users()}
    permissive = {str(type_) for type_ in setools.types() if type_.ispermissive}
    assert {name for name in ("svirt_t", "init_t", *permissive) if policy.is_permissive(name)} == (
        permissive
    )
    for name in ("svirt_t", "svirt_image_t", "virt_var_run_t"):
        assert policy.has_type(name)
    for name in ("mcs_constrained_type", "virt_domain", "svirt_tcg_t"):
        assert not policy.has_type(name)


def test_who_can_is_what_setools_finds(policy, setools):
    """Rules that allow it, by setools; whether categories bind, by the attribute."""
    target = setools.lookup_type("svirt_image_t")
    attributes = {target, *target.attributes()}
    writers = set()
    for rule in setools.terules():
        if rule.ruletype.name != "allow" or str(rule.tclass) != "file" or "write" not in rule.perms:
            continue
        try:
            block = rule.conditional_block
            in_force = rule.conditional.evaluate(
                **{str(one): one.state for one in rule.conditional.booleans}
            )
            if in_force is not block:
                continue
        except AttributeError:
            pass  # an unconditional rule has no conditional
        if rule.target in attributes:
            writers |= {str(type_) for type_ in rule.source.expand()}
    roles = [role for role in setools.roles() if str(role) != "object_r"]
    writers &= {str(type_) for role in roles for type_ in role.types()}
    bound = {str(type_) for type_ in setools.lookup_typeattr("mcs_constrained_type").expand()}
    found = policy.who_can("system_u:object_r:svirt_image_t:s0:c1,c2", "file", ("write",))
    assert {one.domain for one in found} == writers
    assert {one.domain for one in found if not one.any_level} == writers & bound
