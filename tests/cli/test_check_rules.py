"""Each rule of ``check`` in both directions: it fires, and is silent on the nearest healthy case.

The documents are what "virsh dumpxml" would print; all goes through the command line. What is
compared is the rule, who reaches whom, labels, paths and the exit status, never the words.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import pytest
from attr import evolve
from checkrun import check
from needs import skip
from xmlmaker import (
    DAC,
    IMAGES,
    below,
    context,
    device_label,
    disk,
    domain,
    guest,
    image_context,
    mirror,
    nvram,
    seclabel,
)

from svirtlib.checks import ALL_CHECKS, run_checks
from svirtlib.findings import Report, Severity
from svirtlib.guests import Guest, Host, Inventory, Mode, Process
from svirtlib.seclabel import Seclabel, SeclabelType

#: Severities as users know them; --fail-on and every cron job rest on them.
SEVERITIES = {
    "label-collision": "critical",
    "label-exposure": "critical",
    "image-exposure": "high",
    "guest-unconfined": "critical",
    "guest-permissive": "critical",
    "host-not-enforcing": "critical",
    "process-label-drift": "high",
    "image-label-drift": "high",
    "shared-image-undeclared": "high",
    "static-label-reuse": "medium",
    "stale-image-label": "medium",
    "relabel-off-mismatch": "medium",
    "label-invalid": "high",
    "label-not-canonical": "low",
}

#: Rules that documents alone give nothing for.
NEED_A_HOST = {
    "host-not-enforcing",
    "guest-permissive",
    "process-label-drift",
    "image-label-drift",
    "stale-image-label",
    "relabel-off-mismatch",
}


#: The rules about what libvirt refuses and ignores, of which odd documents have much, have tests
#: of their own.
ONLY = [f"--only={rule}" for rule in SEVERITIES]


@pytest.fixture
def judge(tmp_path):
    """Check documents that lie together in a folder."""
    folder = tmp_path / "dumps"
    folder.mkdir()

    def judge(*documents, options=()):
        for number, document in enumerate(documents):
            (folder / f"{number:03}.xml").write_text(document, encoding="utf-8")
        outcome = check("--xml", folder, *ONLY, *options)
        assert outcome.err == ""
        for finding in outcome.findings:
            well_formed(finding)
        return outcome

    return judge


def well_formed(finding):
    """What holds of every finding of the rules here."""
    if finding["rule"] not in SEVERITIES:
        return
    assert finding["severity"] in (SEVERITIES[finding["rule"]], "medium")
    if finding["rule"] != "shared-image-undeclared":
        assert finding["severity"] == SEVERITIES[finding["rule"]]
    assert finding["reaches_count"] == len(finding["reaches"])
    assert finding["message"]
    assert finding["remedy"]
    for key in ("guests", "reaches", "paths"):
        assert finding[key] == sorted(finding[key])


def healthy(outcome):
    """Nothing is found, and nothing stayed unknown."""
    assert outcome.told == []
    assert outcome.unjudged == []
    assert outcome.code == 0
    return True


def test_severities():
    found = {rule.ident: rule.severity.label for rule in ALL_CHECKS}
    assert {ident: found.get(ident) for ident in SEVERITIES} == SEVERITIES


def test_documents_say_which_rules_they_give_nothing_for(judge):
    report = judge(guest("a")).report
    assert {entry["rule"] for entry in report["not_run"]} == NEED_A_HOST
    assert all(entry["reason"] for entry in report["not_run"])
    assert report["complete"] is True
    assert report["host"] == {"name": None, "selinux": {"mode": None, "policy": None}}
    assert report["guests"] == 1


# --- The healthy host -------------------------------------------------------------------------


def test_a_healthy_host_with_all_there_is(judge):
    """Dynamic and static guests, shared and read-only disks, firmware, other models."""
    cluster = disk("/srv/cluster.raw", format_="raw", shareable=True, target="vdb")
    installer = disk("/srv/install.iso", device="cdrom", target="sda", format_="raw")
    base = below(f"{IMAGES}/base.qcow2", chain=below(f"{IMAGES}/root.qcow2"))
    documents = [
        guest(
            f"web{number}",
            f"s0:c{2 * number},c{2 * number + 1}",
            disks=[disk(f"{IMAGES}/web{number}.qcow2", chain=base), cluster, installer],
            boot=nvram(f"/var/lib/libvirt/qemu/nvram/web{number}.fd")
            + "<kernel>/boot/vmlinuz</kernel><initrd>/boot/initrd</initrd>",
        )
        for number in range(4)
    ]
    documents += [
        guest("static", "s0:c100,c200", how="static"),
        guest("no-relabel", "s0:c101,c200", how="static", relabel=False),
        guest("emulated", "s0:c100,c201", type_="svirt_tcg_t", virt_type="qemu"),
        guest("ranged", "s0-s0:c102,c200", how="static"),
        guest("off", live=False),
        guest("off-static", "s0:c103,c200", how="static", live=False),
        guest("off-none", how="none", live=False),
    ]
    assert healthy(judge(*documents))


def test_a_hundred_guests_on_one_base_image(judge):
    base = below(f"{IMAGES}/base.qcow2")
    documents = [
        guest(
            f"g{number:03}",
            f"s0:c{number},c{number + 500}",
            disks=[disk(f"{IMAGES}/g{number:03}.qcow2", chain=base)],
        )
        for number in range(100)
    ]
    documents.append(guest("template", live=False, disks=[disk(f"{IMAGES}/base.qcow2")]))
    assert healthy(judge(*documents))


def test_a_hundred_guests_without_any_relation(judge):
    """Neighbours share one category each; that is no relation."""
    assert healthy(judge(*(guest(f"g{n:03}", f"s0:c{n},c{n + 1}") for n in range(100))))


def test_a_guest_does_not_collide_with_itself(judge):
    """A folder holds its live and its inactive form, and one of them twice."""
    live = guest("a", "s0:c1,c2", how="static")
    inactive = guest("a", "s0:c1,c2", how="static", live=False)
    outcome = judge(live, inactive, inactive, live)
    assert healthy(outcome)
    assert outcome.report["guests"] == 1


@pytest.mark.parametrize("live_first", [True, False])
def test_of_a_guests_documents_the_live_one_counts(judge, live_first):
    """Whichever comes first: that it runs is what the others collide with."""
    documents = [guest("a"), guest("a", live=False)]
    outcome = judge(*(documents if live_first else documents[::-1]), guest("b"))
    assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]


def test_two_dumps_of_a_running_guest_may_differ_elsewhere(judge):
    """A disk was added between them, which moves the seclabels to other lines."""
    disks = [disk(f"{IMAGES}/a.qcow2")]
    more = [*disks, disk(f"{IMAGES}/a2.qcow2", target="vdb")]
    assert healthy(judge(guest("a", disks=disks), guest("a", disks=more)))


def test_two_dumps_of_a_running_guest_with_different_labels(judge):
    outcome = judge(guest("a", "s0:c1,c2"), guest("a", "s0:c3,c4"))
    assert outcome.unjudged == ["guest a"]
    assert outcome.code == 3


# --- label-collision --------------------------------------------------------------------------

ONE_LABEL = [
    ("s0:c1,c2", "s0:c1,c2"),
    ("s0:c1,c2", "s0:c2,c1"),
    ("s0:c1,c2", "s0:c1.c2"),
    ("s0:c1,c2", "s0:c2,c1,c2"),
    ("s0:c1.c3", "s0:c3,c1,c2"),
    ("s0:c1.c5", "s0:c1.c3,c2.c5"),
    ("s0:c9", "s0:c9"),
    ("s0:c9", "s0:c9,c9"),
    ("s0:c1,c2", "s0-s0:c1,c2"),
    ("s0:c1,c2", "s0:c1-s0:c1,c2"),
    ("s0:c0.c1023", "s0-s0:c0.c1023"),
    ("s0:c0.c1023", "s0:c0.c1023,c5"),
    ("s0:c0.c1023", "s0:c0.c511,c512.c1023"),
    ("s1:c1,c2", "s1:c2,c1"),
    ("s1:c1,c2", "s0-s1:c1,c2"),
]


@pytest.mark.parametrize(("one", "other"), ONE_LABEL)
def test_equal_categories_collide(judge, one, other):
    outcome = judge(guest("a", one), guest("b", other), guest("c", "s0:c77,c78,c1023,c1000"))
    outcome_told = [entry for entry in outcome.told if entry[0] == "label-collision"]
    assert outcome_told == [("label-collision", ["a", "b"], ["a", "b"])]
    assert outcome.one("label-collision")["severity"] == "critical"
    assert outcome.code == 1
    assert not {"image-exposure", "guest-unconfined", "label-invalid"} & set(outcome.rules)


def test_collision_names_the_labels_as_the_kernel_writes_them(judge):
    outcome = judge(guest("a", "s0:c2,c1"), guest("b", "s0:c1.c2", type_="svirt_tcg_t"))
    assert outcome.one("label-collision")["labels"] == [
        context("s0:c1,c2"),
        context("s0:c1,c2", "svirt_tcg_t"),
    ]


def test_one_finding_for_each_label(judge):
    levels = ["s0:c1,c2", "s0:c3,c4", "s0:c2,c1", "s0:c4,c3", "s0:c1.c2", "s0:c5,c6"]
    outcome = judge(*(guest(f"g{n}", level) for n, level in enumerate(levels)))
    assert [entry for entry in outcome.told if entry[0] == "label-collision"] == [
        ("label-collision", ["g0", "g2", "g4"], ["g0", "g2", "g4"]),
        ("label-collision", ["g1", "g3"], ["g1", "g3"]),
    ]


APART = [
    ("s0:c1,c2", "s0:c1,c3"),
    ("s0:c1,c2", "s0:c2,c3"),
    ("s0:c1,c2", "s0:c3,c4"),
    ("s0:c1,c2", "s0:c1,c22"),
    ("s0:c1,c23", "s0:c3,c12"),
    ("s0:c1,c12", "s0:c2,c11"),
    ("s0:c9", "s0:c10"),
    ("s0:c9", "s0:c90,c99"),
    ("s0:c1.c3", "s0:c2.c4"),
    ("s0:c0.c511", "s0:c512.c1023"),
    ("s0-s0:c1,c2", "s0-s0:c1,c3"),
    # Only the high level counts, so a common low one is nothing.
    ("s0:c1-s0:c1,c2", "s0:c1-s0:c1,c3"),
    # The higher sensitivity lacks a category, the other the sensitivity.
    ("s1:c1", "s0:c1,c2"),
    ("s1", "s0:c1,c2"),
]


@pytest.mark.parametrize(("one", "other"), APART)
def test_incomparable_levels_are_no_finding(judge, one, other):
    assert healthy(judge(guest("a", one), guest("b", other)))
    assert healthy(judge(guest("a", other), guest("b", one)))


def test_a_guest_that_is_off_collides_with_none(judge):
    assert healthy(judge(guest("a"), guest("b", how="static", live=False)))


def test_labels_of_other_models_are_not_compared(judge):
    """Every guest has the same DAC label; AppArmor's, too, may look like anything."""
    same = seclabel("static", "apparmor", label=context("s0:c1,c2"), relabel="yes")
    documents = [
        domain(name, guest_labels + same + DAC)
        for name, guest_labels in (
            ("a", seclabel(label=context("s0:c1,c2"), imagelabel=image_context("s0:c1,c2"))),
            ("b", seclabel(label=context("s0:c3,c4"), imagelabel=image_context("s0:c3,c4"))),
        )
    ]
    assert healthy(judge(*documents))


# --- label-exposure ---------------------------------------------------------------------------

INCLUDING = [
    ("s0:c0.c1023", "s0:c1,c2"),
    ("s0-s0:c0.c1023", "s0:c1,c2"),
    ("s0:c1,c2", "s0:c1"),
    ("s0:c1,c2", "s0:c2"),
    ("s0:c1.c3", "s0:c1,c2"),
    ("s0:c1.c3", "s0:c3,c1"),
    ("s0:c3,c2,c1", "s0:c1,c3"),
    ("s0-s0:c1.c3", "s0-s0:c1,c2"),
    ("s1:c1,c2", "s0:c1,c2"),
    ("s1:c1.c3", "s0:c1,c2"),
    ("s0-s15:c0.c1023", "s0:c0.c1023"),
]


@pytest.mark.parametrize(("wide", "narrow"), INCLUDING)
def test_including_categories_reach(judge, wide, narrow):
    outcome = judge(guest("z", wide), guest("a", narrow), guest("m", "s2:c600,c1022"))
    exposures = [entry for entry in outcome.told if entry[0] == "label-exposure"]
    expected = ["a"] if "1023" not in wide or "s15" not in wide else ["a", "m"]
    assert exposures == [("label-exposure", ["z"], expected)]
    assert outcome.code == 1
    assert not {"label-collision", "image-exposure"} & set(outcome.rules)


def exposures(outcome):
    return [(guests, reaches) for rule, guests, reaches in outcome.told if "label-exp" in rule]


def test_a_wide_level_is_one_finding(judge):
    outcome = judge(
        guest("wide", "s0:c0.c1023"), *(guest(f"g{n}", f"s0:c{n},c{n + 9}") for n in range(5))
    )
    assert outcome.told == [("label-exposure", ["wide"], ["g0", "g1", "g2", "g3", "g4"])]
    assert outcome.one("label-exposure")["labels"] == [context("s0:c0.c1023")]


def test_a_narrow_level_is_one_finding(judge):
    outcome = judge(
        guest("narrow", "s0:c9"), *(guest(f"g{n}", f"s0:c9,c{n + 10}") for n in range(5))
    )
    assert outcome.told == [("label-exposure", ["g0", "g1", "g2", "g3", "g4"], ["narrow"])]
    assert outcome.one("label-exposure")["labels"] == [context("s0:c9")]


def test_all_that_hold_a_wide_level_are_in_one_finding(judge):
    outcome = judge(
        guest("w1", "s0:c0.c1023"),
        guest("w2", "s0-s0:c0.c1023"),
        guest("a", "s0:c1,c2"),
        guest("b", "s0:c3,c4"),
    )
    assert outcome.told == [
        ("label-collision", ["w1", "w2"], ["w1", "w2"]),
        ("label-exposure", ["w1", "w2"], ["a", "b"]),
    ]


def test_a_chain_is_told_in_two_findings(judge):
    """c1 below c1,c2 below c1.c3: three relations, two causes."""
    outcome = judge(guest("a", "s0:c1"), guest("b", "s0:c1,c2"), guest("c", "s0:c1.c3"))
    found = exposures(outcome)
    assert len(found) == 2
    told = {(one, other) for guests, reaches in found for one in guests for other in reaches}
    assert told == {("b", "a"), ("c", "a"), ("c", "b")}


def test_wide_and_narrow_together(judge):
    outcome = judge(
        guest("wide", "s0:c0.c1023"),
        guest("narrow", "s0:c9"),
        *(guest(f"g{n}", f"s0:c9,c{n + 10}") for n in range(3)),
        guest("else", "s0:c50,c51"),
    )
    assert sorted(exposures(outcome)) == [
        (["g0", "g1", "g2", "wide"], ["narrow"]),
        (["wide"], ["else", "g0", "g1", "g2", "narrow"]),
    ]


def test_two_pairs_of_guests_are_two_findings(judge):
    outcome = judge(
        guest("a", "s0:c1,c2"),
        guest("b", "s0:c1.c3"),
        guest("c", "s0:c11,c12"),
        guest("d", "s0:c11.c13"),
    )
    assert sorted(exposures(outcome)) == [(["b"], ["a"]), (["d"], ["c"])]


def test_a_static_guest_that_is_off_exposes_none_yet(judge):
    assert healthy(judge(guest("a"), guest("w", "s0:c0.c1023", how="static", live=False)))


def test_max_subjects_cuts_names_and_not_the_count(tmp_path):
    for name, level in [("w", "s0:c0.c1023"), ("a", "s0:c1,c2"), ("b", "s0:c3,c4")]:
        (tmp_path / f"{name}.xml").write_text(guest(name, level))
    finding = check("--xml", tmp_path, "--max-subjects", 1).one("label-exposure")
    assert (finding["guests"], finding["reaches"], finding["reaches_count"]) == (["w"], ["a"], 2)


# --- image-exposure ---------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["s0", "s0-s0"])
def test_a_guest_without_categories_is_one_finding(judge, level):
    outcome = judge(guest("bare", level), guest("a", "s0:c1,c2"), guest("wide", "s0:c0.c1023"))
    assert [entry for entry in outcome.told if entry[0] != "label-not-canonical"] == [
        ("label-exposure", ["wide"], ["a"]),
        ("image-exposure", ["bare"], ["bare"]),
    ]
    finding = outcome.one("image-exposure")
    assert finding["labels"] == [context("s0")]
    assert finding["paths"] == [f"{IMAGES}/bare.qcow2"]
    assert outcome.code == 1


def test_a_lone_guest_without_categories(judge):
    assert judge(guest("bare", "s0")).told == [("image-exposure", ["bare"], ["bare"])]


def test_several_guests_without_categories_are_one_finding_and_collide(judge):
    outcome = judge(guest("b", "s0"), guest("a", "s0"), guest("c", "s0:c1,c2"))
    assert outcome.told == [
        ("label-collision", ["a", "b"], ["a", "b"]),
        ("image-exposure", ["a", "b"], ["a", "b"]),
    ]


def test_sensitivities_keep_a_guest_without_categories_from_lower_ones(judge):
    """s1 includes s0 but not s0:c1,c2; s1:c5,c6 includes s1."""
    outcome = judge(guest("bare", "s1"), guest("a", "s0:c1,c2"), guest("high", "s1:c5,c6"))
    assert outcome.told == [("image-exposure", ["high"], ["bare"])]


def labelled_disk(name, *seclabels, **options):
    return [disk(f"{IMAGES}/{name}.qcow2", seclabels=seclabels, **options)]


def test_an_image_that_its_seclabel_opens_to_all(judge):
    open_to_all = device_label(image_context("s0"), relabel="yes")
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", open_to_all)), guest("b", "s0:c3,c4")
    )
    assert outcome.told == [("image-exposure", ["a"], ["a"])]
    finding = outcome.one("image-exposure")
    assert finding["labels"] == [image_context("s0")]
    assert finding["paths"] == [f"{IMAGES}/a.qcow2"]


def test_an_image_that_others_may_read(judge):
    """virt_content_t: no guest may write it, and all may read it."""
    readable = device_label(image_context("s0", "virt_content_t"))
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", readable)), guest("b", "s0:c3,c4")
    )
    assert outcome.told == [("image-exposure", ["a"], ["a"])]


@pytest.mark.parametrize("foreign", ["s0:c3,c4", "s0:c4", "s0-s0:c3"])
def test_an_image_with_the_level_of_another_guest(judge, foreign):
    """Here guests are those that can reach it; the owner is the one that it exposes."""
    label = device_label(image_context(foreign))
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", label)),
        guest("b", "s0:c3,c4"),
        guest("c", "s0:c3,c5"),
    )
    reaching = ["b", "c"] if foreign == "s0-s0:c3" else ["b"]
    assert outcome.told == [("image-exposure", reaching, ["a"])]
    assert outcome.code == 1


def test_an_imagelabel_that_is_not_the_guests(judge):
    outcome = judge(
        guest("a", "s0:c1,c2", imagelabel=image_context("s0:c3,c4")), guest("b", "s0:c3,c4")
    )
    assert outcome.told == [("image-exposure", ["b"], ["a"])]


def test_who_reaches_by_level_is_not_told_twice(judge):
    """The wide guest reaches all anyhow; the exposed image adds the other guest alone."""
    label = device_label(image_context("s0:c3,c4"))
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", label)),
        guest("b", "s0:c3,c4"),
        guest("w", "s0:c0.c1023"),
    )
    assert outcome.told == [
        ("label-exposure", ["w"], ["a", "b"]),
        ("image-exposure", ["b"], ["a"]),
    ]


def test_a_disk_of_a_guest_without_categories_is_told_once(judge):
    open_to_all = device_label(image_context("s0"))
    outcome = judge(guest("a", "s0", disks=labelled_disk("a", open_to_all)), guest("b", "s0:c3,c4"))
    assert outcome.told == [("image-exposure", ["a"], ["a"])]


HARMLESS = {
    "the guest's own level": [device_label(image_context("s0:c1,c2"))],
    "a level that nobody has": [device_label(image_context("s0:c8,c9"))],
    "a wider level than anybody's": [device_label(image_context("s0:c1.c9"))],
    "another model": [device_label(image_context("s0"), model="dac")],
    "no model": [device_label(image_context("s0"), model=None)],
    "several models": [
        device_label("+0:+0", model="dac"),
        device_label(image_context("s0:c1,c2")),
        device_label(image_context("s0"), model="apparmor"),
    ],
    "not relabelled": [device_label(relabel="no")],
    "relabel without label": [device_label(relabel="yes")],
    "an empty label": [device_label("")],
    "a type that guests may not use": [device_label(image_context("s0", "unlabeled_t"))],
}


@pytest.mark.parametrize("case", HARMLESS)
def test_a_harmless_label_of_a_disk(judge, case):
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", *HARMLESS[case])),
        guest("b", "s0:c3,c4"),
    )
    assert healthy(outcome)


@pytest.mark.parametrize("options", [{"shareable": True}, {"readonly": True}, {"device": "cdrom"}])
def test_an_open_image_that_is_meant_for_several(judge, options):
    disks = labelled_disk("x", device_label(image_context("s0")), **options)
    assert healthy(judge(guest("a", "s0:c1,c2", disks=disks), guest("b", "s0:c3,c4", disks=disks)))


def test_a_label_goes_down_the_chain_and_is_no_exposure_there(judge):
    """The backing file is read-only, and meant for several."""
    chain = below(f"{IMAGES}/base.qcow2", seclabels=[device_label(image_context("s0"))])
    own = device_label(image_context("s0:c1,c2"))
    outcome = judge(
        guest("a", "s0:c1,c2", disks=labelled_disk("a", own, chain=chain)),
        guest("b", "s0:c3,c4"),
    )
    assert healthy(outcome)


def test_the_image_of_a_guest_that_is_off_has_no_stated_label(judge):
    assert healthy(judge(guest("a", live=False), guest("b", "s0:c3,c4"), guest("w", "s0:c5,c6")))


@pytest.mark.parametrize("form", [None, "file"])
def test_nvram_is_the_guests_own(judge, form):
    """It has the guest's label like a disk; in the newer form it may have one of its own."""
    path = "/var/lib/libvirt/qemu/nvram/a.fd"
    labels = [device_label(image_context("s0"))] if form else []
    outcome = judge(
        guest("a", "s0:c1,c2", disks=[], boot=nvram(path, kind=form, seclabels=labels)),
        guest("b", "s0:c3,c4"),
    )
    if form is None:
        assert healthy(outcome)
    else:
        assert outcome.told == [("image-exposure", ["a"], ["a"])]
        assert outcome.one("image-exposure")["paths"] == [path]


@pytest.mark.parametrize("kind", ["network", "nvme", "dir", "vhostuser", "vhostvdpa"])
def test_storage_that_libvirt_does_not_label_states_no_label(judge, kind):
    """Whatever the seclabel asks for, there is no file to put it on."""
    label = device_label(image_context("s0"))
    disks = [disk("/srv/thing", kind=kind, seclabels=[label])]
    assert healthy(judge(guest("a", disks=disks), guest("b", "s0:c3,c4")))


@pytest.mark.parametrize("kind", ["file", "block"])
def test_storage_that_libvirt_labels(judge, kind):
    disks = [disk("/dev/vg/lv", kind=kind, seclabels=[device_label(image_context("s0"))])]
    outcome = judge(guest("a", disks=disks), guest("b", "s0:c3,c4"))
    assert outcome.told == [("image-exposure", ["a"], ["a"])]


def test_the_copy_of_a_block_job_is_the_guests_own(judge):
    copied = disk(f"{IMAGES}/a.qcow2", more=mirror("/new/a.qcow2"))
    other = disk("/new/a.qcow2")
    assert healthy(judge(guest("a", disks=[copied]), guest("b", "s0:c3,c4")))
    outcome = judge(guest("a", disks=[copied]), guest("b", "s0:c3,c4", disks=[other]))
    assert outcome.told == [("shared-image-undeclared", ["a", "b"], [])]


# --- guest-unconfined -------------------------------------------------------------------------

UNCONFINED = {
    "type none": seclabel("none") + DAC,
    "type none without model": seclabel("none", None),
    "no seclabel": "",
    "dac alone": DAC,
    "model none": seclabel("none", "none"),
    "unconfined_t": seclabel("static", label="unconfined_u:unconfined_r:unconfined_t:s0:c1,c2"),
    "virtd_t": seclabel("static", label=context("s0:c1,c2", "virtd_t")) + DAC,
    "spc_t": seclabel("static", label=context("s0", "spc_t")),
}


@pytest.mark.parametrize("case", UNCONFINED)
def test_a_guest_without_svirt(judge, case):
    """It reaches all others, and has no level to compare."""
    disks = [disk(f"{IMAGES}/u.qcow2")]
    outcome = judge(domain("u", UNCONFINED[case], disks=disks), guest("a"), guest("b", "s0:c3,c4"))
    assert outcome.told == [("guest-unconfined", ["u"], ["a", "b"])]
    assert outcome.code == 1


@pytest.mark.parametrize("virt_type", ["kvm", "qemu", "lxc"])
def test_all_kinds_of_guests_that_libvirt_labels(judge, virt_type):
    outcome = judge(guest("u", how="none", virt_type=virt_type))
    assert outcome.told == [("guest-unconfined", ["u"], [])]


def test_guests_that_share_a_cause_are_one_finding(judge):
    outcome = judge(guest("u1", how="none"), guest("u2", how="none"), domain("u3", ""), guest("a"))
    assert outcome.told == [
        ("guest-unconfined", ["u1", "u2"], ["a", "u3"]),
        ("guest-unconfined", ["u3"], ["a", "u1", "u2"]),
    ]


@pytest.mark.parametrize("how", ["none", "dynamic", "static"])
def test_a_guest_that_is_off_is_not_unconfined(judge, how):
    assert healthy(judge(guest("u", how=how, live=False)))


@pytest.mark.parametrize("type_", ["svirt_t", "svirt_tcg_t", "svirt_kvm_net_t", "container_t"])
def test_types_that_categories_bind(judge, type_):
    assert healthy(judge(guest("a", type_=type_)))


def test_a_type_that_needs_a_policy_is_taken_as_bound_and_told(judge):
    """Not decided is no finding and no health either."""
    outcome = judge(guest("a", type_="my_guest_t"))
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], ["guest a"], 3)
    outcome = judge(guest("a", type_="my_guest_t"), guest("b", "s0:c2,c1"))
    assert outcome.rules == ["label-collision", "label-not-canonical", "label-not-canonical"]
    assert outcome.report["complete"] is False
    assert outcome.code == 1


UNJUDGED = {
    "AppArmor": (seclabel("dynamic", "apparmor", label="libvirt-1", imagelabel="libvirt-1"), "kvm"),
    "label missing": (seclabel("dynamic"), "kvm"),
    "libvirt's test driver": ("", "test"),
    "another hypervisor": ("", "xen"),
}


@pytest.mark.parametrize("case", UNJUDGED)
def test_a_running_guest_that_cannot_be_judged(judge, case):
    seclabels, virt_type = UNJUDGED[case]
    outcome = judge(domain("a", seclabels, virt_type=virt_type), guest("b"))
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], ["guest a"], 3)
    assert outcome.report["guests"] == 2


def test_apparmor_of_a_guest_that_is_off_is_nothing(judge):
    assert healthy(judge(domain("a", seclabel("dynamic", "apparmor"), live=False)))


def test_a_seclabel_without_model_is_selinux(judge):
    labels = {"label": context("s0:c1,c2"), "imagelabel": image_context("s0:c1,c2")}
    outcome = judge(domain("a", seclabel("static", None, relabel="yes", **labels)), guest("b"))
    assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]


def test_a_seclabel_without_type_that_runs_has_a_label(judge):
    outcome = judge(
        domain("a", seclabel(None, relabel="no", label=context("s0:c1,c2"))), guest("b")
    )
    assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]


# --- shared-image-undeclared ------------------------------------------------------------------


def users(path, *specs, **options):
    """Guests a, b, ... that use one image; each spec is live or not, and how it uses it."""
    return [
        guest(
            name,
            f"s0:c{number},c{number + 100}",
            live=live,
            disks=[disk(path, **{**options, **flags})],
        )
        for number, (name, (live, flags)) in enumerate(zip("abcdef", specs))
    ]


RW: dict[str, Any] = {}
RO: dict[str, Any] = {"readonly": True}
SHARED: dict[str, Any] = {"shareable": True}


@pytest.mark.parametrize(
    ("specs", "severity"),
    [
        ([(True, RW), (True, RW)], "high"),
        ([(True, RW), (True, RO)], "high"),
        ([(True, RW), (True, SHARED)], "high"),
        ([(True, RW), (True, RO), (False, RO)], "high"),
        ([(True, RW), (False, RW)], "medium"),
        ([(False, RW), (False, RW)], "medium"),
        ([(False, RW), (False, RW), (True, RO)], "medium"),
        ([(False, RW), (True, RO), (True, RO)], None),
        ([(False, RW), (False, RO)], None),
        ([(True, RW), (False, RO)], None),
        ([(True, SHARED), (True, SHARED)], None),
        ([(True, SHARED), (True, RO)], None),
        ([(True, RO), (True, RO)], None),
        ([(True, RW)], None),
    ],
)
def test_one_image_of_several_guests(judge, specs, severity):
    outcome = judge(*users("/srv/x", *specs))
    if severity is None:
        assert healthy(outcome)
        return
    names = list("abc"[: len(specs)])
    assert outcome.told == [("shared-image-undeclared", names, [])]
    finding = outcome.one("shared-image-undeclared")
    assert finding["severity"] == severity
    assert finding["paths"] == ["/srv/x"]
    assert outcome.code == 1


@pytest.mark.parametrize(
    ("kind", "where", "name"),
    [
        ("block", "/dev/vg/x", "/dev/vg/x"),
        ("volume", "pool/image", "pool/image"),
        ("network", "pool/image", "rbd://ceph1:6789/pool/image"),
        ("nvme", "1", "nvme:0:1:0:0/1"),
        ("dir", "/srv/x", "/srv/x"),
        ("vhostuser", "/run/x.sock", "/run/x.sock"),
        ("vhostvdpa", "/dev/vhost-vdpa-0", "/dev/vhost-vdpa-0"),
    ],
)
def test_all_kinds_of_storage_that_several_guests_use(judge, kind, where, name):
    outcome = judge(*users(where, (True, RW), (True, RW), kind=kind))
    assert outcome.told == [("shared-image-undeclared", ["a", "b"], [])]
    assert outcome.one("shared-image-undeclared")["paths"] == [name]
    assert healthy(judge(*users(where, (True, SHARED), (True, SHARED), kind=kind)))


def test_a_running_writer_below_whom_others_read(judge):
    """The base image of a clone runs as a guest of its own."""
    clone = disk(f"{IMAGES}/clone.qcow2", chain=below(f"{IMAGES}/a.qcow2"))
    outcome = judge(guest("a"), guest("clone", "s0:c3,c4", disks=[clone]))
    assert outcome.told == [("shared-image-undeclared", ["a", "clone"], [])]
    assert outcome.one("shared-image-undeclared")["severity"] == "high"


@pytest.mark.parametrize("inside", [True, False])
def test_a_data_file_of_two_qcow2_images(judge, inside):
    """Libvirt 10.10 writes the data file of an image into its <source>, or beside it."""
    store = "<dataStore type='file'><format type='raw'/><source file='/srv/data.raw'/></dataStore>"

    where: dict[str, Any] = {"seclabels": [store]} if inside else {"more": store}
    documents = [
        guest("a", disks=[disk("/srv/a.qcow2", **where)]),
        guest("b", "s0:c3,c4", disks=[disk("/srv/b.qcow2", **where)]),
    ]
    outcome = judge(*documents)
    assert outcome.told == [("shared-image-undeclared", ["a", "b"], [])]
    assert outcome.one("shared-image-undeclared")["paths"] == ["/srv/data.raw"]


def test_a_data_file_without_a_name(judge):
    """A store that names nothing is none, and the image that has it is read all the same."""
    store = "<backingStore/><dataStore type='file'><source/></dataStore>"
    path = "/srv/a.qcow2"
    document = guest("a", disks=[disk(path, chain=store)])
    assert healthy(judge(document))
    outcome = judge(document, guest("b", "s0:c3,c4", disks=[disk(path)]))
    assert outcome.one("shared-image-undeclared")["paths"] == [path]


def test_transient_disks_that_share_their_base(judge):
    assert healthy(judge(*users("/srv/x", (True, RW), (True, RW), transient="yes")))
    outcome = judge(*users("/srv/x", (True, RW), (True, RW), transient="no"))
    assert outcome.rules == ["shared-image-undeclared"]


def test_one_image_by_two_spellings_of_its_path(judge):
    disks = [disk("/srv/x"), disk("/srv//./x")]
    outcome = judge(guest("a", disks=disks[:1]), guest("b", "s0:c3,c4", disks=disks[1:]))
    assert outcome.rules == ["shared-image-undeclared"]


def test_images_that_two_guests_share_are_one_finding(judge):
    disks = [disk("/srv/x"), disk("/srv/y", target="vdb")]
    outcome = judge(guest("a", disks=disks), guest("b", "s0:c3,c4", disks=disks))
    assert outcome.told == [("shared-image-undeclared", ["a", "b"], [])]
    assert outcome.one("shared-image-undeclared")["paths"] == ["/srv/x", "/srv/y"]


def test_drives_without_a_medium_share_nothing(judge):
    empty = [disk("", device="cdrom"), disk("", device="floppy")]
    assert healthy(judge(guest("a", disks=empty), guest("b", "s0:c3,c4", disks=empty)))


def test_one_guest_may_use_an_image_twice(judge):
    """A block job writes what lies below; the image is still of one guest."""
    chain = below(f"{IMAGES}/base.qcow2")
    job = mirror(f"{IMAGES}/base.qcow2", job="active-commit")
    disks = [disk(f"{IMAGES}/a.qcow2", chain=chain, more=job)]
    assert healthy(judge(guest("a", disks=disks), guest("b", "s0:c3,c4")))


def test_network_images_with_one_name_on_different_clusters(judge):
    other = disk("pool/x", kind="network").replace("ceph1", "ceph2")
    documents = [
        guest("a", disks=[disk("pool/x", kind="network")]),
        guest("b", "s0:c3,c4", disks=[other]),
    ]
    assert healthy(judge(*documents))


# --- static-label-reuse -----------------------------------------------------------------------


def statics(*levels, live=False, **options):
    return [
        guest(name, level, how="static", live=live, **options)
        for name, level in zip("abcdef", levels)
    ]


@pytest.mark.parametrize(("one", "other"), ONE_LABEL)
def test_equal_static_levels(judge, one, other):
    outcome = judge(*statics(one, other))
    (entry,) = [entry for entry in outcome.told if entry[0] == "static-label-reuse"]
    assert entry[1] == ["a", "b"]
    assert outcome.code == 1
    assert not {"label-collision", "label-exposure"} & set(outcome.rules)


@pytest.mark.parametrize(("wide", "narrow"), INCLUDING)
def test_static_levels_that_include_each_other(judge, wide, narrow):
    outcome = judge(*statics(wide, narrow))
    (entry,) = [entry for entry in outcome.told if entry[0] == "static-label-reuse"]
    assert entry == ("static-label-reuse", ["a"], ["b"])


@pytest.mark.parametrize(("one", "other"), APART)
def test_static_levels_that_are_apart(judge, one, other):
    assert healthy(judge(*statics(one, other)))


def test_a_static_level_without_categories(judge):
    outcome = judge(*statics("s0", "s0:c1,c2", "s0:c3,c4"))
    assert outcome.told == [("static-label-reuse", ["b", "c"], ["a"])]


def test_running_or_not_makes_no_difference_to_static_levels(judge):
    a, b = statics("s0:c1,c2", "s0:c1,c2")
    for documents in ([a, b], [guest("a", how="static"), b]):
        assert judge(*documents).rules == ["static-label-reuse"]


def test_running_static_guests_have_both_findings(judge):
    outcome = judge(*statics("s0:c1,c2", "s0:c1,c2", live=True))
    assert outcome.rules == ["label-collision", "static-label-reuse"]


def test_dynamic_levels_are_not_static(judge):
    outcome = judge(guest("a"), guest("b"))
    assert outcome.rules == ["label-collision"]


@pytest.mark.parametrize("type_", ["unconfined_t", "virtd_t"])
def test_static_types_that_categories_do_not_bind(judge, type_):
    assert healthy(judge(*statics("s0:c1,c2", "s0:c1,c2", type_=type_)))


def static(name, level, **options):
    label = Seclabel(SeclabelType.STATIC, "selinux", label=context(level))
    return Guest(name, None, False, "kvm", "xml", seclabels=(label,), **options)


def dynamic(name):
    return Guest(name, None, False, "kvm", "xml")


def reuse(*guests, drawn="s0-s0:c0.c1023"):
    host = Host(name="h", mode=Mode.ENFORCING, dynamic_range=drawn)
    report = run_checks(Inventory(host=host, guests=guests, host_known=True))
    assert {finding.rule for finding in report.findings} <= {"static-label-reuse"}
    return [finding.guests for finding in report.findings]


@pytest.mark.parametrize(
    ("level", "drawn", "met"),
    [
        ("s0:c1,c2", "s0-s0:c0.c1023", True),
        ("s0:c1,c2", "s0", True),
        ("s0:c1,c2", "s0-s0:c0.c511", True),
        ("s0:c600,c700", "s0-s0:c0.c511", False),
        ("s0:c511,c512", "s0-s0:c0.c511", False),
        # A pair of the pool includes it, or lies inside of it.
        ("s0:c9", "s0-s0:c0.c511", True),
        ("s0:c600", "s0-s0:c0.c511", False),
        ("s0:c510.c512", "s0-s0:c0.c511", True),
        ("s0", "s0-s0:c0.c511", True),
        ("s1:c1,c2", "s0-s0:c0.c511", False),
        # libvirt refuses such a range and draws nothing.
        ("s0:c1,c2", "s0:c5", False),
    ],
)
def test_static_levels_that_libvirt_may_draw(level, drawn, met):
    assert reuse(static("a", level), dynamic("d"), drawn=drawn) == ([("a",)] if met else [])


def test_libvirt_draws_nothing_without_dynamic_guests():
    assert reuse(static("a", "s0:c1,c2"), static("b", "s0:c3,c4")) == []


def test_what_libvirt_draws_is_not_known_without_a_host():
    assert reuse(static("a", "s0:c1,c2"), dynamic("d"), drawn=None) == []


# --- label-invalid ----------------------------------------------------------------------------

INVALID_LEVELS = [
    "s0:c1024,c2000",
    "s0:c5.c5",
    "s0:c5.c3",
    "s0:c01,c2",
    "s0:c1, c2",
    "s0:c1,",
    "s0:",
    "s0:c1-s0",
    "s0-s0:c1-s0",
    "s16:c1",
    "SystemLow",
    "c1,c2",
    "s0:c2147483647",
]


@pytest.mark.parametrize("level", INVALID_LEVELS)
def test_a_running_label_that_the_kernel_refuses(judge, level):
    """It cannot be compared, so the report is incomplete as well."""
    outcome = judge(guest("a", level, imagelabel=image_context("s0:c1,c2")), guest("b"))
    assert ("label-invalid", ["a"], []) in outcome.told
    assert outcome.one("label-invalid")["labels"] == [context(level)]
    assert outcome.unjudged == ["guest a"]
    assert outcome.code == 1


@pytest.mark.parametrize(
    "label",
    [
        "",
        "svirt_t",
        "system_u:system_r",
        "system_u:system_r:svirt_t",
        " system_u:system_r:svirt_t:s0:c1,c2",
        "system_u:system_r:svirt_t:s0:c1,c2\n",
        "system_u::svirt_t:s0:c1,c2",
        "system_u:system_r:svirt t:s0",
    ],
)
def test_a_static_definition_that_the_kernel_refuses(judge, label):
    document = domain("a", seclabel("static", label=label), live=False)
    if not label:
        # libvirt refuses the definition, and so there is no such guest.
        return
    outcome = judge(document)
    assert outcome.told == [("label-invalid", ["a"], [])]
    assert outcome.code == 1


def test_an_invalid_label_is_told_once_with_all_that_have_it(judge):
    bad = context("s0:c5.c5")
    documents = [domain(n, seclabel("static", label=bad), live=False) for n in ("b", "a")]
    assert judge(*documents).told == [("label-invalid", ["a", "b"], [])]


@pytest.mark.parametrize("part", ["imagelabel", "device", "baselabel"])
def test_every_label_of_a_document_is_looked_at(judge, part):
    bad = image_context("s0:c9.c9")
    if part == "imagelabel":
        document = guest("a", imagelabel=bad)
    elif part == "device":
        document = guest("a", disks=labelled_disk("a", device_label(bad)))
    else:
        document = domain("a", seclabel(baselabel="nonsense"), live=False)
        bad = "nonsense"
    outcome = judge(document)
    assert outcome.told == [("label-invalid", ["a"], [])]
    assert outcome.one("label-invalid")["labels"] == [bad]


INERT = {
    "another model": seclabel("static", "dac", label="+0:+0")
    + seclabel("static", "apparmor", label="nonsense"),
    "type none": seclabel("none", label="nonsense"),
    "dynamic, not running": seclabel(label="nonsense", imagelabel="nonsense"),
    "baselabel without range": seclabel(baselabel="system_u:system_r:svirt_t"),
}


@pytest.mark.parametrize("case", INERT)
def test_labels_without_effect_are_not_looked_at(judge, case):
    assert healthy(judge(domain("a", INERT[case], live=False)))


def test_the_label_of_a_running_guest_of_type_none_is_not_looked_at(judge):
    assert judge(domain("a", seclabel("none", label="nonsense"))).rules == ["guest-unconfined"]


# --- label-not-canonical ----------------------------------------------------------------------

SPELLINGS = {
    "s0:c2,c1": "s0:c1,c2",
    "s0:c1.c2": "s0:c1,c2",
    "s0:c1,c1,c2": "s0:c1,c2",
    "s0:c1,c2,c3": "s0:c1.c3",
    "s0-s0": "s0",
    "s0:c1,c2-s0:c1,c2": "s0:c1,c2",
    "s0-s0:c2,c1": "s0-s0:c1,c2",
    "s0:c0.c511,c512.c1023": "s0:c0.c1023",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_another_spelling_than_the_kernels(judge, spelling):
    outcome = judge(*statics(spelling))
    assert outcome.told == [("label-not-canonical", ["a"], [])]
    canonical = SPELLINGS[spelling]
    assert outcome.one("label-not-canonical")["labels"] == [context(spelling), context(canonical)]
    assert outcome.code == 0  # low, and the threshold is medium


@pytest.mark.parametrize(
    "level", ["s0", "s0:c1,c2", "s0:c1.c3", "s0:c9", "s0-s0:c0.c1023", "s0:c1,c2,c4.c6"]
)
def test_the_kernels_own_spelling(judge, level):
    assert healthy(judge(*statics(level)))


def test_a_spelling_of_a_disks_label(judge):
    label = device_label(image_context("s0:c2,c1"))
    outcome = judge(guest("a", disks=labelled_disk("a", label)))
    assert outcome.told == [("label-not-canonical", ["a"], [])]


def test_the_low_finding_fails_when_asked(judge):
    assert judge(*statics("s0:c2,c1"), options=["--fail-on", "low"]).code == 1


# --- What needs the host ----------------------------------------------------------------------


def on_a_host(*guests, mode=Mode.ENFORCING):
    inventory = Inventory(
        host=Host(name="host1", mode=mode),
        guests=guests,
        host_known=True,
        files_known=True,
        processes_known=True,
    )
    report = run_checks(inventory)
    # No policy was asked.
    assert [entry.rule for entry in report.not_run] == ["guest-permissive"]
    return report


def running(name, level="s0:c1,c2", process=None, **options):
    label = Seclabel(
        SeclabelType.DYNAMIC,
        "selinux",
        label=context(level),
        imagelabel=image_context(level),
    )
    found = None if process is None else Process(100, process, "/proc/100/attr/current")
    return Guest(name, None, True, "kvm", "libvirt", (label,), process=found, **options)


def told(report: Report) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(finding.rule, finding.guests, finding.reaches) for finding in report.findings]


@pytest.mark.parametrize("mode", [Mode.PERMISSIVE, Mode.DISABLED])
def test_a_host_that_does_not_enforce(mode):
    report = on_a_host(running("a"), dynamic("off"), mode=mode)
    assert told(report) == [("host-not-enforcing", (), ("a",))]
    assert report.worst is Severity.CRITICAL


@pytest.mark.parametrize("mode", [Mode.ENFORCING, None])
def test_a_host_that_enforces_or_did_not_say(mode):
    assert told(on_a_host(running("a"), mode=mode)) == []


def test_a_host_without_guests_that_does_not_enforce():
    assert told(on_a_host(mode=Mode.DISABLED)) == [("host-not-enforcing", (), ())]


@pytest.mark.parametrize(
    "actual",
    [
        context("s0:c3,c4"),
        context("s0:c1"),
        context("s0:c1,c2", "svirt_tcg_t"),
        "unconfined_u:system_r:svirt_t:s0:c1,c2",
        context("s0-s0:c1,c2"),
    ],
)
def test_a_process_with_another_context(actual):
    report = on_a_host(running("a", process=actual))
    assert told(report) == [("process-label-drift", ("a",), ())]
    assert report.findings[0].labels == (context("s0:c1,c2"), actual)


def test_contexts_that_are_none_are_compared_as_texts():
    stated = (Seclabel(SeclabelType.DYNAMIC, "selinux", label="no context"),)

    def drift(actual):
        report = on_a_host(evolve(running("a", process=actual), seclabels=stated))
        return "process-label-drift" in {finding.rule for finding in report.findings}

    assert not drift("no context")
    assert drift("no other context")


@pytest.mark.parametrize("level", ["s0:c1,c2", "s0:c2,c1", "s0:c1.c2"])
def test_a_process_with_the_stated_context(level):
    assert told(on_a_host(running("a", level, process=context("s0:c1,c2")))) in (
        [],
        [("label-not-canonical", ("a",), ())] * 2,
    )


def test_the_kernels_word_counts_for_all_rules():
    """libvirt states two levels, the processes have one; and the other way round."""
    shared = context("s0:c1,c2")
    report = on_a_host(
        running("a", "s0:c1,c2", process=shared), running("b", "s0:c3,c4", process=shared)
    )
    assert told(report) == [
        ("label-collision", ("a", "b"), ("a", "b")),
        ("process-label-drift", ("b",), ()),
    ]
    report = on_a_host(
        running("a", "s0:c1,c2", process=shared),
        running("b", "s0:c1,c2", process=context("s0:c3,c4")),
    )
    assert told(report) == [("process-label-drift", ("b",), ())]


def test_a_process_that_is_not_confined():
    report = on_a_host(running("a", process=context("s0", "virtd_t")), running("b", "s0:c3,c4"))
    assert told(report) == [
        ("guest-unconfined", ("a",), ("b",)),
        ("process-label-drift", ("a",), ()),
    ]


def test_a_process_that_libvirt_does_not_know():
    """It is judged as any other; if its context cannot be read, it is not called unconfined."""
    lost: dict[str, Any] = {"virt_type": "qemu", "source": "/proc/7", "known_to_libvirt": False}
    process = Process(7, context("s0:c1,c2"), "/proc/7/attr/current")
    report = on_a_host(running("a"), Guest("b", None, True, process=process, **lost))
    assert told(report) == [("label-collision", ("a", "b"), ("a", "b"))]
    report = on_a_host(running("a"), Guest("b", None, True, **lost))
    assert told(report) == []
    assert [gap.what for gap in report.unreadable] == ["guest b"]


def test_a_seclabel_none_is_judged_by_the_process():
    none = (Seclabel(SeclabelType.NONE, "selinux", relabel=False),)
    process = Process(1, context("s0", "virtd_t"), "/proc/1/attr/current")
    report = on_a_host(Guest("a", None, True, "kvm", "libvirt", none, process=process))
    assert told(report) == [("guest-unconfined", ("a",), ())]


# --- What needs files -------------------------------------------------------------------------


class Images:
    """Files with labels, and the guests that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "images"
        self.dumps = folder / "dumps"
        self.folder.mkdir()
        self.dumps.mkdir()

    def make(self, name, label=None, *, references=None, remembered=None):
        """Make an image with a label; return its path."""
        path = self.folder / name
        path.touch()
        attributes = {
            "security.selinux": label,
            "trusted.libvirt.security.ref_selinux": references,
            "trusted.libvirt.security.selinux": remembered,
        }
        for attribute, text in attributes.items():
            if text is not None:
                os.setxattr(path, attribute, text.encode() + b"\0")
        return str(path)

    def judge(self, *documents, options=()):
        for old in self.dumps.iterdir():
            old.unlink()
        for number, document in enumerate(documents):
            (self.dumps / f"{number}.xml").write_text(document)
        outcome = check("--xml", self.dumps, "--files", *ONLY, *options)
        for finding in outcome.findings:
            well_formed(finding)
        return outcome


@pytest.fixture
def images(tmp_path):
    try:
        os.setxattr(tmp_path, "security.selinux", image_context("s0", "virt_image_t").encode())
        os.setxattr(tmp_path, "trusted.libvirt.security.ref_selinux", b"1")
    except OSError as error:
        skip(f"no SELinux labels on files in {tmp_path.parent.name}: {error.strerror}")
    return Images(tmp_path)


OWN = image_context("s0:c1,c2")
CONTENT = image_context("s0", "virt_content_t")
SHARED_IMAGE = image_context("s0")
AT_REST = image_context("s0", "virt_image_t")


@pytest.mark.root
def test_files_of_a_healthy_host(images):
    base = below(images.make("base", CONTENT))
    home = image_context("s0:c1,c2", "svirt_home_t")
    label = device_label(home)
    off_label = device_label(relabel="no")
    # A disk's own label goes down its chain, until another seclabel says something else.
    lowest = below(images.make("lowest", CONTENT), seclabels=[device_label(CONTENT)])
    labelled_chain = below(images.make("labelled base", home), chain=lowest)
    kept_chain = below(images.make("kept base", CONTENT))
    disks = [
        disk(images.make("own", OWN), chain=base),
        disk(images.make("shared", SHARED_IMAGE), shareable=True, target="vdb"),
        disk(images.make("both", SHARED_IMAGE), shareable=True, readonly=True, target="vdc"),
        disk(images.make("readonly", CONTENT), readonly=True, target="vdd"),
        disk(images.make("iso", CONTENT), device="cdrom", target="sda"),
        disk(
            images.make("labelled", home),
            target="vde",
            seclabels=[label],
            chain=labelled_chain,
        ),
        disk(images.make("kept", OWN), seclabels=[off_label], target="vdf", chain=kept_chain),
        disk(images.make("copied", OWN), more=mirror(images.make("copy", OWN)), target="vdg"),
    ]
    boot = (
        nvram(images.make("nvram", OWN))
        + f"<kernel>{images.make('kernel', CONTENT)}</kernel>"
        + f"<initrd>{images.make('initrd', CONTENT)}</initrd>"
    )
    outcome = images.judge(
        guest("a", disks=disks, boot=boot),
        guest("b", "s0:c3,c4", disks=[disk(images.make("b", image_context("s0:c4,c3")))]),
        guest("off", live=False, disks=[disk(images.make("off", AT_REST), format_="raw")]),
        guest(
            "manual",
            "s0:c5,c6",
            how="static",
            live=False,
            relabel=False,
            disks=[disk(images.make("manual", image_context("s0:c5,c6")))],
        ),
    )
    # The label of b's image is set by hand in another spelling: the same set, no drift.
    assert outcome.told == [("label-not-canonical", ["b"], [])]
    assert outcome.unjudged == []
    # Whether this machine has a policy to ask about permissive types is not what is tested.
    assert {entry["rule"] for entry in outcome.report["not_run"]} - {"guest-permissive"} == {
        "host-not-enforcing",
        "process-label-drift",
    }


DRIFT: dict[str, tuple[dict[str, Any], Optional[str]]] = {
    "restorecon": (RW, AT_REST),
    "restorecon kept the level": (RW, image_context("s0:c1,c2", "virt_image_t")),
    "level of nobody": (RW, image_context("s0:c8,c9")),
    "narrower level": (RW, image_context("s0:c1")),
    "user": (RW, "unconfined_u:object_r:svirt_image_t:s0:c1,c2"),
    "no label": (RW, None),
    "no context": (RW, "nonsense"),
    "read-only with the guest's label": (RO, OWN),
    "shareable with the guest's label": (SHARED, OWN),
    "read-only that may be written": (RO, SHARED_IMAGE),
}


@pytest.mark.root
@pytest.mark.parametrize("case", DRIFT)
def test_an_image_in_use_with_another_label(images, case):
    options, label = DRIFT[case]
    path = images.make("x", label)
    outcome = images.judge(guest("a", disks=[disk(path, **options)]))
    (finding,) = outcome.of("image-label-drift")
    assert (finding["guests"], finding["paths"]) == (["a"], [path])
    assert set(outcome.rules) - {"image-label-drift"} == (
        {"label-invalid"} if label == "nonsense" else set()
    )
    assert outcome.code == 1


@pytest.mark.root
def test_drift_in_the_chain_and_in_the_firmware(images):
    paths = [images.make(name, AT_REST) for name in ("base", "kernel", "nvram")]
    boot = nvram(paths[2]) + f"<kernel>{paths[1]}</kernel>"
    top = disk(images.make("top", OWN), chain=below(paths[0]))
    outcome = images.judge(guest("a", disks=[top], boot=boot))
    assert set(outcome.rules) == {"image-label-drift"}
    assert sorted(path for f in outcome.findings for path in f["paths"]) == sorted(paths)


@pytest.mark.root
def test_one_restorecon_is_one_finding(images):
    documents = [
        guest(n, f"s0:c{i},c9", disks=[disk(images.make(n, AT_REST))]) for i, n in enumerate("abc")
    ]
    outcome = images.judge(*documents)
    assert [entry[:2] for entry in outcome.told] == [("image-label-drift", ["a", "b", "c"])]
    assert len(outcome.one("image-label-drift")["paths"]) == 3


@pytest.mark.root
@pytest.mark.parametrize(
    "document",
    [
        {"live": False},
        {"how": "static", "relabel": False},
        {"how": "none"},
    ],
)
def test_no_drift_where_libvirt_sets_no_label(images, document):
    path = images.make("x", image_context("s0:c1,c2"))
    outcome = images.judge(guest("a", disks=[disk(path)], **document))
    assert "image-label-drift" not in outcome.rules


@pytest.mark.root
def test_an_active_commit_is_no_drift(images):
    """While the job runs libvirt lets the guest write the base, and labels it so."""
    base = images.make("base", OWN)
    job = mirror(base, job="active-commit")
    disks = [disk(images.make("top", OWN), chain=below(base), more=job)]
    outcome = images.judge(guest("a", disks=disks), guest("b", "s0:c3,c4", disks=[]))
    assert outcome.told == []
    assert outcome.code == 0


@pytest.mark.root
def test_an_image_in_use_that_is_not_there(images):
    path = str(images.folder / "gone")
    outcome = images.judge(guest("a", disks=[disk(path)]))
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], [path], 3)
    outcome = images.judge(guest("a", live=False, disks=[disk(path)]))
    assert (outcome.told, outcome.unjudged, outcome.code) == ([], [], 0)


# stale-image-label


@pytest.mark.root
@pytest.mark.parametrize(
    "attributes",
    [
        {"label": image_context("s0:c8,c9")},
        {"label": image_context("s0:c8,c9", "virt_image_t")},
        {"label": AT_REST, "references": "1"},
        {"label": AT_REST, "references": "2", "remembered": AT_REST},
    ],
)
def test_what_a_guest_left_behind(images, attributes):
    path = images.make("x", **attributes)
    outcome = images.judge(
        guest("off", live=False, disks=[disk(path)]), guest("b", "s0:c3,c4", disks=[])
    )
    assert outcome.told == [("stale-image-label", ["off"], [])]
    assert outcome.one("stale-image-label")["paths"] == [path]
    assert outcome.code == 1


@pytest.mark.root
def test_what_a_guest_left_behind_for_another(images):
    """The level is another running guest's: not stale, but open to that one."""
    path = images.make("x", image_context("s0:c3,c4"))
    outcome = images.judge(
        guest("off", live=False, disks=[disk(path)]), guest("b", "s0:c3,c4", disks=[])
    )
    assert outcome.told == [("image-exposure", ["b"], ["off"])]


@pytest.mark.root
def test_a_stale_label_that_a_running_guest_includes(images):
    path = images.make("x", image_context("s0:c3"))
    outcome = images.judge(
        guest("off", live=False, disks=[disk(path)]), guest("b", "s0:c3,c4", disks=[])
    )
    assert outcome.told == [
        ("image-exposure", ["b"], ["off"]),
        ("stale-image-label", ["off"], []),
    ]


@pytest.mark.root
def test_labels_at_rest_are_not_stale(images):
    """As libvirt restores them, of a definition that asks for them, or without any."""
    documents = [
        guest("restored", live=False, disks=[disk(images.make("restored", AT_REST))]),
        guest("forgotten", live=False, disks=[disk(images.make("none"))]),
        guest(
            "static",
            "s0:c8,c9",
            how="static",
            live=False,
            disks=[disk(images.make("static", image_context("s0:c8,c9")))],
        ),
        guest(
            "labelled",
            live=False,
            disks=[
                disk(
                    images.make("labelled", image_context("s0:c6,c7")),
                    seclabels=[device_label(image_context("s0:c7,c6"))],
                )
            ],
        ),
        guest("zero", live=False, disks=[disk(images.make("zero", AT_REST, references="0"))]),
    ]
    outcome = images.judge(*documents)
    assert outcome.told == [("label-not-canonical", ["labelled"], [])]


@pytest.mark.root
def test_owner_attributes_of_a_running_guest_are_not_stale(images):
    path = images.make("x", OWN, references="1", remembered=AT_REST)
    assert healthy(images.judge(guest("a", disks=[disk(path)])))


# relabel-off-mismatch


@pytest.mark.root
@pytest.mark.parametrize(
    ("label", "options", "fires"),
    [
        (OWN, RW, False),
        (image_context("s0:c1"), RW, False),
        (image_context("s0:c2,c1"), RW, False),
        (image_context("s0:c1.c3"), RW, True),
        (image_context("s0:c3,c4"), RW, True),
        (AT_REST, RW, True),
        (CONTENT, RW, True),
        (CONTENT, RO, False),
        (CONTENT, {"device": "cdrom"}, False),
        (None, RW, True),
        ("nonsense", RW, True),
        (image_context("s0:c1,c2", "unlabeled_t"), RW, True),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_an_image_that_libvirt_does_not_relabel(images, label, options, fires, live):
    path = images.make("x", label)
    outcome = images.judge(
        guest("a", how="static", relabel=False, live=live, disks=[disk(path, **options)])
    )
    found = outcome.of("relabel-off-mismatch")
    assert [finding["paths"] for finding in found] == ([[path]] if fires else [])
    assert [finding["guests"] for finding in found] == ([["a"]] if fires else [])
    assert "image-label-drift" not in outcome.rules


@pytest.mark.root
def test_a_disk_that_libvirt_does_not_relabel(images):
    off = [device_label(relabel="no")]
    bad = disk(images.make("bad", AT_REST), seclabels=off)
    good = disk(images.make("good", OWN), seclabels=off, target="vdb")
    outcome = images.judge(guest("a", disks=[bad, good]))
    assert outcome.told == [("relabel-off-mismatch", ["a"], [])]
    assert outcome.one("relabel-off-mismatch")["paths"] == [images.make("bad")]


@pytest.mark.root
def test_a_disk_of_a_dynamic_guest_that_is_off(images):
    """It will draw a level; only an image without categories fits whatever that is."""
    off = [device_label(relabel="no")]
    stale = disk(images.make("stale", image_context("s0:c8,c9")), seclabels=off)
    outcome = images.judge(guest("a", live=False, disks=[stale]))
    assert outcome.of("relabel-off-mismatch")
    bare = disk(images.make("bare", SHARED_IMAGE), seclabels=off)
    assert healthy(images.judge(guest("a", live=False, disks=[bare])))


@pytest.mark.root
@pytest.mark.parametrize("how", ["none", "dynamic"])
def test_relabelled_or_unconfined_guests_start_anyhow(images, how):
    outcome = images.judge(guest("a", how=how, live=False, disks=[disk(images.make("x", AT_REST))]))
    assert healthy(outcome)


@pytest.mark.root
@pytest.mark.parametrize(("label", "fires"), [(AT_REST, True), (OWN, False), (SHARED_IMAGE, False)])
def test_a_folder_is_never_relabelled(images, label, fires):
    path = images.make("x", label)
    outcome = images.judge(guest("a", disks=[disk(path, kind="dir")]))
    assert ("relabel-off-mismatch" in outcome.rules) is fires


# image-exposure, shared-image-undeclared by what the files say


@pytest.mark.root
@pytest.mark.parametrize(
    ("label", "told_"),
    [
        (SHARED_IMAGE, [("image-exposure", ["a"], ["a"])]),
        (CONTENT, [("image-exposure", ["a"], ["a"])]),
        (image_context("s0:c3,c4"), [("image-exposure", ["b"], ["a"])]),
        (image_context("s0:c3"), [("image-exposure", ["b"], ["a"])]),
        (image_context("s0:c8"), []),
        (AT_REST, []),
        (None, []),
        (image_context("s0", "nfs_t"), []),
    ],
)
def test_the_label_of_the_file_counts(images, label, told_):
    path = images.make("x", label)
    outcome = images.judge(guest("a", disks=[disk(path)]), guest("b", "s0:c3,c4", disks=[]))
    assert [entry for entry in outcome.told if entry[0] != "image-label-drift"] == told_
    assert outcome.one("image-label-drift")["paths"] == [path]


@pytest.mark.root
def test_the_open_image_of_a_guest_that_is_off(images):
    path = images.make("x", SHARED_IMAGE)
    off = guest("off", live=False, disks=[disk(path)])
    outcome = images.judge(off, guest("b", "s0:c3,c4", disks=[]))
    assert outcome.told == [("image-exposure", ["off"], ["off"])]
    # Nobody is there to use it.
    assert healthy(images.judge(off))


@pytest.mark.root
def test_one_file_by_two_names(images):
    path = images.make("x", OWN)
    link = images.folder / "link"
    link.symlink_to("x")
    hard = images.folder / "hard"
    os.link(path, hard)
    for other in (link, hard):
        outcome = images.judge(
            guest("a", disks=[disk(path)]),
            guest("b", "s0:c3,c4", live=False, disks=[disk(str(other))]),
        )
        assert outcome.told == [("shared-image-undeclared", ["a", "b"], [])]
        assert outcome.one("shared-image-undeclared")["severity"] == "medium"


@pytest.mark.root
def test_invalid_and_oddly_spelled_labels_of_files(images):
    bad = images.make("bad", "system_u:object_r:virt_image_t:s0:c5.c5")
    odd = images.make("odd", "system_u:object_r:virt_image_t:s0-s0")
    off = guest("off", live=False, disks=[disk(bad), disk(odd, target="vdb")])
    outcome = images.judge(off)
    assert outcome.told == [
        ("label-invalid", ["off"], []),
        ("label-not-canonical", ["off"], []),
    ]
    assert [finding["paths"] for finding in outcome.findings] == [[bad], [odd]]
