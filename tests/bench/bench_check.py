"""How long ``check`` takes on 1,000 guests of a real libvirtd.

Two goals. Within one process, what costs anything for each guest: a whole check, its report
written, takes at most 1.5 times as long as the bare libvirt calls (open read-only, list, the XML
of each guest). As processes, start to end: it is at least 40 times faster than the shell's loop
over ``virsh dumpxml``. Besides, without a goal: both as processes against a script of the bare
calls, which also compares what each must load. Exit status 1 if a goal is missed, 2 if there is
no libvirtd to measure.

The guests are defined and do not run, which is all the same to libvirt: what takes its time
is one question and one answer a guest. The loop is run over 50 of them, since it takes the
same time for each.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness import Bench, Contender

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from sessiondaemon import SessionDaemon, defined
from xmlmaker import disk

GUESTS = 1000
IN_LOOP = 50
#: Many, as on two processors the daemon, its threads and ours are in each other's way by chance.
ROUNDS = 21

BARE = """
import sys, libvirt
connection = libvirt.openReadOnly(sys.argv[1])
for domain in connection.listAllDomains():
    domain.XMLDesc(0)
"""
LOOP = """
for guest in $(virsh --quiet --connect "$1" list --all --name | head -n "$2"); do
    virsh --connect "$1" dumpxml "$guest" | grep label
done
"""


_NOT_AS_USERS_HAVE = {"PYTHONDONTWRITEBYTECODE", "PYTHONDEVMODE"}


def define_guests(daemon: SessionDaemon) -> None:
    """Define guests with an image and a CD-ROM each, every other one with a static label."""
    iso = disk("/usr/share/install.iso", device="cdrom", target="sda", format_="raw", chain=None)
    for number in range(GUESTS):
        image = daemon.folder / f"guest{number:04}.raw"
        image.touch()
        own = disk(str(image), format_="raw", chain=None)
        # Each one once: findings are what costs something on an unhealthy host.
        level = f"s0:c{number % 512},c{512 + number // 2}" if number % 2 else ""
        disks = [own, iso.replace("virtio", "sata")]
        daemon.define(defined(image.stem, level, disks=disks))


def run(*command: str, codes: tuple[int, ...] = (0,)) -> Contender:
    """Return what runs a program to its end."""

    # As a user has it: compiled once, not each time.
    variables = {name: os.environ[name] for name in os.environ if name not in _NOT_AS_USERS_HAVE}

    def contender() -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=variables
        )
        if done.returncode not in codes:
            raise RuntimeError(f"{command} ended with {done.returncode}")

    return contender


def _arguments(uri: str, *options: str) -> list[str]:
    return ["check", "--format", "json", "--connect", uri, *options]


def check(uri: str, *options: str) -> Contender:
    """Return what runs ``check``; that there are findings is no failure."""
    return run(sys.executable, "-m", "svirtlib.cli", *_arguments(uri, *options), codes=(0, 1))


def check_inside(uri: str, *options: str) -> Contender:
    """Return the same in this process, with its report written to a file."""
    from svirtlib.cli.main import main

    arguments = _arguments(uri, "--output", os.devnull, *options)

    def contender() -> None:
        status = main(arguments)
        if status not in (0, 1):
            raise RuntimeError(f"{arguments} ended with {status}")

    return contender


def bare_inside(uri: str) -> Contender:
    """Return the bare calls in this process."""
    import libvirt

    def contender() -> None:
        connection = libvirt.openReadOnly(uri)
        for domain in connection.listAllDomains():
            domain.XMLDesc(0)
        connection.close()

    return contender


def measure(daemon: SessionDaemon) -> int:
    """Measure; return the exit status."""
    define_guests(daemon)
    bare = run(sys.executable, "-c", BARE, daemon.uri)
    loop = run("sh", "-c", LOOP, "sh", daemon.uri, str(IN_LOOP), codes=(0, 1))
    guests_alone = check(daemon.uri, "--no-files", "--no-processes")
    bench = Bench(f"check, {GUESTS:,} guests of a real libvirtd", ROUNDS)
    peer = "the bare libvirt calls"
    alone = ("--no-files", "--no-processes")
    inside = {f"{peer} in one process": bare_inside(daemon.uri)}
    bench.compare("check: guests alone", check_inside(daemon.uri, *alone), inside, goal=1 / 1.5)
    bench.compare("check: with files and processes", check_inside(daemon.uri), inside)
    bench.compare("the program: guests alone", guests_alone, {peer: bare})
    bench.compare("the program: with all", check(daemon.uri), {peer: bare})
    part = IN_LOOP / GUESTS
    bench.compare(
        "the program: guests alone",
        guests_alone,
        {f"virsh loop over {IN_LOOP} guests": loop},
        goal=40 * part,
    )
    print(f"(the loop over all {GUESTS:,} guests takes {1 / part:g} times as long)")
    return bench.finish()


def main() -> int:
    """Run the bench."""
    import pytest

    try:
        with SessionDaemon() as daemon:
            return measure(daemon)
    except pytest.skip.Exception as missing:
        print(f"nothing to measure: {missing}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
