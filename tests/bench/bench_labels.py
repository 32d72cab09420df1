"""How fast label values are read, printed and compared, against SETools and libselinux.

The goal: a level with a pair of categories, as libvirt draws them, is brought into its
canonical form at least 1,000 times faster than by SETools' lookup_level. Exit status 1 if it
is missed, 2 if there is no SETools to measure.

SETools looks names up in a policy, and prints some labels as the kernel does not; libselinux
only splits a context and never looks at its range. Neither is asked for the right answer
here, only for its time.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Bench, Contender, interleave

from svirtlib.context import Context
from svirtlib.errors import LabelError
from svirtlib.mls import CategorySet, Level, Range

GOAL = 1000
INSTALLED = Path("/etc/selinux/default/policy/policy.33")

PAIR = "s0:c87,c520"
SHUFFLED = "s0:" + ",".join(f"c{n}" for n in random.Random(20).sample(range(1024), 20))
CANONICALISED = {
    "a pair": PAIR,
    "a pair, descending": "s0:c520,c87",
    "no category": "s0",
    "c0.c1023": "s0:c0.c1023",
    "a wide mix": "s0:c1.c5,c7,c9.c200,c500,c501,c700.c1000",
    "20 unsorted categories": SHUFFLED,
}
CONTEXT = f"system_u:system_r:svirt_t:{PAIR}"
ABSURD = {
    "a megabyte of commas": "," * 2**20,
    "a megabyte of commas after s0:": "s0:" + "," * 2**20,
    "a megabyte of c1,": "s0:" + "c1," * (2**20 // 3),
    "a million digits": "s0:c" + "1" * 10**6,
    "c2147483647": "s0:c2147483647",
    "c0.c2147483647": "s0:c0.c2147483647",
}


def load_policy() -> Any:
    """Return SETools' view of Debian's policy, or of one with the same categories."""
    import setools

    if INSTALLED.exists():
        print(f"policy: {INSTALLED}")
        return setools.SELinuxPolicy(str(INSTALLED))
    sys.path.insert(0, str(Path(__file__).parent.parent / "support"))
    from sepol import Policy

    with tempfile.TemporaryDirectory() as folder:
        compiled = Policy(["s0"], [f"c{n}" for n in range(1024)]).compile(Path(folder))
        print("policy: made here; s0, c0 to c1023")
        return setools.SELinuxPolicy(str(compiled))


def selinux_round_trip() -> dict[str, Contender]:
    """Return libselinux's reading and printing of a context, if there are bindings."""
    try:
        import selinux
    except ImportError:
        return {}

    def round_trip() -> None:
        context = selinux.context_new(CONTEXT)
        selinux.context_str(context)
        selinux.context_free(context)

    return {"libselinux, no level": round_trip}


def canonicalise(text: str) -> Contender:
    return lambda: str(Level.parse(text))


def canonicalise_by_setools(policy: Any, text: str) -> Contender:
    return lambda: str(policy.lookup_level(text))


def refuse(text: str) -> Contender:
    def refused() -> None:
        try:
            Range.parse(text)
        except LabelError:
            return
        raise AssertionError(f"{text[:20]} was not refused")

    return refused


def main() -> int:
    try:
        policy = load_policy()
    except ImportError as error:
        print(f"no SETools to measure (Debian package python3-setools): {error}", file=sys.stderr)
        return 2
    bench = Bench("Labels", clock=time.process_time)
    for name, text in CANONICALISED.items():
        bench.compare(
            f"canonicalise {name}",
            canonicalise(text),
            {"SETools lookup_level": canonicalise_by_setools(policy, text)},
            goal=GOAL if text == PAIR else None,
        )
    bench.compare(
        "parse a pair",
        lambda: Level.parse(PAIR),
        {"SETools lookup_level": lambda: policy.lookup_level(PAIR)},
    )
    bench.compare(
        "parse and print a range",
        lambda: str(Range.parse("s0-s0:c0.c1023")),
        {"SETools lookup_range": lambda: str(policy.lookup_range("s0-s0:c0.c1023"))},
    )
    bench.compare(
        "parse and print a context", lambda: str(Context.parse(CONTEXT)), selinux_round_trip()
    )
    wide, pair = Level.parse("s0:c0.c1023"), Level.parse(PAIR)
    wide_set, pair_set = frozenset(wide.categories), frozenset(pair.categories)
    theirs = [policy.lookup_level(str(level)) for level in (wide, pair)]
    bench.compare(
        "dominates",
        lambda: wide.dominates(pair),
        {
            "SETools >=": lambda: theirs[0] >= theirs[1],
            "frozenset >=": lambda: wide_set >= pair_set,
        },
    )
    bench.compare(
        "dominates, the other way",
        lambda: pair.dominates(wide),
        {
            "SETools >=": lambda: theirs[1] >= theirs[0],
            "frozenset >=": lambda: pair_set >= wide_set,
        },
    )
    categories = CategorySet(range(0, 1024, 2))
    bench.compare("print every other category", lambda: str(categories))
    print("refusals:")
    refusals = {name: refuse(text) for name, text in ABSURD.items()}
    for name, seconds in interleave(refusals, clock=time.process_time).items():
        print(f"  {name:<36} {seconds * 1e6:>6.1f} us")
    return bench.finish()


if __name__ == "__main__":
    sys.exit(main())
