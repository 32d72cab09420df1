"""The published JSON schemas say what the program really writes, and no more."""

from __future__ import annotations

import enum
import json
from pathlib import Path

import attr
import pytest
from jsonschema import Draft202012Validator
from needs import require_module

from svirtlib import access, devices, guests, mls, policyfacts, problems, seclabel
from svirtlib.audit import ALL_RULES
from svirtlib.checks import ALL_CHECKS
from svirtlib.cli.main import main
from svirtlib.findings import Evidence, Finding, NotRun, Severity
from svirtlib.formats import json_report, lines
from svirtlib.snapshot import SCHEMA as SNAPSHOT_SCHEMA

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "svirtlib" / "schemas"
DEMO = ROOT / "svirtlib" / "demo"
REPORT = json.loads((SCHEMAS / "report-1.json").read_text())
LINE = json.loads((SCHEMAS / "report-line-1.json").read_text())
SNAPSHOT = json.loads((SCHEMAS / "snapshot-1.json").read_text())
ACCESS = json.loads((SCHEMAS / "access-1.json").read_text())
ALLOCATION = json.loads((SCHEMAS / "allocation-1.json").read_text())

GAPS = {
    "broken.xml": "<domain><name>broken</name>",
    "unlabelled.xml": """
        <domain type='kvm' id='7'><name>unlabelled</name>
          <seclabel type='dynamic' model='selinux' relabel='yes'/></domain>""",
    "of-apparmor.xml": """
        <domain type='kvm' id='8'><name>of-apparmor</name>
          <seclabel type='dynamic' model='apparmor' relabel='yes'>
            <label>libvirt-x</label><imagelabel>libvirt-x</imagelabel></seclabel></domain>""",
    "note.txt": "no XML",
}


@pytest.fixture
def run(capsys):
    """Run ``svirt-label`` with these arguments; return its exit status and what it printed."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def gaps(tmp_path):
    """A folder of documents of which some cannot be judged."""
    folder = tmp_path / "gaps"
    folder.mkdir()
    for name, text in GAPS.items():
        (folder / name).write_text(text)
    return folder


def _demo_host():
    require_module("libvirt", package="python3-libvirt")
    return ["--connect", f"test://{DEMO / 'host.xml'}"]


def _valid(text, schema):
    document = json.loads(text)
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
    assert errors == []
    return document


def _schemas_in(schema, path=""):
    """Every subschema with where it stands."""
    if isinstance(schema, dict):
        yield path, schema
        for key in ("properties", "$defs"):
            for name, inner in schema.get(key, {}).items():
                yield from _schemas_in(inner, f"{path}/{name}")
        for key in ("items", "anyOf", "oneOf"):
            inner = schema.get(key, [])
            for one in inner if isinstance(inner, list) else [inner]:
                yield from _schemas_in(one, f"{path}/{key}")


@pytest.mark.parametrize("schema", [REPORT, LINE, SNAPSHOT], ids=["report", "line", "snapshot"])
def test_schema_is_strict_and_told(schema):
    Draft202012Validator.check_schema(schema)
    for path, inner in _schemas_in(schema):
        if inner.get("type") == "object":
            assert inner["additionalProperties"] is False, path
            assert inner["required"] == list(inner["properties"]), path
            for name, value in inner["properties"].items():
                assert "$ref" in value or value["description"].endswith("."), f"{path}/{name}"


@pytest.mark.parametrize(
    ("schema", "name"), [(REPORT, json_report.SCHEMA), (SNAPSHOT, SNAPSHOT_SCHEMA)]
)
def test_schema_has_the_name_that_documents_carry(schema, name):
    assert schema["properties"]["schema"]["const"] == name
    assert schema["$id"] == "urn:" + name.replace("/", ":")


def test_lines_are_parts_of_the_report():
    """All but three keys of a line is as the one-document report has it."""
    own = ("schema", "kind", "host")
    parts = {
        "report": REPORT,
        "finding": REPORT["$defs"]["finding"],
        "unreadable": REPORT["properties"]["unreadable"]["items"],
        "not_run": REPORT["properties"]["not_run"]["items"],
    }
    assert {inner["$ref"].rpartition("/")[2] for inner in LINE["oneOf"]} == set(parts)
    for kind, part in parts.items():
        told = dict(LINE["$defs"][kind]["properties"])
        assert told["kind"]["const"] == kind
        assert told["schema"]["const"] == lines.SCHEMA
        expected = {name: value for name, value in part["properties"].items() if name not in own}
        if kind == "report":
            assert told.pop("host") == REPORT["properties"]["host"]
            assert list(told.pop("counts")["properties"]) == ["finding", "unreadable", "not_run"]
            del expected["findings"], expected["unreadable"], expected["not_run"]
        for name, value in expected.items():
            # Which rules there are, the report's schema says once.
            same = told[name] == value or (name == "rule" and told[name]["type"] == "string")
            assert same, f"{kind}/{name}"
        assert set(told) - set(own) == set(expected)
    assert LINE["$id"] == "urn:" + lines.SCHEMA.replace("/", ":")


@pytest.mark.parametrize("verb", ["check", "audit"])
def test_lines_are_as_published(run, gaps, verb):
    for folder in (gaps, DEMO / "dumpxml"):
        _, out = run(verb, "--format", "ndjson", "--xml", folder)
        kinds = [_valid(line, LINE)["kind"] for line in out.splitlines()]
        assert kinds[0] == "report"
        assert len(kinds) > 2


def test_severities_are_the_code_s():
    finding = REPORT["$defs"]["finding"]["properties"]
    assert finding["severity"]["enum"] == [
        severity.label for severity in sorted(Severity, reverse=True)
    ]


def test_rules_are_the_code_s():
    both = [*ALL_CHECKS, *ALL_RULES]
    assert REPORT["$defs"]["rule"]["enum"] == [rule.ident for rule in both]


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (REPORT["$defs"]["finding"], Finding),
        (REPORT["$defs"]["finding"]["properties"]["evidence"]["items"], Evidence),
        (REPORT["properties"]["not_run"]["items"], NotRun),
        (SNAPSHOT["properties"]["inventory"], guests.Inventory),
        (SNAPSHOT["$defs"]["host"], guests.Host),
        (SNAPSHOT["$defs"]["guest"], guests.Guest),
        (SNAPSHOT["$defs"]["image"], guests.Image),
        (SNAPSHOT["$defs"]["process"], guests.Process),
        (SNAPSHOT["$defs"]["file_label"], guests.FileLabel),
        (SNAPSHOT["$defs"]["path_rule"], guests.PathRule),
        (SNAPSHOT["$defs"]["boolean"], guests.BooleanState),
        (SNAPSHOT["$defs"]["unreadable"], guests.Unreadable),
        (SNAPSHOT["$defs"]["seclabel"], seclabel.Seclabel),
        (SNAPSHOT["$defs"]["device_seclabel"], seclabel.DeviceSeclabel),
        (SNAPSHOT["$defs"]["problem"], problems.Problem),
        (SNAPSHOT["$defs"]["devices"], devices.Devices),
        (SNAPSHOT["$defs"]["graphics"], devices.Graphics),
        (SNAPSHOT["$defs"]["listen"], devices.Listen),
        (SNAPSHOT["$defs"]["host_device"], devices.HostDevice),
        (SNAPSHOT["$defs"]["redirection"], devices.Redirection),
        (SNAPSHOT["$defs"]["character_device"], devices.CharacterDevice),
        (SNAPSHOT["$defs"]["storage_link"], devices.StorageLink),
        (SNAPSHOT["$defs"]["network_card"], devices.NetworkCard),
        (SNAPSHOT["$defs"]["policy"], policyfacts.PolicyFacts),
        (SNAPSHOT["$defs"]["domain"], policyfacts.DomainFacts),
        (SNAPSHOT["$defs"]["access"], policyfacts.TypeAccess),
        (SNAPSHOT["$defs"]["refused"], policyfacts.RefusedContext),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_properties_are_the_attributes(place, kind):
    # Passwords stay out of every document.
    expected = {field.name for field in attr.fields(kind)} - {"password"}
    assert set(place["properties"]) == expected


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (SNAPSHOT["$defs"]["image"]["properties"]["use"], guests.ImageUse),
        (SNAPSHOT["$defs"]["image"]["properties"]["kind"], guests.ImageKind),
        (SNAPSHOT["$defs"]["image"]["properties"]["mode"], guests.ImageMode),
        (SNAPSHOT["$defs"]["seclabel"]["properties"]["type"], seclabel.SeclabelType),
        (SNAPSHOT["$defs"]["host"]["properties"]["mode"], guests.Mode),
        (REPORT["properties"]["host"]["properties"]["selinux"]["properties"]["mode"], guests.Mode),
        (REPORT["$defs"]["finding"]["properties"]["layer"], problems.Layer),
        (SNAPSHOT["$defs"]["problem"]["properties"]["layer"], problems.Layer),
        (SNAPSHOT["$defs"]["access"]["properties"]["relation"], mls.Relation),
        (ACCESS["properties"]["reasons"]["items"]["properties"]["cause"], access.Cause),
    ],
)
def test_enumerations_are_the_code_s(place, kind):
    assert issubclass(kind, enum.Enum)
    assert set(place["enum"]) - {None} == {member.value for member in kind}


def test_report_on_the_demo_documents(run):
    status, text = run("check", "--format", "json", "--xml", DEMO / "dumpxml")
    report = _valid(text, REPORT)
    assert status == 1
    assert report["complete"]
    assert report["guests"] == len(list((DEMO / "dumpxml").glob("*.xml")))
    assert report["not_run"]


def test_report_on_the_demo_host(run):
    status, text = run("check", "--format", "json", *_demo_host())
    report = _valid(text, REPORT)
    assert status == 1
    assert report["complete"]
    assert report["host"] == {"name": None, "selinux": {"mode": None, "policy": None}}


def test_report_with_gaps(run, gaps):
    status, text = run("check", "--format", "json", "--xml", gaps)
    report = _valid(text, REPORT)
    assert status == 3
    assert not report["complete"]
    assert len(report["unreadable"]) == 3
    assert report["notes"]
    assert {entry["rule"] for entry in report["not_run"]} > {"host-not-enforcing"}


def test_report_cut_short(run):
    _, text = run(
        "check", "--format", "json", "--max-subjects", 1, "--ignore", "image-exposure",
        "--xml", DEMO / "dumpxml",
    )  # fmt: skip
    report = _valid(text, REPORT)
    assert report["ignored"] == 1
    assert [(len(one["reaches"]), one["reaches_count"]) for one in report["findings"]] == [(1, 2)]


def _sources(gaps, name):
    return {
        "documents": lambda: ["--xml", DEMO / "dumpxml"],
        "gaps": lambda: ["--xml", gaps],
        "files": lambda: ["--xml", DEMO / "dumpxml", "--files"],
        "host": _demo_host,
    }[name]()


@pytest.mark.parametrize("name", ["documents", "gaps", "files", "host"])
def test_snapshot_is_judged_as_its_source(run, gaps, tmp_path, name):
    source = _sources(gaps, name)
    status, text = run("export", *source)
    _valid(text, SNAPSHOT)
    assert status in (0, 3)
    snapshot = tmp_path / "snapshot.json"
    snapshot.write_text(text)
    for options in ([], ["--format", "json"], ["--verbose"]):
        assert run("check", *options, "--snapshot", snapshot) == run("check", *options, *source)
    assert run("export", "--snapshot", snapshot) == (status, text)


OWNER = "11111111-2222-3333-4444-555555555555"
REGISTRY_VERBS: dict[str, list[list[object]]] = {
    "svirt-label/allocate/1": [
        ["allocate", "--count", "2", "--xml", DEMO / "dumpxml"],
        ["allocate", "--owner", OWNER, "--name", "a", "--lease", "1h", "--xml", DEMO / "dumpxml"],
        ["reserve", "s0:c1000.c1002"],
        ["release", "s0:c1000.c1002"],
    ],
    "svirt-label/reservations/1": [["list", "--reserved"], ["gc", "--xml", DEMO / "dumpxml"]],
    "svirt-label/sync/1": [["sync", "--xml", DEMO / "dumpxml"]],
    "svirt-label/allocation-plan/1": [["allocate", "--plan", "--xml", DEMO / "dumpxml"]],
}


def test_documents_of_the_registry_s_verbs(run, tmp_path):
    Draft202012Validator.check_schema(ALLOCATION)
    named = {one["properties"]["schema"]["const"] for one in ALLOCATION["$defs"].values()
             if "schema" in one.get("properties", {})}  # fmt: skip
    assert named == set(REGISTRY_VERBS)
    for name, commands in REGISTRY_VERBS.items():
        for command in commands:
            more = [] if "--plan" in command else ["--registry", tmp_path / "registry.db"]
            status, text = run(*command, "--format", "json", *more)
            document = _valid(text, ALLOCATION)
            assert (command, status, document["schema"]) == (command, 0, name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"schema": "svirt-label/allocate/2"},
        {"levels": ["c1,c2"]},
        {"levels": None},
        {"surprise": 1},
    ],
)
def test_schema_of_the_registry_s_verbs_refuses(run, tmp_path, wrong):
    _, text = run("reserve", "s0:c1,c2", "--format", "json", "--registry", tmp_path / "r.db")
    document = _valid(text, ALLOCATION)
    assert not Draft202012Validator(ALLOCATION).is_valid({**document, **wrong})
