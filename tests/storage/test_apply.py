"""Plan, apply and undo on a real policy store and real attributes, setfiles as the judge.

Most tests label /var/lib/libvirt/images, which Debian's policy has a rule for: then nothing has to
be committed, which takes a second.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from checkrun import run
from jsonschema import Draft202012Validator
from needs import require_module, require_program
from policyroot import IMAGE, label_of, set_label
from privileges import as_nobody
from xmlmaker import disk, guest

import svirtlib
from svirtlib.backends import relabel
from svirtlib.backends.changes import Journals
from svirtlib.backends.mounts import read_mounts
from svirtlib.backends.rulestore import LocalRule, RuleStore

pytestmark = pytest.mark.root

IMAGES = "/var/lib/libvirt/images"
NEW = IMAGE.encode() + b"\0"
GUEST = "system_u:object_r:svirt_image_t:s0:c1,c2"


@pytest.fixture
def images(root):
    """A root with three images of which one lies in a folder."""
    root.fill(f"{IMAGES}/a.img", f"{IMAGES}/b c.qcow2", f"{IMAGES}/in/d.img")
    return root


def _holds(schema, outcome):
    """Hold a document to its published schema."""
    text = (Path(svirtlib.__file__).parent / "schemas" / f"{schema}-1.json").read_text()
    Draft202012Validator(json.loads(text)).validate(outcome.report)
    assert outcome.report["schema"] == f"svirt-label/{schema}/1"


def _judge(root, top):
    """What setfiles would change below a folder, by the rules in effect."""
    setfiles = require_program("setfiles", "policycoreutils")
    rules = root.path("/etc/selinux/default/contexts/files/file_contexts")
    done = subprocess.run(
        [setfiles, "-n", "-v", "-r", root.folder, rules, root.path(top)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in done.stdout.splitlines() if "Would relabel" in line]


def test_a_rule_and_labels_there_and_back(root, journald):
    root.fill("/virtstorage/a.img", "/virtstorage/sub/b c.img", "/virtstorage/\udcffü.img")
    os.symlink("/etc/passwd", root.path("/virtstorage/link"))
    os.mkfifo(root.path("/virtstorage/pipe"))
    set_label(root.path("/virtstorage/a.img"), "system_u:object_r:default_t:s0")
    before = root.labels("/virtstorage")

    planned = root.run("--format", "json", "storage", "plan", "/virtstorage", "--exit-code")
    assert planned.code == 1
    _holds("storage-plan", planned)
    assert planned.report["rules"][0]["action"] == "add"
    assert planned.report["files"] == {"checked": 7, "to_change": 7, "kept": 0}
    assert root.labels("/virtstorage") == before
    assert not root.journal.exists()
    assert journald.told() == []

    applied = root.run("--format", "json", "storage", "apply", "/virtstorage")
    assert applied.code == 0
    _holds("storage-apply", applied)
    assert applied.report["rules_changed"] == 1
    assert applied.report["files_changed"] == 7
    assert root.local_rules() == root.stored_rules() == [f"/virtstorage(/.*)? {IMAGE}"]
    assert set(root.labels("/virtstorage").values()) == {NEW}
    assert _judge(root, "/virtstorage") == []
    rules, labels = journald.told()
    assert rules["SVIRT_FCONTEXT"] == [f"/virtstorage(/.*)? a {IMAGE}".encode()]
    assert labels["SVIRT_FILES"] == [b"7"]
    assert labels["SVIRT_PATH"] == [b"/virtstorage"]
    assert rules["SVIRT_ID"] == labels["SVIRT_ID"] == [applied.report["id"].encode()]

    again = root.run("storage", "apply", "/virtstorage")
    assert again.code == 0
    assert "nothing was to be done" in again.out
    assert journald.told() == []
    assert root.run("storage", "plan", "/virtstorage", "--exit-code").code == 0
    assert len(list(root.journal.glob("*.journal"))) == 1

    undone = root.run("storage", "undo")
    assert undone.code == 0
    assert [message["SVIRT_OUTCOME"] for message in journald.told()] == [[b"done"]]
    assert root.labels("/virtstorage") == before
    assert root.local_rules() == root.stored_rules() == []
    assert root.run("storage", "undo").code == 2


POOLS = """
<node>
  <pool type='dir'><name>plain</name><target><path>/var/lib/libvirt/images</path></target></pool>
  <pool type='dir'><name>away</name><target><path>/srv/away</path></target></pool>
  <pool type='logical'><name>lv</name><source><name>vg0</name></source>
    <target><path>/dev/vg0</path></target>
    <volume type='block'><name>one</name><capacity>1</capacity></volume>
    <volume type='block'><name>inactive</name><capacity>1</capacity></volume></pool>
  <pool type='rbd'><name>ceph</name><source><host name='h'/><name>p</name></source></pool>
</node>"""


def test_pools(images, tmp_path):
    """libvirt's own answer for each sort of pool, by its test driver."""
    require_module("libvirt", package="python3-libvirt")
    (tmp_path / "node.xml").write_text(POOLS)
    images.fill("/dev/vg0/x")
    os.mknod(images.path("/dev/vg0/one"), 0o600 | stat.S_IFBLK, os.makedev(7, 250))

    def plan(name, *more):
        words = ("-c", f"test://{tmp_path}/node.xml", "--format", "json", "storage", "plan")
        return images.run(*words, "--pool", name, *more)

    assert plan("plain").report["files"]["checked"] == 5
    both = plan("lv", IMAGES)
    assert both.code == 3
    assert [rule["pattern"] for rule in both.report["rules"]] == [f"{IMAGES}(/.*)?", "/dev/vg0/one"]
    assert both.report["rules"][1]["kind"] == "b"
    assert "/dev/vg0/inactive" in both.err
    for name in ("ceph", "away", "nope"):
        refused = plan(name)
        assert (refused.code, refused.out) == (2, "")
        assert "pool" in refused.err


def test_several_processes_plan_the_same(images):
    for number in range(40):
        images.fill(f"{IMAGES}/many{number}/a.img")
    plans = [
        images.run("--format", "json", "storage", "plan", IMAGES, "--jobs", jobs).report
        for jobs in (1, 3)
    ]
    for made in plans:
        made["changes"].sort(key=lambda change: change["path"])
    assert plans[0] == plans[1]
    assert plans[0]["files"]["to_change"] == 85


@pytest.mark.slow
def test_a_local_rule_is_replaced_in_its_place_and_put_back(root):
    root.fill("/virtstorage/a.img")
    assert root.run("storage", "apply", "/virtstorage", "--for", "content").code == 0
    root.fill("/other/x")
    assert root.run("storage", "apply", "/other").code == 0
    before = root.local_rules()
    assert root.run("storage", "apply", "/virtstorage").code == 0
    assert root.local_rules()[0] == f"/virtstorage(/.*)? {IMAGE}"
    assert label_of(root.path("/virtstorage/a.img")) == NEW
    assert root.run("storage", "undo").code == 0
    assert root.local_rules() == before


@pytest.mark.slow
def test_the_administrator_s_own_rules_for_parts_stay_stronger(root):
    """libsemanage puts a new rule last, where it wins over all patterns before it."""
    root.fill("/pool/iso/a.iso", "/pool/keep/k", "/pool/b.img", "/other/x")
    words = ("storage", "apply")
    assert root.run(*words, "/pool/iso", "--for", "content").code == 0
    keep = LocalRule("/pool/keep(/.*)?", "a", "<<none>>")
    last = LocalRule("/oth.*", "a", IMAGE)
    RuleStore(str(root.folder), "default").change([keep, last])
    before, labels = root.local_rules(), root.labels("/pool")
    planned = root.run("--format", "json", "storage", "plan", "/pool")
    assert planned.report["files"]["to_change"] == 2
    shadows = planned.report["rules"][0]["shadowed_by"]
    assert [shadow["pattern"] for shadow in shadows] == ["/pool/keep(/.*)?", "/pool/iso(/.*)?"]
    assert "semanage fcontext -a -t '<<none>>' '/pool/keep(/.*)?'" in planned.report["commands"]

    assert root.run(*words, "/pool").code == 0
    assert root.local_rules() == root.stored_rules() == [f"/pool(/.*)? {IMAGE}", *before]
    assert label_of(root.path("/pool/b.img")) == NEW
    assert label_of(root.path("/pool/keep/k")) is None
    content = b"system_u:object_r:virt_content_t:s0\0"
    assert label_of(root.path("/pool/iso/a.iso")) == content
    assert _judge(root, "/pool") == []
    assert "nothing was to be done" in root.run(*words, "/pool").out
    assert root.run("storage", "undo").code == 0
    assert (root.local_rules(), root.labels("/pool")) == (before, labels)


@pytest.mark.slow
def test_a_commit_that_was_cut_off_is_finished(root):
    """The store has the rule, and the policy's files do not yet."""
    root.fill("/virtstorage/a.img")
    assert root.run("storage", "apply", "/virtstorage").code == 0
    contexts = root.path("/etc/selinux/default/contexts/files")
    (contexts / "file_contexts.local").unlink()
    (contexts / "file_contexts.local.bin").unlink()
    assert root.run("storage", "apply", "/virtstorage").code == 0
    assert root.local_rules() == [f"/virtstorage(/.*)? {IMAGE}"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["virtstorage"], "relative"),
        (["/gone"], "no such file"),
        (["/var/lib/libvirt/images(/.*)?"], "looks like a regular expression"),
        (["/virt\nstorage"], "newline"),
        (["/etc/libvirt"], "belongs to the system"),
        ([IMAGES, "--type", "nosuch_t"], "no type 'nosuch_t'"),
        ([IMAGES, "--type", "etc_t"], "no type for storage of guests"),
        ([IMAGES, "--range", "s9"], "s9"),
        ([IMAGES, "--range", "s0:c2000"], "c2000"),
        ([f"{IMAGES}/a.img", "--kind", "d"], "kind"),
        ([], "nothing is named"),
    ],
)
def test_what_is_refused(images, words, said):
    outcome = images.run("storage", "apply", *words)
    assert outcome.code == 2
    assert said in outcome.err
    assert set(images.labels(IMAGES).values()) == {None}


@pytest.mark.parametrize(
    ("type_", "purpose", "taken"),
    [
        # Its name says that it is one for guests, and the policy lets them do nothing with it.
        ("virt_home_t", "images", False),
        # By Debian's policy guests write to it, though no list of ours knows it.
        pytest.param("svirt_tmp_t", "images", True, marks=pytest.mark.slow),
        pytest.param("virt_cache_t", "images", True, marks=pytest.mark.slow),
        # They only read these; libvirt may take the label off none of them.
        pytest.param("public_content_rw_t", "images", False, marks=pytest.mark.slow),
        pytest.param("public_content_t", "content", True, marks=pytest.mark.slow),
        pytest.param("httpd_sys_content_t", "content", False, marks=pytest.mark.slow),
    ],
)
def test_the_policy_tells_which_types_guests_can_use(images, type_, purpose, taken):
    outcome = images.run("storage", "plan", IMAGES, "--type", type_, "--for", purpose)
    assert (outcome.code == 0) == taken, outcome.err
    if not taken:
        assert "guests may not" in outcome.err
        assert images.run("storage", "plan", IMAGES, "--type", type_, "--any-type").code == 0


def test_what_is_known_of_types_counts_where_no_policy_tells(images):
    for policy in images.path("/etc/selinux/default/policy").iterdir():
        policy.write_bytes(b"none")
    assert images.run("storage", "plan", IMAGES, "--type", "virt_home_t").code == 0
    refused = images.run("storage", "plan", IMAGES, "--type", "etc_t")
    assert (refused.code, "no type for storage" in refused.err) == (2, True)


def test_what_belongs_to_another_service(root):
    root.fill("/var/lib/postgresql/data")
    outcome = root.run("storage", "apply", "/var/lib/postgresql")
    assert outcome.code == 2
    assert "postgresql" in outcome.err
    planned = root.run("--format", "json", "storage", "plan", "/var/lib/postgresql")
    assert planned.report["rules"][0]["replaces"].startswith("postgresql")


def test_no_symbolic_link_is_followed(images):
    os.symlink("/etc", images.path("/link"))
    os.symlink("libvirt/images", images.path("/var/lib/vm"))
    for path, target in (("/link", "/etc"), ("/link/passwd", "/etc"), ("/var/lib/vm", IMAGES)):
        outcome = images.run("storage", "apply", path)
        assert outcome.code == 2
        assert "symbolic link" in outcome.err
        assert f"'{target}'" in outcome.err


class TestInUse:
    def test_by_a_process(self, images):
        path = images.path(f"{IMAGES}/a.img")
        with (
            path.open("rb") as held,
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()]) as user,
        ):
            outcome = images.run("--format", "json", "storage", "apply", IMAGES)
            user.communicate()
        assert outcome.code == 0
        (kept,) = outcome.report["kept"]
        assert f"process {user.pid}" in kept["reason"]
        assert label_of(path) is None
        assert label_of(images.path(f"{IMAGES}/in/d.img")) == NEW

    def test_by_a_guest_under_another_name(self, images, tmp_path):
        path = images.path(f"{IMAGES}/a.img")
        other = tmp_path / "other.img"
        os.link(path, other)
        document = tmp_path / "guest.xml"
        document.write_text(guest("web", "s0:c1,c2", disks=[disk(str(other))]))
        set_label(path, "system_u:object_r:default_t:s0")
        outcome = images.run("--format", "json", "storage", "apply", IMAGES, "--xml", document)
        assert [kept["reason"].split(" runs")[0] for kept in outcome.report["kept"]] == [
            "guest web"
        ]
        assert label_of(path) == b"system_u:object_r:default_t:s0\0"

    def test_by_libvirts_count(self, images):
        path = images.path(f"{IMAGES}/a.img")
        os.setxattr(path, relabel.REFERENCES, b"1\0")
        outcome = images.run("--format", "json", "storage", "apply", IMAGES, "--force")
        assert "libvirt counts '1' users" in outcome.report["kept"][0]["reason"]
        assert label_of(path) is None


def test_the_label_of_a_guest_stays_unless_forced(images):
    path = images.path(f"{IMAGES}/a.img")
    set_label(path, GUEST)
    outcome = images.run("--format", "json", "storage", "apply", IMAGES)
    assert outcome.report["files"]["kept"] == 1
    assert label_of(path) == GUEST.encode() + b"\0"
    assert images.run("storage", "apply", IMAGES, "--force").code == 0
    assert label_of(path) == NEW
    assert images.run("storage", "undo").code == 0
    assert label_of(path) == GUEST.encode() + b"\0"


def test_customizable_types_of_fedora(images):
    types = images.path("/etc/selinux/default/contexts/customizable_types")
    types.write_text(types.read_text() + "svirt_image_t\n")
    path = images.path(f"{IMAGES}/a.img")
    set_label(path, "system_u:object_r:svirt_image_t:s0")
    images.run("storage", "apply", IMAGES)
    assert label_of(path) == b"system_u:object_r:svirt_image_t:s0\0"


def test_user_role_and_range_stay(images):
    path = images.path(f"{IMAGES}/a.img")
    set_label(path, "staff_u:object_r:default_t:s0:c7")
    images.run("storage", "apply", IMAGES)
    assert label_of(path) == b"staff_u:object_r:virt_image_t:s0:c7\0"
    assert _judge(images, IMAGES) == []


def test_a_hard_link_to_what_belongs_elsewhere_stays(images):
    secret = images.path("/etc/shadow")
    secret.touch()
    set_label(secret, "system_u:object_r:shadow_t:s0")
    os.link(secret, images.path(f"{IMAGES}/innocent.img"))
    images.run("storage", "apply", IMAGES)
    assert label_of(secret) == b"system_u:object_r:shadow_t:s0\0"


def test_equivalent_paths_get_the_rule_of_the_other(root):
    root.fill("/vm2/a.img")
    subs = root.path("/etc/selinux/default/contexts/files/file_contexts.subs")
    subs.write_text("/vm2 /virtstorage\n")
    planned = root.run("--format", "json", "storage", "plan", "/vm2")
    assert planned.report["rules"][0]["pattern"] == "/virtstorage(/.*)?"
    assert planned.report["changes"][0]["path"] == "/vm2"


def test_what_was_changed_since_is_not_undone(images):
    images.run("storage", "apply", IMAGES)
    path = images.path(f"{IMAGES}/a.img")
    set_label(path, GUEST)
    replaced = images.path(f"{IMAGES}/b c.qcow2")
    replaced.rename(images.path("/aside"))
    replaced.touch()
    images.path(f"{IMAGES}/in/d.img").unlink()
    outcome = images.run("--format", "json", "storage", "undo")
    assert outcome.code == 3
    _holds("storage-undo", outcome)
    assert outcome.report["kept_count"] == 2
    assert outcome.report["files_gone"] == 1
    assert label_of(path) == GUEST.encode() + b"\0"
    set_label(path, IMAGE)
    images.path("/aside").rename(replaced)
    assert images.run("storage", "undo").code == 0
    assert label_of(path) is None
    assert label_of(replaced) is None


def test_only_one_at_a_time(images):
    with Journals(str(images.journal)):
        outcome = images.run("storage", "apply", IMAGES)
    assert outcome.code == 4
    assert "another svirt-label" in outcome.err
    assert set(images.labels(IMAGES).values()) == {None}


@pytest.mark.slow
def test_a_store_that_another_program_holds(root):
    root.fill("/virtstorage/a.img")
    lock = root.path("/var/lib/selinux/default/semanage.trans.LOCK")
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        outcome = root.run("storage", "apply", "/virtstorage")
    assert outcome.code == 4
    assert "locked by another program" in outcome.err
    assert label_of(root.path("/virtstorage/a.img")) is None


@pytest.mark.parametrize("room", [0, 3000])
def test_no_room_for_the_journal(images, monkeypatch, room):
    """A limit on the size of files stands for a full disk: writes fail half way."""
    monkeypatch.setattr(relabel, "_BATCH", 8)
    images.fill(*(f"{IMAGES}/{number:03}.img" for number in range(200)))
    before = images.labels(IMAGES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        outcome = images.run("storage", "apply", IMAGES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "journal" in outcome.err
    changed = sum(label == NEW for label in images.labels(IMAGES).values())
    if room:
        assert outcome.code == 5
        assert 0 < changed < 200
        assert f"{changed} labels were changed" in outcome.err
    else:
        assert outcome.code == 4
        assert changed == 0
    assert images.run("storage", "undo").code == (0 if room else 2)
    assert images.labels(IMAGES) == before
    assert images.run("storage", "apply", IMAGES).code == 0
    assert set(images.labels(IMAGES).values()) == {NEW}


def test_several_processes_do_the_same(images, monkeypatch):
    monkeypatch.setattr(relabel, "_BATCH", 16)
    images.fill(*(f"{IMAGES}/d{number:02}/{n}.img" for number in range(60) for n in range(5)))
    outcome = images.run("--format", "json", "storage", "apply", IMAGES, "--jobs", "3")
    assert outcome.code == 0
    assert outcome.report["files_changed"] == outcome.report["files"]["checked"] == 365
    assert set(images.labels(IMAGES).values()) == {NEW}
    assert images.run("storage", "undo").code == 0
    assert set(images.labels(IMAGES).values()) == {None}


def test_where_selinux_is_off_nothing_is_done_in_silence(tmp_path):
    (tmp_path / "vm").mkdir()
    outcome = run("storage", "apply", tmp_path / "vm", "--journal", tmp_path / "journal")
    assert outcome.code == 4
    assert "--offline" in outcome.err


def _elsewhere(root, mount, *words):
    """Run a command with something mounted on the images, in a namespace of its own."""
    program = [sys.executable, "-m", "svirtlib.cli", *root.options(*words)]
    script = f'{mount} && shift && exec "$@"'
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(root.path(IMAGES)), *program],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_a_read_only_file_system(images):
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'
    outcome = _elsewhere(images, mount, "storage", "apply", IMAGES)
    assert outcome.returncode == 4
    assert "read-only" in outcome.stderr
    assert set(images.labels(IMAGES).values()) == {None}


@pytest.mark.slow
def test_a_file_system_without_labels(images):
    mount = 'mount -t ramfs none "$1" && touch "$1/a.img"'
    planned = _elsewhere(images, mount, "storage", "plan", IMAGES)
    assert planned.returncode == 0
    assert "carries no labels" in planned.stdout
    applied = _elsewhere(images, mount, "storage", "apply", IMAGES)
    assert applied.returncode == 4
    assert "carries no labels" in applied.stderr


@pytest.mark.slow
def test_a_part_that_cannot_be_labelled_is_no_success(images):
    mount = 'mount -t ramfs none "$1/in"'
    applied = _elsewhere(images, mount, "storage", "apply", f"{IMAGES}/a.img", f"{IMAGES}/in")
    assert applied.returncode == 3
    assert "carries no labels" in applied.stderr
    assert label_of(images.path(f"{IMAGES}/a.img")) == NEW


def test_a_range_is_written_in_canonical_form(images):
    planned = images.run(
        "--format", "json", "storage", "plan", IMAGES, "--for", "content", "--range", "s0:c2,c1,c0"
    )
    assert planned.report["rules"][0]["context"] == "system_u:object_r:virt_content_t:s0:c0.c2"


@pytest.mark.slow
def test_another_file_system_below_is_left_out(images):
    mount = 'mount -t tmpfs none "$1/in" && touch "$1/in/x.img"'
    left = _elsewhere(images, mount, "storage", "plan", IMAGES)
    assert f"{IMAGES}/in is another file system and was left out" in left.stderr
    assert "x.img" not in left.stdout
    taken = _elsewhere(images, mount, "storage", "plan", IMAGES, "--cross-filesystems")
    assert f"{IMAGES}/in/x.img" in taken.stdout


_SWAPPER = """
import os, sys
top, outside = sys.argv[1:]
print("ready", flush=True)
while True:
    for number in range(20):
        one, aside = f"{top}/d{number}", f"{top}/aside{number}"
        os.rename(one, aside)
        os.symlink(outside, one)
        os.unlink(one)
        os.rename(aside, one)
        os.rename(f"{one}/0.img", f"{one}/swap")
        os.symlink(f"{outside}/secret", f"{one}/0.img")
        os.unlink(f"{one}/0.img")
        os.rename(f"{one}/swap", f"{one}/0.img")
"""


@pytest.mark.parametrize("turns", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_nobody_leads_it_astray(images, tmp_path, turns):
    """Folders and files are swapped for links that lead out of the tree while it works."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    images.fill(*(f"{IMAGES}/d{number}/{n}.img" for number in range(20) for n in range(20)))
    words = [sys.executable, "-c", _SWAPPER, str(images.path(IMAGES)), str(outside)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as swapper:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        try:
            for _ in range(turns):
                outcome = images.run("storage", "apply", IMAGES, "--jobs", "1")
                assert outcome.code in (0, 3)
                outcome = images.run("storage", "undo")
                assert outcome.code in (0, 2, 3)
        finally:
            swapper.kill()
    assert label_of(outside) is None
    assert label_of(outside / "secret") is None


_KILLED = """
import sys
from svirtlib.backends import relabel
from svirtlib.cli.main import main
relabel._BATCH = 32
print("ready", flush=True)
sys.exit(main(sys.argv[1:]))
"""


def _state_when_killed(root, words, *, seconds):
    """Run a command until it is killed; return how far it came: rule, some labels, all of them."""
    command = [sys.executable, "-c", _KILLED, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        try:
            victim.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            victim.kill()
    _wait_for_lock(root)
    labels = root.labels("/virtstorage").values()
    return bool(root.stored_rules()), NEW in labels, set(labels) == {NEW}


@pytest.mark.slow
@pytest.mark.parametrize("end", ["apply", "undo"])
def test_killed_at_any_moment(root, end):
    """Whenever it is killed, apply completes or undo returns to how it was."""
    root.fill(*(f"/virtstorage/d{number:02}/{n}.img" for number in range(40) for n in range(40)))
    set_label(root.path("/virtstorage/d00/0.img"), "system_u:object_r:default_t:s0")
    before = root.labels("/virtstorage"), root.local_rules()
    words = root.options("storage", "apply", "/virtstorage", "--jobs", "2")
    states = set()
    # Spread over the time that a whole run takes: loading, committing the rule, labelling.
    for turn in range(6):
        states.add(_state_when_killed(root, words, seconds=0.1 + turn * 0.3))
        if end == "apply":
            assert root.run("storage", "apply", "/virtstorage").code == 0
            assert set(root.labels("/virtstorage").values()) == {NEW}
            assert root.local_rules() == root.stored_rules() == [f"/virtstorage(/.*)? {IMAGE}"]
        assert root.run("storage", "undo").code in (0, 2)
        assert (root.labels("/virtstorage"), root.local_rules()) == before
        assert root.stored_rules() == []
    assert len(states) > 1, "it was always killed at the same point"


@pytest.mark.slow
@pytest.mark.parametrize("end", ["apply", "undo"])
def test_undo_killed_at_any_moment(root, end):
    """Whenever undo is killed, undoing again returns to how it was, or apply completes."""
    root.fill(*(f"/virtstorage/d{number:02}/{n}.img" for number in range(40) for n in range(40)))
    set_label(root.path("/virtstorage/d00/0.img"), "system_u:object_r:default_t:s0")
    before = root.labels("/virtstorage"), root.local_rules()
    words = root.options("storage", "undo")
    states = set()
    for turn in range(6):
        assert root.run("storage", "apply", "/virtstorage").code == 0
        states.add(_state_when_killed(root, words, seconds=0.1 + turn * 0.25))
        if end == "apply":
            assert root.run("storage", "apply", "/virtstorage").code == 0
            assert set(root.labels("/virtstorage").values()) == {NEW}
            assert root.local_rules() == root.stored_rules() == [f"/virtstorage(/.*)? {IMAGE}"]
        # Each change that is still known, the last one first.
        while root.run("storage", "undo").code == 0:
            pass
        assert (root.labels("/virtstorage"), root.local_rules()) == before
        assert root.stored_rules() == []
    assert len(states) > 1, "it was always killed at the same point"


@pytest.mark.slow
def test_two_at_once(root):
    """Of two that are started together each does its work, or is told that the other does."""
    root.fill(*(f"/virtstorage/d{number:02}/{n}.img" for number in range(40) for n in range(40)))
    code = "import sys; from svirtlib.cli.main import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *root.options("storage", "apply", "/virtstorage")]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(process.communicate()[1], process.returncode) for process in both]
    assert 0 in [status for _, status in ends]
    for said, status in ends:
        assert status == 0 or (status == 4 and "another svirt-label" in said), said
    assert set(root.labels("/virtstorage").values()) == {NEW}
    assert root.local_rules() == root.stored_rules() == [f"/virtstorage(/.*)? {IMAGE}"]
    assert root.run("storage", "undo").code == 0
    assert set(root.labels("/virtstorage").values()) == {None}


@pytest.mark.parametrize(
    "words",
    [
        ("storage", "apply", IMAGES, "--offline"),
        ("storage", "undo"),
        ("image", "restore", f"{IMAGES}/a.img", "--offline"),
    ],
)
def test_another_user_than_root_is_told(words, tmp_path):
    # Once as root: it loads what the verb imports.
    run(*words, "--root", tmp_path, "--journal", tmp_path / "other")
    with as_nobody():
        outcome = run(*words, "--root", tmp_path, "--journal", tmp_path / "journal")
    assert outcome.code == 4
    assert "run as root" in outcome.err


def _wait_for_lock(root):
    """Wait until the last process of the one that was killed is gone."""
    with (root.journal / "lock").open("ab") if root.journal.exists() else open(os.devnull) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_undo_list(images):
    images.run("storage", "apply", IMAGES)
    images.run("storage", "undo")
    outcome = images.run("--format", "json", "storage", "undo", "--list")
    _holds("storage-changes", outcome)
    (change,) = outcome.report["changes"]
    assert (change["state"], change["paths"]) == ("undone", [IMAGES])
    assert images.run("storage", "undo", change["id"]).code == 2
    assert images.run("storage", "undo", "nonsense").code == 2


def test_block_devices(root, tmp_path):
    """One that the host does not use gets a rule of its kind; one it has mounted, none."""
    device = tmp_path / "disk"
    os.mknod(device, 0o60600, os.makedev(7, 199))
    os.mknod(root.path("/disk"), 0o60600, os.makedev(7, 199))
    planned = root.run("--format", "json", "storage", "plan", "/disk")
    assert planned.code == 0
    (rule,) = planned.report["rules"]
    assert (rule["pattern"], rule["kind"]) == ("/disk", "b")
    assert "semanage fcontext -a -f b -t virt_image_t /disk" in planned.report["commands"]
    mounted = next(mount for mount in read_mounts() if not mount.device.startswith("0:"))
    node = tmp_path / "mounted"
    major, _, minor = mounted.device.partition(":")
    os.mknod(node, 0o60600, os.makedev(int(major), int(minor)))
    outcome = run("storage", "plan", node)
    assert outcome.code == 2
    assert "mounted on" in outcome.err
