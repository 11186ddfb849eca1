"""The model card of `ecg_quality`: the sections that do not depend on measured figures."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.inference.ecg_quality import CLASSES, LEAD_OFF_SHARE, MIN_KNOWN_SHARE, OVER_RANGE_MV
from training.cards import INT8_STORAGE, LICENCES, NOT_A_DEVICE
from training.quality_data import AFTER_S, BEFORE_S, LABELLED_NOISE_WEIGHT, MIN_CORRELATION, MIN_F1, Windows

PURPOSE: Final = (
    "Classifies the quality of ten seconds of one ECG lead: good (beats and waveform are reliable), beats_only (the beats are "
    "reliable, the shape of the waves is not, so neither ectopic beats nor P waves can be assessed) or bad (not even the beats "
    "are reliable). Other models give no result where the quality does not suffice for them."
)
INPUTS: Final = (
    "10 s of one lead at 125 Hz, 0.5 to 40 Hz, in mV, conditioned as in the agent, and a mask of the samples received.",
    "The signal is divided by 4 times the 98th percentile of its absolute samples (at least 0.05 mV) and clipped to ±1.",
)
OUTPUTS: Final = (
    "Calibrated probabilities of good, beats_only and bad; the most probable class is the label.",
    f"Two defects are measured without the network and make a window bad: less than {100 * MIN_KNOWN_SHARE:.0f} % of its "
    f"samples were received (gaps), or {100 * LEAD_OFF_SHARE:.0f} % of them are flat or over {OVER_RANGE_MV:g} mV (lead_off).",
    "beats_only and bad come with a reason: gaps, lead_off, or noise in all other cases.",
)
AUGMENTATION: Final = (
    "Stretches of 30 s, gain 0.5 to 2, 30 % inverted. 12 % of them are not changed further. The others get noise at -6 to 24 "
    "dB, changing every 5 s: the Noise Stress Test Database mixed with muscle-like and mains-like noise. 12 % are saturated, "
    "15 % have the electrode off or the amplifier at its rail, 35 % have gaps. In training every window is inverted once more "
    "at random."
)
INT8: Final = f"{INT8_STORAGE} The first three convolutions and the output layer stay float, three tenths of the weights."
ATTEMPTS: Final = {
    "means and variances of the batch normalisations averaged like the weights": "first fold: accuracy 74.7 %, mean F1 70 %, "
    "ECE 0.046; most windows of beats_only called good",
    "the same network, means and variances recomputed at the end": "first fold: accuracy 85.8 %, mean F1 85.5 %, ECE 0.007",
    "int8 in all layers but the first and the last": "first fold: agreement with float 99.51 %, largest change 0.077, 37 kB",
    "the second convolution and the hidden layer in float too": "first fold: agreement 99.82 %, largest change 0.048, 53 kB; "
    "but on all windows with the final network: 99.30 %, 0.14",
    "the same, int8 ranges from 1500 windows instead of 200": "on a quarter of all windows: agreement 99.56 %, largest change "
    "0.055",
    "the third convolution in float instead of the hidden layer": "on a quarter of all windows: agreement 99.64 %, largest "
    "change 0.036, 60 kB. On all windows: 99.54 %, 0.063; with ranges from 4000 windows 99.54 %, 0.068; with float layer "
    "outputs (released) 99.71 %, 0.045",
}
"""Variants tried for version 1, measured on held-out windows."""
KNOWN_FAILURES: Final = (
    "Asystole and ventricular fibrillation may be called bad: an alarm for them must not wait for a good window.",
    "The border between good and beats_only is gradual: a window close to it may fall on either side.",
    "Labels depend on one detector: a window called bad may still be usable for another one.",
    "Noise that a recording already contains counts as clean signal if every beat resembles another one.",
    "A single sudden artefact among clean beats is often missed, and the window is called good.",
    "The probabilities are calibrated for windows augmented as in training, most of which are not good. On quiet recordings, "
    "most of which are good, they are too cautious.",
    "The noise comes from two electrode pairs on the limbs of active volunteers (30 s each) or is synthetic. Noise of "
    "straps and patches was not included.",
)


def describe(windows: Windows, folds: NDArray[np.int64]) -> dict[str, Any]:
    """Return the sections of the card without measured figures; `folds` (n,) is the fold of each window."""
    names = [np.unique(windows.patients[folds == fold]).tolist() for fold in np.unique(folds)]
    return {
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "data": {
            "used_for_training": ["mitdb", "cinc2017", "nstdb"],
            **{name: LICENCES[name] for name in ("mitdb", "cinc2017", "nstdb", "physionet")},
            "labels": _labels(),
            "augmentation": AUGMENTATION,
        },
        "splits": {
            "method": "Five folds. The patients of mitdb and the recordings of CinC 2017 (which has no patient ids) are "
            "assigned in turn by name",
            **{f"fold {fold + 1}": ", ".join(fold_names) for fold, fold_names in enumerate(names)},
        },
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def _labels() -> list[str]:
    good, beats_only, bad = CLASSES
    return [
        "Artefacts are added to clean stretches, and the agent's own detector runs on the result; no human labels are used.",
        f"{bad}: under {100 * MIN_KNOWN_SHARE:.0f} % of the samples received, electrode off for {100 * LEAD_OFF_SHARE:.0f} % "
        f"of the time, or the F1 of the beats at 150 ms under {MIN_F1:g} (150 ms is the window of EC57; IEC 60601-2-27 allows "
        "a heart-rate error of 10 %).",
        f"{beats_only}: the beats are found, but more than a tenth of them, from {BEFORE_S:g} s before to {AFTER_S:g} s after "
        f"R, have a correlation below {MIN_CORRELATION:g} with their clean version.",
        f"{good}: all other windows.",
        f"Recordings of CinC 2017 that experts labelled noise count as {bad} with weight {LABELLED_NOISE_WEIGHT:g}. They are "
        "excluded from all figures except those that compare the model with these labels.",
    ]
