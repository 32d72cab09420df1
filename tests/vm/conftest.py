"""A virtual machine for each module of tests, with the wheel of this checkout installed.

def test_it(machine):
    assert machine.run("getenforce").out == "Enforcing\n"
    report = machine.check("--only", "label-collision")
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import pytest
from needs import require, require_program

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
INSIDE = HERE / "inside"

#: Emulated, beside other work: whatever takes seconds may take a minute.
BUILDING, COMMAND = 1800, 1200


@dataclass(frozen=True)
class Result:
    """What one command in the machine did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON document on standard output."""
        return json.loads(self.out)


class Machine:
    """A running machine, as root in it sees it."""

    def __init__(self, home: Path, work: Path) -> None:
        self._home = home
        self._work = work
        self._boot: Optional[subprocess.Popen[str]] = None
        self._port = ""

    def __enter__(self) -> Machine:  # noqa: PYI034 - typing has no Self before 3.11
        self._boot = subprocess.Popen(
            [HERE / "boot", self._home, self._work],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._boot.stdout is not None
        self._port = self._boot.stdout.readline().strip()
        assert self._port, f"the machine did not start; see {self._work}"
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._boot is not None
        # Ends at the end of its input.
        self._boot.communicate(timeout=120)

    def run(
        self,
        *words: object,
        code: Optional[int] = 0,
        stdin: Optional[bytes] = None,
        timeout: int = COMMAND,
    ) -> Result:
        """Run a command; one word is a line of shell, several are taken as they stand.

        It must end with *code*, unless that is None.
        """
        line = str(words[0]) if len(words) == 1 else shlex.join(map(str, words))
        done = subprocess.run(
            [*self._ssh(), line],
            input=stdin if stdin is not None else b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert code is None or result.code == code, f"{line}\n{result}"
        return result

    def label(self, *words: object, code: Optional[int] = 0, timeout: int = COMMAND) -> Result:
        """Run svirt-label as it was installed from the wheel."""
        return self.run("/opt/svirt/bin/svirt-label", *words, code=code, timeout=timeout)

    def check(self, *words: object) -> Any:
        """Return the report of ``svirt-label check``."""
        return self.label("check", "--format", "json", "--exit-zero", *words, code=None).json

    def python(self, name: str, *words: object, stdin: Any = None, timeout: int = COMMAND) -> Any:
        """Run a script of inside/ with the machine's own Python; JSON in, JSON out."""
        result = self.run(
            "python3", f"/root/inside/{name}.py", *words,
            stdin=json.dumps(stdin).encode(), timeout=timeout,
        )  # fmt: skip
        return json.loads(result.out)

    def put(self, *paths: Path) -> None:
        """Copy files and folders into /root."""
        for path in paths:
            packed = subprocess.run(
                ["tar", "-C", path.parent, "-c", "--exclude=__pycache__", path.name],
                check=True,
                capture_output=True,
            )
            self.run("tar -C /root --no-same-owner -x", stdin=packed.stdout)

    def _ssh(self) -> list[str]:
        return [
            "ssh", "-i", str(self._home / "key"), "-p", self._port,
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=60", "-o", "ControlMaster=auto",
            "-o", f"ControlPath={self._work}/tests", "-o", "ControlPersist=600",
            "root@127.0.0.1",
        ]  # fmt: skip


@pytest.fixture(scope="session")
def vm_home() -> Path:
    """The built machine; the first time, this takes minutes."""
    require(os.geteuid() == 0, "only root can build the virtual machine")
    for program, package in (
        ("mmdebstrap", "mmdebstrap"),
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("setfiles", "policycoreutils"),
        ("ssh", "openssh-client"),
    ):
        require_program(program, package=package)
    built = subprocess.run(
        [HERE / "build"],
        stdout=subprocess.PIPE,
        timeout=BUILDING,
        text=True,
        check=True,
    )
    return Path(built.stdout.strip())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    source = tmp_path_factory.mktemp("source")
    target = tmp_path_factory.mktemp("wheel")
    # In a copy: setuptools would pack what an older build left in the checkout.
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    packed = subprocess.run(
        ["tar", "-C", ROOT, "-c", "--null", "--ignore-failed-read", "-T", "-"],
        input=files, capture_output=True, check=True,
    ).stdout  # fmt: skip
    subprocess.run(["tar", "-C", source, "-x"], input=packed, check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", target, source],
        check=True,
    )  # fmt: skip
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def _machine(
    vm_home: Path, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """One machine for all tests, with the wheel installed: booting it again takes a minute."""
    # The path of ssh's socket must be short.
    work = tmp_path_factory.mktemp("vm")
    with Machine(vm_home, work) as started:
        started.put(wheel, INSIDE)
        started.run(
            "/opt/svirt/bin/pip --no-cache-dir --disable-pip-version-check install --quiet "
            f"--no-compile --no-index --no-deps /root/{wheel.name}"
        )
        assert started.run("getenforce").out == "Enforcing\n"
        yield started


@pytest.fixture(scope="module")
def machine(_machine: Machine) -> Iterator[Machine]:
    """The machine without guests, whatever the tests before left behind."""
    yield _machine
    _machine.python("guests", "clear")
    _machine.run("setenforce 1; losetup -D")
