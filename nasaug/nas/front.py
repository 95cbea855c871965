"""Pareto fronts: which nets no other beats in every objective, which of them are spread along it, and its knee.

A net's `point` is a tuple of objectives, each the lower the better: costs on a logarithmic scale, and how it was judged
last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")
Point = tuple[float, ...]


def unbeaten(nets: Iterable[T], point: Callable[[T], Point]) -> list[T]:
    """The Pareto front, in the order of the first objective: the nets that no other equals or betters in all
    objectives. Of several with the same point the first one stands for all."""
    front: list[tuple[Point, T]] = []
    for values, net in sorted(((point(net), net) for net in nets), key=lambda pair: pair[0]):
        # one that beats this net comes before it in that order
        if not any(all(a <= b for a, b in zip(other, values, strict=True)) for other, _ in front):
            front.append((values, net))
    return [net for _, net in front]


def spread(nets: Iterable[T], point: Callable[[T], Point]) -> list[T]:
    """The nets in an order whose every beginning lies near the front and is spread along it.

    First those of the front, then the front of the rest, and so on (non-dominated sorting: Deb et al., IEEE Trans.
    Evol. Comput. 2002). Within each, the one that is best in the last objective comes first, then always the one
    farthest from those before it (Gonzalez, Theor. Comput. Sci. 1985), in objectives scaled to 0 to 1."""
    left, order = list(nets), []
    while left:
        layer = unbeaten(left, point)
        left = [net for net in left if not any(net is one for one in layer)]
        places = scaled([point(net) for net in layer])
        apart = [-place[-1] for place in places]  # the best in the last objective is the first
        waiting = set(range(len(layer)))
        while waiting:
            chosen = max(sorted(waiting), key=apart.__getitem__)
            first = len(waiting) == len(layer)
            waiting.remove(chosen)
            order.append(layer[chosen])
            away = [math.dist(place, places[chosen]) for place in places]
            apart = away if first else list(map(min, apart, away))
    return order


def knee(front: Sequence[T], point: Callable[[T], Point]) -> T:
    """The net of a front that lies farthest from the line between its ends, on the side of better nets; with more than
    two objectives, from the plane through the points that are worst in one objective and best in all others.

    Objectives are scaled to 0 (the best of the front) to 1 (the worst), so the distance is (1 - their sum) / sqrt(their
    number): the normal-boundary rule (Das, Structural Optimization 18, 1999). Of equal ones the best in the last
    objective is taken, so of a front of two nets its better end."""
    places = scaled([point(net) for net in front])
    best = min(range(len(front)), key=lambda i: (round(sum(places[i]), 9), places[i][-1]))
    return front[best]


def scaled(points: Sequence[Point]) -> list[Point]:
    """The points with each objective scaled to 0 (the lowest) to 1 (the highest); 0 where all are equal."""
    ranges = [(min(column), max(column)) for column in zip(*points, strict=True)]
    return [
        tuple((value - low) / (high - low) if high > low else 0.0
              for value, (low, high) in zip(point, ranges, strict=True))
        for point in points
    ]  # fmt: skip
