"""The model card of `rr_af`: purpose, training data, cross-validated figures, robustness, int8 parity, known failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from captures.rhythms import Rhythm
from training.cards import INT8_STORAGE, LICENCES, NOT_A_DEVICE
from training.rr_data import STEADY_BPM, STEADY_SHARE

PURPOSE: Final = (
    "Distinguishes atrial fibrillation from other rhythms by the last 64 RR (or PP) intervals, for alerts to a clinician and "
    "for the share of the time in AF (burden). From a pulse wave, or RR intervals without an ECG, it reports an irregular "
    "pulse: AF is diagnosed on an ECG."
)
INPUTS: Final = (
    "64 RR or PP intervals in seconds and a validity mask. Not valid: intervals across a gap, outside 0.2 to 3 s, and before "
    "and after a ventricular ectopic beat. At least 24 must be valid, and at most a quarter over 2 s; otherwise the result is "
    "inconclusive."
)
OUTPUTS: Final = (
    "Calibrated probability of AF in the window, computed every 4 beats. Beats are labelled by fixed-lag smoothing of these "
    "probabilities (four states: AF or not, each brief or lasting); a label is final some 2 min later. An alert requires 30 s "
    "or more labelled AF, at their end a window whose probability reaches the threshold, and enough evidence: the sum of the "
    "log-odds of the windows, less where intervals repeat (decision 35)."
)
AUGMENTATION: Final = (
    "Rate scaled by 0.85 to 1.2, beat times dithered over one tick of their clock, jitter of 1 to 6 ms (15 % of windows: 8 to "
    "30 ms, as in pulse waves), up to 6 % of beats missed and 5 % false, up to 25 % of intervals lost, half of the windows "
    "filled with only 24 to 64 intervals, times in 1/1024 s. Windows without AF also get respiratory arrhythmia, premature "
    "beats (every 2nd to 5th, scattered, in couplets; any coupling and pause) and blocked beats, or become steady "
    f"({100 * STEADY_SHARE:.0f} %: {STEADY_BPM[0]:g} to {STEADY_BPM[1]:g} a minute). Every network is distilled from another "
    "one trained on the same patients."
)
LABELS: Final = (
    "A window is AF when most of its beats are annotated AF (AFIB in the databases). Flutter (AFL) is used neither for "
    "training nor for Se and Sp; the share of it called AF is given separately. Half of the training windows are AF: 60 % of "
    "these are from AFDB, 30 % from CinC 2017 and 10 % from mitdb. Of the others, 35 % are from AFDB, 25 % from NSR2DB, 30 % "
    "from CinC 2017 (N and O) and 10 % from mitdb."
)
INT8: Final = (
    f"{INT8_STORAGE} Static QDQ, weights per channel, signed activations with ranges by minimum and maximum of thousands of "
    "windows. The first and the last layer stay float (777 weights), and the output of the first is not rounded. The ranges of "
    "the channels are equalised first, which changes nothing in float."
)
LTAFDB_USE: Final = (
    "Nothing was trained or calibrated on LTAFDB. But it was used for evaluation during development: its missing beats led to "
    "the rule that a window with many long intervals is inconclusive, two networks were compared on it as well as by "
    "cross-validation, and the figures of each later version on it were seen before the release."
)
FIGURES: Final = (
    "Se and Sp in percent: by duration (in seconds), by number of beats, and by single windows at a probability of 0.5. "
    "Coverage is the percentage of the time with a conclusive result. Confidence intervals are by bootstrap over patients. "
    "Latency is the time from the onset of an AF episode of 10 min or more to its alert. The end delay is the time from an "
    "annotated end of AF, with another rhythm for a minute after it, until the alert says that AF may have ended. "
    "False alerts are counted in patients without AF or flutter who were recorded for 6 h or more. "
    "`pulsegate evaluate rr-af --data DIR --models training/runs/rr_af` repeats the figures of afdb and nsr2db after training."
)
KNOWN_FAILURES: Final = (
    "Frequent ectopic beats of varying coupling without AF look like AF. This is rarer where beats are classified (rows with "
    "V beats excluded). Frequent supraventricular beats are not excluded, because in AF the S label is not reliable.",
    "AF with regular ventricular response (AV block, pacing, rate control) and flutter with fixed conduction are missed.",
    "Flutter with varying conduction and multifocal atrial tachycardia look like AF.",
    "Episodes shorter than about 60 beats are often not labelled, and short ones close to each other are joined.",
    "Where a detector misses many beats (ltafdb 112, 208, 62), the result is inconclusive: see coverage.",
    "Only 17 patients have long recordings of AF; all are adults, recorded with two-channel Holter recorders.",
)


@dataclass(slots=True)
class Figures:
    """Measured figures, by database and record, and with changed intervals. `unseen`: those of the released model on LTAFDB."""

    cross_validated: dict[str, Any]
    records: dict[str, Any]
    last_windows: dict[str, float]
    robustness: dict[str, Any]
    partly_filled: dict[str, Any]
    subgroups: dict[str, Any]
    unseen: dict[str, Any] = field(default_factory=dict)
    int8: dict[str, Any] = field(default_factory=dict)


def card(groups: Sequence[Sequence[Rhythm]], facts: Mapping[str, str], figures: Figures) -> dict[str, Any]:
    """Return every section of the card."""
    by_database = {f"{name} (cross-validated by patient)": one for name, one in figures.cross_validated.items()}
    unseen = {key: value for key, value in figures.unseen.items() if key != "records"}
    return {
        "name": facts["name"],
        "version": facts["version"],
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "data": {"used_for_training": ["afdb", "nsr2db", "mitdb", "cinc2017"]}
        | {name: LICENCES[name] for name in ("afdb", "nsr2db", "mitdb", "cinc2017", "ltafdb", "physionet")}
        | {"labels": LABELS, "use_of_ltafdb": LTAFDB_USE},
        "splits": {
            "method": "Five folds by record. Every record is of another patient: mitdb 202, of the same person as 201, is not "
            "used. CinC 2017 has no patient ids.",
            "folds": [[f"{r.database}/{r.name}" for r in group if not r.database.startswith("cinc")] for group in groups],
            "cinc2017": "sorted by name within each label and assigned in turn",
        },
        "training": {key: int(facts[key]) for key in ("seed", "steps", "parameters", "size_bytes")}
        | {
            "augmentation": AUGMENTATION,
            "optimiser": "AdamW, one-cycle learning rate, batches of 256, moving average of the weights",
        },
        "calibration": {
            "method": "a temperature (Guo 2017), fitted on the held-out windows of AFDB",
            "temperature": float(facts["temperature"]),
            "on_threshold": float(facts["on_threshold"]),
            "ece": {name: one["ece"] for name, one in by_database.items()} | {"ltafdb": unseen["ece"]},
        },
        "figures": {
            "method": FIGURES,
            **by_database,
            "ltafdb (not trained on; released int8 model)": unseen,
            "cinc2017 (cross-validated), last window of each recording": figures.last_windows,
        },
        "per_record": _rows({**figures.records, "ltafdb": figures.unseen["records"]}),
        "subgroups": figures.subgroups,
        "robustness": {
            "by_duration (afdb, cross-validated)": figures.robustness,
            "partly_filled_windows (afdb)": figures.partly_filled,
        },
        "int8_parity": {"method": INT8, **figures.int8},
        "coverage": {name: one["duration"]["coverage"] for name, one in [*by_database.items(), ("ltafdb", unseen)]},
        "attempts": dict(ATTEMPTS),
        "known_failures": [*KNOWN_FAILURES, *_measured_failures(figures)],
    }


def _measured_failures(figures: Figures) -> list[str]:
    recorded, augmented = (figures.int8[name]["largest_change"] for name in ("as_recorded", "augmented"))
    plain, jittered = (figures.robustness[name]["sp"] for name in ("as recorded", "jitter 30 ms"))
    mostly_af = figures.subgroups["afdb, AF more than half of the time"]["ece"]
    return [
        f"int8 changes a single probability by up to {recorded:.3f} as recorded and {augmented:.3f} with augmentation.",
        f"Jitter of 30 ms, as in a poor pulse wave, changes Sp from {plain:.1f} to {jittered:.1f} %.",
        f"Calibration is worse in patients who are in AF most of the time (ECE {mostly_af:.3f}).",
    ]


def _rows(databases: Mapping[str, Any]) -> dict[str, Any]:
    return {
        database: {
            name: {
                **{key: one["duration"][key] for key in ("se", "sp", "coverage")},
                "burden_percent": one["burden_percent"]["true"],
                "burden_found_percent": one["burden_percent"]["found"],
                "alerts_in_af": one["alerts"]["af"],
                "alerts_in_flutter": one["alerts"]["flutter"],
                "false_alerts": one["alerts"]["false"],
            }
            for name, one in records.items()
        }
        for database, records in databases.items()
    }


ATTEMPTS: Final[Mapping[str, str]] = {
    "version 1 (AFDB and NSR2DB only; labels from alerts)": "AFDB duration Se 94.3, Sp 98.7; LTAFDB windows 96.6, 94.9",
    "CinC 2017 and mitdb added as patients (1500 steps), labels of single windows": "AFDB duration Se 95.8, Sp 98.6; LTAFDB "
    "Sp 95.7",
    "mean probability of the windows within 32 / 64 / 128 beats": "AFDB Se 96.5 / 97.1 / 97.0, Sp 98.7 / 98.6 / 98.0",
    "two-state smoothing instead (a change of rhythm once in 1000 beats)": "AFDB Se 97.6, Sp 98.5; once in 10 thousand: 97.7, "
    "98.4",
    "inconclusive where more than a quarter of the intervals exceed 2 s": "LTAFDB Se from 90.2 to 97.8 at 92 % coverage, Sp "
    "96.4",
    "residual, dilated network of the same size": "AFDB Se 97.3, Sp 98.6; LTAFDB Se 95.6, Sp 97.7: not better on AFDB",
    "4000 steps, a wider network (26 thousand weights), temperature only: released": "AFDB Se 97.8, Sp 98.7 (cross-validated)",
    "scale and offset (Platt 1999) on AFDB windows": "offset 0.73: AFDB Se 98.6, Sp 98.4, ECE 0.007; mitdb Sp 97.1, ECE 0.043",
    "the same on AFDB, mitdb and CinC 2017, each with the same weight": "offset -0.52: AFDB Se 96.7, Sp 98.9, ECE 0.033",
    "the same with both classes of the same weight": "offset 1.31: AFDB Se 99.3, Sp 97.9; mitdb Sp 96.4",
    "version 3 again, with the R peaks of CinC 2017 that the detector now finds": "AFDB Se 97.5 (version 2: 97.8, version 3: "
    "97.6), Sp 98.7; the mean of two such networks 97.7, 98.7: chance alone makes a difference of 0.3",
    "the same, distilled from one of these": "AFDB Se 97.4, Sp 98.7",
    "half as many steady windows": "Se 97.3, Sp 98.7; distilled 97.4, 98.7",
    "the latter with an offset of the log-odds of 0.1, 0.2, 0.3, 0.5 (version 4: 0.2)": "Se 97.6, 97.7, 97.8, 98.1, Sp 98.7, "
    "98.7, 98.6, 98.5; ECE 0.013, 0.011, 0.009, 0.007, on mitdb with V beats 0.034 to 0.042 instead of 0.032",
    "an offset at which Se exceeds 97.5 % by as much as Sp exceeds 98.5 %, chosen on the patients of the other folds": "-0.4 "
    "to 0.7; AFDB Se 97.3, Sp 98.7: too few patients to decide. Without an offset 97.4, 98.7",
    "version 5, without an offset: smoothing with four states, each rhythm brief or lasting (ten settings)": "AFDB Se 97.6, "
    "Sp 98.7 to 98.8 in each; LTAFDB Se and Sp both a little better",
    "int8 ranges from 200 to 1200 windows (up to version 4)": "rare values beyond the range are clipped: in 25,000 windows a "
    "probability changes by up to 0.1 to 0.4. With ranges from 2,000 to 8,000 windows it changes by up to 0.054 to 0.07, a "
    "third of it due to rounding the first layer's output; without that rounding by up to 0.04",
    "smoothing with the log-odds of each step of 4 beats weighted 2, 4, 8 times its share of the window (9 records)": "AFDB "
    "Se 99.0, 98.9, 98.8, Sp 98.7 each (with an offset)",
}
"""Variants tried for versions 1 to 5. Se, Sp and F1 are in percent."""
