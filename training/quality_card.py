"""What the card of `ecg_quality` says whatever the figures are."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.inference.ecg_quality import CLASSES, LEAD_OFF_SHARE, MIN_KNOWN_SHARE, OVER_RANGE_MV
from training.cards import LICENCES, NOT_A_DEVICE
from training.quality_data import AFTER_S, BEFORE_S, LEAST_CORRELATION, LEAST_F1, WEAK, Windows

PURPOSE: Final = (
    "Tells whether ten seconds of one ECG lead can be trusted: good (beats and waves), beats_only (the beats, not the shape of "
    "the waves: no statement on ectopic beats or P waves) or bad (not even the beats). Other models abstain by it."
)
INPUTS: Final = (
    "10 s of one lead at 125 Hz, 0.5 to 40 Hz, in mV, as the agent conditions it, and a mask of the samples that are there.",
    "The signal is divided by 4 times the 98th percentile of its absolute samples (at least 0.05 mV), cut to ±1.",
)
OUTPUTS: Final = (
    "Calibrated probabilities of good, beats_only and bad; the likeliest is the label.",
    f"By measurement and without the network, a window is bad if under {MIN_KNOWN_SHARE:.0%} of its samples are there (gaps) or "
    f"{LEAD_OFF_SHARE:.0%} of them are flat or over {OVER_RANGE_MV:g} mV (lead_off).",
    "A reason beside beats_only and bad: gaps, lead_off or else noise.",
)
AUGMENTATION: Final = (
    "Stretches of 30 s, gain 0.5 to 2, 30 % upside down; 12 % of them no more; the others with noise of the Noise Stress Test "
    "Database, muscle-like and mains-like noise, mixed, at -6 to 24 dB, changing every 5 s; 12 % saturated, 15 % with the "
    "electrode off or the amplifier at its rail, 35 % with gaps. In training every window once more upside down by chance."
)
ATTEMPTS: Final = {
    "means and variances of the batch normalisations averaged, as the weights are": "first fold: accuracy 74.7 %, "
    "mean F1 70 %, ECE 0.046; most windows of beats_only called good",
    "the same network, means and variances taken anew at the end": "first fold: accuracy 85.8 %, mean F1 85.5 %, ECE 0.007",
    "int8 but for the first and the last layer": "first fold: agreement 99.51 %, largest change 0.077, 37 kB",
    "and the second convolution and the hidden layer in float": "first fold: agreement 99.82 %, largest change 0.048; but all "
    "windows with the final network: 99.30 %, 0.14; 53 kB",
    "the same, ranges from 1500 windows instead of 200": "a quarter of all windows: agreement 99.56 %, largest change 0.055",
    "third convolution instead of the hidden layer in float": "a quarter of all windows: agreement 99.64 %, largest change "
    "0.036, 60 kB (all windows: 99.54 %, 0.063; from 4000 windows: 99.54 %, 0.068; kept with float sums: 99.71 %, 0.045)",
}
"""On the way to version 1, judged on held-out windows."""
KNOWN_FAILURES: Final = (
    "Standstill and ventricular fibrillation may be called bad: no alarm for them may wait for a good window.",
    "The border between good and beats_only is one of degree: a window close to it may fall to either side.",
    "Labels come from one detector: where another one holds, a window called bad may still be of use.",
    "Native noise of the recordings counts as clean where every beat looks like another one.",
    "One sudden artefact in a window of otherwise clean beats is often called good.",
    "The probabilities are calibrated for windows as disturbed in training, most of which are not good. On quiet recordings, "
    "most of which are good, they are more cautious than right.",
    "Noise is that of two electrode pairs on the limbs of active volunteers (30 s each), and made up; straps and patches were "
    "not recorded.",
)


def describe(windows: Windows, fold: NDArray[np.int64]) -> dict[str, Any]:
    """The card's sections without figures."""
    names = [np.unique(windows.patients[fold == place]).tolist() for place in np.unique(fold)]
    return {
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "data": {
            **{name: LICENCES[name] for name in ("mitdb", "cinc2017", "nstdb", "physionet")},
            "labels": _labels(),
            "augmentation": AUGMENTATION,
        },
        "splits": {
            "rule": "five folds: whole patients of mitdb, records of CinC 2017 (which has no patient ids), by name in turn",
            **{f"fold {place + 1}": ", ".join(fold_names) for place, fold_names in enumerate(names)},
        },
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def _labels() -> list[str]:
    good, beats_only, bad = CLASSES
    return [
        "By disturbing clean stretches and running the agent's own detector; no opinion is asked.",
        f"{bad}: under {MIN_KNOWN_SHARE:.0%} of the samples there, electrode off for {LEAD_OFF_SHARE:.0%} of the time, or the F1 of the "
        f"beats at 150 ms under {LEAST_F1:g} (EC57's window; IEC 60601-2-27 allows a heart rate an error of a tenth).",
        f"{beats_only}: the beats hold, but more than a tenth of them, from {BEFORE_S:g} s before to {AFTER_S:g} s after R, "
        f"correlate with themselves undisturbed by less than {LEAST_CORRELATION:g}.",
        f"{good}: the others.",
        f"Records of CinC 2017 that experts called noise count as {bad} with weight {WEAK:g}, and in no figure.",
    ]
