"""Reading guests from libvirt's in-process test driver, whose guests run nowhere."""

from __future__ import annotations

import pytest
from checkrun import check
from needs import require_module
from xmlmaker import disk, guest

from svirtlib.backends.host import read_host
from svirtlib.domainxml import parse_document


@pytest.fixture(autouse=True)
def _libvirt():
    require_module("libvirt", package="python3-libvirt")


def played(name, level="s0:c1,c2", **settings):
    """A guest as a host file of the test driver has it."""
    document = guest(name, level, how="static", live=False, virt_type="test", **settings)
    return document.replace("<emulator>/usr/bin/qemu-system-x86_64</emulator>", "")


@pytest.fixture
def host(tmp_path):
    """Write a host file; return the URI that plays it."""

    def host(*guests):
        path = tmp_path / "host.xml"
        path.write_text(f"<node>{''.join(guests)}</node>")
        return f"test://{path}"

    return host


def test_the_default_host():
    inventory = read_host("test:///default")
    assert [(guest.name, guest.running, guest.virt_type) for guest in inventory.guests] == [
        ("test", True, "test")
    ]
    assert {inventory.host_known, inventory.files_known, inventory.processes_known} == {False}
    assert inventory.host.name is None


def test_a_guest_without_a_label_is_not_taken_for_judged():
    outcome = check("--connect", "test:///default")
    assert outcome.code == 3
    assert outcome.report["host"]["selinux"]["mode"] is None
    (gap,) = outcome.report["unreadable"]
    assert "test driver keeps static labels only" in gap["reason"]
    assert "host-not-enforcing" in {entry["rule"] for entry in outcome.report["not_run"]}


def test_of_several_elements_of_a_name_the_first_counts_as_in_libvirt():
    libvirt = require_module("libvirt", package="python3-libvirt")
    first, second = "<name>a</name><uuid>{}</uuid>", "<name>b</name><uuid>{}</uuid>"
    document = played("c", disks=[disk("/img/c").replace("<target", "<source file='/b'/><target")])
    start, end = document.index("<name>"), document.index("</uuid>") + len("</uuid>")
    document = (
        document[:start]
        + first.format("11111111-1111-4111-8111-111111111111")
        + second.format("22222222-2222-4222-8222-222222222222")
        + document[end:]
    )
    defined = libvirt.open("test:///default").defineXML(document).XMLDesc(0)
    (ours,), (theirs,) = (parse_document(text.encode(), "x") for text in (document, defined))
    assert (ours.name, ours.uuid) == (theirs.name, theirs.uuid)
    assert [image.path for image in ours.images] == [image.path for image in theirs.images]
    assert (ours.name, [image.path for image in ours.images]) == ("a", ["/img/c"])


def test_guests_are_what_their_documents_say(host):
    libvirt = require_module("libvirt", package="python3-libvirt")
    uri = host(
        played("a", "s0:c1,c2"),
        played("b", "s0:c3,c4", disks=[disk("/img/b.qcow2"), disk("/img/c", target="vdb")]),
        played("ü", "s0:c5,c6"),
    )
    connection = libvirt.openReadOnly(uri)
    documents = {domain.name(): domain.XMLDesc(0) for domain in connection.listAllDomains()}
    connection.close()
    assert read_host(uri).guests == tuple(
        parsed
        for name in sorted(documents)
        for parsed in parse_document(documents[name].encode(), uri)
    )


def test_collisions_are_found(host):
    uri = host(played("a", "s0:c1,c2"), played("b", "s0:c2,c1"), played("c", "s0:c3,c4"))
    outcome = check("--connect", uri, "--only", "label-collision")
    assert outcome.code == 1
    assert outcome.told == [("label-collision", ["a", "b"], ["a", "b"])]
    assert outcome.report["complete"]


def test_a_host_without_guests(host):
    outcome = check("--connect", host())
    assert (outcome.code, outcome.report["guests"]) == (0, 0)


@pytest.mark.parametrize("content", ["", "junk", "<node><domain/></node>", "<network/>"])
def test_a_host_file_that_is_none(host, tmp_path, content):
    uri = host()
    (tmp_path / "host.xml").write_text(content)
    outcome = check("--connect", uri)
    assert (outcome.code, outcome.out) == (4, "")
    assert "could not connect" in outcome.err


@pytest.mark.parametrize("option", ["--files", "--processes"])
def test_there_are_no_files_and_processes(option):
    outcome = check("--connect", "test:///default", option)
    assert outcome.code == 2
    assert "is not this machine" in outcome.err
