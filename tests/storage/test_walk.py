"""The walk: what it yields, what it refuses, and that nobody leads it astray."""

from __future__ import annotations

import os
import stat

import pytest

from svirtlib.backends.walk import Entry, Walk
from svirtlib.errors import BackendError, BackendUnavailableError

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
