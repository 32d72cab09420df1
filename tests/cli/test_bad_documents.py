"""``check --xml`` on what is no domain XML, or not quite: never a traceback, never a silent 0."""

from __future__ import annotations

import io
import os
import sys

import pytest
from checkrun import check
from privileges import as_nobody
from xmlmaker import guest

NETWORK = "<network><name>default</name></network>"
BOMB = (
    "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'>"
    + "".join(
        f"<!ENTITY {after} '{f'&{before};' * 10}'>"
        for before, after in zip("abcdefghij", "bcdefghijk")
    )
    + "]>"
)


def domain(name="web", text="", attribute=""):
    return f"<domain type='kvm' x='{attribute}'><name>{name}{text}</name></domain>"


MALFORMED = {
    "empty": b"",
    "blank": b" \n\t\n",
    "text": b"no XML at all",
    "binary": bytes(range(256)) * 64,
    "zeros": b"\0" * 4096,
    "cut": guest("web").encode()[:-100],
    "two roots": (guest("a") + guest("b")).encode(),
    "html": b"<html><body><p>Not found<br></body></html>",
    "declared UTF-16": b"<?xml version='1.0' encoding='UTF-16'?><domain><name>a</name></domain>",
    "unknown encoding": b"<?xml version='1.0' encoding='x-none'?><domain><name>a</name></domain>",
    "no UTF-8": domain("\udcff").encode("utf-8", "surrogateescape"),
    "undefined entity": domain(text="&nosuch;").encode(),
    "bomb": (BOMB + domain(text="&k;")).encode(),
    "bomb in an attribute": (BOMB + domain(attribute="&k;")).encode(),
    "external entity": (
        "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>" + domain(text="&x;")
    ).encode(),
    "external DTD": ("<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'>" + domain()).encode(),
    "harmless DOCTYPE": ("<!DOCTYPE domain>" + domain()).encode(),
    "deep": b"<domain><name>a</name>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</domain>",
    "deep and open": b"<domain>" * 100_000,
    "huge": b"<domain><name>a</name>" + b"<x/>" * (17 * 2**18) + b"</domain>",
    "no name": b"<domain type='kvm'/>",
    "empty name": b"<domain type='kvm'><name/></domain>",
    "foreign namespace": b"<domain xmlns='urn:x'><name>a</name></domain>",
    "no UUID": domain().replace("<name>", "<uuid>42</uuid><name>").encode(),
    "another document": NETWORK.encode(),
    "no guest inside": b"<node><cpu/></node>",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_a_file_that_is_no_domain_xml(tmp_path, content):
    path = tmp_path / "guest.xml"
    path.write_bytes(content)
    outcome = check("--xml", path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith(f"svirt-label: error: {path}:")
    assert len(outcome.err) < 500
    assert outcome.err.isascii()
    assert os.uname().nodename not in outcome.err.removeprefix(f"svirt-label: error: {path}")


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_the_same_among_good_files(tmp_path, content):
    good, bad = tmp_path / "good.xml", tmp_path / "bad.xml"
    good.write_text(guest("web"))
    bad.write_bytes(content)
    outcome = check("--xml", good, bad)
    assert (outcome.code, outcome.err) == (3, "")
    assert outcome.report["guests"] == 1
    (what,) = outcome.unjudged
    assert what.startswith(str(bad))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings(tmp_path, encoding):
    path = tmp_path / "guest.xml"
    declaration = f"<?xml version='1.0' encoding='{encoding.removesuffix('-sig')}'?>\n"
    path.write_bytes((declaration + guest("münchen")).encode(encoding))
    outcome = check("--xml", path)
    assert (outcome.code, outcome.report["guests"]) == (0, 1)


def folder(tmp_path, **contents):
    for name, content in contents.items():
        path = tmp_path / name.replace("_", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tmp_path


def test_a_folder_with_other_files_among(tmp_path):
    folder(
        tmp_path,
        a_xml=guest("a", "s0:c1,c2"),
        b_txt=guest("b", "s0:c3,c4"),
        net_xml=NETWORK,
        notes_txt="call the customer <tomorrow>",
        page_html="<html><br></html>",
        disk_img=os.urandom(100_000),
        _hidden_xml="junk",
        empty_log="",
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.xml").write_text(guest("c"))
    os.mkfifo(tmp_path / "pipe.xml")
    outcome = check("--xml", tmp_path)
    assert (outcome.code, outcome.report["guests"], outcome.unjudged) == (0, 2, [])
    passed_over = {note.partition(":")[0].rpartition("/")[2] for note in outcome.report["notes"]}
    assert passed_over == {
        *("net.xml", "notes.txt", "page.html", "disk.img", "empty.log", "sub", "pipe.xml")
    }


OF_ANOTHER_KIND = {"another document", "no guest inside", "foreign namespace"}


@pytest.mark.parametrize("name", [name for name in MALFORMED if name not in OF_ANOTHER_KIND])
def test_a_folder_with_a_bad_file_among(tmp_path, name):
    folder(tmp_path, good_xml=guest("web"), bad_xml=MALFORMED[name])
    outcome = check("--xml", tmp_path)
    assert (outcome.code, outcome.report["guests"]) == (3, 1)
    (what,) = outcome.unjudged
    assert what.startswith(str(tmp_path / "bad.xml"))


def test_findings_are_worse_than_gaps(tmp_path):
    folder(tmp_path, a_xml=guest("a", "s0:c1,c2"), b_xml=guest("b", "s0:c1,c2"), c_xml="junk")
    outcome = check("--xml", tmp_path)
    assert (outcome.code, outcome.rules) == (1, ["label-collision"])
    assert len(outcome.unjudged) == 1
    assert check("--xml", tmp_path, "--exit-zero").code == 3


def test_a_broken_guest_without_the_ending_is_no_junk(tmp_path):
    broken = guest("b")[:-50]
    folder(tmp_path, a_xml=guest("a"), b_txt=broken, c_txt=broken.encode("utf-16"))
    outcome = check("--xml", tmp_path)
    assert outcome.code == 3
    assert [what.partition(":")[0] for what in outcome.unjudged] == [
        str(tmp_path / "b.txt"),
        str(tmp_path / "c.txt"),
    ]


def test_what_is_nested_too_deeply_is_told_in_our_words(tmp_path):
    folder(tmp_path, deep_xml=MALFORMED["deep"])
    assert "nested too deeply" in check("--xml", tmp_path / "deep.xml").err


@pytest.mark.parametrize("contents", [{}, {"notes_txt": "none"}, {"net_xml": NETWORK}])
def test_a_folder_without_guests(tmp_path, contents):
    outcome = check("--xml", folder(tmp_path, **contents))
    assert (outcome.code, outcome.out) == (2, "")
    assert "the folder holds no output of 'virsh dumpxml'" in outcome.err


def test_a_folder_without_guests_beside_one_with_some(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "some").mkdir()
    folder(tmp_path / "some", a_xml=guest("a"))
    outcome = check("--xml", tmp_path / "none", tmp_path / "some")
    assert (outcome.code, outcome.unjudged) == (3, [str(tmp_path / "none")])


def test_no_such_file(tmp_path):
    outcome = check("--xml", tmp_path / "none.xml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "there is no such file; --xml takes files and folders" in outcome.err


def test_links_are_followed_inside_the_folder_alone(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in2"
    inside.mkdir()
    outside.mkdir()
    folder(inside, a_xml=guest("a"))
    folder(outside, b_xml=guest("b"), secret="root:x:0:0")
    (inside / "again.xml").symlink_to("a.xml")
    (inside / "b.xml").symlink_to(outside / "b.xml")
    (inside / "c.txt").symlink_to("../in2/secret")
    (inside / "d").symlink_to(outside)
    (inside / "device.xml").symlink_to("/dev/zero")
    (inside / "loop.xml").symlink_to("loop.xml")
    (inside / "nowhere.xml").symlink_to("nothing")
    outcome = check("--xml", inside)
    assert (outcome.code, outcome.report["guests"]) == (3, 1)
    reasons = {
        entry["what"].rpartition("/")[2]: entry["reason"] for entry in outcome.report["unreadable"]
    }
    assert sorted(reasons) == ["b.xml", "c.txt", "device.xml", "loop.xml", "nowhere.xml"]
    for name in ("b.xml", "c.txt", "device.xml"):
        assert "leads out of the folder" in reasons[name]
    # Who names a link, or a folder by a link, means it.
    (tmp_path / "link").symlink_to("in2")
    assert check("--xml", inside / "b.xml", tmp_path / "link").report["guests"] == 1


def test_a_pipe_that_nobody_writes_to_does_not_hold_us(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert check("--xml", tmp_path / "pipe").code == 2


def test_a_pipe_by_its_descriptor_is_read_to_its_end():
    """As in ``--xml <(virsh dumpxml web)``."""
    reading, writing = os.pipe()
    os.write(writing, guest("web").encode())
    os.close(writing)
    try:
        assert check("--xml", f"/proc/self/fd/{reading}").report["guests"] == 1
    finally:
        os.close(reading)


@pytest.mark.root
def test_what_may_not_be_read(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    folder(tmp_path, a_xml=guest("a"), b_xml=guest("b"))
    (tmp_path / "b.xml").chmod(0o600)
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith(("pytest-", "popen-")):
            path.chmod(0o755)
    tmp_path.chmod(0o755)
    check("--xml", tmp_path / "a.xml")  # imports all that a run needs
    with as_nobody():
        alone = check("--xml", tmp_path / "b.xml")
        among = check("--xml", tmp_path)
        closed = check("--xml", tmp_path / "closed")
    for outcome in (alone, closed):
        assert (outcome.code, outcome.out) == (4, "")
        assert "Permission denied; run as a user who may read it" in outcome.err
    assert (among.code, among.report["guests"]) == (3, 1)
    assert among.unjudged == [str(tmp_path / "b.xml")]


def stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(monkeypatch):
    stdin(monkeypatch, guest("web").encode())
    assert check("--xml", "-").report["guests"] == 1


@pytest.mark.parametrize("content", MALFORMED.values(), ids=MALFORMED)
def test_standard_input_that_is_no_domain_xml(monkeypatch, content):
    stdin(monkeypatch, content)
    outcome = check("--xml", "-")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("svirt-label: error: standard input:")


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    outcome = check("--xml", "-")
    assert (outcome.code, outcome.err) == (4, "svirt-label: error: standard input: it is closed\n")


def test_a_guest_in_both_forms_is_one(tmp_path):
    folder(
        tmp_path,
        a_xml=guest("a", "s0:c1,c2", how="static"),
        b_xml=guest("a", "s0:c1,c2", how="static", live=False),
    )
    outcome = check("--xml", tmp_path)
    assert (outcome.code, outcome.report["guests"]) == (0, 1)
