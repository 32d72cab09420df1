"""What the benches share: interleaved rounds, medians, one table, one exit status.

    bench = Bench("Labels")
    bench.compare("parse a pair", ours, {"SETools": theirs}, goal=1000)
    sys.exit(bench.finish())

Absolute times vary with the machine and with what else it does. So contenders take turns
within each round, and only the ratio of their medians is a goal. Run a bench from anywhere:
python tests/bench/bench_labels.py
"""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Mapping
from typing import Callable, Optional

Contender = Callable[[], object]
#: time.perf_counter, or time.process_time for what neither waits nor starts programs: it is
#: not disturbed by what else the machine does.
Clock = Callable[[], float]

ROUNDS = 9
#: Seconds that one contender runs in one round; one call, if that takes longer.
SLICE = 0.02


def interleave(
    contenders: Mapping[str, Contender],
    rounds: int = ROUNDS,
    clock: Clock = time.perf_counter,
    prepare: Optional[Contender] = None,
) -> dict[str, float]:
    """Return the median of each contender's seconds per call, over interleaved rounds.

    Contenders that change what they work on need *prepare*, which is called before each call
    and not measured; they are then called once a round.
    """
    if prepare is not None:
        return _prepared(contenders, rounds, clock, prepare)
    # The first measurement warms caches up and only tells how many calls fill a slice.
    calls = {
        name: max(1, int(SLICE / max(_seconds(contender, 1, clock), 1e-8)))
        for name, contender in contenders.items()
    }
    calls = {
        name: max(1, int(SLICE / max(_seconds(contenders[name], min(count, 1000), clock), 1e-8)))
        for name, count in calls.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        # Every other round backwards, lest one always runs in the other's wake.
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            samples[name].append(_seconds(contenders[name], calls[name], clock))
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _prepared(
    contenders: Mapping[str, Contender], rounds: int, clock: Clock, prepare: Contender
) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            prepare()
            samples[name].append(_seconds(contenders[name], 1, clock))
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _seconds(contender: Contender, calls: int, clock: Clock) -> float:
    """Return the mean seconds of one of *calls* calls, the loop's own time included."""
    repeats = [None] * calls
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        for _ in repeats:
            contender()
        return (clock() - start) / calls
    finally:
        if enabled:
            gc.enable()


def duration(seconds: float) -> str:
    """Format seconds with a unit that leaves few digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


class Bench:
    """Collects comparisons, prints each as soon as it is made, and remembers missed goals."""

    _FORMAT = "{:<38} {:>9}  {:<22} {:>9} {:>10}  {}"

    def __init__(self, title: str, rounds: int = ROUNDS, clock: Clock = time.perf_counter) -> None:
        self._rounds = rounds
        self._clock = clock
        self._missed: list[str] = []
        print(f"{title}: medians of {rounds} interleaved rounds, Python", end=" ")
        print(f"{platform.python_version()} on {platform.machine()}")
        print(self._FORMAT.format("", "svirtlib", "peer", "", "ratio", "goal"))

    def compare(
        self,
        name: str,
        ours: Contender,
        peers: Optional[Mapping[str, Contender]] = None,
        goal: Optional[float] = None,
        prepare: Optional[Contender] = None,
    ) -> dict[str, float]:
        """Measure *ours* against the peers; the first must take *goal* times as long, or longer.

        *prepare* is called before each measured call, see :func:`interleave`.

        Returns the medians in seconds, ours under the name "svirtlib".
        """
        contenders = {"svirtlib": ours, **(peers or {})}
        medians = interleave(contenders, self._rounds, self._clock, prepare)
        own = medians["svirtlib"]
        if not peers:
            self._print(name, duration(own))
        for peer in peers or ():
            ratio = medians[peer] / own
            verdict = ""
            if goal is not None:
                verdict = f">= {goal:,g} x: " + ("met" if ratio >= goal else "MISSED")
                if ratio < goal:
                    self._missed.append(name)
            shown = f"{ratio:,.0f} x" if ratio >= 10 else f"{ratio:.2f} x"
            self._print(name, duration(own), peer, duration(medians[peer]), shown, verdict)
            # Further peers go under the first; the goal was for that one.
            name, goal = "", None
        return medians

    def _print(self, *cells: str) -> None:
        print(self._FORMAT.format(*cells, *[""] * (6 - len(cells))).rstrip(), flush=True)

    def finish(self) -> int:
        """Tell whether all goals were met; the answer is the script's exit status."""
        if self._missed:
            print(f"goals missed: {', '.join(self._missed)}")
            return 1
        print("all goals met")
        return 0
