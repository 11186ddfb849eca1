"""The model card of `ecg_organised`: the sections that do not depend on measured figures."""

from collections.abc import Sequence
from typing import Any, Final

from training.cards import LICENCES, NOT_A_DEVICE
from training.organised_data import FOLDS, OrganisedRecording

PURPOSE: Final = (
    "Classifies the last four seconds of one ECG lead every second: organised rhythm, ventricular tachycardia, ventricular "
    "fibrillation or flutter, asystole, or noise. `models.ventricular_monitor` raises findings from consecutive windows."
)
INPUTS: Final = (
    "4 s of one lead at 125 Hz in mV, up to 40 Hz, with one second before it from which the baseline is removed.",
    "Means of two samples, in two rows: the shape (over 4 times its 95th percentile) and the logarithm of the amplitude.",
)
OUTPUTS: Final = ("Probabilities of organised, vt, vf, asystole and noise.",)
AUGMENTATION: Final = (
    "Gain 0.5 to 2 (organised rhythms 0.2 to 2), polarity, speed by up to 15 %. 40 % of the windows get noise at -8 to 20 dB: "
    "channel 0 of the Noise Stress Test Database, or synthetic electrode motion. A fifth of the windows are synthetic: regular "
    "and irregular rhythms of any width at 25 to 350/min, fibrillation, asystole with and without P waves, noise and hum."
)
DATABASES: Final = ("vfdb", "cudb", "mitdb", "svdb", "nsrdb-2h", "cinc2015", "nstdb")
LABELS: Final = (
    "A window is labelled by the rhythm of its last three seconds. Where the annotations leave a choice (fast rhythms of cudb "
    "outside fibrillation, false alarms of CinC 2015), the loss asks for the total probability of the possible classes."
)
KNOWN_FAILURES: Final = (
    "Ventricular tachycardia with steep narrow waves is called organised: vfdb 421. The rules on beats must find it.",
    "Very broad complexes that are no tachycardia may be called fibrillation, above all where they are irregular: vfdb 418.",
    "Tachycardia and fibrillation are often taken for each other; the monitor counts their probabilities together.",
    "Few patients fibrillate in the training data (21 of cudb, 13 of vfdb), most of them monitored in hospitals in the 1980s.",
    "Chest compressions and fine fibrillation below 0.1 mV were hardly included.",
)


ATTEMPTS: Final = {
    "40,000 windows, 600 to 800 steps": "55 of 58 episodes found, 96.8 % of their time covered, 7 high alerts outside in "
    "4.1 h of vfdb, none in 14.7 h of nsrdb-2h with and without noise",
    "the same with merged waves and lower gain of organised rhythms": "58 of 58, 96.1 %, 16 outside; with the end after 10 "
    "windows of 0.75 and the share of power below 2 Hz: 58 of 58, 97.8 %, 5 outside",
    "slow broad synthetic rhythms besides, 1,000 steps": "57 of 58, 97.6 %, 5 outside with the same thresholds",
    "64,000 windows, 1,500 steps (released)": "58 of 58, 93.7 %, 5 outside; with the end at 0.9, see the figures",
    "int8 in all layers but the first convolution and the output": "agreement with float 99.61 %, largest change 0.071, 32 kB",
    "the second convolution in float, too": "99.68 %, 0.050, 43 kB",
    "the hidden layer in float, too (released)": "99.75 %, 0.043, 51 kB",
}
"""Variants tried, on the held-out patients of all folds in cudb and vfdb. The thresholds were chosen on the same patients."""


def describe(recordings: Sequence[OrganisedRecording]) -> dict[str, Any]:
    """Return the fixed sections."""
    return {
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "data": {
            "used_for_training": list(DATABASES),
            **{name: LICENCES[name] for name in (*DATABASES, "physionet")},
            "labels": LABELS,
            "augmentation": AUGMENTATION,
        },
        "splits": {
            "method": "Five folds of whole patients over all databases, in turn by how long they fibrillate. The recordings of "
            "CinC 2015, numbered by patient, are divided into blocks of numbers",
            **{
                f"fold {fold}": ", ".join(recording.patient for recording in recordings if recording.fold == fold)
                for fold in range(FOLDS)
            },
        },
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }
