"""What is left behind, and what ``check`` then says: killed guests, a killed libvirtd, reuse."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm

IMAGES = "/var/lib/libvirt/images"
SOCKETS = "libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket"
#: libvirtd started anew, whatever became of it, and answering.
AGAIN = (
    f"systemctl reset-failed libvirtd {SOCKETS}; systemctl stop libvirtd; "
    f"systemctl start {SOCKETS} libvirtd && virsh list >/dev/null"
)
STATIC = (
    "<seclabel type='static' model='selinux' relabel='yes'>"
    "<label>system_u:system_r:svirt_t:{}</label></seclabel>"
)


def guest(name, level=None):
    spec = {"name": name, "disks": [{"path": f"{IMAGES}/{name}.img"}]}
    return spec if level is None else {**spec, "seclabel": STATIC.format(level)}


@pytest.fixture(autouse=True)
def _no_guests_left(machine):
    """Levels of one test are not to collide with those of the next."""
    yield
    machine.python("guests", "clear")


def start(machine, *specs):
    started = machine.python("guests", "start", stdin=list(specs))
    assert set(started.values()) == {""}, started


def label(machine, name):
    return machine.run("stat", "-c", "%C", f"{IMAGES}/{name}.img").out.strip()


def process(machine, name):
    return machine.run(f"cat /proc/$(cat /run/libvirt/qemu/{name}.pid)/attr/current").out.strip(
        "\0\n"
    )


def level(machine, name):
    return process(machine, name).split(":", 3)[3]


def rules(report):
    return sorted(finding["rule"] for finding in report["findings"])


def test_a_killed_guest(machine):
    """libvirt sees its QEMU die, and puts the label back: nothing is left to tell of."""
    start(machine, guest("killed"), guest("lives"))
    machine.run("kill -9 $(cat /run/libvirt/qemu/killed.pid)")
    machine.run("for i in $(seq 120); do virsh domstate killed | grep -q off && exit; sleep 0.5; "
                "done; exit 1")  # fmt: skip
    report = machine.check()
    assert report["findings"] == []
    assert report["unreadable"] == []
    assert ":c" not in label(machine, "killed")


def test_a_killed_libvirtd_loses_no_guest(machine):
    """Its guests run on with their labels; the daemon that systemd starts finds them again."""
    start(machine, guest("survivor"))
    before = process(machine, "survivor")
    machine.run(f"systemctl kill -s KILL libvirtd; {AGAIN}")
    assert process(machine, "survivor") == before
    report = machine.check()
    assert report["findings"] == []
    assert report["unreadable"] == []


def test_a_guest_that_died_while_libvirtd_was_down(machine):
    """Nobody put the labels back: the image keeps the level of a guest that is no more."""
    start(machine, guest("orphan"))
    machine.run(f"systemctl stop {SOCKETS}; systemctl kill -s KILL libvirtd")
    machine.run("kill -9 $(cat /run/libvirt/qemu/orphan.pid)")
    left = label(machine, "orphan")
    assert ":c" in left
    machine.run(AGAIN)
    report = machine.check()
    path = f"{IMAGES}/orphan.img"
    if label(machine, "orphan") == left:
        (finding,) = (one for one in report["findings"] if one["rule"] == "stale-image-label")
        assert finding["guests"] == ["orphan"]
        assert finding["labels"] == [left]
        machine.label("image", "inspect", "--exit-code", path, code=1)
        machine.label("image", "restore", path)
    # Mended, or looked after by this libvirt when it came back: nothing is left.
    machine.label("image", "inspect", "--exit-code", path, code=0)
    assert ":c" not in label(machine, "orphan")
    assert machine.check()["findings"] == []


@pytest.fixture
def few_levels(machine):
    """A libvirtd with eight categories, of which a dynamic guest gets two: 28 levels."""
    folder = "/etc/systemd/system/libvirtd.service.d"
    few = "[Service]\\nSELinuxContext=system_u:system_r:virtd_t:s0-s0:c0.c7\\n"
    machine.run(f"mkdir -p {folder} && printf '{few}' >{folder}/few.conf")
    machine.run(f"systemctl daemon-reload && {AGAIN}")
    yield
    machine.run(f"rm {folder}/few.conf && systemctl daemon-reload && {AGAIN}")


def test_a_static_level_that_libvirt_draws(few_levels, machine):
    """The rule warns of it; libvirt then really draws it, and the two guests collide."""
    del few_levels
    taken = [guest(f"static{number}", f"s0:c{number},c{number + 4}") for number in range(4)]
    drawers = [guest(f"drawer{number}") for number in range(4)]
    start(machine, *taken, *drawers)
    names = [spec["name"] for spec in taken]
    warned = machine.check("--only", "static-label-reuse")["findings"]
    assert sorted({name for finding in warned for name in finding["guests"]} & set(names)) == names
    # Dynamic guests are started until one draws a level that is taken; 28 levels are there, and
    # none is drawn twice before all are. In seven rounds of four it cannot fail to come.
    levels = {spec["seclabel"].split("svirt_t:")[1].split("<")[0] for spec in taken}
    for _ in range(6):
        if drawn := [spec for spec in drawers if level(machine, spec["name"]) in levels]:
            break
        machine.python("guests", "stop", *(spec["name"] for spec in drawers))
        start(machine, *drawers)
    else:
        drawn = [spec for spec in drawers if level(machine, spec["name"]) in levels]
    assert drawn, "libvirt kept clear of the static levels"
    collisions = [one for one in machine.check()["findings"] if one["rule"] == "label-collision"]
    colliding = {name for one in collisions for name in one["guests"]}
    assert {spec["name"] for spec in drawn} <= colliding


def test_levels_that_the_registry_hands_out_are_free(machine):
    """A level from "allocate" is comparable with none in use, and the guest with it is clean."""
    start(machine, guest("neighbour"))
    answer = machine.label("allocate", "--format", "json", "--registry", "/root/levels.db").json
    (free,) = answer["levels"]
    start(machine, guest("reserved", free))
    report = machine.check("--ignore", "static-label-reuse")
    assert "label-collision" not in rules(report)
    assert "label-exposure" not in rules(report)
    again = machine.label("allocate", "--format", "json", "--registry", "/root/levels.db").json
    assert again["levels"] != [free]
