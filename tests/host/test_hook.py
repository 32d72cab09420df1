"""The hook as the real libvirtd calls it, with real guests, labels of files included."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from sessiondaemon import bootable
from systemdaemon import SystemDaemon

from svirtlib.cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.root]

HOOK_FAILED = 70  # libvirt's VIR_ERR_HOOK_SCRIPT_FAILED


@pytest.fixture(scope="module")
def _daemon():
    # Short, for the name of a socket has at most 107 characters.
    memory = Path("/dev/shm")
    base = Path(tempfile.mkdtemp(prefix="svirt-", dir=memory if memory.is_dir() else None))
    try:
        daemon = SystemDaemon(base)
        # libvirt calls hooks only if there was one when it started.
        log_calls(daemon)
        with daemon:
            yield daemon
    finally:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def daemon(_daemon):
    """A libvirtd without guests, with a hook that notes its calls, and with ours."""
    calls = log_calls(_daemon)
    install(_daemon)
    yield _daemon
    _daemon.clear()
    shutil.rmtree(calls)


def log_calls(daemon):
    """Let a hook write down the calls, and each document that it gets."""
    calls = daemon.hooks.parent.parent / "calls"
    calls.mkdir(exist_ok=True)
    script = daemon.hooks / "qemu.d" / "10-log"
    lines = [
        "#!/bin/sh",
        f'echo "$2 $3" >>{calls}/"$1"',
        f'while IFS= read -r line; do echo "$line"; done >{calls}/"$1-$2.xml"',
    ]
    script.write_text("\n".join(lines) + "\n")
    script.chmod(0o755)
    return calls


def install(daemon, *options):
    """Install our hook as an administrator would."""
    root = daemon.hooks.parent.parent / "root"
    (root / "etc" / "libvirt").mkdir(parents=True, exist_ok=True)
    assert main(["hook", "install", "--root", str(root), "--apply", *options]) == 0
    (made,) = (root / "etc" / "libvirt" / "hooks" / "qemu.d").iterdir()
    target = daemon.hooks / "qemu.d" / made.name
    shutil.copy(made, target)
    shutil.rmtree(root)
    return target


def static(name, level, daemon, *, relabel="yes", image=True):
    disks = []
    if image:
        path = daemon.folder / f"{name}.raw"
        path.touch()
        disks = [
            f"<disk type='file'><driver name='qemu' type='raw'/><source file='{path}'/>"
            "<target dev='vda' bus='virtio'/></disk>"
        ]
    seclabel = (
        f"<seclabel type='static' model='selinux' relabel='{relabel}'>"
        f"<label>system_u:system_r:svirt_t:{level}</label></seclabel>"
    )
    return bootable(name, disks=disks).replace("</domain>", f"{seclabel}</domain>")


def state(daemon):
    """The names of the guests whose labels the hook has noted."""
    text = daemon.inside("cat", "/run/svirt-label/hook/state")
    return sorted(line.split("\t")[3] for line in text.splitlines()[1:])


def refused(daemon, name):
    """Start a guest, see that our hook kept it from running, and return the message."""
    with pytest.raises(daemon.libvirt.libvirtError) as caught:
        daemon.start(name)
    assert caught.value.get_error_code() == HOOK_FAILED
    assert not daemon.connection.lookupByName(name).isActive()
    return caught.value.get_error_message()


def test_a_dynamic_guest_lives_and_is_forgotten(daemon):
    image = daemon.folder / "a.raw"
    image.touch()
    disk = (
        f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    daemon.define(bootable("a", disks=[disk]))
    domain = daemon.start("a")
    assert domain.isActive()
    assert state(daemon) == ["a"]
    # What libvirt says and what is true of the image are the same: nothing is to be told.
    label = ET.fromstring(domain.XMLDesc(0)).findtext("seclabel[@model='selinux']/imagelabel")
    assert label is not None
    assert os.getxattr(image, "security.selinux").rstrip(b"\0").decode() == label
    domain.destroy()
    assert state(daemon) == []
    calls = (daemon.hooks.parent.parent / "calls" / "a").read_text().split("\n")
    assert calls[:-1] == [
        "prepare begin",
        "start begin",
        "started begin",
        "stopped end",
        "release end",
    ]
    assert daemon.messages() == []


def test_a_static_label_in_use_stops_the_second_guest(daemon):
    daemon.define(static("one", "s0:c10,c20", daemon), static("two", "s0:c20,c10", daemon))
    first = daemon.start("one")
    message = refused(daemon, "two")
    assert "one" in message
    assert "label-collision" in message
    assert "svirt-label allocate" in message
    assert first.isActive()
    (told,) = [entry for entry in daemon.messages() if entry.get("SVIRT_VERDICT") == "stopped"]
    assert told["SVIRT_GUEST"] == "two"
    assert told["SVIRT_OTHERS"] == "one"
    assert told["SVIRT_RULE"] == "label-collision"
    first.destroy()
    assert daemon.start("two").isActive()
    assert state(daemon) == ["two"]


def test_a_wide_level_is_stopped_beside_a_narrow_one(daemon):
    daemon.define(static("narrow", "s0:c1,c2", daemon), static("wide", "s0:c0.c9", daemon))
    daemon.start("narrow")
    assert "label-exposure" in refused(daemon, "wide")


def test_a_wide_level_can_be_accepted(daemon):
    install(daemon, "--ignore", "label-exposure=wide")
    daemon.define(static("narrow", "s0:c1,c2", daemon), static("wide", "s0:c0.c9", daemon))
    daemon.start("narrow")
    assert daemon.start("wide").isActive()


def test_an_image_open_to_others_is_seen_once_it_is_labelled(daemon):
    daemon.define(
        static("other", "s0:c1,c2", daemon), static("open", "s0:c3,c4", daemon, relabel="no")
    )
    os.setxattr(
        daemon.folder / "open.raw", "security.selinux", b"system_u:object_r:svirt_image_t:s0\0"
    )
    daemon.start("other")
    message = refused(daemon, "open")
    assert "image-exposure" in message
    assert "open.raw" in message


def test_guests_that_run_already_survive_a_restart_of_libvirt(daemon):
    """They collide, and have started before the hook was there: a veto now would kill them."""
    ours = daemon.hooks / "qemu.d" / "50-svirt-label"
    kept = ours.read_text()
    ours.unlink()
    daemon.define(static("one", "s0:c10,c20", daemon), static("two", "s0:c10,c20", daemon))
    daemon.start("one")
    daemon.start("two")
    ours.write_text(kept)
    ours.chmod(0o755)
    daemon.restart()
    # libvirt takes each guest up in a thread of its own.
    for _ in range(1000):
        if state(daemon) == ["one", "two"]:
            break
        select.select([], [], [], 0.01)
    assert state(daemon) == ["one", "two"]
    assert all(daemon.connection.lookupByName(name).isActive() for name in ("one", "two"))
    told = [entry for entry in daemon.messages() if entry.get("SVIRT_PHASE") == "reconnect"]
    assert told
    assert {entry["SVIRT_VERDICT"] for entry in told} == {"told"}


def test_a_saved_guest_comes_back(daemon):
    """libvirt would take anything on standard output for the guest's new XML."""
    daemon.define(static("one", "s0:c10,c20", daemon, image=False))
    domain = daemon.start("one")
    target = str(daemon.folder / "saved")
    domain.save(target)
    daemon.connection.restoreFlags(target, None, daemon.libvirt.VIR_DOMAIN_SAVE_PAUSED)
    assert daemon.connection.lookupByName("one").isActive()
    calls = (daemon.hooks.parent.parent / "calls" / "one").read_text()
    assert "restore begin" in calls


@pytest.mark.parametrize("fail", ["open", "closed"])
def test_a_hook_without_its_library(daemon, fail):
    ours = install(daemon, "--fail", fail)
    ours.write_text(ours.read_text().replace("quick.py", "gone.py"))
    daemon.define(bootable("a"))
    if fail == "open":
        assert daemon.start("a").isActive()
    else:
        assert "svirtlib" in refused(daemon, "a")
