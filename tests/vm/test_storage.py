"""The guide's storage procedures through ``storage``, on a machine that enforces.

A folder and a block device get their rules and labels, guests start on them, restorecon breaks
nothing afterwards, and undo leaves no trace.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.vm

FOLDER = "/virtstorage"
DEVICE = "/dev/loop0"


def labels(machine):
    """The label of the folder, of all in it, and of the device."""
    found = machine.run(f"find {FOLDER} {DEVICE} -exec stat -c '%n %C' {{}} +")
    return dict(line.rsplit(" ", 1) for line in found.out.splitlines())


def kind(context):
    return context.split(":")[2]


def local_rules(machine):
    return machine.run("semanage fcontext -l -C").out


@pytest.fixture(scope="module")
def storage(machine):
    """A folder with images that were made at its place or moved in, and a block device."""
    machine.run(
        f"mkdir -p {FOLDER}/sub && truncate -s 1M {FOLDER}/db.img {FOLDER}/sub/web.img /tmp/moved "
        f"&& mv /tmp/moved {FOLDER} && truncate -s 1M /root/device && losetup {DEVICE} /root/device"
    )
    return labels(machine), local_rules(machine)


def test_procedures(storage, machine):
    before, rules = storage
    assert "virt_image_t" not in {kind(context) for context in before.values()}

    machine.label("storage", "apply", FOLDER, DEVICE)
    applied = labels(machine)
    assert {path: kind(context) for path, context in applied.items()} == dict.fromkeys(
        before, "virt_image_t"
    )
    assert f"{FOLDER}(/.*)?" in local_rules(machine)

    started = machine.python(
        "guests",
        "start",
        stdin=[{"name": "db", "disks": [{"path": f"{FOLDER}/db.img"}, {"path": DEVICE}]}],
    )
    assert started == {"db": ""}
    running = labels(machine)
    assert kind(running[f"{FOLDER}/db.img"]) == "svirt_image_t"
    report = machine.check()
    assert report["findings"] == []
    assert report["unreadable"] == []
    machine.python("guests", "stop", "db")

    # The next relabelling of the host changes nothing any more. libvirt can not note the label of
    # a device (devtmpfs has no trusted attributes), and put back what file_contexts said when its
    # daemon was started; there, relabelling is what brings our label back.
    assert machine.run(f"restorecon -Rv {FOLDER}").out == ""
    machine.run(f"restorecon {DEVICE}")
    assert labels(machine) == applied

    machine.label("storage", "undo")
    assert labels(machine) == before
    assert local_rules(machine) == rules
