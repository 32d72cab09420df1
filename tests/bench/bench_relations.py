"""How fast equal and dominating levels are found among many guests.

The goals: 1,000,000 guests with random pairs of categories in 1.5 s, 100,000 of the mixed
family in 0.5 s, and a growth from 10,000 to 1,000,000 pairs that is nearly linear. Exit
status 1 if one is missed.

Two contenders put the times into proportion: collections.Counter, which only counts equal
texts and is the least that anybody could do, and the comparison of every level with every
other, which needs no idea and a night.

Seconds are those of the processor, lest waiting for it counts. What else the machine does
still slows it down, since caches are shared; so where Counter takes longer than it does on
the same machine at rest, the goals in seconds are longer by that factor.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from harness import Contender, duration, interleave
from levelfamilies import FAMILIES

from svirtlib.mls import Level
from svirtlib.relations import DominanceIndex, Relations, relate

ROUNDS = 5
#: Seconds for relate(), and those that Counter takes at rest.
GOALS = {("pairs", 1_000_000): (1.5, 0.38), ("mixed", 100_000): (0.5, 0.0132)}
GROWTH = 1.15
GROWN = (10_000, 1_000_000)
SIZES = {
    "pairs": [1_000, 2_000, 10_000, 100_000, 1_000_000],
    "mixed": [1_000, 2_000, 10_000, 100_000, 1_000_000],
    "few": [1_000, 10_000, 100_000],
    "chains": [1_000],
}
#: Numbers of guests of which every two are compared; that grows with the square.
NAIVE = (1_000, 2_000)
_FORMAT = "{:<8} {:>9} {:>9} {:>9} {:>9} {:>10} {:>10}  {}"


def naive(levels: list[str]) -> int:
    """Count equal and dominating pairs by comparing every two."""
    masks = [Level.parse(level).mask for level in levels]
    found = 0
    for number, one in enumerate(masks):
        for other in masks[:number]:
            common = one & other
            if common in (one, other):
                found += 1
    return found


def extra_memory(family: str, count: int) -> int:
    """Return the octets by which relate() raises the peak of a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--memory", family, str(count)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout)


def _extra_memory(family: str, count: int) -> int:
    levels = FAMILIES[family](count)
    before = _peak()
    relate(levels)
    return _peak() - before


def _peak() -> int:
    """Return the peak of this process's memory; getrusage() would tell the parent's, if larger."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def told(found: Relations) -> str:
    """Return what was found, in short."""
    reached = sum(told.reaching.count * told.reached.count for told in found.exposures)
    return f"{len(found.collisions):,} groups, {len(found.exposures):,} causes of {reached:,}"


def measure(levels: list[str]) -> dict[str, float]:
    """Return the seconds that each contender takes."""
    contenders: dict[str, Contender] = {
        "relate": lambda: relate(levels),
        "Counter": lambda: Counter(levels),
    }
    if len(levels) in NAIVE:
        contenders["naive"] = lambda: naive(levels)
    return interleave(contenders, ROUNDS, time.process_time)


def main() -> int:
    print(f"relate(): medians of {ROUNDS} interleaved rounds, seconds of the processor")
    print(_FORMAT.format("", "guests", "relate", "Counter", "ratio", "naive", "extra RSS", "found"))
    medians: dict[tuple[str, int], dict[str, float]] = {}
    for family, sizes in SIZES.items():
        for count in sizes:
            levels = FAMILIES[family](count)
            taken = measure(levels)
            medians[family, count] = taken
            print(
                _FORMAT.format(
                    family,
                    f"{count:,}",
                    duration(taken["relate"]),
                    duration(taken["Counter"]),
                    f"{taken['relate'] / taken['Counter']:.1f} x",
                    f"{taken['naive'] / taken['relate']:.0f} x" if "naive" in taken else "",
                    f"{extra_memory(family, count) / 2**20:.0f} MiB",
                    told(relate(levels)),
                ),
                flush=True,
            )
    queries()
    return verdict(medians)


def queries() -> None:
    """Print what one question to an index costs."""
    index = DominanceIndex(FAMILIES["mixed"](100_000))
    for text in ("s0:c87,c520", "s0:c87", "s0:c3,c87,c520", "s0:c100.c200", "s0"):
        level = Level.parse(text)
        contenders: dict[str, Contender] = {
            "dominating": partial(index.dominating, level),
            "dominated by": partial(index.dominated_by, level),
        }
        taken = interleave(contenders, ROUNDS, time.process_time)
        shown = ", ".join(f"{name} it {duration(seconds)}" for name, seconds in taken.items())
        print(f"index of 100,000 mixed levels, {text}: {shown}")


def growth() -> float:
    """Return the exponent with which the time for pairs grows."""
    contenders: dict[str, Contender] = {
        str(count): partial(relate, FAMILIES["pairs"](count)) for count in GROWN
    }
    small, large = interleave(contenders, ROUNDS, time.process_time).values()
    return math.log(large / small, GROWN[1] / GROWN[0])


def verdict(medians: dict[tuple[str, int], dict[str, float]]) -> int:
    """Print whether the goals were met; the answer is the script's exit status."""
    missed = False
    for (family, count), (goal, at_rest) in GOALS.items():
        taken = medians[family, count]
        slowed = max(1, taken["Counter"] / at_rest)
        met = taken["relate"] <= goal * slowed
        missed |= not met
        print(f"{count:,} {family}: {duration(taken['relate'])}, goal <= {goal} s", end="")
        print(f" x {slowed:.2f} (Counter now and at rest):", "met" if met else "MISSED")
    exponent = growth()
    missed |= exponent > GROWTH
    print(f"growth of pairs from {GROWN[0]:,} to {GROWN[1]:,}: exponent {exponent:.2f},", end=" ")
    print(f"goal <= {GROWTH}:", "met" if exponent <= GROWTH else "MISSED")
    return int(missed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        print(_extra_memory(sys.argv[2], int(sys.argv[3])))
        sys.exit()
    sys.exit(main())
