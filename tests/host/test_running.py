"""A guest that really runs: its process, its live XML, its storage."""

from __future__ import annotations

import os

import pytest
from checkrun import check
from sessiondaemon import SessionDaemon, bootable, defined
from xmlmaker import disk

from svirtlib.backends._procfs import ProcessTable
from svirtlib.backends.host import read_host
from svirtlib.guests import Guest, Unreadable

#: libvirt starts no guest whose name has a slash, and QEMU writes a comma twice.
NAME = "web,1"


@pytest.fixture(scope="module")
def host(_daemon):
    """A libvirtd with one guest that runs on a volume, and one that does not run."""
    _daemon.pool("data", "disk.raw")
    volume = disk("data/disk.raw", kind="volume", format_="raw", chain=None, target="hda")
    _daemon.define(bootable(NAME, disks=[volume.replace("virtio", "ide")]), defined("shut"))
    _daemon.start(NAME)
    yield _daemon
    _daemon.clear()


@pytest.fixture
def identifier(host: SessionDaemon) -> str:
    return str(host.connection.lookupByName(NAME).UUIDString())


def test_it_is_told_from_one_that_does_not_run(host):
    inventory = read_host(host.uri, files=False, processes=False)
    assert [(guest.name, guest.running) for guest in inventory.guests] == [
        ("shut", False),
        (NAME, True),
    ]


def test_its_process_is_found(host, identifier):
    inventory = read_host(host.uri, files=False, processes=False)
    (process,) = [process for process in ProcessTable()._qemus() if process.uuid == identifier]
    assert (process.name, process.pid) == (NAME, host.pid_of(NAME))
    # The kernel tells its context where SELinux runs, and says that it has none elsewhere.
    found, _ = ProcessTable().of_guests(inventory.guests)
    (outcome,) = found.values()
    assert f"/proc/{process.pid}/attr/current" in (
        outcome.reason if isinstance(outcome, Unreadable) else outcome.source
    )


def test_without_libvirt_it_is_found_by_its_process(identifier):
    def lost(*guests: Guest) -> list[tuple[str, bool]]:
        return [
            (guest.name, guest.known_to_libvirt)
            for guest in ProcessTable().of_guests(guests)[1]
            if guest.uuid == identifier
        ]

    assert lost() == [(NAME, False)]
    assert lost(Guest(NAME, identifier, True, "qemu", "")) == []


def test_its_image_is_looked_at_until_the_volume_cannot_be_found(host):
    inventory = read_host(host.uri, processes=False)
    assert [label.path for label in inventory.files] == [str(host.folder / "disk.raw")]
    assert inventory.unreadable == ()

    pool = host.connection.storagePoolLookupByName("data")
    pool.destroy()
    try:
        (gap,) = read_host(host.uri, processes=False).unreadable
    finally:
        pool.create()
    assert (gap.what, gap.guest) == ("volume data/disk.raw", NAME)
    assert "virsh pool-start data" in gap.reason


def test_from_elsewhere_libvirt_alone_is_asked(host, tmp_path):
    outcome = check("--connect", host.tunnel(tmp_path))
    assert outcome.report["guests"] == 2
    assert {entry["rule"] for entry in outcome.report["not_run"]} >= {"image-label-drift"}
    if not os.path.exists("/sys/fs/selinux/enforce"):
        # Then no guest has a label that would tell the mode.
        assert outcome.unjudged == ["SELinux mode"]
        assert "run svirt-label there" in outcome.report["unreadable"][0]["reason"]
