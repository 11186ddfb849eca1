"""Labels every heart beat of a stream: normal (N), supraventricular ectopic (S), ventricular ectopic (V) or fusion (F).

A beat is labelled when the next beat is known, or 1.5 s after its R peak if that is late. In a tachycardia this takes less than
a second. Labels depend on the samples only, not on the chunk sizes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Final

import numpy as np

from config.limits import DEFAULT_LIMITS, Limits
from models.atrial_rhythms import AtrialRhythms
from models.beat_context import BeatContext, BeatContextBuilder
from models.early_beats import EarlyBeats
from models.inference.ecg_beat import (
    CLASSES,
    HISTORY_INTERVALS,
    QRS,
    EcgBeat,
    N,
    S,
    V,
    adjust_for_af,
    features,
    find_early_beats,
)
from models.moved_complex import is_moved
from models.qrs_shapes import MIN_KNOWN_SHARE, QRS_SAMPLES
from models.rules.wide_rhythm import WideRhythmDetector
from models.run_shapes import RunShapes, is_in_time
from models.signal.chain import Beat, EcgChain
from models.signal.filters import Samples

UNKNOWN: Final = "?"
"""Label of a beat whose class is unknown: too little of its QRS complex was received, or it is an artefact of the electrode."""

USUAL_INTERVALS: Final = 8
"""Latest intervals whose median a beat must keep that has the usual shape, but another place of its R peak."""

FIRST_BEATS: Final = 8
"""So many beats at the start of a stream are not V: there is no usual beat to compare them with. A ventricular tachycardia that
is in progress is recognised by its wide and regular complexes (`WideRhythmDetector`)."""

MAX_QRS_MV: Final = 5.0
"""QRS complexes are 0.5 to 5 mV high from peak to valley (IEC 60601-2-27:2011, 201.12.1.101.15)."""
MAX_HEIGHT_RATIO: Final = 4.0
"""A higher one is an artefact if it is also so many times as high as the patient's usual beat (our choice). In the alarms of
CinC 2015 that are true, ventricular beats above 2 mV are at most 3.3 times as high."""


@dataclass(frozen=True, slots=True)
class LabelledBeat:
    """A beat with its label.

    Attributes:
        t_s, amplitude_mv, after_gap: see `models.signal.chain.Beat`.
        label: N, S, V, F, or ? where it is unknown.
        probability: of the label by the model; 1 without a model and 0 for the label "?".
        wide_since_s: set at the beat at which a wide, regular and fast rhythm is recognised: the time of its first beat.
        next_rr_s: interval to the next beat, `MAX_NEXT_RR_S` if that is late; None at a gap and at the end of the stream.
    """

    t_s: float
    amplitude_mv: float
    after_gap: bool
    label: str
    probability: float
    wide_since_s: float | None = None
    next_rr_s: float | None = None


class BeatLabeller:
    """Labels the beats of one `EcgChain`; without a model every beat is N, except in a ventricular tachycardia."""

    def __init__(
        self, model: EcgBeat | None, limits: Limits = DEFAULT_LIMITS, conducted_mv: Iterable[Sequence[float]] = ()
    ) -> None:
        """Start a stream; `conducted_mv` is that of an earlier stream of this patient."""
        self._model = model
        self._run = RunShapes(limits)
        self._wide = WideRhythmDetector(limits, conducted_mv)
        self._context_builder = BeatContextBuilder()
        self._early_beats = EarlyBeats()
        self._atrial_rhythms = AtrialRhythms()
        self._in_af = False
        self._first_beats_left = FIRST_BEATS
        self._previous_ectopic_rr_s = np.nan
        """RR interval that ends at the previous beat if that beat is labelled S, otherwise NaN; in seconds."""
        self._follows_v = False
        """Whether the model labelled the previous beat V."""

    def push(self, beats: Sequence[Beat], chain: EcgChain, in_af: bool = False) -> list[LabelledBeat]:
        """Add the beats that the chain just reported, and return those that can be labelled now, in order.

        `in_af`: whether the rhythm is atrial fibrillation, see `adjust_for_af`.
        """
        self._in_af = in_af
        return self._label_all(self._context_builder.push(beats, chain))

    @property
    def pending_s(self) -> tuple[float, ...]:
        """The times of the beats that are not labelled yet, in order."""
        return self._context_builder.pending_s

    @property
    def conducted_s(self) -> float | None:
        """The time of the latest labelled beat if it ends a fast rhythm that is conducted.

        Its complexes are narrow, of one shape and regular, or they are wide and known from this patient's slower rhythm.
        """
        return self._wide.known_s or self._wide.narrow_s

    def flush(self, chain: EcgChain) -> list[LabelledBeat]:
        """Return the remaining beats before a gap or the end; the stretch of `chain` has been finished and its beats pushed."""
        return self._label_all(self._context_builder.flush(chain))

    def conducted_mv(self) -> list[list[float]]:
        """Return the shapes of this patient's conducted beats, ready for JSON."""
        return self._wide.conducted_mv()

    def _label_all(self, contexts: Iterator[BeatContext]) -> list[LabelledBeat]:
        return [self._follow_run(context, self._label(context)) for context in contexts]

    def _follow_run(self, context: BeatContext, beat: LabelledBeat) -> LabelledBeat:
        """Return the beat as V if it belongs to a ventricular tachycardia; such beats do not become usual."""
        rr_s = None if beat.after_gap else float(context.rr_s[HISTORY_INTERVALS - 1])
        was_open = self._run.is_open
        label = self._run.relabel(rr_s, context.wave_mv, beat.label, context.template_mv, beat.probability)
        if was_open and label == "V":
            self._context_builder.forget_last_beat()
        if self._run.is_open:
            self._wide.start_run()
            return replace(beat, label=label)
        wide = self._wide.on_beat(beat.t_s, rr_s, context.wave_mv, label, in_af=self._in_af)
        if wide is None:
            return beat if label == beat.label else replace(beat, label=label)
        self._run.start(wide.mean_mv)
        self._wide.start_run()
        self._context_builder.forget_last_beat()
        self._context_builder.forget_rhythm(wide.mean_mv)
        self._atrial_rhythms = AtrialRhythms()
        return replace(beat, label="V", wide_since_s=wide.onset_s)

    def _label(self, context: BeatContext) -> LabelledBeat:
        """Label a beat by the model."""
        previous_ectopic_rr_s, self._previous_ectopic_rr_s = self._previous_ectopic_rr_s, np.nan
        follows_v, self._follows_v = self._follows_v and not context.beat.after_gap, False
        in_atrial_rhythm = self._atrial_rhythms.push(float(context.rr_s[HISTORY_INTERVALS - 1]))
        if self._model is None:
            return _make_labelled(context, "N", 1.0)
        is_received = np.count_nonzero(np.isfinite(context.wave_mv[QRS])) > MIN_KNOWN_SHARE * QRS_SAMPLES
        if not is_received or _is_artefact(context.wave_mv, context.template_mv):
            return _make_labelled(context, UNKNOWN, 0.0)
        # Classify one beat at a time, because sums may differ in the last bit between batch sizes.
        rr_s, shape = context.rr_s[None], np.array([context.shape])
        probabilities = self._model.probabilities(features(context.wave_mv[None], context.template_mv[None], rr_s, shape))
        is_early = find_early_beats(rr_s)
        if self._in_af:
            probabilities = adjust_for_af(probabilities, follows_v=follows_v)
        elif is_early[0]:
            probabilities = self._early_beats.adjust(probabilities[0])[None]
        rr_before_s = rr_s[:, HISTORY_INTERVALS - 1]
        index = int(self._model.choose_classes(probabilities, is_early, rr_before_s, previous_ectopic_rr_s)[0])
        if index == S:
            self._previous_ectopic_rr_s = float(rr_before_s[0])
        self._follows_v = index == V
        if index == N and in_atrial_rhythm and not self._in_af:
            index = S
        elif index == V and (self._first_beats_left or _is_usual(context) or self._wide.knows(context.wave_mv)):
            index = N
        self._first_beats_left = max(self._first_beats_left - 1, 0)
        return _make_labelled(context, CLASSES[index], float(probabilities[0, index]))


def _make_labelled(context: BeatContext, label: str, probability: float) -> LabelledBeat:
    next_rr_s = float(context.rr_s[HISTORY_INTERVALS])
    return LabelledBeat(*context.beat, label, probability, next_rr_s=None if isnan(next_rr_s) else next_rr_s)


def _is_usual(context: BeatContext) -> bool:
    """Return whether a beat is the patient's usual one, in time, and only its R peak was found in another deflection."""
    before_s = context.rr_s[HISTORY_INTERVALS - 1 - USUAL_INTERVALS : HISTORY_INTERVALS]
    if np.isnan(before_s).any() or not is_in_time(float(before_s[-1]), before_s[:-1].tolist()):
        return False
    return is_moved(context.wave_mv, context.template_mv)


def _is_artefact(wave_mv: Samples, usual_mv: Samples) -> bool:
    """Return whether a beat is too high for a heart, and for this patient. Both are those of `BeatContext`."""
    qrs_mv = wave_mv[QRS]
    height_mv = float(np.fmax.reduce(qrs_mv) - np.fmin.reduce(qrs_mv))  # these ignore NaN, like the slower `nanmax`
    return height_mv > MAX_QRS_MV and height_mv > MAX_HEIGHT_RATIO * float(np.ptp(usual_mv[QRS]))
