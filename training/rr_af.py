"""Train, cross-validate, calibrate, quantize and release `rr_af`: `python -m training.rr_af --data DIR`.

Takes about half an hour on one core. Networks already trained by this very recipe are taken from `--runs`, so that a run that
was interrupted goes on where it was.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from captures.rhythms import AF, NO_INTERVAL, UNUSED, Rhythm, load_rhythms, windows
from evaluation.rr_af import Followed, follow, record_report, report, scored, se_sp, window_counts
from models.inference.release import RELEASE_DIR
from models.inference.rr_af import MIN_VALID, WINDOW, RrAf, rr_features
from training.cards import write_card
from training.quantize import parity, quantize, run
from training.rr_card import Figures, card
from training.rr_data import Sampler, folds, load_short
from training.rr_equal import equalised
from training.rr_fit import SEED, STEPS, rr_network
from training.rr_judge import Judge, calibration, judged, robustness
from training.rr_net import FLOAT_INPUTS, FLOAT_NODES, RrNet, parameters, to_onnx

NAME: Final = "rr_af"
VERSION: Final = "5"

ON_THRESHOLD: Final = 0.93
"""From cross-validation: every AF episode of 10 min is found, and a patient without AF has a false alert in many days."""

RANGES: Final = tuple(product((2000, 4000, 8000), (0.45, 0.55, 0.65, 0.75, 0.85)))
"""How many windows int8 ranges are taken from, and how far channels are brought to like ranges (`rr_equal`). The largest change
of a probability depends on both. From a few hundred windows, ranges cut the rare ones that reach further: there a probability
would change by up to 0.4."""

TRIED_EVERY: Final = 61
JUDGED_EVERY: Final = 200
TRIED_AUGMENTED: Final = 20_000
"""Of the windows as recorded, one in so many beats: those that an int8 model is chosen by, and those of the card; and so many
augmented ones that it is chosen by."""

FILLED: Final = (MIN_VALID, 32, 48)
"""Windows that have only begun to fill: so many valid intervals, the older ones missing."""

HERE: Final = Path(__file__).parent


def main() -> None:
    """Write the model and its card; `make release-models` lists and signs them."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds afdb, nsr2db, ltafdb, mitdb and CinC 2017")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where trained networks are kept")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    options.add_argument("--steps", type=int, default=STEPS, help="of gradient descent, per network")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        train(chosen.data, chosen.runs, chosen.release, chosen.steps, progress)


def train(data: Path, runs: Path, release: Path, steps: int, progress: Progress) -> None:
    """Everything from recordings to released files."""
    long = [*load_rhythms(data, "afdb"), *load_rhythms(data, "nsr2db"), *load_rhythms(data, "mitdb", ".atr")]
    everyone = [*long, *load_short(data, progress)]
    groups = folds(everyone)
    judges = [
        Judge(rr_network(f"fold{place}", _others(groups, place), SEED + 1 + place, steps, runs, progress), ON_THRESHOLD)
        for place in range(len(groups))
    ]
    pairs = [(rhythm, judge) for group, judge in zip(groups, judges, strict=True) for rhythm in group]
    divisor = calibration([scored(*pair) for pair in pairs if pair[0].database == "afdb"])
    figures = cross_validate([(rhythm, replace(judge, temperature=divisor)) for rhythm, judge in pairs], data)
    network = rr_network("final", everyone, SEED, steps, runs, progress)
    float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
    facts = {"name": NAME, "version": VERSION, "on_threshold": str(ON_THRESHOLD)}
    to_onnx(network, divisor, facts, float_model)
    write = partial(to_onnx, temperature=divisor, facts=facts)
    tried = np.concatenate([_sample(long, TRIED_EVERY)[0], Sampler(everyone, SEED + 102).batch(TRIED_AUGMENTED)[0]])
    _quantized(network, lambda: Sampler(everyone, SEED + 100), tried, write, runs / f"{NAME}.trial.onnx", int8_model)
    facts |= {"temperature": f"{divisor:.4g}", "size_bytes": str(int8_model.stat().st_size)}
    facts |= {"seed": str(SEED), "steps": str(steps), "parameters": str(parameters(network))}
    figures.unseen = _released(RrAf(int8_model.read_bytes()), data)
    figures.int8 = {
        "as_recorded": _parity(float_model, int8_model, *_sample(long)),
        "augmented": _parity(float_model, int8_model, *Sampler(everyone, SEED + 101).batch(20_000)),
    }
    write_card(release, card(groups, facts, figures))


def _quantized(
    network: RrNet,
    sampler: Callable[[], Sampler],
    windows: NDArray[np.float32],
    write: Callable[..., None],
    scratch: Path,
    target: Path,
) -> None:
    """The int8 model of all `RANGES` that changes probabilities least in these windows, features (n, 6, 64)."""
    trial = scratch.with_suffix(".int8.onnx")
    best = np.inf
    for count, share in RANGES:
        ranged = sampler().batch(count)[0]
        write(equalised(network, ranged, share), path=scratch)
        quantize(scratch, trial, ranged, FLOAT_NODES, float_sums=True, float_inputs=FLOAT_INPUTS)
        change = parity(scratch, trial, windows).largest_change
        if change < best:
            best = change
            target.write_bytes(trial.read_bytes())
    for file in (scratch, trial):
        file.unlink()


def cross_validate(pairs: Sequence[tuple[Rhythm, Judge]], data: Path) -> Figures:
    """Every record judged by the network that has not seen the patient."""
    of = {name: [pair for pair in pairs if pair[0].database == name] for name in ("afdb", "nsr2db", "mitdb")}
    classified = {rhythm.name: rhythm for rhythm in load_rhythms(data, "mitdb", ".atr", classified=True)}
    of["mitdb, V beats left out"] = [(classified[rhythm.name], judge) for rhythm, judge in of["mitdb"]]
    followed = {name: judged(of_it) for name, of_it in of.items()}
    return Figures(
        tested={name: report(of_it) for name, of_it in followed.items()},
        records={name: {r.rhythm.name: record_report(r) for r in of_it} for name, of_it in followed.items()},
        short=_short([pair for pair in pairs if pair[0].database.startswith("cinc2017")]),
        robustness=robustness(of["afdb"]),
        filled=_partly_filled(of["afdb"]),
        subgroups=_subgroups(followed["afdb"], followed["mitdb"], classified),
    )


def _short(pairs: Sequence[tuple[Rhythm, Judge]]) -> dict[str, float]:
    """Of CinC 2017 recordings, the share called AF at their last window, by label."""
    called: dict[str, list[bool]] = {"N": [], "A": [], "O": []}
    for rhythm, judge in pairs:
        probability = scored(rhythm, judge).probability
        known = probability[np.isfinite(probability)]
        if len(known):
            called[rhythm.database[-1]].append(bool(known[-1] >= 1 / 2))
    return {f"{label} called AF, %": 100 * float(np.mean(of_it)) for label, of_it in called.items()}


def _partly_filled(pairs: Sequence[tuple[Rhythm, Judge]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for filled in FILLED:
        counts = []
        for rhythm, judge in pairs:
            cut = windows(rhythm, WINDOW)
            cut = replace(cut, valid=cut.valid & (np.arange(WINDOW) >= WINDOW - filled))
            record = replace(scored(rhythm, judge), windows=cut, probability=judge.probabilities(cut.rr_s, cut.valid))
            counts.append(window_counts(record))
        rows[f"{filled} valid intervals"] = {key: value for key, value in se_sp(counts).items() if key != "flutter_called"}
    return rows


def _subgroups(afdb: Sequence[Followed], mitdb: Sequence[Followed], classified: dict[str, Rhythm]) -> dict[str, Any]:
    def burden(record: Followed) -> float:
        return float(np.mean(record.rhythm.labels == AF))

    def ectopy(record: Followed) -> float:
        flags = classified[record.rhythm.name].ventricular
        return 0.0 if flags is None else float(np.mean(flags))

    chosen = {
        "afdb, AF up to 5 % of the time": [record for record in afdb if burden(record) <= 0.05],
        "afdb, AF 5 to 50 % of the time": [record for record in afdb if 0.05 < burden(record) <= 0.5],
        "afdb, AF more than half of the time": [record for record in afdb if burden(record) > 0.5],
        "mitdb, up to 5 % V beats": [record for record in mitdb if ectopy(record) <= 0.05],
        "mitdb, more than 5 % V beats": [record for record in mitdb if ectopy(record) > 0.05],
    }
    return {
        name: {"records": len(of_it), **report(of_it)["duration"], "ece": report(of_it)["ece"]}
        for name, of_it in chosen.items()
        if of_it
    }


def _released(model: RrAf, data: Path) -> dict[str, Any]:
    """The released int8 model on the database that it was not trained on."""
    records = [follow(scored(rhythm, model), model.on_threshold) for rhythm in load_rhythms(data, "ltafdb")]
    return {**report(records), "records": {record.rhythm.name: record_report(record) for record in records}}


def _others(groups: Sequence[Sequence[Rhythm]], place: int) -> list[Rhythm]:
    return list(chain.from_iterable(group for other, group in enumerate(groups) if other != place))


def _sample(rhythms: Sequence[Rhythm], every: int = JUDGED_EVERY) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features and targets of windows as recorded, one in so many beats."""
    cuts = [windows(rhythm, every) for rhythm in rhythms]
    used = [(cut.labels != UNUSED) & (cut.valid.sum(-1) >= MIN_VALID) & (cut.labels != NO_INTERVAL) for cut in cuts]
    features = np.concatenate([rr_features(cut.rr_s[of_it], cut.valid[of_it]) for cut, of_it in zip(cuts, used, strict=True)])
    return features, np.concatenate([cut.labels[of_it] for cut, of_it in zip(cuts, used, strict=True)]).astype(np.float32)


def _parity(float_model: Path, int8_model: Path, features: NDArray[np.float32], targets: NDArray[np.float32]) -> dict[str, Any]:
    one, other = (_f1(run(path, features), targets) for path in (float_model, int8_model))
    return asdict(parity(float_model, int8_model, features)) | {"f1_float": one, "f1_int8": other, "f1_change": other - one}


def _f1(probability: NDArray[np.float32], targets: NDArray[np.float32]) -> float:
    called = probability >= 1 / 2
    return float(2 * np.sum(called & (targets > 0)) / (np.sum(called) + np.sum(targets > 0)))


if __name__ == "__main__":
    main()
