"""ECGs of known beats, labelled without the detector: the rules for labels on exactly known beat times."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from config.limits import DEFAULT_LIMITS
from models.beat_labels import BeatLabeller, LabelledBeat
from models.findings import Finding
from models.inference.ecg_beat import EcgBeat
from models.rules.ventricular import RunRule
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples

Waves = Sequence[tuple[float, float, float]]
"""Waves of a beat: mV, seconds from the R peak, width in seconds."""

NORMAL: Waves = ((0.11, -0.165, 0.022), (-0.10, -0.028, 0.008), (1.15, 0.0, 0.0105), (-0.22, 0.030, 0.010), (0.28, 0.26, 0.045))
VENTRICULAR: Waves = ((1.45, 0.0, 0.030), (-0.38, 0.085, 0.028), (-0.42, 0.19, 0.032))
TRIANGLE: Waves = tuple((1.5 * (1 - abs(step) / 4), step * 0.02, 0.012) for step in range(-3, 4))
"""A triangle of 160 ms."""
BUNDLE_BRANCH_BLOCK: Waves = ((0.12, -0.2, 0.022), (0.7, -0.03, 0.022), (0.9, 0.035, 0.024), (-0.3, 0.25, 0.05))

HOP_S = 0.2
DETECTION_DELAY_S = 0.6

TimedWaves = list[tuple[float, Waves]]


class Heard(NamedTuple):
    """Labelled beats, findings with the stream time at which each was reported, and the shapes of conducted beats."""

    beats: list[LabelledBeat]
    findings: list[tuple[float, Finding]]
    conducted_mv: list[list[float]]


def rhythm(waves: Waves, bpm: float, seconds: float, start_s: float = 0.3) -> TimedWaves:
    return [(start_s + i * 60 / bpm, waves) for i in range(int(seconds * bpm / 60))]


def ecg(beats: Iterable[tuple[float, Waves]], seconds: float, rate_hz: float = 125.0, noise_mv: float = 0.01) -> Samples:
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    mv = np.random.default_rng(3).normal(0, noise_mv, t.size)
    for at_s, waves in beats:
        near = slice(max(0, int((at_s - 0.6) * rate_hz)), int((at_s + 0.9) * rate_hz))
        for height, after_s, width_s in waves:
            mv[near] += height * np.exp(-(((t[near] - at_s - after_s) / width_s) ** 2) / 2)
    return mv


def label(
    beats: TimedWaves, model: EcgBeat | None, conducted_mv: list[list[float]] | None = None, rate_hz: float = 125.0
) -> Heard:
    """Label these beats as soon as a detector could report them, and apply the rule for runs."""
    seconds = beats[-1][0] + 2.0
    mv, chain = ecg(beats, seconds, rate_hz), EcgChain(rate_hz)
    labeller, rule = BeatLabeller(model, DEFAULT_LIMITS, conducted_mv or ()), RunRule(DEFAULT_LIMITS)
    due = [Beat(t, 1.0, i == 0) for i, (t, _) in enumerate(beats)]
    heard, last_s, hop = Heard([], [], []), None, round(HOP_S * rate_hz)
    for start in [*range(0, mv.size, hop), mv.size]:
        if start < mv.size:
            chain.push(mv[start : start + hop])
        else:
            chain.finish()
        ready = [beat for beat in due if start >= mv.size or beat.t_s + DETECTION_DELAY_S <= chain.end_s]
        due = due[len(ready) :]
        labelled = labeller.push(ready, chain)
        for beat in [*labelled, *(labeller.flush(chain) if start >= mv.size else [])]:
            heard.beats.append(beat)
            found = rule.on_beat(beat.t_s, None if last_s is None else beat.t_s - last_s, beat.label, beat.wide_since_s)
            heard.findings.extend((chain.end_s, finding) for finding in found)
            last_s = beat.t_s
    heard.findings.extend((chain.end_s, finding) for finding in rule.end_episode(is_lost=True))
    return heard._replace(conducted_mv=labeller.conducted_mv())
