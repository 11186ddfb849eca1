"""The model card of `ecg_qrs`: the sections that do not depend on measured figures."""

from typing import Any, Final

from models.signal.beat_classifier import CLIP_LEVEL, SAMPLES_AFTER, SAMPLES_BEFORE
from models.signal.noisy_qrs import (
    AGREEMENTS_FOR_MILD,
    BEAT_PROBABILITY,
    CERTAIN_PROBABILITY,
    EARLY_SHORT_RR_SHARE,
    MAX_CLEAN_NOISE_RATIO,
    MAX_MILD_NOISE_RATIO,
    ON_TIME_TOLERANCE,
    SEARCHBACK_PROBABILITY,
    VETO_PROBABILITY,
)
from models.signal.resample import RATE_HZ
from training.cards import DETECTOR_TUNING, INT8_STORAGE, LICENCES, NOT_A_DEVICE
from training.qrs_data import CONSTANT_LEVEL_SHARE, MAX_DISTANCE_S, MAX_NOISE, NOISE_FREE_SHARE, PREMATURE_FROM_DB
from training.qrs_noise import LEVELS_DB, MAX_CHANGE_DB, SYNTHETIC_SHARE
from training.qrs_premature import RECORDING_SHARE, VENTRICULAR_SHARE

PURPOSE: Final = (
    "Decides in noise whether a candidate, a local maximum of the ECG's QRS envelope, is a heart beat, and locates its R peak. "
    "Noise is measured between beats, as a share of a beat's height. "
    f"Above {MAX_MILD_NOISE_RATIO:g} the QRS detector asks the model about every candidate. "
    f"Between {MAX_CLEAN_NOISE_RATIO:g} and {MAX_MILD_NOISE_RATIO:g}, or above it after {AGREEMENTS_FOR_MILD} consecutive "
    "classifications that agreed with the height threshold, it asks only about candidates that are doubtful by height or "
    "timing. "
    f"Up to {MAX_CLEAN_NOISE_RATIO:g} it asks only about candidates that come before {EARLY_SHORT_RR_SHARE:g} of the second "
    "shortest of the last eight intervals. "
    "Without the model the detector decides alone, which is less accurate in noise."
)
INPUTS: Final = (
    f"One lead at 125 Hz, 3 to 30 Hz, from {1000 * SAMPLES_BEFORE / RATE_HZ:.0f} ms before the candidate to "
    f"{1000 * SAMPLES_AFTER / RATE_HZ:.0f} ms after it, turned upright and divided by the peak-to-peak height of the "
    "patient's mean QRS complex.",
    "The output of the patient's matched filter for the same samples, which is 1 for the mean QRS complex. Signal and output "
    f"are clipped to ±{CLIP_LEVEL:g}.",
    "Seven numbers: the noise, and the heights of the candidate, of the previous beat and of the third highest of the last "
    "eight beats, as shares of the median beat height; the time since the previous beat in seconds and in median intervals; "
    "the spread of the last eight intervals.",
)
OUTPUTS: Final = (
    f"Calibrated probability that the candidate is a beat. In noise it counts as a beat from {BEAT_PROBABILITY:g}; the search "
    f"back accepts it from {SEARCHBACK_PROBABILITY:g}. A beat with less than {CERTAIN_PROBABILITY:g} is discarded if the next "
    f"beat arrives on time without it: one interval after the previous beat, ±{100 * ON_TIME_TOLERANCE:.0f} %. In a clean "
    f"signal a candidate with less than {VETO_PROBABILITY:g} is rejected.",
    "Distance of the R peak from the candidate, in units of 8 samples.",
)
LABELS: Final = (
    "R peaks are those that the agent's own detector finds in the recording without noise; no human labels are used. Only "
    f"recordings whose noise between beats is under {MAX_NOISE:g} of a beat are used.",
    f"The candidate nearest to an R peak, within {1000 * MAX_DISTANCE_S:.0f} ms, is labelled as its beat; all others are "
    "labelled as not a beat.",
)
AUGMENTATION: Final = (
    "Every recording is played twice in a row; 30 % of them are inverted. Where the median signal-to-noise ratio is "
    f"{PREMATURE_FROM_DB:g} dB or higher, {100 * RECORDING_SHARE:.0f} % of the recordings get premature beats: the patient's "
    f"own complex, or ({100 * VENTRICULAR_SHARE:.0f} %) ventricular complexes of another of these recordings, identified by a "
    "rule. Noise comes from the Noise Stress Test Database, as one kind or mixed with white and mains-like noise, and is "
    f"filtered at random; or it is synthetic ({100 * SYNTHETIC_SHARE:.0f} %), with a random spectrum, swells and bursts. The "
    f"signal-to-noise ratio is {LEVELS_DB[0]:g} to {LEVELS_DB[1]:g} dB. It is constant in {100 * CONSTANT_LEVEL_SHARE:.0f} % "
    f"of the recordings; in the others it changes by up to {MAX_CHANGE_DB:g} dB at a time, with occasional pauses of the "
    f"noise. {100 * NOISE_FREE_SHARE:.0f} % of the recordings have no noise."
)
INT8: Final = (
    f"{INT8_STORAGE} The convolutions, the second hidden layer and the output layer stay float, a quarter of the weights."
)
TRAINING_ROUNDS: Final = (
    "Two, each with its number of steps. In the first, the reference beats decide what the detector accepts; in the second, "
    "the network of the first decides."
)
ATTEMPTS: Final = {
    "conditions": "Unless stated otherwise: F1 in percent at 50 ms on mitdb with muscle noise at 12, 6 and 0 dB, followed by "
    "that with electrode motion at the same levels; a single figure is that with muscle noise at 12 dB. 'Noise' without dB is "
    "the share of a beat's height. Classifications are counted per second of signal.",
    "thresholds and similarity to the patient's QRS template, no network": "94.5, 87.7, 66.1; electrode motion 98.6, 97.0, "
    "90.4",
    "a network on 16 numbers, without the signal": "F1 of the candidates instead of the beats: 97.6, 92.6, 76.2",
    "convolutions over the signal, the filter's output and the correlation with the mean complex": "F1 of the candidates: "
    "98.5, 95.2, 85.4",
    "without the correlation, with 7 numbers instead of 16": "F1 of the candidates: 98.8, 95.9, 85.1: as good, and faster",
    "1.8 s of signal instead of 1.0 s": "F1 of the candidates: 98.7, 96.0, 86.0: no better",
    "one round of training, in which the reference beats decide what the detector accepts; location loss weighted 0.3": "98.0, "
    "92.9, 78.1",
    "a second round, in which the first network decides; location loss weighted 1": "98.7, 95.4, 83.5; electrode motion 99.4, "
    "98.3, 92.1",
    "a third round, with 1.5 times as many weights": "98.6, 95.0, 83.7; electrode motion 99.4, 98.6, 93.0: the network "
    "overfits the half minute of muscle noise",
    "two rounds, with synthetic noise and random filters": "98.8, 95.4 at 12 and 6 dB; electrode motion 99.3 at 12 dB",
    "candidates below half of the height threshold not classified": "same figures, a quarter fewer classifications",
    "a network with all layers but the first and last in int8": "a probability changed by up to 0.11, mostly because of the "
    "output range of the convolutions; with outputs clipped at 2 and the seven numbers entering one layer later: 0.02",
    "in mild noise only doubtful candidates classified, template updated from one beat in eight of a calm signal": "less than "
    "half of the classifications without noise; electrode motion at 12 dB 99.2 instead of 99.3",
    "candidates of a clean signal never rejected by the network": "as good without noise; with muscle noise at 12 dB a P+ at "
    "150 ms of 97.8 instead of 99.5",
    "version 2: premature beats inserted at any level of noise, 27 thousand weights": "muscle noise at 12 and 6 dB and mixed "
    "noise at 0 dB: 98.7, 95.3, 90.9 instead of 98.8, 95.6, 91.6; missed ventricular beats: 12 instead of 24 without noise, "
    "61 instead of 117 with muscle noise at 12 dB",
    "version 2: the same with 15 thousand weights": "98.7, 95.4, 90.8; missed 18 and 91: the premature beats make the "
    "difference, not the size of the network",
    "version 2: premature beats only where the signal-to-noise ratio is 9 dB or higher": "98.8, 95.7, 91.7; missed 18 and 99",
    "version 2: the same in two rounds, 14 thousand steps: released": "98.7, 95.5, 91.5; missed 13 and 80; but in mitdb 208, "
    "43 more fusion and ventricular beats are located over 50 ms from the annotation",
    "muscle noise resynthesized from its short-time spectrum": "no better",
    "noise of unreadable recordings of CinC 2017": "nearly all of them contain beats: not pursued",
    "R peaks up to 144 ms from a candidate instead of 120 ms": "those farther than 120 ms are located wrongly more often than "
    "correctly",
    "location loss weighted 2": "no better",
    "version 3: of deflections of nearly the same height the first is the R peak, also in training": "without noise from "
    "99.43 to 99.71, electrode motion at 12 dB from 99.05 to 99.32, muscle noise at 12 dB from 98.71 to 98.85",
    "version 3: a location loss that saturates; the location as the mode of a distribution over samples": "muscle noise at 12 "
    "dB 98.2 and 98.6: the median, which minimises the absolute error, is closer",
    "version 3: three networks with other seeds, and their mean": "98.85, 98.87, 98.69, and 98.84",
    "version 3: candidates at least 40 ms apart instead of 80 ms": "no change, because the envelope has no maxima so close "
    "together",
    "version 3: R peaks located up to 150 ms from their candidate": "64 more beats found at 150 ms with muscle noise at 12 "
    "dB; muscle noise at 0 dB from 83.9 to 84.4, electrode motion at 0 dB from 93.6 to 93.9",
    "version 3: candidates before 0.9 of the interval classified, instead of 0.8, and whatever their height from a noise of "
    "0.1": "98.97, for 2 % more time",
    "version 3: every candidate classified from a noise of 0.15 instead of 0.18: released": "99.01, for 7 to 10 % more time; "
    "from 0.13: 99.01, for 20 %; from 0.11: 99.06, for 40 %",
    "speed: candidates that are on time, of full height and with one clear deflection not classified up to a noise of 0.18 "
    "(0.22)": "16 (18) % fewer classifications without noise; with muscle noise at 12 dB 98.99 (98.96)",
    "speed: the same up to 0.18, and all others classified from 0.13": "8 % fewer; 99.01: not worth a rule",
    "speed: template updated from four beats at once": "3 % less time",
    "speed: filters as matrices, maxima instead of windows, a simpler graph, float instead of int8, IO binding": "no gain: of "
    "45 us per second of signal, classifications take 14, beats 15, and the fixed cost of some twenty numpy calls 16",
    "speed: all changes so far": "2.45 times the speed of neurokit2 in windows of 10 s, 0.35 classifications a second; 99.01",
    "speed: early means before the second shortest of eight intervals instead of the median": "0.31 classifications, 98.99: "
    "in an irregular rhythm half of the beats had counted as early",
    "speed: low candidates soon after a beat are T waves, not classified, and count little as noise": "0.25 classifications, "
    "99.01; not needed with the next change",
    "speed: noise counts as mild after 32 consecutive classifications that agree with the height threshold": "0.16 "
    "classifications, 98.98; after 24: 0.15, 98.90; after 40 (released): 0.17, 99.00",
    "an uncertain beat is discarded when the next beat is on time without it": "from 98.98 to 99.03, electrode motion at 6 dB "
    "from 98.7 to 99.0",
    "speed: template updated from one beat in 64 of a calm signal instead of one in 16; filters read the ring buffer": "6 % "
    "less time",
    "speed: all of these together": "3.06 times the speed of neurokit2 in windows of 10 s, 3.8 times where they overlap by 2 s",
    "trained again with a detector that also discards beats": "98.99, electrode motion at 0 dB 94.3; in training the detector "
    "therefore still discards no beat, and training reproduces the previous network",
}
"""Variants tried for versions 1, 2 and 3 and for the rules of when the detector asks the network, measured on mitdb."""

KNOWN_FAILURES: Final = (
    "With muscle noise as strong as the beats (0 dB), beats are missed and false ones found: see robustness.",
    "Premature beats are missed more often than normal ones, above all in noise: see the beat classes under subgroups.",
    "In noise, an interpolated premature beat about which the network is uncertain is discarded. Of the 3,415 ventricular "
    "beats of mitdb this loses 4 without noise and 13 with muscle noise at 6 dB.",
    "Where the highest point of a complex is not its usual R peak (paced and fusion beats), the R peak may be located 50 ms "
    "off.",
    "The training noise comes from one electrode pair on the limbs of active volunteers (30 s of each kind) or is synthetic. "
    "Noise of straps and patches was not included.",
    "If noise is present from the first beat, the QRS template is learnt from noisy beats, and the network is not asked in "
    "the first seconds.",
    DETECTOR_TUNING,
)


def describe(training_count: int, held_out_count: int) -> dict[str, Any]:
    """Return the sections of the card without measured figures; the counts are those of the recordings."""
    return {
        "intended_use": PURPOSE,
        "not_a_medical_device": NOT_A_DEVICE,
        "inputs": list(INPUTS),
        "outputs": list(OUTPUTS),
        "data": {
            "used_for_training": ["cinc2017", "nstdb"],
            **{name: LICENCES[name] for name in ("cinc2017", "nstdb", "physionet")},
            "mitdb": f"For evaluation and the choice between variants, not for training: {LICENCES['mitdb']}",
            "labels": list(LABELS),
            "augmentation": AUGMENTATION,
        },
        "splits": {
            "method": "Every tenth recording of CinC 2017 (which has no patient ids) is held out. mitdb has other patients, "
            "and the noise added to it is channel 1 of the noise records; training uses channel 0",
            "training recordings": training_count,
            "held-out recordings": held_out_count,
        },
        "attempts": ATTEMPTS,
        "known_failures": list(KNOWN_FAILURES),
    }
