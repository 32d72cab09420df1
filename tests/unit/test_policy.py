"""The policy layer on a small policy: decisions, causes, who can, and what it refuses to read."""

from __future__ import annotations

import itertools
import os
import struct
from pathlib import Path

import pytest
from needs import require_module
from smallpolicy import compile_policy

from svirtlib.access import Cause
from svirtlib.backends import policy as policies
from svirtlib.backends._sepol import Engine, _Stream
from svirtlib.backends.policy import find_policy, open_policy, target_of
from svirtlib.errors import (
    BackendDataError,
    BackendPermissionError,
    BackendUnavailableError,
    PolicyError,
    SelectionError,
)


@pytest.fixture(scope="module")
def mcs(tmp_path_factory):
    return str(compile_policy(tmp_path_factory.mktemp("mcs")))


@pytest.fixture(scope="module")
def mls(tmp_path_factory):
    return str(compile_policy(tmp_path_factory.mktemp("mls"), mls=True))


def process(level, type_="svirt_t"):
    return f"system_u:system_r:{type_}:{level}"


def image(level, type_="svirt_image_t"):
    return f"system_u:object_r:{type_}:{level}"


def why(path, source, target, target_class="file", permission="read", **booleans):
    with open_policy(path, booleans) as policy:
        (answer,) = policy.explain(source, target, target_class, (permission,)).answers
    return answer.allowed, answer.cause


# The levels of the access rule's truth table (docs/semantics.md), source and target.
@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("s0:c1,c2", "s0:c1,c2", True),
        ("s0:c1,c2", "s0:c2,c1", True),
        ("s0:c1,c2", "s0:c1,c3", False),
        ("s0:c1,c2", "s0:c1", True),
        ("s0:c1", "s0:c1,c2", False),
        ("s0:c1.c3", "s0:c1,c2", True),
        ("s0:c1,c2", "s0:c1.c3", False),
        ("s0:c1,c2", "s0", True),
        ("s0", "s0:c1,c2", False),
        ("s0", "s0", True),
        ("s0:c0.c1023", "s0:c1,c2", True),
        ("s0-s0:c0.c1023", "s0:c1,c2", True),
        ("s0-s0:c1,c2", "s0:c1,c2", True),
        ("s0-s0:c1,c2", "s0:c3,c4", False),
        ("s0:c1,c2", "s0-s0:c1,c2", True),
        ("s0:c1,c2", "s0-s0:c0.c1023", False),
    ],
)
def test_mcs_compares_high_levels(mcs, source, target, allowed):
    with open_policy(mcs) as policy:
        assert policy.allowed(process(source), image(target), "file", "read") is allowed
        assert policy.allowed(process(source), image(target), "file", "write") is allowed
        assert policy.allowed(process(source), image(target), "file", "getattr")


@pytest.mark.parametrize(
    ("source", "target", "read", "write"),
    [
        ("s1:c1", "s1:c1", True, True),
        ("s2:c1", "s1:c1", True, False),
        ("s1", "s1:c1", False, False),
        # The low level counts: the high one would dominate.
        ("s0-s3:c0.c1023", "s0:c1", False, False),
        ("s0-s3:c0.c1023", "s0", True, True),
        ("s1:c1", "s1:c2", False, False),
    ],
)
def test_mls_compares_low_levels_and_writes_need_equality(mls, source, target, read, write):
    with open_policy(mls) as policy:
        assert policy.allowed(process(source), image(target), "file", "read") is read
        assert policy.allowed(process(source), image(target), "file", "write") is write


def test_decisions_shared_by_levels_are_those_of_libsepol(mcs, mls):
    """All stances of ranges to each other, against libsepol asked about each pair anew."""
    ranges = ["s0", "s0:c1", "s0:c2", "s0:c1,c2", "s0-s0:c1", "s0:c1-s0:c1,c2", "s0:c0.c1023"]
    for path in (mcs, mls):
        with open_policy(path) as policy:
            for one, other in itertools.product(ranges, repeat=2):
                for class_ in ("file", "blk_file"):
                    known = policy._engine.target_class(class_)
                    for type_ in ("svirt_t", "own_t"):
                        source, target = process(one, type_), image(other)
                        asked = policy._engine.allowed(source, target, known)
                        assert policy.decide(source, target, class_) == asked


def test_causes(mcs):
    require_module("selinux.audit2why", package="python3-selinux")
    one, two = process("s0:c1"), image("s0:c2")
    assert why(mcs, one, image("s0:c1")) == (True, Cause.TYPE_RULE)
    assert why(mcs, one, two) == (False, Cause.CONSTRAINT)
    assert why(mcs, process("s0:c1", "own_t"), two) == (True, Cause.UNCONSTRAINED_TYPE)
    assert why(mcs, process("s0:c1", "own_t"), image("s0")) == (True, Cause.TYPE_RULE)
    # No rule about categories speaks of opening a block device to append.
    for permission in ("open", "append"):
        assert why(mcs, one, two, "blk_file", permission) == (True, Cause.UNCONSTRAINED_PERMISSION)
    assert why(mcs, one, two, "blk_file") == (False, Cause.CONSTRAINT)
    assert why(mcs, one, image("s0", "other_image_t")) == (False, Cause.NO_TYPE_RULE)
    assert why(mcs, one, image("s0", "nfs_t")) == (False, Cause.BOOLEAN)
    assert why(mcs, one, image("s0", "nfs_t"), virt_use_nfs=True) == (True, Cause.TYPE_RULE)
    assert why(mcs, process("s0:c1", "lax_t"), two) == (True, Cause.PERMISSIVE)
    assert why(mcs, process("s0:c1", "lax_t"), image("s0", "other_image_t")) == (
        True,
        Cause.PERMISSIVE,
    )
    assert why(mcs, process("s0:c1", "lax_t"), image("s0:c1")) == (True, Cause.TYPE_RULE)
    assert why(mcs, process("s0", "other_t"), "system_u:system_r:svirt_t:s0", "process",
               "transition") == (True, Cause.UNCONSTRAINED_PERMISSION)  # fmt: skip


OPEN_TYPE = """
(type open_image_t) (roletype object_r open_image_t)
(allow virt_domain open_image_t (dir (read write search)))
(mlsconstrain (dir (read write)) (or (or (dom h1 h2) (neq t1 mcs_constrained_type))
    (eq t2 open_image_t)))
(mlsconstrain (dir (search)) (or (dom h1 h2) (and (dom l1 l2) (eq t1 mcs_constrained_type))))
"""


def test_what_is_exempt_from_a_constraint(tmp_path):
    path = compile_policy(tmp_path, rules=OPEN_TYPE)

    def ask(source, target, permission, class_="dir"):
        with open_policy(str(path)) as policy:
            (answer,) = policy.explain(source, target, class_, (permission,)).answers
        return answer.allowed, answer.cause, answer.exempt

    folder = image("s0:c2", "open_image_t")
    assert ask(process("s0:c1"), folder, "read") == (
        True, Cause.UNCONSTRAINED_TARGET, "== open_image_t")  # fmt: skip
    # Both would do; it is the source that is nowhere kept out.
    assert ask(process("s0:c1", "own_t"), folder, "read") == (
        True, Cause.UNCONSTRAINED_TYPE, "!= mcs_constrained_type")  # fmt: skip
    # One part is not met and another is: the levels suffice, nobody is exempt.
    ranged = image("s0-s0:c2", "open_image_t")
    assert ask(process("s0:c1"), ranged, "search") == (True, Cause.TYPE_RULE, "")
    assert ask(process("s0:c1", "own_t"), image("s0:c2"), "read", "file") == (
        True, Cause.UNCONSTRAINED_TYPE, "!= mcs_constrained_type")  # fmt: skip


def test_role_as_a_cause(tmp_path):
    """A change of role that no rule allows; user_r may hold svirt_t, and back is not allowed."""
    path = compile_policy(tmp_path, rules="(allow svirt_t other_t (process (transition)))")
    answer = why(
        str(path), "user_u:user_r:svirt_t:s0", process("s0", "other_t"), "process", "transition"
    )
    assert answer == (False, Cause.ROLE)


def test_booleans_that_would_help_are_named(mcs):
    require_module("selinux.audit2why", package="python3-selinux")
    with open_policy(mcs) as policy:
        (answer,) = policy.explain(
            process("s0:c1"), image("s0", "nfs_t"), "file", ("read",)
        ).answers
        assert answer.booleans == (("nfs_everywhere", True), ("virt_use_nfs", True))
        (answer,) = policy.explain(
            process("s0:c1", "own_t"), image("s0", "nfs_t"), "file", ("read",)
        ).answers
        assert answer.booleans == (("virt_use_nfs", True),)
    with open_policy(mcs, {"refuse_content": True}) as policy:
        (answer,) = policy.explain(
            process("s0:c1"), image("s0", "other_image_t"), "file", ("getattr",)
        ).answers
        assert (answer.allowed, answer.booleans) == (False, (("refuse_content", False),))


def test_without_the_bindings_the_boolean_is_not_guessed(mcs, monkeypatch):
    monkeypatch.setattr("svirtlib.backends._reasons._audit2why", lambda: None)
    with open_policy(mcs) as policy:
        (answer,) = policy.explain(
            process("s0:c1"), image("s0", "nfs_t"), "file", ("read",)
        ).answers
    assert (answer.cause, answer.booleans_known) == (Cause.NO_TYPE_RULE, False)


def test_constraint_is_told_in_full(mcs):
    with open_policy(mcs) as policy:
        (answer,) = policy.explain(process("s0:c1"), image("s0:c2"), "file", ("read",)).answers
    assert "mcs_constrained_type" in answer.constraint
    assert "h1 dom h2 -Fail-" in answer.constraint


def test_booleans(mcs):
    with open_policy(mcs) as policy:
        assert policy.booleans() == {
            "nfs_everywhere": False,
            "refuse_content": False,
            "virt_use_nfs": False,
        }
    with open_policy(mcs, {"virt_use_nfs": True}) as policy:
        assert policy.booleans()["virt_use_nfs"] is True
    with pytest.raises(SelectionError, match="did you mean 'virt_use_nfs'"):
        open_policy(mcs, {"virt_use_nsf": True})


def test_who_can(mcs):
    with open_policy(mcs) as policy:
        found = policy.who_can(image("s0:c1,c2"), "file", ("write",))
        assert [(one.domain, one.any_level, one.permissive) for one in found] == [
            ("own_t", True, False),
            ("virtd_t", True, False),
            ("lax_t", False, True),
            ("svirt_t", False, False),
        ]
        # Without categories there is nothing that could bind.
        assert all(one.any_level for one in policy.who_can(image("s0"), "file", ("write",)))
        # All categories: no level stands apart from them, and only their own dominates.
        wide = policy.who_can(image("s0:c0.c1023"), "file", ("write",))
        assert {one.domain: one.any_level for one in wide}["svirt_t"] is False
        both = policy.who_can(image("s0:c1", "virt_content_t"), "file", ("read", "write"))
        assert {one.domain: one.permissions for one in both} == {
            "own_t": ("read",),
            "svirt_t": ("read",),
            "lax_t": ("read",),
        }
        with pytest.raises(PolicyError):
            policy.who_can("system_u:object_r:nothing_t:s0", "file", ("write",))


def test_permissive_types(mcs):
    with open_policy(mcs) as policy:
        assert policy.is_permissive("lax_t")
        assert not policy.is_permissive("svirt_t")
        assert not policy.is_permissive("qemu_t")


def test_aliases_are_types(mcs):
    with open_policy(mcs) as policy:
        assert policy.allowed(process("s0:c1", "qemu_t"), image("s0:c1"), "file", "read")
        assert policy.canonical(process("s0:c2,c1", "qemu_t")) == process("s0:c1,c2")


@pytest.mark.parametrize(
    ("context", "told"),
    [
        ("system_u:system_r:svirt_x:s0", "no type 'svirt_x' (did you mean svirt_t?)"),
        ("system_x:system_r:svirt_t:s0", "no user 'system_x' (did you mean system_u?)"),
        ("system_u:system_x:svirt_t:s0", "no role 'system_x' (did you mean system_r?)"),
        ("system_u:system_r:svirt_t", "the range is missing"),
        ("system_u:system_r:svirt_t:s1", "no range 's1'"),
        ("system_u:system_r:svirt_t:s0:c1024", "no range 's0:c1024'"),
        ("system_u:system_r:svirt_t:s0-s0:c1-s0", "no range"),
        ("system_u:system_r:svirt_image_t:s0", "the role system_r may not have the type"),
        ("user_u:system_r:svirt_t:s0", "the user user_u may not have the role system_r"),
        ("user_u:user_r:svirt_t:s0:c1", "the user user_u may not have the range s0:c1"),
        ("system_u:system_r:virt_domain:s0", "no type 'virt_domain'"),
        ("svirt_t:s0", "user:role:type:range"),
        ("", "user:role:type:range"),
        ("system_u:system_r:svirt_t:s0\0", "no range"),
    ],
)
def test_contexts_that_the_policy_refuses(mcs, context, told):
    with open_policy(mcs) as policy:
        assert told in policy.refusal(context)
        with pytest.raises(PolicyError) as failure:
            policy.decide(context, image("s0"), "file")
        assert told in str(failure.value)
        with pytest.raises(PolicyError):
            policy.decide(process("s0"), context, "file")


def test_unknown_classes_and_permissions(mcs):
    with open_policy(mcs) as policy:
        with pytest.raises(PolicyError, match="no class 'fiel'"):
            policy.allowed(process("s0"), image("s0"), "fiel", "read")
        with pytest.raises(PolicyError, match="did you mean 'read'"):
            policy.allowed(process("s0"), image("s0"), "file", "reed")


def test_two_policies_take_turns(mcs, mls):
    """libsepol has room for one; whichever is asked answers for itself."""
    with open_policy(mcs) as one, open_policy(mls) as other:
        for _ in range(2):
            assert one.allowed(process("s0:c1"), image("s0"), "file", "write")
            one._decisions.clear()
            one._by_relation.clear()
            assert not other.allowed(process("s1:c1"), image("s0"), "file", "write")
            other._decisions.clear()
            other._by_relation.clear()


def test_a_policy_that_is_opened_again_is_not_read_again(mcs, monkeypatch):
    source, target = process("s0:c1"), image("s0:c1")
    with open_policy(mcs) as policy:
        assert policy.allowed(source, target, "file", "read")
    with monkeypatch.context() as patch:
        patch.setattr(Engine, "_load", lambda engine: pytest.fail("it was read again"))
        with open_policy(mcs) as policy:
            assert policy.allowed(source, target, "file", "write")


def test_a_policy_that_another_library_put_in_its_place(mcs, mls):
    source, target = process("s0-s0:c1"), image("s0:c1")
    with open_policy(mcs) as policy:
        with _Stream(Path(mls).read_bytes()) as stream:
            # Not by the engine, which would know.
            assert not policy._engine._sepol.sepol_set_policydb_from_file(stream)
        Engine.forget()
        assert policy.allowed(source, target, "file", "read")
    with open_policy(mls) as policy:
        assert not policy.allowed(source, target, "file", "read")


def test_many_contexts(mcs, monkeypatch):
    """The table of contexts is emptied on the way; answers stay right."""
    monkeypatch.setattr("svirtlib.backends._sepol._MOST_CONTEXTS", 50)
    with open_policy(mcs) as policy:
        engine = policy._engine
        known = engine.target_class("file")
        for number in range(150):
            own, other = image(f"s0:c{number}"), image(f"s0:c{number + 1}")
            bit = known.permissions["read"]
            assert engine.allowed(process(f"s0:c{number}"), own, known) & bit
            assert not engine.allowed(process(f"s0:c{number}"), other, known) & bit


# --- Files that are no policy ------------------------------------------------------------------


def test_every_truncation_is_refused(mcs, tmp_path):
    whole = Path(mcs).read_bytes()
    path = tmp_path / "cut"
    for length in [*range(0, 200, 7), *range(200, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(PolicyError, match=str(path)):
            open_policy(str(path))


@pytest.mark.parametrize("version", [14, 99, 0xFFFFFFFF])
def test_foreign_versions_are_named(mcs, tmp_path, version):
    image_ = bytearray(Path(mcs).read_bytes())
    struct.pack_into("<I", image_, 16, version)
    path = tmp_path / "policy"
    path.write_bytes(image_)
    with pytest.raises(PolicyError, match=f"version {version}"):
        open_policy(str(path))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "too short"),
        (b"root:x:0:0:root\n" * 9, "no binary policy"),
        (struct.pack("<I", 0xF97CFF8F) + bytes(60), "policy module"),
        (b"BZh91AY" + bytes(60), "policy module"),
        (struct.pack("<2I", 0xF97CFF8C, 8) + b"XenFlask" + bytes(60), "not for SELinux"),
        (struct.pack("<2I", 0xF97CFF8C, 0xFFFFFFFF) + bytes(60), "not for SELinux"),
        (struct.pack("<2I", 0xF97CFF8C, 8) + b"SE Linux", "cut short"),
    ],
)
def test_other_files_are_refused(tmp_path, content, told):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=told):
        open_policy(str(path))


def test_what_is_no_file(tmp_path):
    with pytest.raises(PolicyError, match="no file"):
        open_policy(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PolicyError, match="no file"):
        open_policy(str(tmp_path / "pipe"))
    with pytest.raises(BackendUnavailableError, match="--policy"):
        open_policy(str(tmp_path / "missing"))
    with pytest.raises(PolicyError, match="empty"):
        open_policy("")


# --- Which policy is asked ---------------------------------------------------------------------


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system whose paths lie in a folder."""
    monkeypatch.setattr(policies, "LOADED", str(tmp_path / "loaded"))
    monkeypatch.setattr(policies, "_CONFIGURATION", str(tmp_path / "etc" / "config"))
    monkeypatch.setattr(policies, "_STORE", str(tmp_path / "etc"))
    return tmp_path


def install(system, type_, *versions, config=None):
    folder = system / "etc" / type_ / "policy"
    folder.mkdir(parents=True)
    for version in versions:
        (folder / f"policy.{version}").write_bytes(b"")
    if config is not None:
        (system / "etc" / "config").write_text(config)


def test_no_policy_at_all(system):
    assert find_policy() is None
    assert open_policy() is None
    install(system, "targeted")
    assert find_policy() is None


def test_the_installed_policy_of_the_configured_type(system):
    install(system, "targeted", 31, 33, 9)
    assert find_policy() == str(system / "etc/targeted/policy/policy.33")
    install(system, "mls", 30, config="# SELINUXTYPE=strict\nSELINUX=enforcing\nSELINUXTYPE=mls\n")
    assert find_policy() == str(system / "etc/mls/policy/policy.30")
    # Of several lines the last counts, as for libselinux.
    (system / "etc" / "config").write_text("SELINUXTYPE=mls\nSELINUXTYPE=targeted\n")
    assert find_policy() == str(system / "etc/targeted/policy/policy.33")


def test_the_loaded_policy_comes_first(system, mcs):
    install(system, "targeted", 33)
    (system / "loaded").write_bytes(Path(mcs).read_bytes())
    policy = open_policy()
    assert policy is not None
    assert policy.source == str(system / "loaded")


def test_a_damaged_policy_of_the_host_is_the_host_s_fault(system):
    install(system, "targeted", 33)
    with pytest.raises(BackendDataError):
        open_policy()


def test_a_loaded_policy_that_may_not_be_read_is_not_replaced(system, monkeypatch):
    """The installed one may be another than the loaded one; nobody is to guess."""
    install(system, "targeted", 33)
    (system / "loaded").write_bytes(b"")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(BackendPermissionError, match="run as root"):
        open_policy()


# --- Targets -----------------------------------------------------------------------------------


def test_contexts_are_targets(tmp_path):
    assert target_of(image("s0")).context == image("s0")
    assert target_of(image("s0")).target_class is None
    with pytest.raises(BackendUnavailableError, match="cannot be read"):
        target_of(str(tmp_path / "missing"))
    with pytest.raises(PolicyError, match="neither a path nor a context"):
        target_of("/a\0b")


@pytest.mark.root
def test_labels_of_paths_are_targets(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(b"")
    with pytest.raises(BackendUnavailableError, match="no SELinux label"):
        target_of(str(path))
    os.setxattr(path, "security.selinux", image("s0:c1").encode() + b"\0")
    assert (target_of(str(path)).context, target_of(str(path)).target_class) == (
        image("s0:c1"),
        "file",
    )
    os.setxattr(tmp_path, "security.selinux", image("s0").encode())
    assert target_of(str(tmp_path)).target_class == "dir"


@pytest.mark.root
def test_a_path_may_be_relative_and_a_link(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("disk.img", "a:b"):
        Path(name).write_bytes(b"")
        os.setxattr(name, "security.selinux", image("s0:c1").encode() + b"\0")
    # As /dev/vg0/web01 is; the label of the link itself is nobody's question.
    Path("link").symlink_to("disk.img")
    for name in ("disk.img", "link", "a:b", "./a:b"):
        target = target_of(name)
        assert (target.context, target.target_class) == (image("s0:c1"), "file")
    Path("loop").symlink_to("loop")
    with pytest.raises(BackendUnavailableError, match="loop"):
        target_of("loop")
    # A context is one, whatever is called so.
    Path(image("s0")).write_bytes(b"")
    assert target_of(image("s0")).context == image("s0")


def test_policy_without_levels(tmp_path):
    """Neither MCS nor MLS: contexts have no range, and nothing binds by categories."""
    path = str(compile_policy(tmp_path, levels=False))
    source, target = "system_u:system_r:{}", "system_u:object_r:svirt_image_t"
    with open_policy(path) as policy:
        assert policy.allowed(source.format("svirt_t"), target, "file", "write")
        assert not policy.allowed(source.format("other_t"), target, "file", "write")
        found = policy.who_can(target, "file", ("write",))
        assert {one.domain for one in found} == {"svirt_t", "own_t", "lax_t", "virtd_t"}
        assert policy.refusal(source.format("svirt_t") + ":s0")
