"""``svirt-label audit``: whom sudo lets start viewers, and who may write what says so."""

from __future__ import annotations

import os

import pytest
from auditrun import audit
from checkrun import run


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("anna ALL=(anna) {}", []),
        ("anna ALL=(anna:spice) {}", []),
        ("anna ALL=(:spice) {}", []),
        ("root ALL=(ALL) {}", []),
        ("anna ALL=(ALL) {}\nben ALL=(ALL) ALL", ["sudoers-broad-command", "sudoers-runas"]),
        ("anna ALL={}", ["sudoers-runas"]),
        ("anna ALL=(ben) {}", ["sudoers-runas"]),
        ("%spice ALL=(ALL) {}", ["sudoers-runas"]),
        ("User_Alias SEATS = anna, ben\nSEATS ALL=(anna) {}", ["sudoers-runas"]),
        ("anna, ben ALL=(:spice) {}", []),
        ("anna ALL=(anna {}", []),
    ],
)
def test_as_whom_sudo_starts_a_viewer(tree, line, rules):
    viewer = "/usr/bin/remote-viewer -- spice\\://kvm1\\?tls-port\\=20002"
    tree.put("/etc/sudoers.d/viewers", line.format(viewer) + "\n", 0o440)
    outcome = audit(tree)
    assert outcome.rules == rules
    assert bool(outcome.unjudged) == ("(anna {" in line)


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("ben ALL=(ALL) ALL", ["sudoers-broad-command"]),
        ("ben ALL=(ALL) NOPASSWD: ALL, !/usr/bin/remote-viewer", ["sudoers-broad-command"]),
        ("ben ALL=(:spice) ALL", ["sudoers-broad-command"]),
        ("ben ALL=(ben:spice) ALL", ["sudoers-broad-command"]),
        ("#1022 ALL=(root) /usr/bin/remote-* x", ["sudoers-broad-command"]),
        ("%users ALL=/usr/bin/", ["sudoers-broad-command"]),
        ("ALL ALL=(ALL) /usr/bin/*", ["sudoers-broad-command"]),
        ("User_Alias STAFF = ben\nSTAFF ALL=(ALL) ALL", ["sudoers-broad-command"]),
        # An alias of another file.
        ("GUESTS ALL=(ALL) ALL", ["sudoers-broad-command"]),
        ("ben ALL=(ben) ALL", []),
        ("ben ALL=(root) /usr/bin/virsh list", []),
        ("ben ALL=(root) /usr/sbin/*", []),
        ("root, %sudo, %wheel ALL=(ALL:ALL) ALL", []),
        ("ben ALL=(ALL) ALL, (", None),
        ("ben ALL=(ALL) NOBODY_HAS_IT", None),
    ],
)
def test_commands_that_undo_the_lines_about_viewers(tree, line, rules):
    """They count where sudo keeps users to consoles, and nowhere else."""
    tree.put("/etc/sudoers", f"{line}\n@includedir /etc/sudoers.d\n", 0o440)
    if rules:
        assert run("audit", "--root", tree.root, "--only", "sudoers-broad-command").code == 0
    viewer = (
        "Cmnd_Alias SEAT = \\\n /usr/bin/remote-viewer -- spice\\://kvm1\n"
        "User_Alias GUESTS = anna\nanna ALL=(anna:spice) SEAT\n"
    )
    tree.put("/etc/sudoers.d/viewers", viewer, 0o440)
    outcome = audit(tree)
    assert outcome.rules == (rules or [])
    assert outcome.unjudged == (["/etc/sudoers"] if rules is None else [])


@pytest.mark.root
@pytest.mark.parametrize(
    ("path", "mode", "owner", "told"),
    [
        ("/etc/sudoers", 0o440, (0, 0), ""),
        ("/etc/sudoers", 0o664, (0, 0), ""),
        ("/etc/sudoers", 0o664, (0, 27), "by group 27"),
        ("/etc/sudoers.d/a", 0o666, (0, 0), "by everybody"),
        ("/etc/sudoers.d/a", 0o440, (1021, 0), "belongs to user 1021"),
        # sudo reads neither.
        ("/etc/sudoers.d/a.bak", 0o666, (0, 0), ""),
        ("/etc/sudoers.d/a~", 0o666, (0, 0), ""),
    ],
)
def test_who_may_write_sudoers(tree, path, mode, owner, told):
    tree.put("/etc/sudoers", "root ALL=(ALL) ALL\n", 0o440)
    os.chown(tree.put(path, "root ALL=(ALL) ALL\n"), *owner)
    tree.path(path).chmod(mode)
    outcome = audit(tree)
    assert outcome.rules == (["sudoers-file"] if told else [])
    assert told in "".join(one["message"] for one in outcome.findings)


@pytest.mark.root
def test_who_may_write_the_folder_of_sudoers(tree):
    tree.put("/etc/sudoers.d/README", "# none\n", 0o440)
    tree.path("/etc/sudoers.d").chmod(0o777)
    assert {one["rule"] for one in audit(tree).findings} == {"sudoers-file"}
    # Who unpacked the host owns it.
    tree.path("/etc/sudoers.d").chmod(0o750)
    for path in (tree.root, *tree.root.rglob("*")):
        os.chown(path, 1021, 1021)
    assert audit(tree).rules == []
