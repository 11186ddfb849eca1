"""The model card of `ecg_beat`: cross-validated figures, subgroups, noise and packet loss, int8 parity, known failures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress

from evaluation.beats import figures, total
from evaluation.detection import ecg_of, is_received
from evaluation.ec57 import Reference
from evaluation.noise import SNR_DB
from evaluation.perturbations import DROPPED_PERCENT, Ecg, drop_packets, find_noise, list_perturbations
from evaluation.records import load_annotated
from models.inference.ecg_beat import CLASSES
from models.signal.beat_classifier import BeatClassifier
from training import beat_batches as batches
from training.beat_cinc import SINUS_EVERY
from training.beat_cv import FOLDS, Calibration, RecordPrediction, confusion, report
from training.beat_data import COPIES, RECORDS, Beats, analyse_recording, label_beats
from training.cards import DETECTOR_TUNING, INT8_STORAGE, LICENCES, NOT_A_DEVICE

SEED: Final = 1

SUBGROUPS: Final = {
    "bundle_branch_block": ("109", "118", "124", "207"),
    "without_bundle_branch_block": tuple(name for name in RECORDS if name not in {"109", "118", "124", "207"}),
    "atrial_fibrillation": ("201", "203"),
    "bigeminy_or_trigeminy": ("106", "119", "201", "208", "223"),
    "noisy": ("101", "106", "108", "109", "114", "203", "208"),
}
"""Records by the rhythm annotations and record descriptions of the MIT-BIH directory."""

NOISE: Final = "mix"

DRAWS: Final = 5
"""Draws of lost packets, whose counts are added up: the figures of a single draw may be off by a percentage point."""

ATTEMPTS: Final = {
    "selection": "All 31 attempts to reach the targets for S and V were evaluated on the same folds, and the released variant "
    "was chosen by these figures. The cross-validated figures are therefore optimistic.",
    "conditions": "1 to 10, unless stated otherwise: five folds by patient, 600 steps, each beat labelled with its most "
    "probable class. Figures are Se/P+ in percent; 1 to 6 also state the cross-entropy. 'As 3' means as attempt 3. Losses of "
    "F1 are in percentage points",
    "1": "the inputs are the beat, the template and 33 intervals; 40 % of the beats borrow the intervals of an LTAFDB beat of "
    "their class (42 patients, no signal): V 90.9/89.8, S 30.5/64.7, 0.129",
    "2": "as 1, without LTAFDB: V 89.1/89.3, S 33.0/68.0, 0.132",
    "3": "as 1, with two quantiles of the last 256 intervals; 60 % of the S with borrowed intervals get the shape of a normal "
    "beat: V 90.4/90.6, S 36.5/65.1, 0.106",
    "4": "as 3, without LTAFDB: V 88.4/90.8, S 49.1/70.4, 0.106",
    "5": "smaller convolutions, 15 % borrowed intervals, patients drawn by the fourth root of their number of beats: V "
    "89.4/89.9, S 43.8/69.3, 0.114",
    "6": "smaller convolutions, 15 % borrowed intervals, dropout 0.5 and weight decay 0.05 instead of 0.3 and 0.02: V "
    "91.1/91.2, S 38.6/62.8, 0.104",
    "7": "as 6, without LTAFDB, eleven folds: V 91.1/87.8, S 41.3/59.5; twice as many false V in mitdb 203",
    "8": "as 7, with the weight of V chosen on the other folds: V 89.5/75.8; most false V are in mitdb 203; when it is held "
    "out, the weight chosen on the other records is too large",
    "9": "as 6, in eleven folds, with only S weighted, by a weight chosen on the other folds: V 88.3/89.1, S 54.4/35.1",
    "10": "as 9, with 1500 steps: V 88.5/91.7, S 54.9/34.4",
    "11": "as 10, with S excluded while ecg_rhythm detects AF, its probability distributed over all other classes: V "
    "86.4/87.7, S 63.5/50.2",
    "12": "as 11, with the probability of S given to N, and the weight of S applied between S and N only (version 1): V "
    "90.3/89.9, S 70.3/50.0; the same code on another processor: V 89.5/85.1, S 63.9/43.7",
    "13": "as 12, with beats of CinC 2017, and half of the normal beats atypical, 700 steps: V 89.4/91.7, S 68.2/44.5; "
    "another seed: V 90.0/91.4, S 68.1/44.2; mean of both: V 90.1/91.5, S 69.3/45.3",
    "14": "as 13, with the timing of each morphology template and the shapes of the neighbouring beats: V 92.8/90.8, S "
    "72.0/48.4",
    "15": "as 14, with the weight of S applied to early beats only: V 92.8/90.8, S 76.3/51.9",
    "16": "as 15, with F making up a hundredth of each batch, escape rhythms added, beats in AF weighted more, 1200 steps: V "
    "94.5/92.4, S 74.5/50.5; with a weight of V chosen on the other folds: V 94.0/92.9",
    "17": "as 16, distilled from two teachers: V 93.9/92.6, S 78.4/53.1",
    "18": "as 17, with the odds of V halved in AF, teachers and student with 1200 steps: V 94.1/94.2, S 73.4/50.1",
    "19": "as 18, with S allowed only for beats at least 12 % earlier than the median interval or 30 % earlier than the slow "
    "intervals, instead of 10 and 25 %; chosen from nine such pairs, which gave S an Se of 73 to 79 and a P+ of 50 to 61 "
    "(version 2): V 94.1/94.2, S 79.3/52.4 for beats found without ecg_qrs; for beats that the complete agent finds, as in "
    "all later attempts: V 93.0/93.5, S 77.0/50.9",
    "20": "as 19, trained on beats that the complete agent finds (version 3): V 92.97/93.06, S 78.3/54.4; each teacher alone: "
    "V 92/92",
    "21": "as 20, distilled from four teachers: V 93.06/92.95, S 78.6/52.2",
    "22": "as 20, with every copy added a second time, with its beats found without ecg_qrs: V 92.97/92.77",
    "23": "as 20, with unlabelled beats of CinC 2017, the teachers' probabilities as their targets: V 92.8/93.0, S 79.1/53.4",
    "24": "as 20, with the R peak at the first of two deflections of nearly the same height (ecg_qrs 3; version 4): V "
    "94.1/94.3, S 80.0/55.1",
    "25": "as 24, with a detector that asks ecg_qrs less often and looks ahead in noise, and with the interval across a gap "
    "counted as known if no beat fits into the gap: V 93.8/93.8, S 80.2/53.6; with 5 % of packets lost (five draws) F1 falls "
    "by 1.2 for V and 1.6 for S, in attempt 24 by 1.1 and 1.4",
    "26": "as 25, without intervals across gaps (version 5): V 94.5/94.0, S 80.5/54.3; with 5 % of packets lost F1 falls by "
    "1.0 for V and 1.5 for S",
    "27": "as 26, with a detector that never discards a beat of which it was certain: V 94.2/93.3, S 80.3/55.0; with 5 % of "
    "packets lost F1 falls by 1.2 for V and 2.8 for S",
    "28": "the networks of 27, with the interval across a gap reduced by the intervals of the beats that were due in the gap, "
    "estimated by the median or the latest interval, for all or only for early beats (six variants): with 5 % of packets lost "
    "F1 falls by 0.9 to 1.1 for V and 3.4 to 5.9 for S",
    "29": "the networks of 27 with packets lost and three changes, added one by one. Beats of unknown interval hardly update "
    "the template: F1 falls by 0.9 for V and 2.8 for S. S is weighted more in a run: by 0.9 and 0.8. QRS complexes are "
    "compared by the part that was received: by 0.8 and 0.6. With all three changes, the networks of 24 and 25 lose 0.7 and "
    "0.9 for V, and nothing for S",
    "30": "as 29, retrained with gaps in 70 % of the augmented stretches and 60 % of the recordings of CinC 2017 instead of "
    "30 %: V 93.0/93.1, S 78.8/52.5; with 5 % of packets lost F1 falls by 0.9 for V and 0.7 for S",
    "31": "as 29, retrained with gaps as before (version 6): V 93.8/94.1, S 79.5/52.6; with 5 % of packets lost F1 falls by "
    "0.7 for V and 0.2 for S",
    "released": "as 31, with the first beats of a stream updating the template fully, although no interval before them is "
    "known: see figures",
}
"""Earlier variants. The release was chosen by these figures, which are therefore optimistic."""

KNOWN_FAILURES: Final = (
    "Atrial premature beats with aberrant conduction (mitdb 201) are called V. So are some beats in atrial fibrillation with "
    "noise and a QRS complex of varying width (mitdb 203).",
    "In atrial fibrillation no beat is called S.",
    "Where sinus rhythm is irregular or atrioventricular conduction changes (mitdb 230, 108, 208), early normal beats are "
    "called S.",
    "Ventricular beats whose QRS complex resembles the template in the recorded lead (runs in mitdb 223) are called N.",
    "An escape rhythm that lasts many minutes becomes the template and is then called N.",
    "Fusion beats are almost never called F, but N or V. Most of the labelled ones are of one patient (mitdb 208).",
    "The first beat after a lost packet and the last one before it are almost never called S, because an interval is unknown.",
    "Small differences decide whether a whole supraventricular run is found (one run in mitdb 207 contains a tenth of these "
    "beats). The figures of a single draw of lost packets may therefore be off by two percentage points.",
    "A beat is labelled 1.9 to 2.3 s after its R peak.",
    "Signals with beat labels by experts come from only 22 patients, all adults, recorded with two-channel Holter recorders "
    "of the 1970s.",
    DETECTOR_TUNING,
)
INT8: Final = (
    f"{INT8_STORAGE} The first four convolutions, the dense layers over the scalar features and the output layer stay float."
)


@dataclass(frozen=True, slots=True)
class Results:
    """What the card reports.

    Attributes:
        records: the out-of-fold prediction of every record.
        nested: by record name, the calibration chosen on the other folds, which the figures use.
        calibration: the calibration of the released model.
        robustness: figures with noise and with packets lost.
    """

    records: list[RecordPrediction]
    nested: Mapping[str, Calibration]
    calibration: Calibration
    robustness: Mapping[str, Any]


def measure_robustness(
    data: Path,
    qrs_classifier: BeatClassifier,
    predict: Callable[[Ecg, Beats, Reference], RecordPrediction],
    calibrations: Mapping[str, Calibration],
    cache: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Return out-of-fold figures by noise level and by loss of packets.

    Only reference beats whose QRS complex was received in full are counted.
    """
    noises = [("noise", NOISE, f"{snr_db}") for snr_db in SNR_DB]
    noisy = [
        perturbation
        for perturbation in list_perturbations(find_noise(data), drop=False, fs=False)
        if perturbation.path in noises
    ]
    changes_by_label = {f"mixed noise at {perturbation.path[-1]} dB": [perturbation.change] for perturbation in noisy}
    changes_by_label |= {
        f"{percent} % of packets lost": [drop_packets(percent, draw) for draw in range(DRAWS)] for percent in DROPPED_PERCENT
    }
    counted: dict[str, list[Any]] = {label: [] for label in changes_by_label}
    for name in progress.track(RECORDS, description="noise and lost packets"):
        annotated = load_annotated(data / "mitdb" / f"{name}.hea")
        ecg = ecg_of(annotated)
        for step, (label, changes) in enumerate(changes_by_label.items()):
            for draw, change in enumerate(changes):
                changed = change(ecg)
                file = cache / f"{name}_{step}_{draw}.npz"
                beats = _find_beats(file, changed.mv, changed.rate_hz, qrs_classifier, annotated.reference)
                truth = annotated.reference.only(is_received(annotated.reference.times_s, changed.mv, changed.rate_hz))
                counted[label].append(confusion(predict(changed, beats, truth), calibrations[name]))
    return {label: summarise(figures(total(records))) for label, records in counted.items()}


def _find_beats(cache: Path, mv: Any, rate_hz: float, qrs_classifier: BeatClassifier, truth: Any) -> Beats:
    """Return the labelled beats of a signal, from the cached file if it exists."""
    if cache.exists():
        return Beats.load(cache)
    beats = label_beats(analyse_recording(mv, rate_hz, qrs_classifier)[1], truth)
    beats.save(cache)
    return beats


def card(
    version: str, results: Results, agreements: Mapping[str, Any], size_bytes: int, training: Mapping[str, Any]
) -> dict[str, Any]:
    """Return every section of the card."""
    overall = report(results.records, results.nested, SEED)
    matrix = overall.pop("confusion")
    without_exemption = overall.pop("plain")
    return {
        "name": "ecg_beat",
        "version": version,
        "intended_use": "Labels the heart beats of one ECG lead as normal (N), supraventricular (S) or ventricular (V) ectopic "
        "or fusion (F), for review by a clinician. For adults with a conducted rhythm; not intended for paced rhythms.",
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": {
            "beat": "104 samples at 125 Hz, 0.5 to 40 Hz, from 0.36 s before the R peak, divided by the height of the template",
            "template": "the mean of the patient's most common QRS shape over the last minutes, before this beat; uses no "
            "labels",
            "mask": "which samples were received",
            "features": "53 numbers: the 33 intervals before the beat and the one after it (at most 1.5 s), relative to those "
            "of the last minutes; the shape relative to the template; when beats of this shape usually come; the similarity "
            "of the previous and the next beat to the template",
        },
        "outputs": {
            "classes": list(CLASSES),
            "label": "The class with the greatest product of calibrated probability and class weight. The weight of S applies "
            "only between S and N, and only to early beats.",
            "bytes": size_bytes,
            "weights": _class_weights(results.calibration),
        },
        "data": {
            "used_for_training": ["mitdb", "ltafdb", "cinc2017", "nstdb"],
            "mitdb": f"{LICENCES['mitdb']} 22 records of DS1 (de Chazal 2004). The test set DS2 was not used.",
            "ltafdb": f"{LICENCES['ltafdb']} 42 records: only beat labels and intervals, neither signal nor rhythm "
            "annotations.",
            "cinc2017": f"{LICENCES['cinc2017']} Sinus rhythm (one recording in {SINUS_EVERY}), AF and other rhythms. Beats "
            "are labelled by rule where there is little doubt, as recorded and augmented. None of these patients is in mitdb.",
            "nstdb": LICENCES["nstdb"],
            "physionet": LICENCES["physionet"],
            "labels": "AAMI EC57 classes of the annotation symbols of MIT: N (N L R e j), S (A a J S), V (V E), F (F). Paced "
            "records 102 104 107 217 and class Q are excluded.",
        },
        "splits": {
            "method": "11 folds by patient. Calibration and class weights of each fold are chosen on the other ten. The "
            "figures are optimistic: all 31 attempts were compared on the same folds (see attempts).",
            "folds": {f"fold {index}": " ".join(fold) for index, fold in enumerate(FOLDS)},
        },
        "training": {**training, "augmentation": _augmentation()},
        "calibration": {
            "ece": overall.pop("ece"),
            "temperature": results.calibration.temperature,
            "bias": dict(zip(CLASSES, results.calibration.bias.tolist(), strict=True)),
            "method": "a temperature and one bias per class, fitted out of fold; the ECE is that of the most probable class",
        },
        "figures": {
            "method": "EC57 on channel 1 from 5:00 on. Beats found by the agent (with ecg_qrs) match within 150 ms. EC57 does "
            "not count an F or Q beat called V as a false V; the table without exemption does. In the confusion matrix, rows "
            "are the reference and columns the labels; 'extra' beats are not in the reference. Confidence intervals are by "
            "bootstrap.",
            "classes": {name: overall[name] for name in CLASSES},
            "without_exemption": without_exemption,
            "interval_95_by_patient": {key: list(value) for key, value in overall["interval_95"].items()},
            "confusion": matrix,
        },
        "per_record": {record.name: _row(results, record) for record in results.records},
        "subgroups": {
            group: summarise(figures(total([_confusion(results, one) for one in results.records if one.name in names])))
            for group, names in SUBGROUPS.items()
        },
        "robustness": dict(results.robustness),
        "int8_parity": {"method": INT8, **agreements},
        "coverage": "A beat is labelled if more than half of its QRS complex was received; otherwise its label is '?' (EC57: "
        "Q).",
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }


def summarise(counted: Mapping[str, Any]) -> dict[str, Any]:
    """Return Se, P+ and F1 of V and S as one row."""
    return {f"{name} {key}": counted[name][key] for name in ("V", "S") for key in ("se", "ppv", "f1")}


def _confusion(results: Results, record: RecordPrediction) -> Any:
    return confusion(record, results.nested[record.name])


def _row(results: Results, record: RecordPrediction) -> dict[str, Any]:
    counted = figures(_confusion(results, record))
    counts = {name: counted[name]["tp"] + counted[name]["fn"] for name in ("V", "S", "F")}
    return {f"{name} beats": count for name, count in counts.items()} | {
        f"{name} {key}": counted[name][key] for name in ("V", "S") for key in ("se", "ppv")
    }


def _class_weights(calibration: Calibration) -> dict[str, float]:
    return dict(zip(CLASSES, calibration.weights.tolist(), strict=True))


def _augmentation() -> dict[str, Any]:
    return {
        "leads": f"each record {COPIES} times: both leads, rotated leads (a random combination of both), and four leads with "
        "artefacts",
        "artefacts": "NSTDB noise (channel 0) at 24 to -3 dB, one level per half minute, lost packets, gaps, saturation. The "
        "agent's own detector finds the beats in the resulting signal",
        "borrowed_intervals": f"{100 * batches.BORROWED_INTERVALS_SHARE:.0f} % of the beats borrow the intervals of an LTAFDB "
        f"beat of their class; {100 * batches.NORMAL_SHAPE_SHARE:.0f} % of the S beats among them get the shape of a normal "
        "beat",
        "inverted": batches.INVERTED_SHARE,
        "time_stretch": batches.MAX_STRETCH,
        "gain": batches.GAIN_SD,
        "cinc2017": "share of each class drawn from CinC 2017: "
        + ", ".join(f"{name} {share}" for name, share in zip(CLASSES, batches.CINC_SHARES, strict=True)),
        "atypical_beats": f"{100 * batches.ATYPICAL_SHARE:.0f} % of the normal beats are early, late, after an early beat, or "
        "of unusual shape",
        "escape_rhythms": f"{100 * batches.ESCAPE_SHARE:.0f} % of the ventricular beats get the slow, regular intervals of an "
        "escape rhythm",
        "class_shares": dict(zip(CLASSES, batches.CLASS_SHARES, strict=True)),
        "patients": f"drawn in proportion to their number of beats to the power of {batches.PATIENT_POWER}",
    }
