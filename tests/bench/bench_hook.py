"""How long a start waits for the hook, as libvirt calls it, start to end of the process.

The peer is the least that any hook in Python takes: ``python3 -I -S -c pass``. The goal is
at most twice as long when all is well, at the phases in which a guest waits, also among 500
processes of which 100 are guests. A guest that has to be stopped is measured for information.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Bench, Contender

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from xmlmaker import guest, uuid_of

from svirtlib.backends.hook import install

GOAL = 2.0
ROUNDS = 25


def processes(folder: Path, count: int) -> None:
    """Make a /proc: one process in five is a guest, the others are services."""
    for number in range(1, count + 1):
        directory = folder / str(number) / "attr"
        directory.mkdir(parents=True)
        is_guest = number % 5 == 0
        context = f"svirt_t:s0:c{number},c{number + 500}" if is_guest else "init_t:s0"
        (directory / "current").write_text(f"system_u:system_r:{context}\0")
        words = ["qemu", "-name", f"guest=g{number}", "-uuid", uuid_of(f"g{number}")]
        (directory.parent / "cmdline").write_text("\0".join(words) + "\0")
        (directory.parent / "comm").write_text("qemu\n")


def hook(script: Path, phase: str, document: Path, code: int = 0) -> Contender:
    """Return what calls the installed file."""

    def contender() -> None:
        with document.open("rb") as stream:
            done = subprocess.run(
                [script, "web", phase, "begin", "-"], stdin=stream, stderr=subprocess.DEVNULL
            )
        if done.returncode != code:
            raise RuntimeError(f"{phase}: the hook ended with {done.returncode}")

    return contender


def main() -> int:
    """Measure."""
    folder = Path(tempfile.mkdtemp())
    # As a user has it: compiled once, not each time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        processes(folder / "proc", 500)
        state = folder / "state" / "hook"
        plan = install.plan("libvirt", root=str(folder), state=str(state))
        install.apply(plan)
        script = Path(plan.path)
        among = folder / "among"
        text = script.read_text()
        among.write_text(text.replace("    fail=", f'    proc="{folder}/proc",\n    fail=', 1))
        among.chmod(0o755)
        well, stopped = folder / "well.xml", folder / "stopped.xml"
        well.write_text(guest("web", "s0:c1,c2"))
        stopped.write_text(guest("web", "s0:c5,c505"))
        defined = folder / "defined.xml"
        defined.write_text(guest("web", how="dynamic", live=False))
        python = ["/usr/bin/python3", "-I", "-S", "-c", "pass"]

        def bare() -> None:
            subprocess.run(python, stdin=subprocess.DEVNULL, check=True)

        bench = Bench("The hook", rounds=ROUNDS)
        peers = {"python3 -I -S -c pass": bare}
        goal = 1 / GOAL
        bench.compare("prepare, dynamic", hook(script, "prepare", defined), peers, goal)
        bench.compare("start", hook(script, "start", well), peers, goal)
        bench.compare("start, among 500 processes", hook(among, "start", well), peers, goal)
        bench.compare("stopped", hook(script, "stopped", well), peers, goal)
        bench.compare("release", hook(script, "release", well), peers, goal)
        bench.compare("start, to be stopped", hook(among, "start", stopped, 1), peers)
        return bench.finish()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
