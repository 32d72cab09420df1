"""Reading guests from a real libvirtd: all that it says arrives, and nothing is changed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from checkrun import check
from sessiondaemon import defined
from xmlmaker import disk, seclabel

from svirtlib.backends._libvirt import LibvirtGuests
from svirtlib.backends.host import read_host
from svirtlib.domainxml import parse_document
from svirtlib.inventory import take_inventory


def names(inventory):
    return [guest.name for guest in inventory.guests]


def test_guests_are_what_their_documents_say(daemon):
    disks = [
        disk("/images/a.qcow2"),
        disk("/dev/vg/b", kind="block", target="vdb"),
        disk("pool/image", kind="network", target="vdc"),
        disk("/images/install.iso", device="cdrom", target="sda").replace("virtio", "sata"),
        disk("/images/shared.raw", target="vdd", shareable=True, format_="raw"),
    ]
    daemon.define(
        defined("plain"),
        defined("fixed", "s0:c1,c2", disks=disks),
        defined("über & <co>", "s0:c3,c4"),
    )
    inventory = read_host(daemon.uri, files=False, processes=False)
    documents = {domain.name(): domain.XMLDesc(0) for domain in daemon.connection.listAllDomains()}
    assert inventory.guests == tuple(
        parsed
        for name in sorted(documents)
        for parsed in parse_document(documents[name].encode(), daemon.uri)
    )
    assert names(inventory) == ["fixed", "plain", "über & <co>"]
    assert len(inventory.guests[0].images) == len(disks)
    assert inventory.unreadable == ()
    assert inventory.notes == ()


def test_many_guests_arrive_each_once_and_progress_is_told(daemon):
    daemon.define(*(defined(f"g{number:03}") for number in range(100)))
    told = []
    inventory = read_host(
        daemon.uri,
        files=False,
        processes=False,
        progress=lambda done, total: told.append((done, total)),
    )
    assert names(inventory) == [f"g{number:03}" for number in range(100)]
    assert told == [(done, 100) for done in range(1, 101)]


def test_a_host_without_guests(daemon):
    outcome = check("--connect", daemon.uri)
    assert outcome.report["guests"] == 0
    assert outcome.report["complete"]


def test_check_from_end_to_end(daemon):
    daemon.define(
        defined("a", "s0:c1,c2"), defined("b", "s0:c2,c1"), defined("c", "s0:c3,c4"), defined("d")
    )
    command = [sys.executable, "-m", "svirtlib.cli", "check", "--only", "static-label-reuse"]
    done = subprocess.run(
        [*command, "--connect", daemon.uri],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "a and b" in done.stdout
    assert "4 guests checked" in done.stdout


def test_the_connection_may_only_read(daemon):
    libvirt = pytest.importorskip("libvirt")
    daemon.define(defined("kept"))
    source = LibvirtGuests(daemon.uri)
    with pytest.raises(libvirt.libvirtError) as refusal:
        source._connection.lookupByName("kept").undefine()
    assert refusal.value.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED
    source.close()


def test_guests_that_vanish_meanwhile_are_noted(daemon):
    class Undefining(LibvirtGuests):
        def _describe(self, domain):
            if domain.name() == "gone":
                daemon.connection.lookupByName("gone").undefine()
            return super()._describe(domain)

    daemon.define(*map(defined, ("first", "gone", "last")))
    source = Undefining(daemon.uri)
    inventory = take_inventory(source)
    source.close()
    assert names(inventory) == ["first", "last"]
    assert inventory.unreadable == ()
    assert inventory.notes == ("guest gone vanished while it was read",)


def test_a_guest_that_libvirt_describes_with_nonsense_is_told(daemon):
    class Garbling(LibvirtGuests):
        def _describe(self, domain):
            xml, label = super()._describe(domain)
            return (xml[:100] if domain.name() == "bad" else xml), label

    daemon.define(defined("bad"), defined("good"))
    source = Garbling(daemon.uri)
    inventory = take_inventory(source)
    source.close()
    assert names(inventory) == ["good"]
    assert [entry.guest for entry in inventory.unreadable] == ["bad"]
    assert "malformed XML" in inventory.unreadable[0].reason


@pytest.mark.parametrize("form", ["qemu:///session?", "qemu+unix:///session?"])
def test_a_socket_of_this_machine_is_local(daemon, form):
    source = LibvirtGuests(form + daemon.uri.partition("?")[2])
    assert source.is_local
    assert not source.is_test
    assert not source.is_system
    source.close()


@pytest.mark.parametrize("option", ["--files", "--processes"])
def test_files_and_processes_elsewhere_cannot_be_looked_at(daemon, tmp_path, option):
    outcome = check("--connect", daemon.tunnel(tmp_path), option)
    assert outcome.code == 2
    assert "is not this machine" in outcome.err


VOLUME = disk("data/disk.raw", kind="volume", format_="raw", chain=None)


def test_volumes_are_resolved_to_paths(daemon):
    daemon.pool("data", "disk.raw")
    daemon.define(
        defined("a", disks=[VOLUME]),
        defined("b", disks=[VOLUME, disk("data/none", kind="volume", target="vdb", chain=None)]),
        defined("c", disks=[disk("nopool/x", kind="volume", chain=None)]),
    )
    inventory = read_host(daemon.uri, processes=False)
    path = str(daemon.folder / "disk.raw")
    assert [[image.path for image in guest.images] for guest in inventory.guests] == [
        [path],
        [path, None],
        [None],
    ]
    assert [label.path for label in inventory.files] == [path]
    # A guest that does not run may miss a volume like any other file.
    assert inventory.unreadable == ()


@pytest.mark.root
def test_images_are_looked_at(daemon):
    daemon.pool("data", "disk.raw")
    path = str(daemon.folder / "disk.raw")
    label = "system_u:object_r:svirt_image_t:s0:c1,c2"
    os.setxattr(path, "security.selinux", label.encode() + b"\0")
    daemon.define(defined("web", disks=[VOLUME]))
    (file,) = read_host(daemon.uri, processes=False).files
    assert (file.path, file.context) == (path, label)


def test_seclabels_of_guests_are_read_as_libvirt_writes_them(daemon):
    label = "system_u:system_r:svirt_t:s0:c5,c6"
    fixed = seclabel("static", relabel="no", label=label)
    daemon.define(defined("a").replace("</devices>", f"</devices>{fixed}"))
    (guest_,) = read_host(daemon.uri, files=False, processes=False).guests
    (read,) = guest_.seclabels
    assert (read.type.value, read.relabel, read.label) == ("static", False, label)
