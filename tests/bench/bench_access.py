"""How fast the policy answers, and what it adds to ``check``.

The goals: 20,000 distinct decisions a second; a policy adds at most 120 ms to ``check`` for a
host of 100 guests. The peer is ``selinux.audit2why``, which decides the same and keeps nothing.
Exit status 1 if a goal is missed, 2 if there is no policy to ask.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from xmlmaker import disk, guest

from svirtlib.backends.policy import find_policy, open_policy

WANTED = 20_000
GUESTS = 100
ADDED = 0.120
ROUNDS = 9


def contexts() -> tuple[list[str], list[str]]:
    """Return 200 processes and 100 images, no two with one level."""
    pairs = list(itertools.islice(itertools.combinations(range(1024), 2), 300))
    processes = [f"system_u:system_r:svirt_t:s0:c{one},c{two}" for one, two in pairs[:200]]
    images = [f"system_u:object_r:svirt_image_t:s0:c{one},c{two}" for one, two in pairs[200:]]
    return processes, images


def distinct_levels(path: str) -> float:
    """Return decisions a second over 20,000 pairs of a process and an image."""
    processes, images = contexts()
    with open_policy(path) as policy:
        start = time.process_time()
        for process, image in itertools.product(processes, images):
            policy.decide(process, image, "file")
        return len(processes) * len(images) / (time.process_time() - start)


def distinct_types(path: str) -> float:
    """Return decisions a second where each has another pair of types: libsepol's own speed."""
    with open_policy(path) as policy:
        domains = [name for name, _, role in policy.domains() if role == "system_r"][:100]
        types = policy.types()[:100]
        sources = [f"system_u:system_r:{name}:s0:c1,c2" for name in domains]
        targets = [f"system_u:object_r:{name}:s0" for name in types]
        for context in (*sources, *targets):
            policy.refusal(context)
        start = time.process_time()
        for source, target in itertools.product(sources, targets):
            policy.decide(source, target, "file")
        return len(sources) * len(targets) / (time.process_time() - start)


def audit2why(path: str) -> float:
    """Return the peer's decisions a second over the same pairs as distinct_levels()."""
    from selinux import audit2why as peer

    processes, images = contexts()
    pairs = list(itertools.product(processes, images[:10]))
    assert peer.init(path) == 0
    try:
        start = time.process_time()
        for process, image in pairs:
            peer.analyze(process, image, "file", ["read"])
        return len(pairs) / (time.process_time() - start)
    finally:
        peer.finish()


def check(folder: Path, *options: str) -> float:
    """Return the processor's seconds of one whole ``check`` with an image file each."""
    program = Path(sys.executable).with_name("svirt-label")
    before = os.times()
    subprocess.run(
        [program, "check", "--exit-zero", "--xml", folder, "--format", "json", *options],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main() -> int:
    """Measure and print; return the exit status."""
    path = find_policy()
    if path is None:
        print("there is no policy to ask (Debian package selinux-policy-default)")
        return 2
    missed = []
    print(f"Policy: {path}; medians of {ROUNDS} rounds, processor time")
    for name, measure, goal in (
        ("levels differ", distinct_levels, WANTED),
        ("types differ", distinct_types, WANTED),
        ("audit2why, levels differ", audit2why, 0),
    ):
        rate = statistics.median(measure(path) for _ in range(ROUNDS))
        verdict = "" if not goal else f"goal {goal:,}/s: {'met' if rate >= goal else 'MISSED'}"
        print(f"  {name:<28} {rate:>12,.0f} decisions/s  {verdict}")
        if rate < goal:
            missed.append(name)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for number in range(GUESTS):
            name = f"guest{number:03}"
            document = guest(
                name, f"s0:c{number},c{number + 500}", disks=[disk(f"/images/{name}.qcow2")]
            )
            (folder / f"{name}.xml").write_text(document)
        added = statistics.median(
            check(folder, "--policy", path) - check(folder) for _ in range(ROUNDS)
        )
    met = added <= ADDED
    print(f"  check of {GUESTS} guests: the policy adds {added * 1000:.0f} ms", end="")
    print(f"  goal {ADDED * 1000:.0f} ms: {'met' if met else 'MISSED'}")
    return 1 if missed or not met else 0


if __name__ == "__main__":
    sys.exit(main())
