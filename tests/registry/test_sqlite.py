"""The registry in a file: what it promises, who may open it, and what happens when it breaks."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time

import pytest
from needs import require

from svirtlib.backends import _engines, store
from svirtlib.errors import (
    AllocationError,
    BackendDataError,
    BackendError,
    BackendPermissionError,
    CategoriesExhaustedError,
    SelectionError,
)
from svirtlib.mls import Level
from svirtlib.registry import Observation, Wish

OWNER = "5c7b1e0a-0000-4000-8000-000000000001"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "state"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def path(folder):
    return str(folder / "registry.db")


@pytest.fixture
def open_registry(path):
    opened = []

    def open_it(domain="default", host="here"):
        registry = store.open_registry(path, domain=domain, host=host)
        opened.append(registry)
        return registry

    yield open_it
    for registry in opened:
        registry.close()


def test_reservations_last_and_differ(open_registry):
    first = open_registry().allocate(Wish(), 50)
    second = open_registry().allocate(Wish(), 50, purpose="test")
    levels = {reservation.level for reservation in (*first, *second)}
    assert len(levels) == 100
    assert {entry.level for entry in open_registry().reservations()} == levels


def test_an_owner_has_one_level_however_often_it_asks(open_registry):
    registry = open_registry()
    [first] = registry.allocate(Wish(), owner=OWNER, name="web", purpose="shop", lease=60)
    [again] = open_registry().allocate(Wish(), owner=OWNER, lease=3600)
    assert again.level == first.level
    assert (again.name, again.purpose) == ("web", "shop")
    assert again.expires > first.expires
    [unending] = registry.allocate(Wish(), owner=OWNER)
    assert unending.expires is None
    with pytest.raises(AllocationError, match="not what is asked for"):
        registry.allocate(Wish(3), owner=OWNER)
    with pytest.raises(AllocationError, match="one level in a domain"):
        registry.reserve(Level.parse("s0:c1.c3"), owner=OWNER)
    assert len(registry.reservations()) == 1
    assert registry.release(owner=OWNER).level == first.level
    with pytest.raises(AllocationError, match="has no reservation"):
        registry.release(owner=OWNER)


def test_domains_are_apart(open_registry):
    wish = Wish(2, 0, 2)
    for domain in ("one", "two"):
        assert len(open_registry(domain).allocate(wish, 3)) == 3
    with pytest.raises(CategoriesExhaustedError):
        open_registry("one").allocate(wish)


def test_levels_of_all_sizes_are_incomparable(open_registry):
    registry = open_registry()
    registry.reserve(Level.parse("s0:c0.c4"), name="wide")
    registry.observe(
        [Observation(Level.parse("s0:c5"), "container"), Observation(Level.parse("s0"), "bare")],
        complete=True,
    )
    for size in (2, 3, 2):
        registry.allocate(Wish(size, 0, 11), 10)
    levels = [entry.level for entry in registry.reservations()]
    assert len(levels) == 31
    for number, level in enumerate(levels):
        assert level.incomparable_with(Level.parse("s0:c5"))
        assert all(level.incomparable_with(other) for other in levels[:number])
    with pytest.raises(AllocationError, match="is reserved"):
        registry.reserve(Level.parse("s0:c0.c1023"))
    with pytest.raises(AllocationError, match=r"is in use \(container\)"):
        registry.reserve(Level.parse("s0:c5,c900"))
    with pytest.raises(AllocationError, match="has no categories"):
        registry.reserve(Level.parse("s0"))


def test_all_of_a_range_are_handed_out_and_no_more(open_registry):
    registry = open_registry()
    wish = Wish(2, 100, 119)
    levels = set()
    for count in (1, 100, 80, 9):
        levels.update(entry.level for entry in registry.allocate(wish, count))
    assert len(levels) == wish.capacity == 190
    with pytest.raises(CategoriesExhaustedError, match="none is free"):
        registry.allocate(wish)
    registry.release(level=min(levels, key=lambda level: level.sort_key))
    with pytest.raises(CategoriesExhaustedError, match="only 1 are free"):
        registry.allocate(wish, 2)
    assert len(registry.reservations()) == 189
    assert registry.allocate(wish)[0].level in levels


def test_leases_end(open_registry, monkeypatch):
    registry = open_registry()
    wish = Wish(2, 0, 1)
    registry.allocate(wish, lease=60)
    with pytest.raises(CategoriesExhaustedError):
        registry.allocate(wish)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 120)
    [held] = registry.allocate(wish, lease=60)
    registry.observe([Observation(held.level, "guest", "x")], complete=True)
    monkeypatch.setattr(time, "time", lambda: now + 240)
    assert registry.collect(set(), grace=0) == []
    registry.observe([], complete=True)
    assert registry.collect(set(), grace=0, dry_run=True) == [held]
    assert registry.collect(set(), grace=0) == [held]
    assert registry.reservations() == []


def test_owners_that_are_gone_lose_their_levels(open_registry):
    registry, elsewhere = open_registry(), open_registry(host="there")
    for owner in ("gone", "moved", "defined"):
        registry.allocate(Wish(), owner=owner)
    elsewhere.allocate(Wish(), owner="elsewhere")
    elsewhere.observe([Observation(Level.parse("s0:c1,c2"), "guest", "moved")], complete=True)
    assert registry.collect({"defined"}, grace=3600) == []
    assert registry.collect(None, grace=0) == []
    assert [entry.owner for entry in registry.collect({"defined"}, grace=0)] == ["gone"]


def test_observations_replace_those_of_the_same_host(open_registry):
    registry, elsewhere = open_registry(), open_registry(host="there")
    wish = Wish(2, 0, 2)
    seen = [Observation(Level.parse(text), "guest") for text in ("s0:c0,c1", "s0:c0,c2")]
    registry.observe(seen, complete=True, dry_run=True)
    registry.observe(seen[:1], complete=True)
    elsewhere.observe(seen, complete=True)
    # What was looked at in part takes nothing back.
    elsewhere.observe([], complete=False)
    registry.observe([], complete=True)
    assert [str(entry.level) for entry in registry.allocate(wish)] == ["s0:c1,c2"]
    with pytest.raises(CategoriesExhaustedError):
        registry.allocate(wish)


def test_a_reserved_level_in_foreign_use_is_told(open_registry):
    registry = open_registry()
    [held] = registry.allocate(Wish(), owner="a", name="web")
    assert registry.observe([Observation(held.level, "guest web", "a")], complete=True) == []
    assert registry.observe([Observation(held.level, "guest db", "b")], complete=True) == [
        f"{held.level} is reserved for web, and guest db has it"
    ]


def test_levels_too_long_for_a_key(open_registry):
    registry = open_registry()
    odd = Level(0, range(1, 1024, 2))
    registry.reserve(odd, owner=OWNER)
    assert registry.reserve(odd, owner=OWNER).level == odd
    [drawn] = registry.allocate(Wish(2, 0, 2))
    assert drawn.level.incomparable_with(odd)
    assert registry.release(level=odd).owner == OWNER


def test_the_file_is_the_owners_alone(open_registry, path, folder):
    registry = open_registry()
    registry.allocate(Wish())
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.stat(folder / name).st_mode) == 0o600
    registry.close()
    assert os.listdir(folder) == ["registry.db"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def _replace_by_link(path):
    os.rename(path, f"{path}.real")
    os.symlink(f"{path}.real", path)


def _replace_by_directory(path):
    os.unlink(path)
    os.mkdir(path)


def _overwrite(path):
    with open(path, "r+b") as stream:
        stream.write(b"no database at all, but some text" * 200)


def _execute(path, statement):
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda path: os.chmod(path, 0o644), BackendPermissionError, "chmod 600"),
        (lambda path: os.chmod(os.path.dirname(path), 0o777), BackendPermissionError, "go-w"),
        (_replace_by_link, BackendPermissionError, "symbolic link"),
        (_replace_by_directory, BackendPermissionError, "no regular"),
        (lambda path: open(path, "wb").close(), BackendDataError, "is no registry"),
        (_overwrite, BackendError, "not a database"),
        (lambda path: _execute(path, "PRAGMA application_id = 1"), BackendDataError, "no registry"),
        (
            lambda path: _execute(path, "UPDATE svirt_registry SET version = 2"),
            BackendDataError,
            "has version 2 of the registry's schema.* newer svirt-label",
        ),
        (
            lambda path: _execute(path, "DELETE FROM svirt_registry"),
            BackendDataError,
            "version unknown",
        ),
    ],
)
def test_a_file_that_others_could_have_made_is_refused(open_registry, path, damage, error, message):
    open_registry().close()
    damage(path)
    with pytest.raises(error, match=message):
        open_registry()


@pytest.mark.root
def test_a_file_of_somebody_else_is_refused(open_registry, path, folder):
    open_registry().close()
    os.chown(path, 65534, -1)
    with pytest.raises(BackendPermissionError, match="belongs to user 65534"):
        open_registry()
    os.chown(folder, 65534, -1)
    with pytest.raises(BackendPermissionError, match="who could replace the registry"):
        open_registry()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "is a file"),
        ("sqlite:///:memory:", "is a file"),
        ("mysql://host/db", "not in 'mysql'"),
        ("no url://", "cannot be read"),
    ],
)
def test_urls_of_no_registry_are_refused(url, message):
    with pytest.raises(SelectionError, match=message):
        store.open_registry(url)


@pytest.fixture
def small_disk(tmp_path):
    require(os.geteuid() == 0, "only the superuser may mount")
    mount, umount = shutil.which("mount") or "", shutil.which("umount") or ""
    require(mount and umount, "no mount")
    place = tmp_path / "disk"
    place.mkdir()
    options = "size=512k,mode=0700"
    done = subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", place])
    require(done.returncode == 0, "no tmpfs can be mounted here")

    def remount(option):
        subprocess.run([mount, "-o", f"remount,{option}", place], check=True)

    yield place, remount
    subprocess.run([umount, place], check=True)


@pytest.mark.root
def test_a_full_disk_changes_nothing(small_disk):
    place, _ = small_disk
    registry = store.open_registry(str(place / "registry.db"))
    kept = registry.allocate(Wish(), 10)
    with pytest.raises(BackendError, match="full; nothing was changed"):
        registry.allocate(Wish(), 5000)
    assert len(registry.reservations()) == len(kept)
    assert len(registry.allocate(Wish(), 3)) == 3
    registry.close()


def _allocate(path):
    registry = store.open_registry(path)
    try:
        registry.allocate(Wish())
    finally:
        registry.close()


@pytest.mark.root
def test_a_read_only_disk_changes_nothing(small_disk):
    place, remount = small_disk
    path = str(place / "registry.db")
    with_one = store.open_registry(path)
    with_one.allocate(Wish())
    with_one.close()
    remount("ro")
    with pytest.raises(BackendError, match=r"registry\.db"):
        _allocate(path)
    with pytest.raises(BackendError, match="no registry can be made there"):
        store.open_registry(str(place / "other.db"))
    remount("rw")
    again = store.open_registry(path)
    assert len(again.reservations()) == 1
    again.close()


WORKER = textwrap.dedent(
    """
    import sys
    from svirtlib.backends.store import open_registry
    from svirtlib.registry import Wish

    path, number = sys.argv[1:]
    sys.stdin.readline()
    registry = open_registry(path)
    for turn in range(1000):
        owner = f"{number}-{turn}"
        [reservation] = registry.allocate(Wish(2, 0, 63), owner=owner)
        print(owner, reservation.level, flush=True)
    """
)


@pytest.mark.slow
def test_many_processes_that_are_killed_lose_and_repeat_nothing(open_registry, path, tmp_path):
    """None of the 16 has a registry to begin with: making it is part of the race."""
    outputs = [tmp_path / f"out-{number}" for number in range(16)]
    workers = []
    for number, output in enumerate(outputs):
        with open(output, "wb") as stream:
            command = [sys.executable, "-c", WORKER, path, str(number)]
            workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream))
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.close()
    chance = random.Random()
    alive = list(workers)
    told: dict[str, str] = {}
    try:
        while alive:
            # Each dies at some moment after all have told so many levels more.
            goal = len(told) + chance.randrange(1, 12)
            while len(told) < goal:
                assert all(worker.poll() is None for worker in alive)
                told = _told(outputs)
            victim = alive.pop(chance.randrange(len(alive)))
            victim.kill()
            victim.wait()
    finally:
        for worker in alive:
            worker.kill()
            worker.wait()
    told = _told(outputs)
    reserved = {entry.owner: str(entry.level) for entry in open_registry().reservations()}
    assert len(set(reserved.values())) == len(reserved)
    assert told.items() <= reserved.items()
    # At most the one that each was killed over is held and was not told; asking again tells.
    assert len(reserved) - len(told) <= len(workers)
    owner, level = next(iter(reserved.items()))
    [again] = open_registry().allocate(Wish(2, 0, 63), owner=owner)
    assert str(again.level) == level
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    # No lock is left: somebody else may write at once.
    assert open_registry().allocate(Wish())


def _told(outputs):
    told = {}
    for output in outputs:
        for line in output.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                owner, level = line.split()
                told[owner] = level
    return told


def test_a_registry_that_is_made_twice_at_once_is_one(path, monkeypatch):
    """Another process makes the file between the look at it and its making."""
    other = f"{path}.other"
    store.open_registry(other).close()
    fill = _engines._fill

    def fill_while_another_wins(new):
        fill(new)
        shutil.copy2(other, path)

    monkeypatch.setattr(_engines, "_fill", fill_while_another_wins)
    registry = store.open_registry(path)
    assert len(registry.allocate(Wish(), 3)) == 3
    registry.close()
