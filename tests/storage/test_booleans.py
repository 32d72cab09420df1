"""``audit --apply-booleans`` on a real policy store; what libsepol reads of it is the judge."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
from pathlib import Path

import pytest
from checkrun import run
from hosttree import HostTree
from jsonschema import Draft202012Validator

import svirtlib
from svirtlib.backends.changes import Journals
from svirtlib.backends.policy import open_policy
from svirtlib.backends.rulestore import BooleanStore, LocalBoolean

pytestmark = pytest.mark.root

NAS = "nas:/vms /srv/vms nfs4 {} 0 0\n"
GUEST = (
    "<domain type='kvm'><name>{}</name><devices><disk type='file'><source file='/srv/vms/{}.img'/>"
    "<target dev='vda'/></disk>{}</devices></domain>"
)
SERIAL = "<serial type='dev'><source path='/dev/ttyS0'/></serial>"


@pytest.fixture
def host(root):
    """A host with Debian's policy and two guests on NFS, one of which has a serial port."""
    tree = HostTree(root.folder)
    tree.put("/etc/fstab", NAS.format("sec=krb5p"))
    tree.domains(GUEST.format("web", "web", SERIAL) + GUEST.format("db", "db", ""))
    return root


def audit(host, *words):
    journal = () if "plan" in words else ("--journal", host.journal)
    return run(
        "--format", "json", "audit", "--root", host.folder, *journal, "--apply-booleans", *words
    )


def stored(host):
    """What the next boot would load: the booleans of the installed policy that are on."""
    (path,) = host.path("/etc/selinux/default/policy").glob("policy.*")
    with open_policy(str(path)) as policy:
        return {name for name, on in policy.booleans().items() if on and name.startswith("virt")}


def local(host):
    """What the store says in place of the policy's own states."""
    path = host.path("/var/lib/selinux/default/active/booleans.local")
    return re.findall(r"^(\w+)=(\d)$", path.read_text(), re.MULTILINE) if path.exists() else []


def actions(outcome):
    rows = {one["name"]: one["action"] for one in outcome.report["booleans"]}
    return {name: action for name, action in rows.items() if action != "none"}


@pytest.mark.slow
def test_there_and_back(host):
    planned = audit(host, "plan", "--exit-code")
    assert planned.code == 1
    assert actions(planned) == {"virt_use_nfs": "turn-on", "virt_use_comm": "turn-on"}
    needs = {one["name"]: one["needs"] for one in planned.report["booleans"]}
    assert [need["guest"] for need in needs["virt_use_nfs"]] == ["db", "web"]
    assert not host.journal.exists()
    assert stored(host) == set()

    applied = audit(host, "apply")
    assert (applied.code, applied.err) == (0, "")
    assert applied.report["changed"] == {"virt_use_nfs": True, "virt_use_comm": True}
    assert stored(host) == {"virt_use_nfs", "virt_use_comm"}
    assert local(host) == [("virt_use_nfs", "1"), ("virt_use_comm", "1")]

    again = audit(host, "apply")
    assert (again.code, again.report["id"], again.report["changed"]) == (0, None, {})
    assert len(list(host.journal.glob("*.journal"))) == 1

    schema = json.loads((Path(svirtlib.__file__).parent / "schemas/booleans-1.json").read_text())
    for outcome in (planned, applied, again):
        Draft202012Validator(schema).validate(outcome.report)

    undone = audit(host, "undo")
    assert (undone.code, undone.report["booleans_restored"]) == (0, 2)
    assert (stored(host), local(host)) == (set(), [])
    assert audit(host, "undo").code == 2


@pytest.mark.slow
def test_what_was_set_before_comes_back(host):
    store = BooleanStore(str(host.folder), "default")
    store.change([LocalBoolean("virt_use_nfs", False), LocalBoolean("virt_use_usb", True)])
    assert audit(host, "apply").code == 0
    assert stored(host) == {"virt_use_nfs", "virt_use_comm", "virt_use_usb"}
    assert host.run("storage", "undo").code == 0
    assert sorted(local(host)) == [("virt_use_nfs", "0"), ("virt_use_usb", "1")]
    assert stored(host) == {"virt_use_usb"}


@pytest.mark.slow
def test_what_was_changed_since_stays(host):
    assert audit(host, "apply").code == 0
    store = BooleanStore(str(host.folder), "default")
    store.change([LocalBoolean("virt_use_nfs", False)])
    undone = host.run("--format", "json", "storage", "undo")
    assert undone.code == 3
    assert [one["path"] for one in undone.report["kept"]] == ["virt_use_nfs"]
    assert local(host) == [("virt_use_nfs", "0")]


@pytest.mark.slow
def test_what_is_on_without_need(host):
    store = BooleanStore(str(host.folder), "default")
    store.change([LocalBoolean("virt_use_xserver", True)])
    assert actions(audit(host, "plan"))["virt_use_xserver"] == "excess"
    assert audit(host, "apply").code == 0
    assert "virt_use_xserver" in stored(host)
    assert audit(host, "apply", "--excess-off").report["changed"] == {"virt_use_xserver": False}
    assert stored(host) == {"virt_use_nfs", "virt_use_comm"}
    # Without all that is mounted, nobody can tell what is not needed.
    host.path("/etc/fstab").write_bytes(b"\0")
    outcome = audit(host, "plan", "--excess-off")
    assert (outcome.code, actions(outcome)) == (3, {"virt_use_nfs": "excess"})


@pytest.mark.slow
def test_one_guest(host):
    assert audit(host, "apply", "db").report["changed"] == {"virt_use_nfs": True}
    assert audit(host, "plan", "nobody").code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "context=system_u:object_r:virt_image_t:s0",
        'context="system_u:object_r:svirt_image_t:s0:c1",hard',
        "rw,seclabel,vers=4.2",
    ],
)
def test_mounts_with_labels_need_nothing(host, options):
    host.path("/etc/fstab").write_text(NAS.format(options))
    assert "virt_use_nfs" not in actions(audit(host, "plan"))


@pytest.mark.slow
def test_a_policy_without_the_boolean(host):
    host.path("/etc/libvirt").mkdir(exist_ok=True)
    host.path("/etc/libvirt/qemu.conf").write_text('lock_manager = "sanlock"\n')
    outcome = audit(host, "plan")
    assert outcome.code == 3
    assert actions(outcome)["virt_use_sanlock"] == "missing"


@pytest.mark.slow
def test_a_store_that_another_program_holds(host):
    lock = host.path("/var/lib/selinux/default/semanage.trans.LOCK")
    with open(lock, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        outcome = audit(host, "apply")
    assert outcome.code == 4
    assert "locked by another program" in outcome.err
    assert stored(host) == set()
    assert list(host.journal.glob("*.journal")) == []
    assert audit(host, "apply").code == 0


@pytest.mark.slow
def test_only_one_at_a_time(host):
    with Journals(str(host.journal)):
        outcome = audit(host, "apply")
    assert (outcome.code, "another svirt-label" in outcome.err) == (4, True)
    assert stored(host) == set()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "behind"])
@pytest.mark.parametrize("end", ["apply", "undo"])
def test_killed_in_the_middle(host, monkeypatch, moment, end):
    """Before libsemanage begins or after its end: it is finished, or all of it taken back."""
    change = BooleanStore.change

    def killed(store, wanted):
        if moment == "behind":
            change(store, wanted)
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(BooleanStore, "change", killed)
            audit(host, "apply")
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    both = {"virt_use_nfs", "virt_use_comm"}
    assert stored(host) == (both if moment == "behind" else set())
    if end == "apply":
        assert audit(host, "apply").code == 0
        assert stored(host) == both
        assert len(list(host.journal.glob("*.journal"))) == 1
    assert audit(host, "undo").code == 0
    assert (stored(host), local(host)) == (set(), [])


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["no policy", "damaged policy", "no store"])
def test_nothing_is_done_in_silence(host, harm):
    (policy,) = host.path("/etc/selinux/default/policy").glob("policy.*")
    if harm == "no policy":
        policy.unlink()
    elif harm == "damaged policy":
        policy.write_bytes(policy.read_bytes()[:5000])
    else:
        host.path("/var/lib/selinux/default/active").rename(host.path("/var/lib/selinux/x"))
    outcome = audit(host, "apply")
    assert outcome.code == 4
    assert outcome.out == ""


@pytest.mark.slow
def test_where_selinux_is_off(host):
    host.path("/etc/selinux/config").write_text("SELINUX=disabled\nSELINUXTYPE=default\n")
    outcome = audit(host, "plan")
    assert "nothing would be enforced" in outcome.report["notes"][0]
    if not os.path.exists("/sys/fs/selinux/enforce"):
        outcome = run(
            "audit", "--root", "/", "--apply-booleans", "apply", "--journal", host.journal
        )
        assert outcome.code == 4
        assert not host.journal.exists()


@pytest.mark.parametrize(
    "words",
    [
        ["--excess-off"],
        ["--offline"],
        ["--exit-code"],
        ["--journal", "/x"],
        ["--apply-booleans", "plan", "--offline"],
        ["--apply-booleans", "undo", "--excess-off"],
        ["--apply-booleans", "now"],
        ["--apply-booleans", "--format", "sarif"],
        ["--apply-booleans", "--only", "vnc-no-auth"],
        ["--apply-booleans", "--xml", "/dev/null"],
    ],
)
def test_what_is_refused(words, tmp_path):
    outcome = run("audit", *words)
    assert outcome.code == 2
    assert outcome.out == ""
