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


@pytest.fixture(scope="module")
def custom(tmp_path_factory):
    """Two domains that may use no image of these guests: one that categories bind, one not."""
    rules = """
    (type far_t) (roletype system_r far_t) (allow far_t other_image_t (file (read open)))
    (type near_t) (roletype system_r near_t) (allow near_t other_image_t (file (read open)))
    (typeattributeset mcs_constrained_type (near_t))
    (type mute_t) (roletype system_r mute_t)
    """
    return compile_policy(tmp_path_factory.mktemp("custom"), rules=rules)


@pytest.mark.parametrize("disks", [None, []])
def test_a_type_that_no_image_here_tells_about(judge, custom, disks):
    """The rest of the policy tells: it is asked what the type may do to any file at all."""
    more = {} if disks is None else {"disks": disks}
    outcome = judge(web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "far_t", **more), policy=custom)
    assert outcome.told == [("guest-unconfined", ["b"], ["a"])]
    outcome = judge(web("a", "s0:c1,c2"), web("b", "s0:c3,c4", "near_t", **more), policy=custom)
    assert (outcome.told, outcome.code) == ([], 0)
    # May do nothing at all: nothing is known of it, and that is no clean bill.
    outcome = judge(web("b", "s0:c3,c4", "mute_t", **more), policy=custom)
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], ["guest b"], 3)


def test_a_policy_with_few_categories(judge, tmp_path):
    """Two are enough to tell what a type may do; a level with a third is none."""
    policy = compile_policy(tmp_path, categories=2)
    documents = [web("a", "s0:c0"), web("b", "s0:c1", "other_t")]
    assert judge(*documents, policy=policy).told == []
    outcome = judge(web("a", "s0:c0"), web("b", "s0:c1", "own_t"), policy=policy)
    assert outcome.told == [("guest-unconfined", ["b"], ["a"])]
    finding = judge(web("a", "s0:c0,c2"), policy=policy).one("label-invalid")
    assert "no range 's0:c0,c2'" in finding["message"]


def test_a_policy_with_more_categories_than_are_known_here(judge, tmp_path):
    """Its labels are contexts; they cannot be compared, and so it is no clean bill."""
    policy = compile_policy(tmp_path, categories=2000)
    outcome = judge(web("a", "s0:c1,c2"), web("b", "s0:c3,c1999"), policy=policy)
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], ["guest b"], 3)
    assert "the policy takes" in outcome.report["unreadable"][0]["reason"]
    outcome = judge(web("b", "s0:c3,c2000"), policy=policy)
    assert outcome.rules == ["label-invalid"] * 2


def test_a_policy_without_the_types_of_guests(judge, tmp_path):
    """One cause, and one finding for it, however many guests there are."""
    policy = compile_policy(tmp_path, replace={"svirt_t": "gast_t"})
    outcome = judge(*(web(f"g{number}", f"s0:c{number}") for number in range(5)), policy=policy)
    finding = outcome.one("label-invalid")
    assert finding["guests"] == [f"g{number}" for number in range(5)]
    assert finding["labels"] == [context(f"s0:c{number}") for number in range(5)]
    assert "and 4 other labels" in finding["message"]
    assert "no type 'svirt_t'" in finding["message"]


def test_a_type_of_images_that_the_policy_opens_to_all_levels(judge, tmp_path):
    rules = """
    (type open_image_t) (roletype object_r open_image_t)
    (allow virt_domain open_image_t (blk_file (read write open)))
    """
    policy = compile_policy(tmp_path, rules=rules + "(allow svirt_t open_image_t (file (open)))")

    def disks(name, type_):
        label = device_label(image_context("s0:c1,c2", type_))
        return [disk(f"/dev/{name}", kind="block", seclabels=[label])]

    def exposed(type_, policy=policy):
        return judge(
            web("a", "s0:c1,c2", disks=disks("a", type_)), web("b", "s0:c3,c4"), policy=policy
        )

    assert exposed("svirt_image_t").told == []
    assert exposed("open_image_t").told == []
    # As block devices' reading and writing is constrained, exempt the type.
    opened = tmp_path / "opened"
    opened.mkdir()
    open_ = (
        "(mlsconstrain (blk_file (read write)) (or (or (dom h1 h2) (neq t1 "
        "mcs_constrained_type)) (eq t2 open_image_t)))"
    )
    text = "(mlsconstrain (blk_file (read write)) (or (dom h1 h2) (neq t1 mcs_constrained_type)))"
    policy = compile_policy(opened, rules=rules, replace={text: open_})
    assert exposed("svirt_image_t", policy).told == []
    outcome = exposed("open_image_t", policy)
    assert outcome.told == [("image-exposure", ["a"], ["a"])]
    assert "opens to all levels" in outcome.findings[0]["message"]
    assert "1 running guest can read and write it" in outcome.findings[0]["message"]


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


# --- validate and generate ---------------------------------------------------------------------


def test_validate_asks_the_named_policy(mcs, tmp_path):
    document = tmp_path / "a.xml"

    def validate(*words):
        outcome = run("validate", document, "--format", "json", *words)
        return outcome.code, [(one["rule"], one["layer"]) for one in outcome.findings]

    document.write_text(web("a", "s0:c1,c2", how="static", live=False))
    assert validate("--policy", mcs) == (0, [])
    document.write_text(web("a", "s0:c1,c2", "no_t", how="static", live=False))
    assert validate() == (0, [])
    assert validate("--policy", mcs) == (1, [("label-invalid", "policy")])
    assert validate("--policy", mcs, "--libvirt-only") == (0, [])
    # Of a baselabel the type alone takes effect.
    seclabel = "<seclabel type='dynamic' model='selinux'><baselabel>{}</baselabel></seclabel>"
    document.write_text(seclabel.format("no_u:no_r:svirt_t:s0"))
    assert ("label-invalid", "policy") not in validate("--policy", mcs)[1]
    document.write_text(seclabel.format("system_u:system_r:no_t"))
    assert validate("--policy", mcs) == (1, [("label-invalid", "policy")])


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["dynamic"], 0, ""),
        (["dynamic", "--type", "other_t"], 0, ""),
        (["dynamic", "--type", "own_t"], 2, "categories do not bind this type"),
        (["dynamic", "--type", "own_t", "--allow-unsafe"], 0, "categories do not bind this type"),
        (["dynamic", "--type", "lax_t"], 2, "the type is permissive"),
        (["dynamic", "--type", "no_t"], 2, "the policy has no type 'no_t'"),
        (["dynamic", "--type", "svirt_image_t"], 2, "may not have the type svirt_image_t"),
        (["static", "--label", context("s0:c1,c2")], 0, ""),
        (["static", "--label", context("s1:c1,c2")], 2, "the policy has no range"),
    ],
)
def test_generate_asks_the_named_policy(mcs, words, code, told):
    outcome = run("generate", *words, "--policy", mcs)
    assert outcome.code == code
    assert told in outcome.err
    assert "for the policy to say" not in outcome.err


@pytest.mark.parametrize("verb", [["generate", "dynamic"], ["validate", "/dev/null"]])
def test_a_wrong_policy_is_not_passed_over(tmp_path, verb):
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"no policy")
    assert run(*verb, "--policy", wrong).code == 2
    assert run(*verb, "--policy", "").code == 2
    assert run(*verb, "--policy", tmp_path / "missing").code == 4
