"""How far a command of several stages has come, and how long the rest takes.

Each stage may have an expected duration. It is refined by what the stage took so far; and if the stages so far were
slower than expected in all, those to come are expected to be as much slower.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

TRUSTED = 0.1  # the share of a stage after which its own speed replaces what was expected
SHORT_S = 5.0  # a stage of fewer seconds says nothing of the others, since starting it costs more than its work


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a command: `name`, the `number`th of `of`, of which a `share` from 0 to 1 is done, after `seconds`.

    `left` are the seconds left in it, `whole` those left in all stages; None: not known. `known` says whether every
    stage to come is counted in `whole`, which is too low otherwise. `best` says the best score in the stage so far."""

    name: str
    number: int
    of: int
    share: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    whole: float | None = None
    known: bool = False
    best: str = ""

    @property
    def titled(self) -> str:
        """Its name, and which stage it is where there are several."""
        return f"{self.name} (stage {self.number} of {self.of})" if self.of > 1 else self.name


class Course:
    """The stages of a command, by name and in order. A resumed command may leave some out."""

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._expected: dict[str, float] = {}
        self._at = -1
        self._pace = 1.0  # how many times the expected seconds the stages take, in all
        self._now_pace = 1.0
        self._counted = (0.0, 0.0)  # seconds that the stages before this one took, and that they were expected to take
        self._now_counted = self._counted
        self._entered = 0.0
        self._first: tuple[float, float] | None = None  # share and time when the stage's work began
        self._best: tuple[float, str] | None = None

    def expect(self, name: str, seconds: float) -> None:
        """Expect a stage to take so many seconds as a whole. A name that is no stage's is ignored."""
        if name in self.names:
            self._expected[name] = seconds

    def enter(self, name: str) -> None:
        """Go on to a stage."""
        self._at, self._entered, self._first = self.names.index(name), time.monotonic(), None
        self._now_pace, self._now_counted, self._best = self._pace, self._counted, None

    def leave(self) -> Stage:
        """The stage at its end."""
        self._pace, self._counted = self._now_pace, self._now_counted
        return self.reach(1.0, left=0.0)

    def reach(self, share: float, left: float | None = None, best: tuple[float, str] | None = None) -> Stage:
        """The stage with a share of its work done. `left` are the seconds left in it, where they are known better;
        `best` is the rank of a score, lower is better, and what is said of it."""
        now, name = time.monotonic(), self.names[self._at]
        self._best = min(filter(None, (self._best, best)), default=None)
        if self._first is None:
            self._first = share, now
        gained, spent = share - self._first[0], now - self._first[1]
        expected = self._expected.get(name)
        if left is None:
            left = self._left(expected, share, gained, spent)
        later = [self._expected.get(each) for each in self.names[self._at + 1 :]]
        known = left is not None and None not in later
        counted = [seconds for seconds in later if seconds is not None]
        whole = None if left is None and not counted else (left or 0.0) + sum(counted) * self._now_pace
        said = self._best[1] if self._best else ""
        return Stage(name, self._at + 1, len(self.names), share, now - self._entered, left, whole, known, said)

    def _left(self, expected: float | None, share: float, gained: float, spent: float) -> float | None:
        """The seconds left in the stage: by what was expected, and ever more by what its work so far took."""
        if gained <= 0 or spent <= 0:
            return None if expected is None else expected * self._pace * (1 - share)
        own = spent / gained
        if not expected:
            return own * (1 - share)
        trust = min(1.0, gained / TRUSTED)
        refined = expected * self._pace * (1 - trust) + own * trust
        if max(own, expected) >= SHORT_S:
            took, due = self._counted
            self._now_counted = took + refined, due + expected
            self._now_pace = self._now_counted[0] / self._now_counted[1]
        return refined * (1 - share)
