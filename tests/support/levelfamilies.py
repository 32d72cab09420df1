"""Levels of many guests, of the four kinds that the goals of speed are about."""

from __future__ import annotations

import random

# Texts are made in the order of the lists: shuffled, they would be spread over the memory as
# labels that are read one after the other are not, and waiting for it would be measured.


def pairs(count: int, seed: int = 1) -> list[str]:
    """Two random categories each, as libvirt draws them."""
    generator = random.Random(seed)
    return [_pair(generator) for _ in range(count)]


def mixed(count: int, seed: int = 1) -> list[str]:
    """Mostly pairs; three times all categories, twenty runs, some single and small sets."""
    generator = random.Random(seed)
    kinds = [_everything] * 3 + [_run] * 20 + [_single] * (count // 100) + [_few] * (count // 20)
    kinds += [_pair] * (count - len(kinds))
    generator.shuffle(kinds)
    return [kind(generator) for kind in kinds]


def few(count: int, seed: int = 1) -> list[str]:
    """Three to eight random categories each."""
    generator = random.Random(seed)
    return [_few(generator) for _ in range(count)]


def chains(count: int, seed: int = 1) -> list[str]:
    """A thousand levels, each inside the next; as many such chains as are needed."""
    generator = random.Random(seed)
    orders = [generator.sample(range(1024), 1000) for _ in range((count + 999) // 1000)]
    places = generator.sample(range(len(orders) * 1000), count)
    return [_level(orders[place // 1000][: place % 1000 + 1]) for place in places]


def _everything(_: random.Random) -> str:
    return "s0:c0.c1023"


def _run(generator: random.Random) -> str:
    low, high = sorted(generator.sample(range(1024), 2))
    return f"s0:c{low}.c{high}"


def _single(generator: random.Random) -> str:
    return _level([generator.randrange(1024)])


def _pair(generator: random.Random) -> str:
    return _level(generator.sample(range(1024), 2))


def _few(generator: random.Random) -> str:
    return _level(generator.sample(range(1024), generator.randint(3, 8)))


def _level(categories: list[int]) -> str:
    return "s0:" + ",".join(f"c{category}" for category in sorted(categories))


FAMILIES = {"pairs": pairs, "mixed": mixed, "few": few, "chains": chains}
