"""``image inspect`` and ``image restore`` on real attributes, locks and processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from checkrun import run
from jsonschema import Draft202012Validator
from policyroot import IMAGE, label_of, set_label
from xmlmaker import disk, guest

import svirtlib
from svirtlib.backends import image, inuse
from svirtlib.imagestate import ImageState, Owner, Problem, remembered_owner

PREFIX = "trusted.libvirt.security."
GUEST = "system_u:object_r:svirt_image_t:s0:c1,c2"
IMAGES = "/var/lib/libvirt/images"
ATTRIBUTES = {
    "selinux": IMAGE,
    "ref_selinux": "1",
    "timestamp_selinux": "1700000000",
    "dac": "+107:+108",
    "ref_dac": "1",
    "timestamp_dac": "1700000000",
}


def _attributes(path):
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def _leak(path, **changed):
    """Give an image what a daemon that lost its guest leaves behind."""
    set_label(path, GUEST)
    for name, value in {**ATTRIBUTES, **changed}.items():
        if value is not None:
            os.setxattr(path, PREFIX + name, value.encode())


@pytest.fixture
def leaked(root):
    """A root with an image that has leftovers."""
    root.fill(f"{IMAGES}/a.img")
    _leak(root.path(f"{IMAGES}/a.img"))
    return root


def _restore(root, *words):
    outcome = root.run("--format", "json", "image", "restore", f"{IMAGES}/a.img", *words)
    text = (Path(svirtlib.__file__).parent / "schemas/image-restore-1.json").read_text()
    Draft202012Validator(json.loads(text)).validate(outcome.report)
    return outcome, outcome.report["images"][0]


@pytest.mark.root
class TestRestore:
    def test_mends_and_is_undone(self, leaked, journald):
        path = leaked.path(f"{IMAGES}/a.img")
        before, owner = _attributes(path), (path.stat().st_uid, path.stat().st_gid)

        planned, told = _restore(leaked, "--dry-run")
        assert planned.code == 1
        assert told["new_label"] == IMAGE
        assert _attributes(path) == before

        assert journald.told() == []
        done, told = _restore(leaked)
        assert done.code == 0
        assert told["done"]
        (message,) = journald.told()
        assert message["SVIRT_VERB"] == [b"image restore"]
        assert message["SVIRT_LABEL"] == [IMAGE.encode()]
        assert b"trusted.libvirt.security.ref_selinux" in message["SVIRT_ATTRIBUTES"]
        assert _attributes(path) == {"security.selinux": IMAGE.encode() + b"\0"}
        assert (path.stat().st_uid, path.stat().st_gid) == (107, 108)

        again, told = _restore(leaked)
        assert again.code == 0
        assert not told["done"]
        assert journald.told() == []

        assert leaked.run("storage", "undo").code == 0
        assert journald.told()[0]["SVIRT_FILES"] == [b"1"]
        assert _attributes(path) == before
        assert (path.stat().st_uid, path.stat().st_gid) == owner

    def test_under_any_name(self, root):
        """Guests that write to a folder choose the names in it."""
        path = f"{IMAGES}/a\n\udcff\x1b[2J.img"
        root.fill(path)
        _leak(root.path(path))
        told = run("image", "inspect", path, "--root", root.folder)
        assert told.code == 0
        assert "\x1b" not in told.out
        assert root.run("image", "restore", path).code == 0
        assert _attributes(root.path(path)) == {"security.selinux": IMAGE.encode() + b"\0"}
        assert root.run("storage", "undo").code == 0
        assert len(_attributes(root.path(path))) == 7

    def test_not_while_a_process_has_it_open(self, leaked):
        path = leaked.path(f"{IMAGES}/a.img")
        before = _attributes(path)
        with (
            path.open("rb") as held,
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[held.fileno()]) as user,
        ):
            outcome, told = _restore(leaked)
            user.communicate()
        assert outcome.code == 3
        assert str(user.pid) in told["reason"]
        assert _attributes(path) == before

    def test_not_while_an_unseen_process_has_it_open(self, leaked, monkeypatch):
        """One in a container that hides its processes: the kernel's lease still tells."""
        path = leaked.path(f"{IMAGES}/a.img")
        before = _attributes(path)
        monkeypatch.setattr(image, "find_users", lambda _: inuse.Users())
        with path.open("rb"):
            outcome, told = _restore(leaked)
        assert outcome.code == 3
        assert "not seen from here" in told["reason"]
        assert _attributes(path) == before

    def test_whoever_opens_it_meanwhile_waits(self, leaked, monkeypatch):
        """A process that opens the image while it is mended sees it mended."""
        path = leaked.path(f"{IMAGES}/a.img")
        code = "import os, sys; f = open(sys.argv[1]); print(os.getxattr(f.fileno(), sys.argv[2]))"
        opener = []
        find = inuse.find_users

        def find_and_start(inventory):
            users = find(inventory)
            if signal.getsignal(signal.SIGIO) == signal.SIG_IGN:
                words = [sys.executable, "-c", code, str(path), "security.selinux"]
                opener.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
            return users

        monkeypatch.setattr(image, "find_users", find_and_start)
        outcome, _ = _restore(leaked)
        assert outcome.code == 0
        said, _ = opener[0].communicate()
        assert IMAGE in said

    def test_not_while_a_guest_runs_with_it(self, leaked, tmp_path):
        path = leaked.path(f"{IMAGES}/a.img")
        document = tmp_path / "guest.xml"
        document.write_text(guest("web", "s0:c1,c2", disks=[disk(str(path))]))
        outcome, told = _restore(leaked, "--xml", str(document))
        assert outcome.code == 3
        assert told["guests"] == [
            {"name": "web", "running": True, "target": "vda", "mode": "private"}
        ]
        assert label_of(path) == GUEST.encode() + b"\0"

    def test_a_static_definition_may_ask_for_the_level(self, root, tmp_path):
        root.fill(f"{IMAGES}/a.img")
        path = root.path(f"{IMAGES}/a.img")
        set_label(path, GUEST)
        document = tmp_path / "guest.xml"
        document.write_text(
            guest("web", "s0:c1,c2", how="static", live=False, disks=[disk(str(path))])
        )
        outcome, told = _restore(root, "--xml", str(document))
        assert outcome.code == 0
        assert told["problems"] == []
        outcome, told = _restore(root)
        assert told["problems"] == ["stale-level"]
        assert label_of(path) == IMAGE.encode() + b"\0"

    def test_what_it_remembers_may_be_a_guests_label_itself(self, leaked):
        path = leaked.path(f"{IMAGES}/a.img")
        _leak(path, selinux=GUEST)
        _restore(leaked)
        assert label_of(path) == IMAGE.encode() + b"\0"

    def test_broken_attributes(self, leaked):
        path = leaked.path(f"{IMAGES}/a.img")
        _leak(path, ref_selinux="nonsense", ref_dac="0")
        _, told = _restore(leaked)
        assert "broken-attributes" in told["problems"]
        assert PREFIX + "ref_selinux" not in os.listxattr(path)

    @pytest.mark.parametrize("path", ["/gone", "relative", IMAGES, f"{IMAGES}/link"])
    def test_what_is_no_image(self, leaked, path):
        os.symlink("a.img", leaked.path(f"{IMAGES}/link"))
        assert leaked.run("image", "restore", path).code == 2
        assert leaked.run("image", "inspect", path, "--journal", "x").code == 2


@pytest.mark.root
def test_inspect_changes_nothing(tmp_path):
    path = tmp_path / "a.img"
    path.touch()
    _leak(path)
    before = _attributes(path)
    outcome = run("--format", "json", "image", "inspect", path)
    text = (Path(svirtlib.__file__).parent / "schemas/image-inspect-1.json").read_text()
    Draft202012Validator(json.loads(text)).validate(outcome.report)
    (state,) = outcome.report["images"]
    assert state["problems"] == ["leaked-references", "stale-level"]
    assert [owner["references"] for owner in state["owner_attributes"]] == ["1", "1"]
    assert state["owner_attributes"][0]["this_boot"] is False
    assert run("image", "inspect", path, "--exit-code").code == 1
    assert "another boot" in run("image", "inspect", path).out
    assert _attributes(path) == before


def _state(**changes):
    return ImageState(path="/a.img", label=GUEST, owner=(0, 0), **changes)


def test_nothing_is_a_leftover_while_its_use_is_unknown():
    owners = (Owner("selinux", IMAGE, "1", "5"),)
    assert _state(owners=owners).problems == (Problem.LEAKED, Problem.STALE_LEVEL)
    assert _state(owners=owners, unknown=("no libvirt",)).problems == ()
    assert _state(owners=owners, users=("guest web",)).problems == ()


@pytest.mark.parametrize(
    ("text", "owner"),
    [("+107:+108", (107, 108)), ("107:108", None), ("+1:+2:+3", None), ("qemu:qemu", None)],
)
def test_remembered_owner(text, owner):
    assert remembered_owner(Owner("dac", text, "1")) == owner
    assert remembered_owner(Owner("selinux", text, "1")) is None
