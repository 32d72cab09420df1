"""The verb ``access``: answers as a table and as JSON, exit statuses, wrong questions."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from checkrun import run
from jsonschema import Draft202012Validator
from needs import require_module
from smallpolicy import compile_policy

from svirtlib.backends import policy as policies

SCHEMAS = Path(policies.__file__).parent.parent / "schemas"
GUEST = "system_u:system_r:svirt_t:s0:c1,c2"
OWN = "system_u:object_r:svirt_image_t:s0:c1,c2"
OTHER = "system_u:object_r:svirt_image_t:s0:c3,c4"


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return compile_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def ask(policy):
    def ask(*arguments, policy=policy):
        return run("access", "--policy", policy, *arguments)

    return ask


def valid(outcome, name):
    document = json.loads(outcome.out)
    schema = json.loads((SCHEMAS / f"{name}-1.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert [error.message for error in Draft202012Validator(schema).iter_errors(document)] == []
    assert document["schema"] == f"svirt-label/{name}/1"
    return document


def test_allowed(ask, policy):
    outcome = ask(GUEST, OWN, "--format", "json")
    document = valid(outcome, "access")
    assert outcome.code == 0
    assert document["allowed"] is True
    assert document["permissions"] == {"read": True, "write": True}
    assert document["policy"] == str(policy)
    assert (document["source"], document["target"], document["class"]) == (GUEST, OWN, "file")
    assert {entry["cause"] for entry in document["reasons"]} == {"type-rule"}


def test_denied_by_a_constraint(ask):
    outcome = ask(GUEST, OTHER, "--perm", "read,getattr", "--format", "json")
    document = valid(outcome, "access")
    assert outcome.code == 1
    assert document["allowed"] is False
    assert document["permissions"] == {"read": False, "getattr": True}
    assert [entry["cause"] for entry in document["reasons"]] == [
        "constraint",
        "permission-not-constrained",
    ]
    assert document["reason"].startswith("read: a constraint denies it")
    assert "mcs_constrained_type" in document["reasons"][0]["constraint"]


def test_denied_by_a_boolean(ask):
    require_module("selinux.audit2why", package="python3-selinux")
    nfs = "system_u:object_r:nfs_t:s0"
    document = valid(ask(GUEST, nfs, "--format", "json"), "access")
    assert [entry["cause"] for entry in document["reasons"]] == ["boolean", "boolean"]
    assert {"name": "virt_use_nfs", "state": "on"} in document["reasons"][0]["booleans"]
    assert "setsebool -P virt_use_nfs on" in document["reason"]
    assert ask(GUEST, nfs).code == 1
    assert ask(GUEST, nfs, "--boolean", "virt_use_nfs=on").code == 0
    assert ask(GUEST, nfs, "--boolean", "virt_use_nfs=off").code == 1


def test_permissive_type(ask):
    outcome = ask(GUEST.replace("svirt_t", "lax_t"), OTHER, "--format", "json")
    document = valid(outcome, "access")
    assert outcome.code == 0
    assert {entry["cause"] for entry in document["reasons"]} == {"permissive-type"}


def test_table(ask):
    outcome = ask(GUEST, OTHER, "--perm", "read", "--perm", "getattr")
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["permission", "answer", "reason"]
    assert lines[1].startswith("read        denied   a constraint denies it")
    assert any(line.startswith("getattr     allowed") for line in lines)
    assert outcome.err == ""


def test_options_before_the_verb(policy):
    assert run("--policy", policy, "access", GUEST, OWN).code == 0


def test_class_without_reading_and_writing(ask):
    process = GUEST.replace("c1,c2", "c3")
    outcome = ask(GUEST, process, "--class", "process")
    assert outcome.code == 2
    assert "fork, signal, transition" in outcome.err
    assert ask(GUEST, process, "--class", "process", "--perm", "signal").code == 1
    assert ask(GUEST, GUEST, "--class", "process", "--perm", "signal").code == 0


@pytest.mark.root
def test_path_as_the_target(ask, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    assert ask(GUEST, disk).code == 4
    os.setxattr(disk, "security.selinux", OTHER.encode() + b"\0")
    assert valid(ask(GUEST, disk, "--format", "json"), "access")["target"] == OTHER
    assert ask(GUEST, disk).code == 1
    document = valid(ask("--who-can", disk, "--format", "json"), "who-can")
    assert document["target"] == OTHER
    assert ask("--who-can", tmp_path / "missing").code == 4


def test_who_can(ask):
    outcome = ask("--who-can", OTHER, "--format", "json")
    document = valid(outcome, "who-can")
    assert outcome.code == 0
    assert [(entry["domain"], entry["categories"]) for entry in document["domains"]] == [
        ("own_t", "ignored"),
        ("virtd_t", "ignored"),
        ("lax_t", "bind"),
        ("svirt_t", "bind"),
    ]
    assert document["domains"][2]["permissive"] is True
    table = ask("--who-can", OTHER).out
    assert "own_t    write  whatever its categories are" in table
    assert "svirt_t  write  if its level dominates" in table


# --- Without a policy, and with a wrong one ---------------------------------------------------


@pytest.fixture
def no_policy(monkeypatch, tmp_path):
    monkeypatch.setattr(policies, "LOADED", str(tmp_path / "loaded"))
    monkeypatch.setattr(policies, "_STORE", str(tmp_path / "etc"))
    return tmp_path


def test_no_policy_is_no_answer(no_policy):
    outcome = run("access", GUEST, OWN, "--format", "json")
    document = valid(outcome, "access")
    assert outcome.code == 3
    assert document["allowed"] is None
    assert document["reason"] == "not decided: no policy"
    assert document["permissions"] == {}
    assert "not decided: no policy" in run("access", GUEST, OWN).out
    outcome = run("access", "--who-can", OWN, "--format", "json")
    assert outcome.code == 3
    assert valid(outcome, "who-can")["domains"] is None
    assert "not decided: no policy" in run("access", "--who-can", OWN).out


def test_host_s_own_policy_that_cannot_be_read(no_policy):
    (no_policy / "loaded").write_bytes(b"cut")
    outcome = run("access", GUEST, OWN)
    assert (outcome.code, outcome.out) == (4, "")
    assert str(no_policy / "loaded") in outcome.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([GUEST], "SOURCE and TARGET"),
        ([], "SOURCE and TARGET"),
        ([GUEST, OWN, "--who-can", OWN], "leave them out"),
        ([GUEST, OWN, "--perm", "reed"], "'read'"),
        ([GUEST, OWN, "--perm", "read,,write"], "missing"),
        ([GUEST, OWN, "--class", "fiel"], "no class 'fiel'"),
        ([GUEST, OWN, "--boolean", "virt_use_nfs"], "NAME=on"),
        ([GUEST, OWN, "--boolean", "virt_use_nsf=on"], "virt_use_nfs"),
        ([GUEST, "svirt_image_t:s0"], "user:role:type:range"),
        ([GUEST.replace("svirt_t", "svirt_x"), OWN], "no type 'svirt_x'"),
        ([GUEST, OWN + "\x1b[2J"], "no range"),
        (["--who-can", "nonsense"], "user:role:type:range"),
    ],
)
def test_wrong_questions(ask, arguments, told):
    outcome = ask(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert told in outcome.err
    assert "Traceback" not in outcome.err
    assert "\x1b" not in outcome.err


def test_wrong_policies(ask, policy, tmp_path):
    whole = policy.read_bytes()
    wrong = tmp_path / "wrong"
    for content in (b"", b"no policy", whole[: len(whole) // 2]):
        wrong.write_bytes(content)
        assert ask(GUEST, OWN, policy=wrong).code == 2
    foreign = bytearray(whole)
    struct.pack_into("<I", foreign, 16, 99)
    wrong.write_bytes(foreign)
    outcome = ask(GUEST, OWN, policy=wrong)
    assert outcome.code == 2
    assert "version 99" in outcome.err
    assert ask(GUEST, OWN, policy=tmp_path / "missing").code == 4
    assert ask(GUEST, OWN, policy=tmp_path).code == 2
