"""Rules for storage, what becomes of a label, and what is refused: worked out from values."""

from __future__ import annotations

import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svirtlib import Context
from svirtlib.errors import StorageError
from svirtlib.filerules import Rule, has_metacharacters
from svirtlib.filesystems import FileSystemFacts, advice_for
from svirtlib.storage import RuleAction, Target, Verdict, decide, plan_rule, shell_commands
from svirtlib.storagepaths import check_path, escape_path, pattern_for, system_path
from svirtlib.storagetypes import check_type

IMAGE = Context.parse("system_u:object_r:virt_image_t:s0")
DIR, REG = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o644

_PATHS = st.lists(
    st.binary(min_size=1, max_size=6).filter(lambda part: b"/" not in part and b"\0" not in part),
    min_size=1,
    max_size=4,
).map(lambda parts: b"/" + b"/".join(parts))


class TestEscape:
    @pytest.mark.parametrize(
        ("path", "pattern"),
        [
            (b"/virtstorage", "/virtstorage"),
            (b"/a.b", r"/a\.b"),
            (b"/a b", r"/a[\x20]b"),
            ("/ü".encode(), r"/[\xc3][\xbc]"),
            (b"/a(1)[2]{3}", r"/a\(1\)\[2\]\{3\}"),
            (b"/a+b*c?d|e^f$g\\h", r"/a\+b\*c\?d\|e\^f\$g\\h"),
        ],
    )
    def test_examples(self, path, pattern):
        assert escape_path(path) == pattern

    @given(_PATHS, _PATHS)
    def test_a_pattern_matches_its_path_alone(self, path, other):
        pattern = escape_path(path).encode("ascii")
        assert not re.search(rb"[\s]", pattern)
        assert re.fullmatch(pattern, path, re.DOTALL)
        assert bool(re.fullmatch(pattern, other, re.DOTALL)) == (other == path)

    @given(_PATHS)
    def test_a_folders_pattern_takes_all_in_it_and_nothing_beside(self, path):
        pattern = pattern_for(path, folder=True).encode("ascii")
        for inside in (path, path + b"/x", path + b"/x\n/y"):
            assert re.fullmatch(pattern, inside, re.DOTALL)
        assert not re.fullmatch(pattern, path + b"x", re.DOTALL)


class TestPaths:
    @pytest.mark.parametrize(
        ("path", "word"),
        [
            ("", "empty"),
            ("virtstorage", "relative"),
            ("./x", "relative"),
            ("/a/../etc", "'..'"),
            ("/a\nb", "newline"),
            ("/a\x1b[2J", "control character"),
        ],
    )
    def test_refused(self, path, word):
        with pytest.raises(StorageError, match=re.escape(word)):
            check_path(path)

    def test_cleaned(self):
        assert check_path("//srv///vm/") == b"/srv/vm"
        assert check_path("/srv/\udcff") == b"/srv/\xff"

    @pytest.mark.parametrize(
        "path",
        ["/", "/etc", "/etc/libvirt", "/usr/share", "/var", "/var/lib", "/proc/1", "/dev", "/home",
         "/var/lib/selinux/default", "/var/lib/libvirt", "/boot", "/root", "/run/x"],
    )  # fmt: skip
    def test_system_paths(self, path):
        assert system_path(path.encode())

    @pytest.mark.parametrize(
        "path", ["/virtstorage", "/srv/vm", "/var/lib/libvirt/images", "/home/vm", "/etcetera"]
    )
    def test_others(self, path):
        assert system_path(path.encode(), homes=[b"/home/alice"]) is None

    def test_homes(self):
        assert system_path(b"/home/alice", homes=[b"/home/alice"])
        assert system_path(b"/home/staff", homes=[b"/home/staff/alice"])
        assert system_path(b"/home/alice/vm", homes=[b"/home/alice"]) is None


@pytest.mark.parametrize("type", ["etc_t", "shadow_t", "httpd_sys_content_t", "svirt_t"])
def test_types_that_guests_cannot_use(type):
    with pytest.raises(StorageError, match="virt_image_t"):
        check_type(type)


@pytest.mark.parametrize("type", ["virt_image_t", "virt_content_t", "svirt_image_t"])
def test_types_that_guests_use(type):
    check_type(type)


def _rule(pattern, context=str(IMAGE), kind=0, local=False):
    source = "file_contexts.local" if local else "file_contexts"
    return Rule(pattern.encode(), kind, context, source)


def _plan(rules, answers, path=b"/virtstorage", mode=DIR, kind=0):
    """Plan with rules given the strongest first, and what they give each probe."""

    def now(path, _mode):
        return answers.get(path, answers.get(None))

    return plan_rule(
        path, mode, kind, IMAGE, rules, lambda rule: rule.source.endswith(".local"), now
    )


class TestRules:
    def test_none_there(self):
        change = _plan([_rule("/.*", "system_u:object_r:default_t:s0")], {})
        assert change.action is RuleAction.ADD
        assert change.pattern == "/virtstorage(/.*)?"
        assert not change.shadowed_by

    def test_the_same_is_there(self):
        change = _plan([_rule("/virtstorage(/.*)?", local=True)], {None: str(IMAGE)})
        assert change.action is RuleAction.PRESENT

    def test_another_context_is_there(self):
        other = "system_u:object_r:public_content_t:s0"
        change = _plan([_rule("/virtstorage(/.*)?", other, local=True)], {None: other})
        assert change.action is RuleAction.MODIFY
        assert change.before == other

    def test_the_same_pattern_for_one_kind_is_another_rule(self):
        rules = [_rule("/virtstorage(/.*)?", kind=stat.S_IFREG, local=True)]
        assert _plan(rules, {None: None}).action is RuleAction.ADD

    def test_the_policy_has_it(self):
        change = _plan([_rule("/virtstorage(/.*)?")], {None: str(IMAGE)})
        assert change.action is RuleAction.COVERED

    def test_a_rule_for_the_folder_alone_does_not_cover_it(self):
        change = _plan([_rule("/virtstorage")], {b"/virtstorage": str(IMAGE)})
        assert change.action is RuleAction.ADD

    def test_anothers_type_is_told(self):
        change = _plan([], {None: "system_u:object_r:postgresql_db_t:s0"})
        assert change.replaces == "postgresql_db_t"

    def test_shadowed_by_one_path_below(self):
        other = "system_u:object_r:etc_t:s0"
        change = _plan([_rule("/virtstorage/conf", other), _rule("/virtstoragex", other)], {})
        assert [conflict.path for conflict in change.shadowed_by] == ["/virtstorage/conf"]

    def test_shadowed_by_a_later_local_pattern(self):
        other = "system_u:object_r:etc_t:s0"
        rules = [
            _rule("/virt.*", other, local=True),
            _rule("/virtstorage(/.*)?", "system_u:object_r:mnt_t:s0", local=True),
        ]
        (conflict,) = _plan(rules, {None: other}).shadowed_by
        assert conflict.pattern == "/virt.*"
        # A rule that is added becomes the last one, and wins.
        assert not _plan(rules[:1], {None: other}).shadowed_by

    def test_a_device(self):
        change = _plan([], {}, b"/dev/sdb1", stat.S_IFBLK | 0o660, stat.S_IFBLK)
        assert (change.pattern, change.kind) == ("/dev/sdb1", "b")
        (first, second) = shell_commands([Target(b"/dev/sdb1", folder=False, rule=change)])
        assert first == "semanage fcontext -a -f b -t virt_image_t /dev/sdb1"
        assert second == "restorecon -v /dev/sdb1"


@pytest.mark.parametrize(
    ("current", "verdict", "new"),
    [
        (None, Verdict.CHANGE, "system_u:object_r:virt_image_t:s0"),
        ("system_u:object_r:virt_image_t:s0", Verdict.RIGHT, None),
        ("nonsense", Verdict.CHANGE, "system_u:object_r:virt_image_t:s0"),
        ("system_u:object_r:default_t:s0", Verdict.CHANGE, "system_u:object_r:virt_image_t:s0"),
        # As restorecon does: user, role and range stay.
        (
            "staff_u:object_r:default_t:s0:c5,c6",
            Verdict.CHANGE,
            "staff_u:object_r:virt_image_t:s0:c5,c6",
        ),
        ("staff_u:object_r:virt_image_t:s0:c5,c6", Verdict.RIGHT, None),
        # What libvirt gave a guest is not taken away.
        ("system_u:object_r:svirt_image_t:s0:c1,c2", Verdict.GUEST_LABEL, None),
        ("system_u:object_r:svirt_image_t:s0", Verdict.CHANGE, "system_u:object_r:virt_image_t:s0"),
    ],
)
def test_decide(current, verdict, new):
    decision = decide(current, str(IMAGE))
    assert (decision.verdict, decision.context) == (verdict, new)


def test_decide_honours_customizable_types():
    """Fedora's list has svirt_image_t, Debian's has not."""
    current = "system_u:object_r:svirt_image_t:s0"
    assert decide(current, str(IMAGE), frozenset({"svirt_image_t"})).verdict is Verdict.CUSTOMIZABLE
    assert decide(current, str(IMAGE), frozenset({"swapfile_t"})).verdict is Verdict.CHANGE
    forced = decide(current, str(IMAGE), frozenset({"svirt_image_t"}), force=True)
    assert forced.context == str(IMAGE)


def test_decide_writes_the_canonical_form():
    wanted = "system_u:object_r:svirt_image_t:s0:c2,c1"
    assert decide(None, wanted).context == "system_u:object_r:svirt_image_t:s0:c1,c2"
    assert decide("system_u:object_r:svirt_image_t:s0:c1,c2", wanted).verdict is Verdict.RIGHT


@given(st.sampled_from(["default_t", "mnt_t", "svirt_image_t", "virt_content_t", "x_t"]),
       st.sampled_from(["s0", "s0:c1,c2", "s0:c0.c1023"]), st.booleans())  # fmt: skip
def test_deciding_again_changes_nothing(type, level, force):
    first = decide(f"u_u:object_r:{type}:{level}", str(IMAGE), force=force)
    if first.context is not None:
        assert decide(first.context, str(IMAGE), force=force).verdict is Verdict.RIGHT


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("nfs4", "rw,vers=4.1", ["virt_use_nfs", "context=system_u:object_r:virt_image_t:s0"]),
        ("cifs", "rw", ["virt_use_samba"]),
        ("fuse.sshfs", "rw", ["virt_use_fusefs"]),
        ("vfat", "rw", ["context="]),
        ("ext4", "rw,context=system_u:object_r:default_t:s0", ["default_t", "mount it with"]),
        ("ext4", "rw,context=system_u:object_r:virt_image_t:s0", ["nothing is to be done"]),
    ],
)
def test_file_systems_without_labels(kind, options, words):
    facts = FileSystemFacts("/mnt/vm", kind, frozenset(options.split(",")), selinux=False)
    advice = advice_for(facts, str(IMAGE))
    assert advice is not None
    for word in words:
        assert word in advice


def test_file_systems_with_labels():
    facts = FileSystemFacts("/", "ext4", frozenset({"rw"}), selinux=False)
    assert advice_for(facts, str(IMAGE)) is None
    assert FileSystemFacts("/", "nfs4", frozenset({"seclabel"}), selinux=True).labels
    assert not FileSystemFacts("/", "ext4", frozenset({"rw"}), selinux=True).labels


def test_an_escaped_plain_path_stays_an_exact_rule():
    assert not has_metacharacters(escape_path(b"/srv/disk.img").encode())
