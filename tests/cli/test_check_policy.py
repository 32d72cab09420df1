"""``check`` with a policy: each rule that it changes fires, and is silent on the healthy case."""

from __future__ import annotations

import os

import pytest
from attr import evolve
from checkrun import check, run
from smallpolicy import compile_policy
from xmlmaker import context, device_label, disk, guest, image_context

from svirtlib.backends import policy as policies
from svirtlib.backends.policyfacts import Opening, with_policy
from svirtlib.checks import run_checks, select_checks
from svirtlib.domainxml import parse_document
from svirtlib.guests import BooleanState, FileLabel, Inventory

ONLY = [
    f"--only={rule}"
    for rule in (
        "label-collision",
        "label-exposure",
        "image-exposure",
        "guest-unconfined",
        "guest-permissive",
        "label-invalid",
    )
]


@pytest.fixture(scope="module")
def mcs(tmp_path_factory):
    return compile_policy(tmp_path_factory.mktemp("mcs"))


@pytest.fixture(scope="module")
def mls(tmp_path_factory):
    return compile_policy(tmp_path_factory.mktemp("mls"), mls=True)


@pytest.fixture
def judge(tmp_path, mcs):
    folder = tmp_path / "dumps"
    folder.mkdir()

    def judge(*documents, policy=mcs, options=()):
        for old in folder.iterdir():
            old.unlink()
        for number, document in enumerate(documents):
            (folder / f"{number:03}.xml").write_text(document)
        asked = [] if policy is None else ["--policy", policy]
        outcome = check("--xml", folder, *ONLY, *asked, *options)
        assert outcome.err == ""
        # A snapshot holds what the policy said.
        snapshot = tmp_path / "snapshot.json"
        exported = run("export", "--xml", folder, *asked, "--output", snapshot)
        assert exported.code in (0, 3)
        again = check("--snapshot", snapshot, *ONLY, *options)
        assert (again.code, again.out) == (outcome.code, outcome.out)
        return outcome

    return judge


def web(name, level, type_="svirt_t", **options):
    options.setdefault("disks", [disk(f"/images/{name}.qcow2")])
    return guest(name, level, type_=type_, **options)


def labelled(name, label):
    return [disk(f"/images/{name}.qcow2", seclabels=[device_label(label)])]


def test_healthy(judge):
    outcome = judge(
        web("a", "s0:c1,c2"),
        web("b", "s0:c3,c4", how="static"),
        web("c", "s0-s0:c5,c6", how="static"),
        web("off", "s0:c7,c8", how="static", live=False),
        guest("plain", live=False),
        guest("diskless", "s0:c9,c10"),
    )
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], [], 0)
    assert outcome.report["not_run"] == []


def test_a_type_that_the_policy_does_not_bind(judge):
    """Put among the guests' domains by hand; nobody knows its name but the policy."""
    documents = [web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "own_t")]
    outcome = judge(*documents)
    assert outcome.told == [("guest-unconfined", ["b"], ["a"])]
    assert outcome.code == 1
    # Without a policy it is not decided, and that is no clean bill.
    outcome = judge(*documents, policy=None)
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], ["guest b"], 3)
    assert {"rule": "guest-permissive", "reason": "not decided: no policy; name the guests' one "
            "with --policy FILE"} in outcome.report["not_run"]  # fmt: skip


def test_a_type_of_one_s_own_that_the_policy_binds(judge):
    documents = [web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "other_t")]
    outcome = judge(*documents)
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], [], 0)
    assert judge(*documents, policy=None).code == 3


def test_a_permissive_type(judge):
    outcome = judge(web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "lax_t"))
    assert outcome.told == [("guest-permissive", ["b"], ["a"])]


def test_an_image_type_that_guests_cannot_touch_is_no_exposure(judge):
    """Three labels without categories: one that guests may write, one to read, one neither."""

    def exposed(type_):
        label = image_context("s0", type_)
        return judge(web("a", "s0:c1,c2", disks=labelled("a", label)), web("b", "s0:c3,c4"))

    assert exposed("svirt_image_t").told == [("image-exposure", ["a"], ["a"])]
    assert "read and write" in exposed("svirt_image_t").findings[0]["message"]
    assert exposed("virt_content_t").told == [("image-exposure", ["a"], ["a"])]
    assert "read and write" not in exposed("virt_content_t").findings[0]["message"]
    assert exposed("other_image_t").told == []
    assert exposed("nfs_t").told == []


def test_an_image_type_that_a_boolean_opens(judge, mcs, tmp_path):
    label = image_context("s0", "nfs_t")
    documents = [web("a", "s0:c1,c2", disks=labelled("a", label)), web("b", "s0:c3,c4")]
    assert judge(*documents).told == []
    with policies.open_policy(str(mcs)) as policy:
        opened = tmp_path / "opened"
        opened.write_bytes(policy._engine.with_booleans({"virt_use_nfs": True}))
    assert judge(*documents, policy=opened).told == [("image-exposure", ["a"], ["a"])]


def test_who_reaches_an_image_depends_on_the_guest_s_type(judge):
    """b's type may use the image, c's may not, though both dominate its level."""
    outcome = judge(
        web("a", "s0:c1,c2", disks=labelled("a", image_context("s0:c3"))),
        web("b", "s0:c3,c4"),
        web("c", "s0:c3,c5", "other_t"),
    )
    assert outcome.told == [("image-exposure", ["b"], ["a"])]


def test_contexts_that_the_policy_does_not_know(judge):
    unknown = context("s0:c3,c4", "svirt_custom_t")
    outcome = judge(web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "svirt_custom_t", how="static"))
    finding = outcome.one("label-invalid")
    assert finding["guests"] == ["b"]
    assert unknown in finding["labels"]
    assert "no type 'svirt_custom_t'" in finding["message"]
    assert judge(web("b", "s0:c3", "svirt_custom_t"), policy=None).of("label-invalid") == []
    off = judge(web("c", "s0:c5", "svirt_image_t", how="static", live=False))
    assert "system_r may not have the type" in off.one("label-invalid")["message"]


def test_baselabels_that_the_policy_does_not_know(judge):
    base = "system_u:system_r:{}:s0"
    document = guest("a", live=False)
    seclabel = "<seclabel type='dynamic' model='selinux'><baselabel>{}</baselabel></seclabel>"
    known = document.replace("</domain>", seclabel.format(base.format("own_t")) + "</domain>")
    unknown = document.replace("</domain>", seclabel.format(base.format("no_t")) + "</domain>")
    assert judge(known).told == []
    assert judge(unknown).told == [("label-invalid", ["a"], [])]


def test_mls_compares_low_levels(judge, mls):
    """The same labels: by high levels b reaches a; the MLS policy looks at its low one."""
    documents = [web("a", "s0:c1,c2"), web("b", "s0-s0:c0.c1023", how="static")]
    assert judge(*documents).told == [("label-exposure", ["b"], ["a"])]
    told = judge(*documents, policy=mls).told
    assert ("label-exposure", ["b"], ["a"]) not in told


def test_a_policy_of_the_host_that_cannot_be_read_is_a_gap(monkeypatch, tmp_path):
    """Nothing found, and yet not clean: what the policy would have said is unknown."""
    broken = tmp_path / "policy"
    broken.write_bytes(b"cut")
    monkeypatch.setattr(policies, "LOADED", str(broken))
    found = with_policy(Inventory(), Opening())
    assert found.policy is None
    assert [gap.what for gap in found.unreadable] == ["policy"]
    assert str(broken) in found.unreadable[0].reason


def test_booleans_are_those_of_the_named_policy(mcs):
    """One that the policy has, and one that it has not."""
    files = tuple(
        FileLabel(f"/{kind}", f"file {kind}", None, labelable=False, filesystem=kind)
        for kind in ("nfs4", "cifs", "ext4")
    )
    found = with_policy(
        Inventory(files=files, booleans=(BooleanState("old", True),)), Opening(str(mcs))
    )
    assert [(one.name, one.active) for one in found.booleans] == [
        ("virt_use_nfs", False),
        ("virt_use_samba", None),
    ]


def test_a_wrong_policy_ends_the_run(tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no policy")
    (tmp_path / "a.xml").write_text(web("a", "s0:c1"))
    for verb in ("check", "export"):
        outcome = run(verb, "--xml", tmp_path / "a.xml", "--policy", wrong)
        assert (outcome.code, outcome.out) == (2, "")
    outcome = run("check", "--xml", tmp_path / "a.xml", "--policy", tmp_path / "missing")
    assert (outcome.code, outcome.out) == (4, "")


def test_documents_are_not_judged_by_this_machine_s_policy(monkeypatch, mcs, tmp_path):
    monkeypatch.setattr(policies, "LOADED", str(mcs))
    (tmp_path / "a.xml").write_text(web("a", "s0:c1", "own_t"))
    outcome = check("--xml", tmp_path / "a.xml")
    assert outcome.unjudged == ["guest a"]
    # Those that were made here are.
    outcome = check("--xml", tmp_path / "a.xml", "--files", "--only=guest-unconfined")
    assert outcome.rules == ["guest-unconfined"]


@pytest.mark.root
def test_files_are_judged_by_their_real_label(mcs, tmp_path):
    image = tmp_path / "disk.qcow2"
    image.write_bytes(b"")
    document = tmp_path / "a.xml"
    document.write_text(guest("a", "s0:c1,c2", disks=[disk(str(image), format_="raw", chain=None)]))

    def told(label):
        os.setxattr(image, "security.selinux", label.encode() + b"\0")
        only = ["--only=image-exposure", "--only=label-invalid"]
        return check("--xml", document, "--files", "--policy", mcs, *only).told

    assert told(image_context("s0:c1,c2")) == []
    assert told(image_context("s0")) == [("image-exposure", ["a"], ["a"])]
    assert told(image_context("s0", "other_image_t")) == []
    assert told(image_context("s0", "unknown_t")) == [("label-invalid", ["a"], [])]


@pytest.mark.root
@pytest.mark.parametrize(
    ("type_", "label", "options", "told"),
    [
        ("svirt_t", image_context("s0:c1,c2"), {}, ""),
        ("svirt_t", image_context("s0:c1"), {}, ""),
        ("svirt_t", image_context("s0:c3"), {}, "has the level s0:c3, the guest s0:c1,c2"),
        ("svirt_t", image_context("s0", "virt_content_t"), {}, "svirt_t write files of the type"),
        ("svirt_t", image_context("s0", "virt_content_t"), {"readonly": True}, ""),
        # Only this policy knows of these two, and of the boolean.
        ("other_t", image_context("s0:c1", "other_image_t"), {}, ""),
        ("svirt_t", image_context("s0:c1", "other_image_t"), {}, "does not let svirt_t write"),
        ("svirt_t", image_context("s0", "nfs_t"), {}, "does not let svirt_t write"),
        # Not bound by categories, and yet not allowed everything.
        ("own_t", image_context("s0:c3"), {}, ""),
        ("own_t", image_context("s0:c3", "other_image_t"), {}, "does not let own_t write"),
    ],
)
def test_images_that_libvirt_does_not_relabel(mcs, tmp_path, type_, label, options, told):
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    os.setxattr(path, "security.selinux", label.encode() + b"\0")
    document = tmp_path / "a.xml"
    disks = [disk(str(path), format_="raw", chain=None, **options)]
    document.write_text(guest("a", type_=type_, how="static", relabel=False, disks=disks))
    words = ["--xml", document, "--files", "--only=relabel-off-mismatch"]
    found = check(*words, "--policy", mcs).of("relabel-off-mismatch")
    assert [finding["paths"] for finding in found] == ([[str(path)]] if told else [])
    assert all(told in finding["message"] for finding in found)


@pytest.mark.root
def test_without_a_policy_only_known_types_are_judged(monkeypatch, tmp_path):
    monkeypatch.setattr(policies, "LOADED", str(tmp_path / "loaded"))
    monkeypatch.setattr(policies, "_STORE", str(tmp_path / "etc"))
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    document = tmp_path / "a.xml"
    document.write_text(
        guest("a", how="static", relabel=False, disks=[disk(str(path), chain=None)])
    )
    for label, fires in ((image_context("s0", "nfs_t"), False), (image_context("s0:c3"), True)):
        os.setxattr(path, "security.selinux", label.encode() + b"\0")
        outcome = check("--xml", document, "--files", "--only=relabel-off-mismatch")
        assert bool(outcome.of("relabel-off-mismatch")) is fires


@pytest.mark.parametrize(
    ("type_", "label", "state", "told"),
    [
        ("svirt_t", "nfs_t", False, "the boolean virt_use_nfs is off"),
        ("svirt_t", "nfs_t", None, "the boolean virt_use_nfs does not exist"),
        # On, and of no use to a type that it does not speak of.
        ("other_t", "nfs_t", True, "does not let other_t use the type nfs_t"),
        # Open to guests by a rule that nobody knows but the policy.
        ("other_t", "other_image_t", False, ""),
        ("svirt_t", "svirt_image_t", False, ""),
        ("svirt_t", "virt_content_t", True, "does not let svirt_t use the type virt_content_t"),
    ],
)
def test_storage_without_labels_is_judged_by_policy(mcs, type_, label, state, told):
    path = "/nfs/a.img"
    found = with_policy(
        Inventory(
            guests=tuple(
                parse_document(web("a", "s0:c1,c2", type_, disks=[disk(path)]).encode(), "a.xml")
            ),
            files=(
                FileLabel(
                    path, "file 1", image_context("s0", label), labelable=False, filesystem="nfs4"
                ),
            ),
        ),
        Opening(str(mcs)),
    )
    assert found.booleans == (BooleanState("virt_use_nfs", False),)
    judged = evolve(found, files_known=True, booleans=(BooleanState("virt_use_nfs", state),))
    findings = run_checks(judged, select_checks(["storage-boolean"])).findings
    assert [told in finding.message for finding in findings] == ([True] if told else [])
