"""Collects the labelled beats of an ECG into records, from which the clinic makes reports without the waveform."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from models.beat_labels import LabelledBeat
from sync.records import BEAT_CLASSES, BeatsRecord

STRETCH_S: Final = 10.0
"""Length of the signal of one record: a crash costs no more of the beats than of the samples (`gateway.recorder`)."""


class BeatLog:
    """Makes a record of each stretch of `STRETCH_S`, counted from the start of the stream or the end of a gap.

    Times are stream seconds; `to_utc_us` converts them. A stretch before a gap is shorter.
    """

    def __init__(self, sensor: str, kind: str) -> None:
        self._sensor, self._kind = sensor, kind
        self._from_s = 0.0
        self._beats: list[LabelledBeat] = []

    def add(
        self, beats: Sequence[LabelledBeat], labelled_until_s: float, to_utc_us: Callable[[float], int]
    ) -> Iterator[BeatsRecord]:
        """Add beats, in order; yield the stretches that end before `labelled_until_s`, before which no other beat follows."""
        self._beats += beats
        while self._from_s + STRETCH_S <= labelled_until_s:
            yield self._take(self._from_s + STRETCH_S, to_utc_us)

    def end(self, end_s: float, resume_s: float, to_utc_us: Callable[[float], int]) -> Iterator[BeatsRecord]:
        """Yield the rest before a gap from `end_s` to `resume_s`. All beats before it have been added."""
        if end_s > self._from_s:
            yield self._take(end_s, to_utc_us)
        self._from_s = resume_s

    def _take(self, to_s: float, to_utc_us: Callable[[float], int]) -> BeatsRecord:
        mine = [beat for beat in self._beats if beat.t_s < to_s]
        del self._beats[: len(mine)]
        from_us = to_utc_us(self._from_s)
        to_us = from_us + round((to_s - self._from_s) * 1e6)  # whatever the hub's clock did meanwhile
        self._from_s = to_s
        times_ms = tuple(round(to_utc_us(beat.t_s) / 1000) for beat in mine)
        classes = tuple(BEAT_CLASSES.index(beat.label) for beat in mine)
        return BeatsRecord(self._sensor, self._kind, from_us, to_us, times_ms, classes)
