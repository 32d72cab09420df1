"""Levels of many guests, of the four kinds that the goals of speed are about."""

from __future__ import annotations

import random


def pairs(count: int, seed: int = 1) -> list[str]:
    """Two random categories each, as libvirt draws them."""
    generator = random.Random(seed)
    return [_pair(generator) for _ in range(count)]


def mixed(count: int, seed: int = 1) -> list[str]:
    """Mostly pairs; three times all categories, twenty runs, some single and small sets."""
    generator = random.Random(seed)
    levels = ["s0:c0.c1023"] * 3
    for _ in range(20):
        low, high = sorted(generator.sample(range(1024), 2))
        levels.append(f"s0:c{low}.c{high}" if high - low > 1 else f"s0:c{low},c{high}")
    levels += [f"s0:c{generator.randrange(1024)}" for _ in range(count // 100)]
    levels += [_few(generator) for _ in range(count // 20)]
    levels += [_pair(generator) for _ in range(count - len(levels))]
    generator.shuffle(levels)
    return levels


def few(count: int, seed: int = 1) -> list[str]:
    """Three to eight random categories each."""
    generator = random.Random(seed)
    return [_few(generator) for _ in range(count)]


def chains(count: int, seed: int = 1) -> list[str]:
    """A thousand levels, each inside the next; as many such chains as are needed."""
    generator = random.Random(seed)
    levels: list[str] = []
    while len(levels) < count:
        order = generator.sample(range(1024), min(1000, count - len(levels)))
        levels += [_level(order[: end + 1]) for end in range(len(order))]
    generator.shuffle(levels)
    return levels


def _pair(generator: random.Random) -> str:
    return _level(sorted(generator.sample(range(1024), 2)))


def _few(generator: random.Random) -> str:
    return _level(sorted(generator.sample(range(1024), generator.randint(3, 8))))


def _level(categories: list[int]) -> str:
    return "s0:" + ",".join(f"c{category}" for category in categories)


FAMILIES = {"pairs": pairs, "mixed": mixed, "few": few, "chains": chains}
