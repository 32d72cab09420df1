"""Reports for machines: lines of JSON, SARIF, metrics, monitoring; and what files they go to."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from checkrun import check, run
from jsonschema import Draft202012Validator
from prometheus_client import parser
from xmlmaker import guest

from svirtlib.checks import ALL_CHECKS

ROOT = Path(__file__).resolve().parents[2]
REPORT = json.loads((ROOT / "svirtlib/schemas/report-1.json").read_text())
RULES = {rule.ident for rule in ALL_CHECKS}


@pytest.fixture
def folder(tmp_path):
    """Two guests with one label, and a document that cannot be read."""
    folder = tmp_path / "guests"
    folder.mkdir()
    (folder / "a.xml").write_text(guest("a", "s0:c1,c2", how="static"))
    (folder / "b|b.xml").write_text(guest("b|b", "s0:c1,c2", how="static"))
    (folder / "broken.xml").write_text("<domain>")
    return folder


@pytest.fixture
def clean(tmp_path):
    path = tmp_path / "clean.xml"
    path.write_text(guest("a", "s0:c1,c2"))
    return path


def test_lines_hold_what_the_document_holds(folder):
    whole = check("--xml", folder)
    outcome = run("check", "--format", "ndjson", "--xml", folder)
    assert outcome.code == whole.code == 1
    first, *others = [json.loads(line) for line in outcome.out.splitlines()]
    assert first["kind"] == "report"
    assert first["complete"] is False
    rebuilt = {
        key: value for key, value in first.items() if key not in ("kind", "counts", "schema")
    }
    names = {"finding": "findings", "unreadable": "unreadable", "not_run": "not_run"}
    for kind, name in names.items():
        entries = [line for line in others if line["kind"] == kind]
        assert len(entries) == first["counts"][kind]
        rebuilt[name] = [
            {k: v for k, v in entry.items() if k not in ("schema", "kind", "host")}
            for entry in entries
        ]
    rebuilt["schema"] = "svirt-label/report/1"
    assert rebuilt == whole.report
    Draft202012Validator(REPORT).validate(rebuilt)


def test_metrics_are_what_prometheus_reads(folder):
    outcome = run("check", "--format", "prometheus", "--xml", folder)
    assert outcome.code == 1
    families = {f.name: f for f in parser.text_string_to_metric_families(outcome.out)}
    found = {
        (sample.labels["rule"], sample.labels["severity"]): sample.value
        for sample in families["svirt_findings"].samples
    }
    assert found["label-collision", "critical"] == 1
    assert found["label-exposure", "critical"] == 0
    not_run = {entry["rule"] for entry in check("--xml", folder).report["not_run"]}
    assert {rule for rule, _ in found} == RULES - not_run
    affected = {s.labels["rule"]: s.value for s in families["svirt_guests_affected"].samples}
    assert affected["label-collision"] == 2
    (complete,) = families["svirt_complete"].samples
    assert complete.value == 0
    # Of the documents nobody knows the host.
    assert "svirt_selinux_mode" not in families
    assert "b|b" not in outcome.out


def test_metrics_can_be_read_by_their_collector(clean, tmp_path):
    target = tmp_path / "svirt.prom"
    command = ("check", "--xml", clean, "--output", target, "--format")
    assert run(*command, "prometheus").code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    # Nothing else is left that a collector would take for metrics.
    assert [path.name for path in tmp_path.glob("*.prom")] == ["svirt.prom"]
    target.unlink()
    assert run(*command, "json").code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("documents", "options", "code", "word"),
    [
        ("clean", (), 0, "OK"),
        ("folder", (), 2, "CRITICAL"),
        ("folder", ("--ignore", "label-collision", "--fail-on", "high"), 3, "UNKNOWN"),
        ("folder", ("--exit-zero",), 0, "CRITICAL"),
    ],
)
def test_monitoring(documents, options, code, word, request):
    source = request.getfixturevalue(documents)
    outcome = run("check", "--format", "nagios", "--xml", source, *options)
    assert outcome.code == code
    first = outcome.out.splitlines()[0]
    assert first.startswith(f"SVIRT {word} - ")
    assert outcome.out.count("|") == 1
    figures = dict(figure.split("=") for figure in first.partition("|")[2].split())
    assert figures["guests"].split(";")[0] == ("1" if documents == "clean" else "2")


def test_monitoring_warns_of_lesser_findings(tmp_path):
    (tmp_path / "a.xml").write_text(guest("a", "s0:c1,c2", how="static", live=False))
    (tmp_path / "b.xml").write_text(guest("b", "s0:c1,c2", how="static", live=False))
    assert run("check", "--format", "nagios", "--xml", tmp_path).code == 1
    assert run("check", "--format", "nagios", "--fail-on", "high", "--xml", tmp_path).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--xml", "/nonexistent"),
        ("check", "--no-such-option"),
        ("check", "--only", "no-such-rule", "--xml", "/"),
    ],
)
@pytest.mark.parametrize("option", [("--format", "nagios"), ("--format=nagios",)])
def test_monitoring_of_what_cannot_be_checked(arguments, option):
    outcome = run(*option, *arguments)
    assert outcome.code == 3
    assert outcome.out.startswith("SVIRT UNKNOWN - ")
    assert outcome.out.count("\n") == 1


def test_sarif_names_the_guests(folder):
    outcome = run("check", "--format", "sarif", "--xml", folder)
    (only,) = json.loads(outcome.out)["runs"]
    assert {rule["id"] for rule in only["tool"]["driver"]["rules"]} == RULES
    (result,) = [entry for entry in only["results"] if entry["ruleId"] == "label-collision"]
    names = [place["name"] for place in result["locations"][0]["logicalLocations"]]
    assert names == ["a", "b|b"]
    assert not only["invocations"][0]["executionSuccessful"]
