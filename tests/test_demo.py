"""The demo has the faults that it is meant to have, and a newcomer can read what is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from needs import require_module

from svirtlib.cli.main import main

DEMO = Path(__file__).resolve().parent.parent / "svirtlib" / "demo"
FILES = [DEMO / "host.xml", *sorted((DEMO / "dumpxml").iterdir())]

#: What is planted. Definitions are told of too, but for these their guests come first.
HOST = [
    ("guest-unconfined", ["vpn-gw"]),
    ("label-collision", ["db01", "web01"]),
    ("label-exposure", ["backup"]),
    ("label-exposure", ["backup", "git01"]),
    ("image-exposure", ["legacy-erp"]),
    ("shared-image-undeclared", ["files01", "files02"]),
    ("static-label-reuse", ["mail01", "mail01-clone"]),
    ("label-not-canonical", ["db01"]),
]
DUMPXML = [
    ("label-collision", ["ldap01", "shop-db"]),
    ("image-exposure", ["build02"]),
]
#: Guests in whose labels and images nothing is wrong.
HEALTHY = {"dns01", "cluster-a", "cluster-b"}


def _source(name):
    if name == "dumpxml":
        return ["--xml", str(DEMO / "dumpxml")]
    require_module("libvirt", package="python3-libvirt")
    return ["--connect", f"test://{DEMO / 'host.xml'}"]


@pytest.fixture
def check(capsys):
    def check(*arguments):
        return main(["check", *arguments]), capsys.readouterr().out

    return check


@pytest.mark.parametrize(("name", "planted"), [("host", HOST), ("dumpxml", DUMPXML)])
def test_faults_are_found(check, name, planted):
    status, text = check("--exit-zero", "--format", "json", *_source(name))
    report = json.loads(text)
    told = [(finding["rule"], finding["guests"]) for finding in report["findings"]]
    assert status == 0
    assert report["complete"]
    assert [entry for entry in told if entry in planted] == planted
    assert {rule for rule, _ in told} == {rule for rule, _ in planted}
    for finding in report["findings"]:
        assert not HEALTHY & set(finding["guests"]) or finding["rule"] == "static-label-reuse"


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("options", [[], ["--verbose"]], ids=["plain", "verbose"])
@pytest.mark.parametrize("name", ["host", "dumpxml"])
def test_table_fits_the_terminal(check, monkeypatch, name, options, width):
    monkeypatch.setenv("COLUMNS", str(width))
    status, text = check("--exit-zero", *options, *_source(name))
    lines = text.splitlines()
    assert status == 0
    assert (status, text) == check("--exit-zero", *options, *_source(name))
    assert text.isascii()
    assert max(map(len, lines)) <= min(width, 100)
    assert [line for line in lines if line != line.rstrip()] == []
    assert re.search(r"^\d+ guests checked: \d+ critical", text, re.MULTILINE)
    # Each finding says what is wrong, by which rule, and what to do.
    findings = len(re.findall(r"^\d+\. ", text, re.MULTILINE))
    assert len(re.findall(r"^ +rule  +[a-z-]+$", text, re.MULTILINE)) == findings
    assert len(re.findall(r"^ +mend  +\S", text, re.MULTILINE)) == findings


def test_table_keeps_labels_and_commands_whole(check, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, text = check("--exit-zero", *_source("dumpxml"))
    for whole in (
        "ldap01: system_u:system_r:svirt_t:s0:c87,c520\n",
        "`virsh edit ldap01`, and put\n",
        "`<seclabel type='dynamic' model='selinux' relabel='yes'/>`",
        "`virsh start ldap01`\n",
    ):
        assert whole in text


def test_guests_are_told_apart():
    texts = [path.read_text() for path in FILES]
    for pattern in ("<name>.*</name>", "<uuid>.*</uuid>", "<mac address='.*'/>"):
        found = [match for text in texts for match in re.findall(pattern, text)]
        assert len(found) >= 20
        assert len(set(found)) == len(found)


def test_folder_holds_nothing_else():
    assert all(path.suffix == ".xml" for path in FILES)
    assert len(FILES) == 7
