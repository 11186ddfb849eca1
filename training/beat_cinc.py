"""Labels for beats of CinC 2017, which has a rhythm label per recording and no beat labels (for `training.qrs_premature`).

A beat gets a label only where the rhythm of its recording and a textbook rule leave little doubt.
"""

import numpy as np

from models.inference.ecg_beat import HISTORY_INTERVALS, N, S, V
from training.beat_data import UNLABELLED, Beats, Labels, compare_with_template
from training.cinc import LABELS

SINUS, AF, OTHER = (LABELS.index(name) for name in "NAO")


def label_by_rule(beats: Beats, rhythm: int) -> Labels:
    """Return the labels (n,) of the beats of a recording with this rhythm; `UNLABELLED` wherever there is doubt.

    In sinus rhythm and AF every beat that matches the template is N. In other rhythms, on a regular background:
    N where shape and both intervals are normal; S where a beat that matches the template comes early (Goldberger's Clinical
    Electrocardiography, chapter 15); V where a beat of another shape comes early, followed by a compensatory pause (chapter
    16).
    """
    history = beats.rr_s[:, : HISTORY_INTERVALS - 1].astype(np.float64)
    known = np.isfinite(history)
    median_s = np.array([np.median(row[valid]) if valid.any() else np.nan for row, valid in zip(history, known, strict=True)])
    early, late = beats.rr_s[:, HISTORY_INTERVALS - 1] / median_s, beats.rr_s[:, HISTORY_INTERVALS] / median_s
    steady = (np.abs(history / median_s[:, None] - 1) < 0.12).sum(-1) / np.maximum(known.sum(-1), 1)
    similarity, height = compare_with_template(beats)
    labels = np.full(len(beats), UNLABELLED, np.int8)
    if rhythm == SINUS:
        labels[(similarity > 0.9) & (early > 0.7)] = N
    elif rhythm == AF:
        labels[similarity > 0.85] = N
    else:
        same_shape = (similarity > 0.95) & (steady > 0.6)
        labels[same_shape & (np.abs(early - 1) < 0.1) & (np.abs(late - 1) < 0.15)] = N
        similar_height = (similarity > 0.95) & (height > 0.7) & (height < 1.4) & (steady > 0.7)
        labels[similar_height & (early > 0.4) & (early < 0.82) & (late > 0.85)] = S
        paused = (late > 1.05) & (early + late > 1.7) & (early + late < 2.25)
        labels[(similarity < 0.75) & (early < 0.85) & paused & (steady > 0.5)] = V
    return labels
