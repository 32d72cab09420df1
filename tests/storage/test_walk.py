"""The walk: what it yields, what it refuses, and that nobody leads it astray."""

from __future__ import annotations

import os
import resource
import stat
import subprocess

import pytest

from svirtlib.backends.walk import Entry, Walk
from svirtlib.errors import BackendError, BackendUnavailableError
from svirtlib.guests import Unreadable

LABEL = "security.selinux"


@pytest.fixture
def tree(tmp_path):
    top = os.fsencode(tmp_path.resolve()) + b"/tree"
    os.mkdir(top)
    for name in (b"a", b"a b", b"new\nline", b"\xff\xfe", b"deep"):
        os.mkdir(top + b"/" + name)
        with open(top + b"/" + name + b"/file", "wb"):
            pass
    os.mkfifo(top + b"/fifo")
    os.symlink(b"/etc", top + b"/link")
    return top


def _walk(top, **options):
    with Walk(**options) as walk:
        return {entry.path: entry.mode for entry in walk.walk(top) if isinstance(entry, Entry)}


def test_yields_every_kind_under_every_name_and_follows_no_link(tree):
    found = _walk(tree)
    names = {b"a", b"a b", b"new\nline", b"\xff\xfe", b"deep"}
    expected = {tree: stat.S_IFDIR, tree + b"/fifo": stat.S_IFIFO, tree + b"/link": stat.S_IFLNK}
    for name in names:
        expected[tree + b"/" + name] = stat.S_IFDIR
        expected[tree + b"/" + name + b"/file"] = stat.S_IFREG
    assert found == expected


def test_refuses_a_way_through_a_link(tree):
    with pytest.raises(BackendError, match="symbolic link to '/etc'"):
        _walk(tree + b"/link/passwd")


def test_refuses_what_does_not_exist(tree):
    with pytest.raises(BackendUnavailableError, match="no such file"):
        _walk(tree + b"/gone")


@pytest.mark.root
def test_a_pinned_file_is_the_one_that_was_found(tree):
    with Walk() as walk:
        for entry in walk.walk(tree):
            assert isinstance(entry, Entry)
            if entry.path == tree + b"/a/file":
                os.rename(tree + b"/a", tree + b"/elsewhere")
                os.symlink(b"/etc", tree + b"/a")
                with entry.pin() as pinned:
                    pinned.set(LABEL, b"system_u:object_r:virt_image_t:s0\0")
                assert entry.label() == b"system_u:object_r:virt_image_t:s0"
    value = os.getxattr(tree + b"/elsewhere/file", LABEL)
    assert value == b"system_u:object_r:virt_image_t:s0\0"


@pytest.mark.root
def test_a_link_that_takes_the_place_of_a_file_is_not_pinned(tree):
    target = tree + b"/a/file"
    with Walk() as walk:
        for entry in walk.walk(tree):
            assert isinstance(entry, Entry)
            if entry.path == target:
                os.unlink(target)
                os.symlink(tree + b"/a b/file", target)
                with pytest.raises(FileNotFoundError), entry.pin():
                    pass


def test_a_tree_deeper_than_descriptors_may_be_open(tmp_path):
    top = os.fsencode(tmp_path.resolve()) + b"/deep"
    os.mkdir(top)
    here = os.open(top, os.O_RDONLY)
    depth = 400
    for _ in range(depth):
        os.mkdir(b"d", dir_fd=here)
        os.mkdir(b"e", dir_fd=here)
        inner = os.open(b"d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        with Walk() as walk:
            kinds = [type(entry) for entry in walk.walk(top)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert kinds == [Entry] * (1 + 2 * depth)


def test_a_folder_that_is_moved_out_of_the_tree_is_not_left_through_its_new_parent(tmp_path):
    top = os.fsencode(tmp_path.resolve()) + b"/tree"
    away = os.fsencode(tmp_path.resolve()) + b"/away"
    os.makedirs(away + b"/secret")
    path = top
    for _ in range(100):
        os.makedirs(path + b"/last")
        path += b"/d"
    os.mkdir(path)
    seen = []
    with Walk() as walk:
        for entry in walk.walk(top):
            assert isinstance(entry, (Entry, Unreadable))
            if isinstance(entry, Entry):
                seen.append(entry.path)
                if entry.path == top + b"/d" * 90:
                    os.rename(top + b"/d" * 20, away + b"/d")
    assert not [path for path in seen if b"secret" in path]
    # What was open, or is found by its own way, is looked at; the rest is told.
    assert top + b"/d/last" in seen


def test_other_file_systems_are_left_out_and_named(tree, require):
    require(os.geteuid() == 0, "only root mounts")
    mounted = os.fsdecode(tree + b"/deep")
    done = subprocess.run(
        ["mount", "--bind", os.fsdecode(tree + b"/a b"), mounted], capture_output=True, check=False
    )
    require(done.returncode == 0, f"no bind mounts here: {done.stderr!r}")
    try:
        with Walk() as walk:
            found = [entry for entry in walk.walk(tree) if isinstance(entry, Entry)]
            assert tree + b"/deep/file" not in [entry.path for entry in found]
            assert walk.left_out == [tree + b"/deep"]
        assert tree + b"/deep/file" in _walk(tree, cross=True)
    finally:
        subprocess.run(["umount", mounted], check=True)
