"""Train, cross-validate, calibrate, quantize and release `rr_af`: `python -m training.rr_af --data DIR`.

Takes about half an hour on one core. Networks are cached in `--runs`, so an interrupted run can be resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures.rhythms import AF, NO_INTERVAL, UNUSED, Rhythm, load_rhythms, windows
from evaluation.rr_af import record_report, report, se_sp, window_counts
from evaluation.rr_tracking import TrackedRecord, score_windows
from models.inference.rr_af import MIN_VALID, WINDOW_INTERVALS, RrAf, rr_features
from training.cards import write_card
from training.options import read_options
from training.quantize import measure_parity, quantize, run_model
from training.rr_card import Figures, card
from training.rr_cv import CalibratedNetwork, fit_temperature, measure_robustness, track_records, write_folds
from training.rr_data import Sampler, load_cinc_rhythms, split_folds
from training.rr_equalise import equalise_channels
from training.rr_fit import SEED, STEPS, distil_network
from training.rr_net import FLOAT_INPUTS, FLOAT_NODES, RrNet, count_parameters, write_onnx

NAME: Final = "rr_af"
VERSION: Final = "5"

ON_THRESHOLD: Final = 0.93
"""Chosen by cross-validation: every AF episode of 10 min is found; false alerts in patients without AF are many days apart."""

QUANTIZATION_OPTIONS: Final = tuple(product((2000, 4000, 8000), (0.45, 0.55, 0.65, 0.75, 0.85)))
"""Options to choose from: number of windows from which the int8 ranges are taken, and migration strength (`rr_equalise`). Both
affect the largest change of a probability. Ranges from a few hundred windows clip the rare larger values, which would
change a probability by up to 0.4."""

SELECTION_STEP_BEATS: Final = 61
SELECTION_AUGMENTED_WINDOWS: Final = 20_000
"""The int8 model is chosen on windows as recorded, one in this many beats, and on this many augmented windows."""

CARD_STEP_BEATS: Final = 200
"""The card compares int8 with float on windows as recorded, one in this many beats."""

FILL_LEVELS: Final = (MIN_VALID, 32, 48)
"""Windows that are only partly filled: this many valid intervals, the older ones missing."""


def main() -> None:
    """Write the model and its card; `make release-models` lists and signs them."""
    chosen = read_options(__doc__, NAME, "folder that holds afdb, nsr2db, ltafdb, mitdb and CinC 2017", STEPS)
    with Progress() as progress:
        train(chosen.data, chosen.runs, chosen.release, chosen.steps, progress)


def train(data: Path, runs: Path, release: Path, steps: int, progress: Progress) -> None:
    """Run everything from recordings to released files."""
    long_rhythms = [*load_rhythms(data, "afdb"), *load_rhythms(data, "nsr2db"), *load_rhythms(data, "mitdb", ".atr")]
    rhythms = [*long_rhythms, *load_cinc_rhythms(data, progress)]
    groups = split_folds(rhythms)
    models = [
        CalibratedNetwork(
            distil_network(f"fold{fold}", _other_folds(groups, fold), SEED + 1 + fold, steps, runs, progress), ON_THRESHOLD
        )
        for fold in range(len(groups))
    ]
    pairs = [(rhythm, model) for group, model in zip(groups, models, strict=True) for rhythm in group]
    temperature = fit_temperature([score_windows(*pair) for pair in pairs if pair[0].database == "afdb"])
    figures = cross_validate([(rhythm, replace(model, temperature=temperature)) for rhythm, model in pairs], data)
    network = distil_network("final", rhythms, SEED, steps, runs, progress)
    float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
    facts = {"name": NAME, "version": VERSION, "on_threshold": str(ON_THRESHOLD)}
    write_onnx(network, temperature, facts, float_model)
    unseen = load_rhythms(data, "ltafdb")
    held_out = zip([*models, CalibratedNetwork(network, ON_THRESHOLD)], [*groups, unseen], strict=True)
    write_folds(((replace(model, temperature=temperature), rhythms) for model, rhythms in held_out), facts, runs)
    write = partial(write_onnx, temperature=temperature, facts=facts)
    selection_windows = np.concatenate(
        [
            _sample_windows(long_rhythms, SELECTION_STEP_BEATS)[0],
            Sampler(rhythms, SEED + 102).batch(SELECTION_AUGMENTED_WINDOWS)[0],
        ]
    )
    _quantize_best(
        network, lambda: Sampler(rhythms, SEED + 100), selection_windows, write, runs / f"{NAME}.trial.onnx", int8_model
    )
    facts |= {"temperature": f"{temperature:.4g}", "size_bytes": str(int8_model.stat().st_size)}
    facts |= {"seed": str(SEED), "steps": str(steps), "parameters": str(count_parameters(network))}
    figures.unseen = _evaluate_release(RrAf(int8_model.read_bytes()), unseen)
    figures.int8 = {
        "as_recorded": _parity(float_model, int8_model, *_sample_windows(long_rhythms)),
        "augmented": _parity(float_model, int8_model, *Sampler(rhythms, SEED + 101).batch(20_000)),
    }
    write_card(release, card(groups, facts, figures))


def _quantize_best(
    network: RrNet,
    sampler: Callable[[], Sampler],
    windows: NDArray[np.float32],
    write: Callable[..., None],
    scratch: Path,
    target: Path,
) -> None:
    """Write the int8 model, over all `QUANTIZATION_OPTIONS`, that changes probabilities least in these windows (n, 6, 64)."""
    trial = scratch.with_suffix(".int8.onnx")
    best = np.inf
    for count, strength in QUANTIZATION_OPTIONS:
        range_windows = sampler().batch(count)[0]
        write(equalise_channels(network, range_windows, strength), path=scratch)
        quantize(scratch, trial, range_windows, FLOAT_NODES, float_outputs=True, float_inputs=FLOAT_INPUTS)
        change = measure_parity(scratch, trial, windows).largest_change
        if change < best:
            best = change
            target.write_bytes(trial.read_bytes())
    for file in (scratch, trial):
        file.unlink()


def cross_validate(pairs: Sequence[tuple[Rhythm, CalibratedNetwork]], data: Path) -> Figures:
    """Evaluate every record by the network that was not trained on the patient."""
    by_database = {name: [pair for pair in pairs if pair[0].database == name] for name in ("afdb", "nsr2db", "mitdb")}
    classified = {rhythm.name: rhythm for rhythm in load_rhythms(data, "mitdb", ".atr", classified=True)}
    by_database["mitdb, V beats excluded"] = [(classified[rhythm.name], model) for rhythm, model in by_database["mitdb"]]
    tracked = {name: track_records(of_database) for name, of_database in by_database.items()}
    return Figures(
        cross_validated={name: report(records) for name, records in tracked.items()},
        records={name: {r.rhythm.name: record_report(r) for r in records} for name, records in tracked.items()},
        last_windows=_last_windows([pair for pair in pairs if pair[0].database.startswith("cinc2017")]),
        robustness=measure_robustness(by_database["afdb"]),
        partly_filled=_partly_filled(by_database["afdb"]),
        subgroups=_subgroups(tracked["afdb"], tracked["mitdb"], classified),
    )


def _last_windows(pairs: Sequence[tuple[Rhythm, CalibratedNetwork]]) -> dict[str, float]:
    """Return the share of CinC 2017 recordings called AF at their last window, by label."""
    called: dict[str, list[bool]] = {"N": [], "A": [], "O": []}
    for rhythm, model in pairs:
        probability = score_windows(rhythm, model).probability
        known = probability[np.isfinite(probability)]
        if len(known):
            called[rhythm.database[-1]].append(bool(known[-1] >= 1 / 2))
    return {f"{label} called AF, %": 100 * float(np.mean(flags)) for label, flags in called.items()}


def _partly_filled(pairs: Sequence[tuple[Rhythm, CalibratedNetwork]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for filled in FILL_LEVELS:
        counts = []
        for rhythm, model in pairs:
            part = windows(rhythm, WINDOW_INTERVALS)
            part = replace(part, valid=part.valid & (np.arange(WINDOW_INTERVALS) >= WINDOW_INTERVALS - filled))
            record = replace(score_windows(rhythm, model), windows=part, probability=model.probabilities(part.rr_s, part.valid))
            counts.append(window_counts(record))
        rows[f"{filled} valid intervals"] = {key: value for key, value in se_sp(counts).items() if key != "flutter_called"}
    return rows


def _subgroups(afdb: Sequence[TrackedRecord], mitdb: Sequence[TrackedRecord], classified: dict[str, Rhythm]) -> dict[str, Any]:
    def burden(record: TrackedRecord) -> float:
        return float(np.mean(record.rhythm.labels == AF))

    def ectopy(record: TrackedRecord) -> float:
        flags = classified[record.rhythm.name].ventricular
        return 0.0 if flags is None else float(np.mean(flags))

    groups = {
        "afdb, AF up to 5 % of the time": [record for record in afdb if burden(record) <= 0.05],
        "afdb, AF 5 to 50 % of the time": [record for record in afdb if 0.05 < burden(record) <= 0.5],
        "afdb, AF more than half of the time": [record for record in afdb if burden(record) > 0.5],
        "mitdb, up to 5 % V beats": [record for record in mitdb if ectopy(record) <= 0.05],
        "mitdb, more than 5 % V beats": [record for record in mitdb if ectopy(record) > 0.05],
    }
    return {
        name: {"records": len(records), **report(records)["duration"], "ece": report(records)["ece"]}
        for name, records in groups.items()
        if records
    }


def _evaluate_release(model: RrAf, rhythms: Sequence[Rhythm]) -> dict[str, Any]:
    """Evaluate the released int8 model on the database that it was not trained on."""
    records = track_records([(rhythm, model) for rhythm in rhythms])
    return {**report(records), "records": {record.rhythm.name: record_report(record) for record in records}}


def _other_folds(groups: Sequence[Sequence[Rhythm]], fold: int) -> list[Rhythm]:
    return list(chain.from_iterable(group for other, group in enumerate(groups) if other != fold))


def _sample_windows(rhythms: Sequence[Rhythm], every: int = CARD_STEP_BEATS) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return features and targets of windows as recorded, one in `every` beats."""
    parts = [windows(rhythm, every) for rhythm in rhythms]
    used = [(part.labels != UNUSED) & (part.valid.sum(-1) >= MIN_VALID) & (part.labels != NO_INTERVAL) for part in parts]
    features = np.concatenate(
        [rr_features(part.rr_s[chosen], part.valid[chosen]) for part, chosen in zip(parts, used, strict=True)]
    )
    return features, np.concatenate([part.labels[chosen] for part, chosen in zip(parts, used, strict=True)]).astype(np.float32)


def _parity(float_model: Path, int8_model: Path, features: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, Any]:
    float_f1, int8_f1 = (_f1(run_model(path, features), targets) for path in (float_model, int8_model))
    return asdict(measure_parity(float_model, int8_model, features)) | {
        "f1_float": float_f1,
        "f1_int8": int8_f1,
        "f1_change": int8_f1 - float_f1,
    }


def _f1(probability: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    called = probability >= 1 / 2
    return float(2 * np.sum(called & (targets > 0)) / (np.sum(called) + np.sum(targets > 0)))


if __name__ == "__main__":
    main()
