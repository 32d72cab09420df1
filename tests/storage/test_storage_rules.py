"""storage-no-rule and storage-boolean: what is gathered here, and what is made of it."""

from __future__ import annotations

import os
import subprocess

import pytest
from attr import evolve
from checkrun import check
from needs import require

from svirtlib.backends import storagefacts
from svirtlib.backends.mounts import read_mounts
from svirtlib.checks import run_checks, select_checks
from svirtlib.domainxml import parse_document
from svirtlib.guests import BooleanState, FileLabel, Inventory, PathRule
from svirtlib.snapshot import dump_snapshot, load_snapshot

POLICY = "/etc/selinux/default/contexts/files/file_contexts"
IMAGE = "system_u:object_r:virt_image_t:s0"


def _domain(path, *, name="web01", extra="", seclabel=""):
    return f"""<domain type='kvm'><name>{name}</name><devices>
      <disk type='file' device='disk'><driver type='raw'/><source file='{path}'/>{extra}
      <target dev='vda'/></disk></devices>{seclabel}</domain>"""


def _inventory(*documents, **options):
    text = f"<node>{''.join(documents)}</node>".encode()
    guests = tuple(parse_document(text, "virsh dumpxml"))
    return Inventory(guests=guests, files_known=True, **options)


def _findings(rule, inventory):
    # What a snapshot keeps must be enough.
    again = load_snapshot(dump_snapshot(inventory).encode(), "snapshot")
    assert again == inventory
    return run_checks(again, select_checks([rule])).findings


def _ruled(path, context, **options):
    rule = PathRule(context, "/.*", "file_contexts:1", **options)
    return FileLabel(path, path, IMAGE, rule=rule, filesystem="ext4")


@pytest.mark.parametrize(
    ("context", "extra", "found"),
    [
        ("system_u:object_r:default_t:s0", "", True),
        ("system_u:object_r:var_lib_t:s0", "", True),
        (IMAGE, "", False),
        ("system_u:object_r:virt_content_t:s0", "", False),
        ("system_u:object_r:qemu_var_run_t:s0", "", False),
        ("system_u:object_r:usr_t:s0", "", True),
        ("system_u:object_r:usr_t:s0", "<readonly/>", False),
        ("system_u:object_r:default_t:s0", "<readonly/>", True),
        ("nonsense", "", False),
    ],
)
def test_a_rule_suits_images_or_is_told(context, extra, found):
    inventory = _inventory(_domain("/v/a", extra=extra), files=(_ruled("/v/a", context),))
    findings = _findings("storage-no-rule", inventory)
    assert bool(findings) == found
    for finding in findings:
        assert finding.paths == ("/v/a",)
        assert finding.guests == ("web01",)
        assert "svirt-label storage apply /v" in finding.remedy


def test_images_with_one_cause_are_one_finding_and_a_shadowed_rule_is_named():
    files = tuple(
        _ruled(f"/v/{n}/a", "u:object_r:etc_t:s0", shadowed="/v(/.*)? (file_contexts.local:1)")
        for n in range(6)
    )
    domains = [_domain(f"/v/{n}/a", name=f"g{n}") for n in range(6)]
    (finding,) = _findings("storage-no-rule", _inventory(*domains, files=files))
    assert len(finding.paths) == len(finding.guests) == 6
    assert "although the rule /v(/.*)? (file_contexts.local:1)" in finding.message
    assert "semanage fcontext -d '/.*'" in finding.remedy


@pytest.mark.parametrize(
    "label",
    [
        FileLabel("/v/a", "1", IMAGE),
        evolve(_ruled("/v/a", "u:object_r:etc_t:s0"), labelable=False),
        _ruled("/other", "u:object_r:etc_t:s0"),
    ],
)
def test_without_a_rule_that_counts_nothing_is_said(label):
    assert _findings("storage-no-rule", _inventory(_domain("/v/a"), files=(label,))) == ()


def test_a_guest_without_selinux_is_not_concerned():
    domain = _domain("/v/a", seclabel="<seclabel type='none' model='selinux'/>")
    nfs = FileLabel("/v/a", "1", "u:object_r:nfs_t:s0", labelable=False, filesystem="nfs")
    off = (BooleanState("virt_use_nfs", False),)
    inventory = _inventory(domain, files=(nfs,), booleans=off)
    assert _findings("storage-boolean", inventory) == ()
    inventory = _inventory(domain, files=(_ruled("/v/a", "u:object_r:etc_t:s0"),))
    assert _findings("storage-no-rule", inventory) == ()


@pytest.mark.parametrize(
    ("filesystem", "label", "states", "says"),
    [
        ("nfs4", "nfs_t", {"virt_use_nfs": False}, "virt_use_nfs is off"),
        ("nfs4", "nfs_t", {"virt_use_nfs": True}, ""),
        ("nfs4", "nfs_t", {"virt_use_nfs": None}, "virt_use_nfs does not exist"),
        ("cifs", "cifs_t", {"virt_use_samba": False}, "virt_use_samba is off"),
        ("fuse.sshfs", "fusefs_t", {"virt_use_fusefs": False}, "virt_use_fusefs is off"),
        ("nfs4", "virt_image_t", {"virt_use_nfs": False}, ""),
        ("nfs4", "nfs_t", {}, ""),
        ("vfat", "dosfs_t", {"virt_use_nfs": False}, ""),
    ],
)
def test_a_boolean_that_is_missed_is_told(filesystem, label, states, says):
    context = f"system_u:object_r:{label}:s0"
    file = FileLabel("/v/a", "1", context, labelable=False, filesystem=filesystem)
    booleans = tuple(BooleanState(name, state) for name, state in states.items())
    inventory = _inventory(_domain("/v/a"), files=(file,), booleans=booleans)
    findings = _findings("storage-boolean", inventory)
    assert [says in finding.message for finding in findings] == [True] * bool(says)
    for finding in findings:
        assert ("setsebool" in finding.remedy) == (booleans[0].active is False)


def test_a_file_system_that_carries_labels_needs_no_boolean():
    file = FileLabel("/v/a", "1", IMAGE, filesystem="nfs4")
    off = (BooleanState("virt_use_nfs", False),)
    assert (
        _findings("storage-boolean", _inventory(_domain("/v/a"), files=(file,), booleans=off)) == ()
    )


def _policy():
    require(os.path.exists(POLICY), "no policy (Debian package selinux-policy-default)")


def test_the_policy_of_this_machine_is_asked_where_its_files_are_looked_at(tmp_path):
    _policy()
    # The rules leave /tmp alone.
    folder = tmp_path / "x"
    folder.mkdir()
    image = folder / "a.img"
    image.touch()
    document = tmp_path / "web01.xml"
    document.write_text(_domain(image))
    assert check("--xml", document, "--files", "--only", "storage-no-rule").findings == []
    document.write_text(_domain(POLICY))
    outcome = check("--xml", document, "--files", "--only", "storage-no-rule")
    assert outcome.code == 1
    (finding,) = outcome.findings
    assert finding["labels"] == ["system_u:object_r:file_context_t:s0"]
    # Its folder is the system's: only the file itself may be named.
    assert f"storage plan {POLICY}`" in finding["remedy"]
    outcome = check("--xml", document, "--only", "storage-no-rule")
    assert [entry["rule"] for entry in outcome.report["not_run"]] == ["storage-no-rule"]


@pytest.mark.root
def test_a_healthy_pool_is_silent_and_a_link_is_judged_where_it_leads(tmp_path):
    _policy()
    pool = "/var/lib/libvirt/images"
    made = not os.path.isdir(pool)
    os.makedirs(pool, exist_ok=True)
    image = f"{pool}/svirt-label-test-{os.getpid()}.img"
    link = tmp_path / "link.img"
    try:
        with open(image, "wb"):
            pass
        link.symlink_to(image)
        document = tmp_path / "web01.xml"
        document.write_text(_domain(image) + "\n")
        assert check("--xml", document, "--files", "--only", "storage-no-rule").code == 0
        (label,) = storagefacts.with_storage(
            Inventory(files=(FileLabel(str(link), "1", None),), files_known=True)
        ).files
        assert label.rule is not None
        assert label.rule.context == IMAGE
    finally:
        os.unlink(image)
        if made:
            os.removedirs(pool)


@pytest.mark.root
def test_the_file_system_is_the_one_that_is_mounted_there(tmp_path):
    _policy()
    done = subprocess.run(
        ["mount", "-t", "ramfs", "none", tmp_path], capture_output=True, check=False
    )
    require(done.returncode == 0, f"no mounts here: {done.stderr!r}")
    try:
        image = tmp_path / "a b.img"
        image.touch()
        label = FileLabel(str(image), "1", None, labelable=False)
        found = storagefacts.with_storage(Inventory(files=(label,), files_known=True))
        assert found.files[0].filesystem == "ramfs"
        assert found.booleans == ()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_the_policys_own_state_of_a_boolean_counts(monkeypatch, tmp_path):
    _policy()
    require(not os.path.isdir("/sys/fs/selinux/booleans"), "SELinux runs here")
    image = tmp_path / "a.img"
    image.touch()
    label = FileLabel(str(image), "1", None, labelable=False)
    # No file server is at hand: the mount is taken for one, the policy is asked in earnest.
    real = read_mounts()
    monkeypatch.setattr(
        storagefacts, "read_mounts", lambda: tuple(evolve(mount, kind="nfs4") for mount in real)
    )
    found = storagefacts.with_storage(Inventory(files=(label,), files_known=True))
    assert found.booleans == (BooleanState("virt_use_nfs", False),)
