"""svirt-label validate: exit statuses, places of findings, formats."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from svirtlib.cli.main import main

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[2] / "svirtlib" / "schemas" / "report-1.json").read_text()
)
GOOD = "<domain type='kvm'><name>good</name><seclabel type='dynamic' model='selinux'/></domain>\n"
BAD = """<domain type='kvm'>
  <name>bad</name>
  <seclabel type='dynamic' model='selinux' relabel='no'/>
</domain>
"""
IGNORED = "<domain><name>a</name><devices><disk><seclabel/></disk></devices></domain>\n"


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the verb in a folder with these files; return its status and both outputs."""

    def run(*arguments, **files):
        monkeypatch.chdir(tmp_path)
        for name, text in files.items():
            (tmp_path / f"{name}.xml").write_text(text)
        status = main(["validate", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_clean(run):
    status, out, err = run("good.xml", good=GOOD)
    assert (status, err) == (0, "")
    assert "no findings" in out


def test_table_tells_the_place(run):
    status, out, _ = run("bad.xml", bad=BAD)
    assert status == 1
    assert "bad.xml:3" in out
    assert "error 67" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [([], 0), (["--fail-on", "low"], 1), (["--fail-on", "low", "--exit-zero"], 0)],
)
def test_advice_alone_passes_unless_wished(run, arguments, expected):
    assert run(*arguments, "ignored.xml", ignored=IGNORED)[0] == expected


def test_json(run):
    status, out, _ = run("--format", "json", ".", good=GOOD, bad=BAD, net="<network/>")
    report = json.loads(out)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(report)] == []
    assert status == 1
    assert report["guests"] == 2
    (finding,) = report["findings"]
    assert finding["rule"] == "seclabel-rejected"
    assert (finding["file"], finding["line"]) == ("./bad.xml", 3)
    assert (finding["layer"], finding["code"], finding["guests"]) == ("parse", "P4", ["bad"])


def test_sarif(run):
    status, out, _ = run("--format", "sarif", "bad.xml", "worse.xml", bad=BAD, worse="<domain")
    assert status == 1
    sarif = json.loads(out)
    assert sarif["version"] == "2.1.0"
    (one,) = sarif["runs"]
    rules = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    (result,) = one["results"]
    assert rules[result["ruleIndex"]] == result["ruleId"] == "seclabel-rejected"
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "bad.xml"}, "region": {"startLine": 3}}
    assert one["invocations"][0]["executionSuccessful"] is False


def test_standard_input(run, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(b"<seclabel type='static' model='selinux'/>"))
    monkeypatch.setattr("sys.stdin", stream)
    status, out, _ = run("-")
    assert status == 1
    assert "standard input:1" in out


@pytest.mark.parametrize("text", ["<domain", "", "<network/>"])
def test_malformed(run, text):
    status, _, err = run("good.xml", "odd.xml", good=GOOD, odd=text)
    assert status == 2
    assert "odd.xml" in err


def test_missing_file_does_not_hide_findings(run):
    status, out, err = run("missing.xml", "bad.xml", bad=BAD)
    assert status == 1
    assert "bad.xml:3" in out
    assert "missing.xml: there is no such file" in err
    assert run("missing.xml")[0] == 2


def test_options_choose_the_libvirt(run):
    typeless = "<seclabel/>"
    assert run("a.xml", a=typeless)[0] == 1
    assert run("--driver", "test", "a.xml", a=typeless)[0] == 0
    assert run("--libvirt-version", "7.0", "a.xml", a=typeless)[0] == 0
    assert (
        run("--models", "none", "--libvirt-version", "9", "a.xml", a="<seclabel type='none'/>")[0]
        == 0
    )


@pytest.mark.parametrize(
    "arguments",
    [["--libvirt-version", "x"], ["--libvirt-version", "9.0.0.0"], ["--models", "a,,b"], []],
)
def test_usage(run, arguments):
    assert run(*arguments)[0] == 2


def test_only_libvirt(run):
    assert run("--libvirt-only", "--fail-on", "info", "a.xml", a=IGNORED)[0] == 0
