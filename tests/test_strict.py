"""With SVIRT_TEST_STRICT=1 a test that skips, in whatever way, is one that fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

#: Test files, of each way not to run or not to pass. They are run below, in a folder of their own:
#: nothing here is skipped, and nothing here is expected to fail.
TESTS = {
    "call": "def test_it(require): require(False, 'reason one')",
    # What a mark skips has to fail where nothing may skip: the inner run is asked whether it does.
    "mark": "import pytest\n@pytest.mark.skip(reason='reason two')\ndef test_it(): pass",
    "module": "from needs import require\nrequire(False, 'reason three')\ndef test_it(): pass",
    # An expected failure is a verdict, no skip: the inner run is to let it pass in both modes.
    "xfail": "import pytest\n@pytest.mark.xfail(reason='four')\ndef test_it(): assert False",
    "slow": "import pytest\n@pytest.mark.slow\ndef test_it(): assert False",
    "plain": "def test_it(): pass",
}
REASONS = ("reason one", "reason two", "reason three")


@pytest.fixture
def run(tmp_path):
    """Run test files under this checkout's conftest.py and settings; return what it says."""
    shutil.copytree(HERE / "support", tmp_path / "tests" / "support")
    shutil.copyfile(HERE / "conftest.py", tmp_path / "tests" / "conftest.py")
    shutil.copyfile(HERE.parent / "pyproject.toml", tmp_path / "pyproject.toml")
    for name, source in TESTS.items():
        (tmp_path / "tests" / f"test_{name}.py").write_text(source)

    def run(**variables):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SVIRT_")}
        command = [sys.executable, "-m", "pytest", "-m", "not slow"]
        return subprocess.run(
            [*command, "--continue-on-collection-errors"],
            cwd=tmp_path,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_strict_allows_no_skip(run):
    done = run(SVIRT_TEST_STRICT="1")
    assert done.returncode == 1
    assert "= 1 failed, 1 passed, 1 deselected, 1 xfailed, 2 errors in" in done.stdout
    assert all(reason in done.stdout for reason in REASONS)


def test_otherwise_a_skip_tells_its_reason(run):
    done = run()
    assert done.returncode == 0
    assert "= 1 passed, 3 skipped, 1 deselected, 1 xfailed in" in done.stdout
    assert all(reason in done.stdout for reason in REASONS)
