"""The Ansible collection, by the real ansible over a local connection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from policyroot import IMAGE, Root, label_of, make_template, set_label
from xmlmaker import guest, uuid_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).parent / "svirt-label"


@pytest.fixture(scope="module")
def collections(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ansible")
    shutil.copytree(ROOT / "packaging" / "ansible_collections", folder / "ansible_collections")
    return folder


@pytest.fixture
def task(collections, tmp_path):
    """Run one task; return its result."""

    def run(module, *more, **parameters):
        parameters = {"executable": str(PROGRAM), **parameters}
        variables = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            "ANSIBLE_HOME": str(tmp_path / "ansible-home"),
            "ANSIBLE_LOCALHOST_WARNING": "0",
        }
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "ansible"), "localhost", "--connection=local"),
                *("-e", f"ansible_python_interpreter={sys.executable}"),
                *("--module-name", f"svirtlib.svirt.{module}"),
                *("--args", json.dumps(parameters), "--tree", str(tmp_path / "tree"), *more),
            ],
            env=variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        path = tmp_path / "tree" / "localhost"
        assert path.exists(), done.stdout + done.stderr
        result = json.loads(path.read_text())
        path.unlink()
        # What it writes down leaves this out.
        return {**result, "failed": done.returncode != 0, "shown": done.stdout}

    return run


def test_check(task, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.xml").write_text(guest(name, "s0:c1,c2", how="static"))
    documents = [str(tmp_path / "a.xml"), str(tmp_path / "b.xml")]
    found = task("svirt_check", xml=documents)
    assert found["failed"] is True
    assert "label-collision" in found["msg"]
    told = task("svirt_check", xml=documents, fail_on="never")
    assert told["failed"] is False
    assert told["changed"] is False
    assert told["report"]["findings"][0]["guests"] == ["a", "b"]
    assert task("svirt_check", xml=documents[:1], fail_on="high")["report"]["guests"] == 1
    (tmp_path / "broken.xml").write_text("<domain>")
    gap = task("svirt_check", xml=[documents[0], str(tmp_path / "broken.xml")])
    assert gap["failed"] is True
    assert "not judged" in gap["msg"]
    wrong = task("svirt_check", xml=["/nonexistent"])
    assert (wrong["failed"], wrong["rc"]) == (True, 2)


def test_allocate(task, tmp_path):
    folder = tmp_path / "registry"
    folder.mkdir(mode=0o700)
    given: dict[str, object] = {
        "owner": uuid_of("web"),
        "name": "web",
        "registry": f"sqlite:///{folder}/r.db",
    }
    given["sync"] = False
    tried = task("svirt_allocate", "--check", **given)
    assert (tried["changed"], tried["level"]) == (True, None)
    first = task("svirt_allocate", **given)
    assert first["changed"] is True
    again = task("svirt_allocate", **given)
    assert (again["changed"], again["level"]) == (False, first["level"])
    assert task("svirt_allocate", state="absent", **given)["changed"] is True
    assert task("svirt_allocate", state="absent", **given)["changed"] is False


@pytest.mark.root
def test_storage(task, tmp_path):
    host = Root(tmp_path, make_template(tmp_path / "template", small=True))
    image = host.path("virtstorage/a.img")
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_bytes(b"")
    set_label(image, "system_u:object_r:default_t:s0")
    given = {"paths": ["/virtstorage"], "root": str(host.folder)}
    tried = task("svirt_storage", "--check", "--diff", **given)
    assert tried["changed"] is True
    assert "+/virtstorage/a.img: system_u:object_r:virt_image_t:s0" in tried["shown"]
    assert label_of(image) == b"system_u:object_r:default_t:s0\0"
    assert task("svirt_storage", **given)["changed"] is True
    assert label_of(image) == IMAGE.encode() + b"\0"
    assert task("svirt_storage", **given)["changed"] is False
    assert task("svirt_storage", paths=["/etc"], root=str(host.folder))["failed"] is True
