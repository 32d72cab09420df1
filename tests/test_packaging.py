"""The wheel holds the whole of svirtlib/ and cli/, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from needs import require, require_program

ROOT = Path(__file__).resolve().parent.parent


def _run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def _python(code, cwd):
    """Run *code* with *cwd* as the only place besides the system's where modules are found."""
    # -S leaves out site-packages, and with it the editable installation of this checkout; the
    # libraries it needs are found where this process found them.
    paths = [str(cwd), *(path for path in sys.path if path.endswith("-packages"))]
    prelude = f"import sys; sys.path[1:1] = {paths!r}; "
    return _run(sys.executable, "-I", "-S", "-c", prelude + code, cwd="/")


@pytest.fixture(scope="module")
def tracked():
    """Files of this checkout that git knows, of the new ones those that it does not ignore."""
    require((ROOT / ".git").exists(), "not a git checkout")
    git = require_program("git", package="git")
    listed = _run(
        git, "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    ).split("\0")
    return sorted(name for name in set(listed) if name and (ROOT / name).is_file())


@pytest.fixture(scope="module")
def wheel(tracked, tmp_path_factory):
    """Path of a wheel that was built from a clean copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked:
        target = folder / "tree" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    _run(*pip, "wheel", *options, "--wheel-dir", str(folder), ".", cwd=folder / "tree")
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that holds what the wheel would install, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_is_the_tree(wheel, tracked):
    expected = {name for name in tracked if name.startswith("svirtlib/")}
    expected |= {f"svirtlib/{name}" for name in tracked if name.startswith("cli/")}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    found = {name for name in names if ".dist-info/" not in name}
    assert found == expected, "setup.cfg lists packages and their data by hand"


def test_wheel_installs_one_name(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        (info,) = tops - {"svirtlib"}
        assert archive.read(f"{info}/top_level.txt").split() == [b"svirtlib"]
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
        metadata = archive.read(f"{info}/METADATA").decode()
    assert info.endswith(".dist-info")
    assert "svirt-label = svirtlib.cli.main:run" in entry_points
    assert "\nRequires-Python: >=3.9\n" in metadata
    # A pip that took them for requirements would install stubs over the real bindings.
    for binding in ("selinux", "semanage", "setools"):
        assert f"\nRequires-Dist: {binding}" not in metadata


def test_version_is_the_package_s(wheel, installed):
    version = _python("import svirtlib; print(svirtlib.__version__)", installed).strip()
    assert wheel.name.startswith(f"svirtlib-{version}-")


def test_cli_is_part_of_the_package(installed, tracked):
    require("cli/main.py" in tracked, "no cli/main.py yet")
    code = "import svirtlib.cli.main as main; print(main.__file__)"
    path = Path(_python(code, installed).strip())
    assert path == installed / "svirtlib" / "cli" / "main.py"


def test_cli_is_no_package_of_its_own(installed):
    code = "import importlib.util as util; print(util.find_spec('cli'))"
    assert _python(code, installed).strip() == "None"
