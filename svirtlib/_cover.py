"""The fewest stars that tell every inclusion in a family of sets.

Take each set twice, as one that includes and as one that is included, and draw an edge for
each strict inclusion: a bipartite graph. A star is one vertex with all its edges; stars
that tell every edge are a vertex cover. By Koenig's theorem the smallest has as many
vertices as a greatest matching has edges, and a greatest matching is quickly found.

The graph is too large to be written down where wide sets include half of the family. Two
kinds of vertices have nearly all the edges: wide sets as including ones, and sets of one
as included ones. As a rule each of them has a neighbour of its own that no other vertex
than such a one can tell; then every cover needs as many vertices as they are, and taking
them all is no loss. Only what they leave over, as a rule little, is written down.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Callable

from svirtlib._inclusion import Family, bitmap, elements, popcount

__all__ = ["fewest_stars", "smallest_cover"]

#: The most edges for which a smallest cover is sought; a second's work.
EDGES = 1_000_000

_Neighbours = Callable[[int], Iterable[int]]


def fewest_stars(family: Family, edges: int = EDGES) -> tuple[set[int], set[int]]:
    """Return the numbers of sets whose stars tell every strict inclusion in *family*.

    The first are centres as including sets, the second as included ones. No fewer can do
    it, unless more than *edges* edges are left over when the large stars are taken: then
    either all including or all included sets of what is left are taken, whichever are
    fewer. Each star has an edge that no other tells. The answer does not depend on how the
    sets are numbered.
    """
    including, included = _large_stars(family)
    rest: dict[int, list[int]] = defaultdict(list)
    for number, inner in family.inner.items():
        rest[number] += inner
    for element, number in family.singles.items():
        if number not in included:
            for outer in family.with_element(element):
                if outer not in including:
                    rest[outer].append(number)
    wide = [number for number in family.wide if number not in including]
    count = sum(map(len, rest.values()))
    count += sum(popcount(_inside_wide(family, number)) for number in wide)
    if count <= edges:
        for number in wide:
            rest[number] += elements(_inside_wide(family, number))
        lefts, rights = smallest_cover(
            sorted(rest, key=lambda left: len(rest[left])), rest.__getitem__
        )
    else:
        lefts = set(rest)
        rights = {right for inner in rest.values() for right in inner}
        together = 0
        for number in wide:
            inside = _inside_wide(family, number)
            together |= inside
            if inside:
                lefts.add(number)
        rights.update(elements(together))
        if len(lefts) <= len(rights):
            rights = set()
        else:
            lefts = set()
    return including | lefts, included | rights


def _inside_wide(family: Family, number: int) -> int:
    """Return the bitmap of the other sets inside a wide set, but for the sets of one."""
    return family.inside_wide(number) & ~family.singles_bitmap


def _large_stars(family: Family) -> tuple[set[int], set[int]]:
    """Return the wide sets and the sets of one that some smallest cover has.

    Taken are those that can be matched with neighbours whose own neighbours are taken all.
    """
    # Included sets that are inside of wide ones alone. (Wide sets are, too; but there may be
    # so many inclusions among them that they are better left to the bounded search.)
    unfit = {*family.wide, *family.singles.values()}.union(*family.inner.values())
    plain = family.everything & ~bitmap(unfit, family.size)
    including, _ = smallest_cover(
        sorted(family.wide), lambda number: elements(family.inside_wide(number) & plain)
    )

    # Including sets that have none but sets of one inside.
    def plain_with(element: int) -> Iterable[int]:
        yield from family.pairs_with[element]
        for number in family.sets_with[element]:
            if number in family.narrow and number not in family.inner:
                yield number

    included, _ = smallest_cover(list(family.singles), plain_with)
    return including, {family.singles[element] for element in included}


def smallest_cover(lefts: Sequence[int], neighbours: _Neighbours) -> tuple[set[int], set[int]]:
    """Return a smallest vertex cover of a bipartite graph: its left and its right vertices.

    *neighbours* yields the right vertices of a left one; no more of them are taken than are
    needed. Of all smallest covers this is the one with the most left
    vertices, so that it depends on nothing but the graph.

    A greatest matching is found as by Hopcroft and Karp. With Z all that alternating paths
    reach from unmatched left vertices, the cover is the left vertices outside of Z and the
    right ones in it.
    """
    left_of: dict[int, int] = {}
    right_of: dict[int, int] = {}
    # Most find a partner at once, and look at few of their neighbours for that.
    for left in lefts:
        for right in neighbours(left):
            if right not in left_of:
                left_of[right] = left
                right_of[left] = right
                break
    while True:
        layer, seen, free = _layers(
            [left for left in lefts if left not in right_of], neighbours, left_of
        )
        if not free:
            return {left for left in lefts if left not in layer}, seen
        for left in [left for left, depth in layer.items() if depth == 0]:
            _augment(left, layer, neighbours, left_of, right_of)


def _layers(
    unmatched: list[int], neighbours: _Neighbours, left_of: dict[int, int]
) -> tuple[dict[int, int], set[int], bool]:
    """Walk alternating paths from *unmatched*, breadth first, until a free right vertex.

    Returns:
        How many right vertices lie before each left one; the right vertices that were
        reached; and whether one of them is free. The walk ends with the layer of that one,
        and has not reached all of it.
    """
    layer = dict.fromkeys(unmatched, 0)
    seen: set[int] = set()
    free = False
    depth = 0
    while unmatched and not free:
        depth += 1
        following = []
        for left in unmatched:
            for right in neighbours(left):
                if right in seen:
                    continue
                seen.add(right)
                owner = left_of.get(right)
                if owner is None:
                    free = True
                    break
                if owner not in layer:
                    layer[owner] = depth
                    following.append(owner)
        unmatched = following
    return layer, seen, free


def _augment(
    left: int,
    layer: dict[int, int],
    neighbours: _Neighbours,
    left_of: dict[int, int],
    right_of: dict[int, int],
) -> None:
    """Match *left*, if a path that descends the layers leads to a free right vertex.

    Left vertices that were tried leave the layers, so that no other path tries them again.
    """
    path = [(left, iter(neighbours(left)), layer.pop(left))]
    while path:
        _, edges, depth = path[-1]
        for right in edges:
            owner = left_of.get(right)
            if owner is None:
                for step, _, _ in reversed(path):
                    left_of[right] = step
                    # The step before takes over the vertex that this one gives up.
                    right, right_of[step] = right_of.get(step, -1), right
                return
            if layer.get(owner) == depth + 1:
                path.append((owner, iter(neighbours(owner)), layer.pop(owner)))
                break
        else:
            path.pop()
