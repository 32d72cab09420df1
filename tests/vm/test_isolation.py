"""The findings of ``check`` against what the kernel grants each guest on each image.

Real guests of every kind run in the machine. For every pair of a guest's process and another
guest's own image, the findings must say that it is reached exactly if the kernel grants opening,
reading and writing, and if the guest's QEMU, told to, really opens it.
"""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.vm

IMAGES = "/var/lib/libvirt/images"
STATIC = (
    "<seclabel type='static' model='selinux' relabel='yes'>"
    "<label>system_u:system_r:svirt_t:{}</label></seclabel>"
)


def own(name: str, **more: Any) -> dict[str, Any]:
    return {"path": f"{IMAGES}/{name}.img", **more}


def static(name: str, level: str) -> dict[str, Any]:
    return {"name": name, "seclabel": STATIC.format(level), "disks": [own(name)]}


SHARED = {"path": f"{IMAGES}/cluster.img", "flags": ["shareable"]}
INSTALLER = {"path": f"{IMAGES}/installer.img", "flags": ["readonly"]}

#: A host as it should be.
HEALTHY = [
    {"name": "chain", "disks": [
        own("chain", format="qcow2", backing=f"{IMAGES}/base.qcow2"), INSTALLER]},
    {"name": "nvram", "disks": [own("nvram"), INSTALLER],
     "nvram": "/var/lib/libvirt/qemu/nvram/nvram.fd"},
    {"name": "based", "disks": [own("based"), SHARED],
     "seclabel": "<seclabel type='dynamic' model='selinux'>"
                 "<baselabel>system_u:system_r:svirt_t:s0</baselabel></seclabel>"},
    {"name": "block", "disks": [own("block"), {"path": "/dev/loop0"}, SHARED]},
]  # fmt: skip

#: And all that goes wrong.
FAULTY = [
    static("one", "s0:c392,c662"),
    static("twin", "s0:c662,c392"),
    static("wide", "s0:c0.c1023"),
    static("bare", "s0"),
    static("single", "s0:c9"),
    static("holds-nine", "s0:c9,c10"),
    static("ranged", "s0-s0:c5,c6"),
    {"name": "none", "seclabel": "<seclabel type='none' model='selinux'/>",
     "disks": [own("none")]},
    {"name": "by-hand", "disks": [
        own("by-hand", chcon="system_u:object_r:svirt_image_t:s0:c101,c102")],
     "seclabel": STATIC.format("s0:c101,c102").replace("'yes'", "'no'")},
    {"name": "loose", "disks": [
        own("loose"),
        own("loose-open", seclabel="<seclabel model='selinux' relabel='yes'>"
            "<label>system_u:object_r:svirt_image_t:s0</label></seclabel>"),
        own("loose-foreign", seclabel="<seclabel model='selinux' relabel='yes'>"
            "<label>system_u:object_r:svirt_image_t:s0:c392,c662</label></seclabel>"),
        own("loose-closed", seclabel="<seclabel model='selinux' relabel='no'/>")]},
]  # fmt: skip


def unshared(specs):
    """The owner of each image that belongs to one guest alone."""
    owners = {}
    for spec in specs:
        for disk in spec["disks"]:
            if "flags" not in disk:
                owners[disk["path"]] = spec["name"]
        if "nvram" in spec:
            owners[spec["nvram"]] = spec["name"]
    return owners


def told(report, owners, guests):
    """The pairs of a guest and another's image that the findings say it reaches."""
    pairs = set()
    for finding in report["findings"]:
        reaching, reached = finding["guests"], finding["reaches"]
        paths = [path for path, owner in owners.items() if owner in reached]
        if finding["rule"] == "image-exposure":
            paths = [path for path in finding["paths"] if path in owners]
            if reaching == reached:
                reaching = guests
        elif finding["rule"] not in ("label-collision", "label-exposure", "guest-unconfined"):
            continue
        pairs |= {(guest, path) for guest in reaching for path in paths if owners[path] != guest}
    return pairs


@pytest.fixture(scope="module")
def healthy(machine):
    machine.run("truncate -s 1M /var/lib/libvirt/images/loop && losetup /dev/loop0 "
                "/var/lib/libvirt/images/loop")  # fmt: skip
    started = machine.python("guests", "start", stdin=HEALTHY)
    assert set(started.values()) == {""}, started
    return machine.check()


def test_a_healthy_host_is_clean(healthy):
    assert healthy["host"]["selinux"] == {"mode": "enforcing", "policy": "default"}
    assert healthy["findings"] == []
    assert healthy["unreadable"] == []
    assert healthy["not_run"] == []
    assert healthy["complete"] is True


@pytest.fixture(scope="module")
def faulty(healthy, machine):
    started = machine.python("guests", "start", stdin=FAULTY)
    # What libvirt does not start, the kernel is not asked about.
    refused = {name: error for name, error in started.items() if error}
    assert set(refused) <= {"loose"}, refused
    return [spec for spec in (*HEALTHY, *FAULTY) if spec["name"] not in refused]


@pytest.fixture(scope="module")
def report(faulty, machine):
    return machine.check()


def test_findings_are_what_the_kernel_grants(faulty, report, machine):
    owners = unshared(faulty)
    kernel = machine.python("guests", "ask", stdin=sorted(owners))
    names = sorted(kernel["guests"])
    assert names == sorted(spec["name"] for spec in faulty)
    granted, opened, apart = set(), set(), set()
    for guest, path, read, write, open_ in kernel["pairs"]:
        if owners[path] == guest:
            assert read, f"{guest} can not use its own {path}"
            continue
        assert read == write, (guest, path)
        if read:
            granted.add((guest, path))
        if open_ is not None:
            (opened if open_ else apart).add((guest, path))
    assert len(kernel["pairs"]) == len(names) * len(owners)
    # selinuxfs and a real open() are of one mind.
    assert opened <= granted
    assert not apart & granted
    assert told(report, owners, names) == granted
    assert granted, "nobody reaches anything: the guests test nothing"


def test_rules_name_each_fault(report):
    by_rule: dict[str, list[list[str]]] = {}
    for finding in report["findings"]:
        by_rule.setdefault(finding["rule"], []).append(finding["guests"])
    assert ["one", "twin"] in by_rule["label-collision"]
    assert by_rule["guest-unconfined"] == [["none"]]
    assert any("wide" in guests for guests in by_rule["label-exposure"])
    assert any("holds-nine" in guests for guests in by_rule["label-exposure"])
    assert ["bare"] in by_rule["image-exposure"]
    assert "host-not-enforcing" not in by_rule
    assert "guest-permissive" not in by_rule
    assert "process-label-drift" not in by_rule
    assert "label-invalid" not in by_rule
    spellings = {name for guests in by_rule["label-not-canonical"] for name in guests}
    assert spellings == {"twin"}


def test_the_snapshot_says_the_same_elsewhere(report, machine):
    """What the policy said is in it: no policy is needed to judge it again."""
    machine.label("export", "--output", "/root/snapshot.json")
    there = machine.label("check", "--format", "json", "--snapshot", "/root/snapshot.json", code=1)
    assert there.json == report


def test_a_permissive_host(faulty, machine):
    machine.run("setenforce 0")
    try:
        (finding,) = machine.check("--only", "host-not-enforcing")["findings"]
    finally:
        machine.run("setenforce 1")
    assert finding["rule"] == "host-not-enforcing"
    assert len(finding["reaches"]) == len(faulty)
