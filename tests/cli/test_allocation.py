"""The verbs of the registry as a user meets them: results, refusals, exit statuses."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from svirtlib.backends import host, store
from svirtlib.checks.static_label_reuse import Pool
from svirtlib.cli.main import main
from svirtlib.errors import BackendPermissionError, BackendUnavailableError
from svirtlib.mls import Level
from svirtlib.registry import propose_split

DEMO = Path(__file__).resolve().parent.parent.parent / "svirtlib" / "demo"
DUMPXML = ["--xml", str(DEMO / "dumpxml")]
OWNER = "5C7B1E0A-0000-4000-8000-000000000001"

DOMAIN = """
<domain type='kvm' {running}><name>{name}</name><uuid>{uuid}</uuid>
  <seclabel type='{type}' model='selinux' relabel='yes'>
    <label>system_u:system_r:svirt_t:{level}</label></seclabel></domain>"""


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    """The path of a registry that the environment names; no configuration of this machine."""
    path = tmp_path / "state" / "registry.db"
    monkeypatch.setenv("SVIRT_LABEL_REGISTRY", str(path))
    monkeypatch.delenv("SVIRT_LABEL_DOMAIN", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(store, "SYSTEM_CONFIGURATION", str(tmp_path / "none.conf"))
    return path


@pytest.fixture
def run(capsys):
    """Run ``svirt-label`` with these arguments: exit status, stdout, stderr."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def guests(tmp_path):
    """A function that writes a guest's XML; returns the options that name all of them."""
    folder = tmp_path / "guests"
    folder.mkdir()

    def write(name, level, type="dynamic", running=True):
        text = DOMAIN.format(
            name=name,
            uuid=f"00000000-0000-4000-8000-{abs(hash(name)) % 10**12:012d}",
            level=level,
            type=type,
            running="id='1'" if running else "",
        )
        (folder / f"{name}.xml").write_text(text)
        return ["--xml", str(folder)]

    return write


def test_levels_are_printed_one_a_line(run):
    status, out, err = run("allocate", "--count", 3, *DUMPXML)
    assert (status, err) == (0, "")
    levels = [Level.parse(line) for line in out.splitlines()]
    assert len(set(levels)) == 3
    assert all(len(level.categories) == 2 for level in levels)


def test_json_keeps_its_promise(run):
    arguments = ["--owner", OWNER, "--name", "web", "--purpose", "shop", "--lease", "7d"]
    status, out, _ = run("allocate", "--no-sync", *arguments, "--format", "json")
    document = json.loads(out)
    assert status == 0
    assert document["schema"] == "svirt-label/allocate/1"
    [reservation] = document["reservations"]
    assert document["levels"] == [reservation["level"]]
    assert reservation["owner"] == OWNER.lower()
    assert (reservation["name"], reservation["purpose"]) == ("web", "shop")
    assert reservation["created"] < reservation["expires"]
    # Asking again gives the same, whatever the case of the UUID's letters.
    _, again, _ = run("allocate", "--no-sync", "--owner", OWNER.lower())
    assert again == f"{reservation['level']}\n"


def test_what_runs_is_not_handed_out(run, guests):
    guests("a", "s0:c0,c1")
    guests("b", "s0:c2", type="static", running=False)
    options = guests("c", "s0:c5.c9")
    # Of the ten pairs four have c2, and one is that of the guest.
    assert run("allocate", "--count", 6, "--within", "c0.c4", *options)[:2] == (4, "")
    status, out, _ = run("allocate", "--count", 5, "--within", "c0.c4", *options)
    assert status == 0
    assert set(out.split()) == {"s0:c0,c3", "s0:c0,c4", "s0:c1,c3", "s0:c1,c4", "s0:c3,c4"}


def test_reserve_list_release(run):
    assert run("reserve", "s0:c2,c1", "--name", "web")[:2] == (0, "s0:c1,c2\n")
    status, _, err = run("reserve", "s0:c1.c9")
    assert status == 2
    assert "s0:c1,c2 is reserved (web)" in err
    status, out, _ = run("list", "--reserved")
    assert status == 0
    assert "s0:c1,c2" in out
    assert "web" in out
    document = json.loads(run("list", "--reserved", "--format", "json")[1])
    assert [entry["level"] for entry in document["reservations"]] == ["s0:c1,c2"]
    assert json.loads(run("list", "--reserved", "--domain", "x", "--format", "json")[1]) == {
        "schema": "svirt-label/reservations/1",
        "domain": "x",
        "reservations": [],
    }
    assert run("release", "s0:c1,c2")[:2] == (0, "s0:c1,c2\n")
    assert run("release", "s0:c1,c2")[0] == 2
    assert run("release", "--owner", "unknown")[0] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--count", "0"], 2, "0 levels"),
        (["--count", "29", "--within", "c0.c7"], 2, "29 of 28 labels"),
        (["--within", "c5.c5"], 2, "from the 1 of c5.c5"),
        (["--within", "c5"], 2, "no interval"),
        (["--within", "c0.c1024"], 2, "no interval"),
        (["--size", "0"], 2, "no level of 0"),
        (["--lease", "soon"], 2, "no duration"),
        (["--count", "2", "--owner", "x"], 2, "an owner has one"),
        (["--registry", "mysql://x/y"], 2, "SQLite or PostgreSQL"),
        (["--domain", "a\nb"], 2, "a domain's name"),
        (["--registry", "/proc/none/registry.db"], 4, "no registry can be made"),
    ],
)
def test_what_cannot_be_is_refused(run, arguments, status, message):
    found, out, err = run("allocate", "--no-sync", *arguments)
    assert (found, out) == (status, "")
    assert message in err


def test_exhaustion_is_an_error_with_numbers(run):
    assert run("allocate", "--no-sync", "--within", "c0.c7", "--count", 28)[0] == 0
    status, out, err = run("allocate", "--no-sync", "--within", "c0.c7")
    assert (status, out) == (4, "")
    assert "1 of 28 labels wanted, and none is free" in err


def test_without_libvirt_the_registry_is_trusted_and_that_is_told(run, monkeypatch):
    def nobody(*_arguments, **_options):
        raise BackendUnavailableError("no daemon")

    monkeypatch.setattr(host, "read_host", nobody)
    status, out, err = run("allocate")
    assert status == 0
    assert out
    assert "was not looked at" in err
    # Who names a connection means it; so does one that refuses.
    assert run("allocate", "-c", "qemu:///system")[0] == 4

    def refused(*_arguments, **_options):
        raise BackendPermissionError("not for you")

    monkeypatch.setattr(host, "read_host", refused)
    assert run("allocate")[0] == 4


def test_sync_tells_who_uses_a_reserved_level(run, guests):
    run("reserve", "s0:c1,c2", "--owner", OWNER, "--name", "web")
    options = guests("db", "s0:c1,c2")
    status, out, err = run("sync", *options)
    assert status == 1
    assert "1 level in use" in out
    assert "s0:c1,c2 is reserved for web, and guest db has it" in err


def test_a_dry_run_changes_nothing(run, guests):
    options = guests("db", "s0:c0,c1")
    document = json.loads(run("sync", "-n", "--format", "json", *options)[1])
    assert [entry["level"] for entry in document["in_use"]] == ["s0:c0,c1"]
    assert run("allocate", "--no-sync", "--within", "c0.c1")[:2] == (0, "s0:c0,c1\n")
    run("gc", "-n", "--grace", "1s", *options)
    assert "s0:c0,c1" in run("list", "--reserved")[1]


def test_gc_tells_what_it_dropped(run, guests, monkeypatch):
    run("reserve", "s0:c1,c2", "--owner", OWNER, "--name", "gone")
    options = guests("db", "s0:c3,c4")
    status, out, _ = run("gc", *options)
    assert status == 0
    assert "gone" not in out
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    assert "gone" in run("gc", *options)[1]
    assert "gone" not in run("list", "--reserved")[1]


def test_the_configuration_file_is_read(run, tmp_path, monkeypatch):
    monkeypatch.delenv("SVIRT_LABEL_REGISTRY")
    folder = tmp_path / "config"
    folder.mkdir()
    path = tmp_path / "elsewhere" / "r.db"
    (folder / "svirt-label.conf").write_text(
        f"[registry]\nurl = {path}\ndomain = san\nwithin = c512.c514\n"
    )
    status, out, _ = run("allocate", "--no-sync", "--count", 3, "--format", "json")
    assert status == 0
    assert path.exists()
    assert json.loads(out)["domain"] == "san"
    assert set(json.loads(out)["levels"]) == {"s0:c512,c513", "s0:c512,c514", "s0:c513,c514"}
    (folder / "svirt-label.conf").write_text("url = x\n")
    status, _, err = run("allocate", "--no-sync")
    assert status == 4
    assert "svirt-label.conf" in err


def test_the_plan_names_the_daemons_range(run, guests):
    guests("a", "s0:c300,c400", type="static", running=False)
    options = guests("b", "s0:c7,c8", type="static", running=False)
    document = json.loads(run("allocate", "--plan", "--format", "json", *options)[1])
    assert document["dynamic"]["within"] == "c0.c399"
    assert document["dynamic"]["daemon_range"] == "s0-s0:c0.c399"
    assert document["static"]["within"] == "c400.c1023"
    assert document["misplaced"] == ["s0:c7,c8"]
    status, out, _ = run("allocate", "--plan", *options)
    assert status == 0
    assert "SELinuxContext=system_u:system_r:virtd_t:s0-s0:c0.c399" in out
    assert "s0:c7,c8" in out
    assert run("list", "--reserved", "--format", "json")[1].count("level") == 0


def test_check_honours_the_split():
    """Static levels of the proposed part cannot be drawn by a daemon with the proposed range."""
    split = propose_split([])
    pool = Pool.of_range(split.daemon_range)
    assert pool is not None
    for low in (split.static[0], 700):
        assert not pool.may_meet(Level(0, (low, split.static[1])))
    assert pool.may_meet(Level(0, (split.dynamic[1] - 1, split.dynamic[1])))
