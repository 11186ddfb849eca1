"""Train, cross-validate, calibrate, quantize and release `rr_af`: `python -m models.training.rr_af --data DIR`.

Takes about 15 minutes on one core. Networks already trained by this very recipe are taken from `--runs`, so that a run that
was interrupted goes on where it was.
"""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from models.evaluation.rr_af import Scored, alert_count, expected_calibration_error, score, se_sp, window_counts
from models.inference.rr_af import MIN_VALID, WINDOW, RrAf, rr_features
from models.recordings.rhythms import AF, UNUSED, Rhythm, Windows, load_rhythms, windows
from models.training.quantize import parity, quantize
from models.training.rr_card import describe, markdown
from models.training.rr_data import Sampler, folds
from models.training.rr_fit import SEED, STEPS, fitted, temperature
from models.training.rr_net import FLOAT_NODES, RrNet, logits, parameters, to_onnx

NAME: Final = "rr_af"
VERSION: Final = "1"

ON_THRESHOLD: Final = 0.93
OFF_THRESHOLD: Final = 0.2
"""From cross-validation: every AF episode of 10 min is found, and a patient without AF has a false alert in four days. On at
0.9 false alerts are half as many again; at 0.97 they are a sixth, but 2 % more of the time in AF is missed."""

STEP: Final = 4
"""Beats between two scored windows."""

FILLED: Final = (MIN_VALID, 32, 48)
"""Windows that have only begun to fill: so many valid intervals, the older ones missing."""

HERE: Final = Path(__file__).parent


def main() -> None:
    """Write the model, its card and its entry in the manifest."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds afdb, nsr2db, ltafdb and mitdb")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where trained networks are kept")
    options.add_argument("--release", type=Path, default=HERE.parent / "release")
    options.add_argument("--steps", type=int, default=STEPS, help="of gradient descent, per network")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    train(chosen.data, chosen.runs, chosen.release, chosen.steps)


def train(data: Path, runs: Path, release: Path, steps: int) -> None:
    """Everything from recordings to released files."""
    afdb, nsr2db = load_rhythms(data, "afdb"), load_rhythms(data, "nsr2db")
    everyone = [*afdb, *nsr2db]
    groups = folds(everyone)
    with Progress() as progress:
        networks = [
            fitted(f"fold{place}", _others(groups, place), SEED + 1 + place, steps, runs, progress)
            for place in range(len(groups))
        ]
        network = fitted("final", everyone, SEED, steps, runs, progress)
    divisor, cross_validation = cross_validate(groups, networks)
    float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
    facts = {"name": NAME, "version": VERSION, "on_threshold": str(ON_THRESHOLD), "off_threshold": str(OFF_THRESHOLD)}
    to_onnx(network, divisor, facts, float_model)
    sampler = Sampler(everyone, SEED + 100)
    quantize(float_model, int8_model, sampler.batch(200)[0], FLOAT_NODES)
    released = RrAf(int8_model.read_bytes())
    card = {
        **describe(groups, facts),
        "training": {"seed": SEED, "steps": steps, "parameters": parameters(network), "temperature": divisor},
        "size_bytes": int8_model.stat().st_size,
        "int8_parity": {
            "as_recorded": asdict(parity(float_model, int8_model, _sample(everyone))),
            "augmented": asdict(parity(float_model, int8_model, sampler.batch(20_000)[0])),
        },
        "step_beats": STEP,
        "cross_validation": cross_validation,
        "not_trained_on": {
            "ltafdb": report(_released(released, load_rhythms(data, "ltafdb"))),
            "mitdb": report(_released(released, load_rhythms(data, "mitdb", ".atr"))),
        },
    }
    (release / f"{NAME}.json").write_text(json.dumps(_rounded(card), indent=1, ensure_ascii=False) + "\n")
    (release / f"{NAME}.md").write_text(markdown(_rounded(card)))
    write_manifest(release)


def cross_validate(groups: Sequence[Sequence[Rhythm]], networks: Sequence[RrNet]) -> tuple[float, dict[str, Any]]:
    """Temperature and figures, every record judged by the network that has not seen the patient."""
    pairs = [(rhythm, network) for group, network in zip(groups, networks, strict=True) for rhythm in group]
    cuts = [windows(rhythm, STEP) for rhythm, _ in pairs]
    raw = [logits(network, _features(cut)) for cut, (_, network) in zip(cuts, pairs, strict=True)]
    of_afdb = [place for place, (rhythm, _) in enumerate(pairs) if rhythm.database == "afdb"]
    known = [cuts[place].labels != UNUSED for place in of_afdb]
    divisor = temperature(
        np.concatenate([raw[place][used] for place, used in zip(of_afdb, known, strict=True)]),
        np.concatenate([cuts[place].labels[used] == AF for place, used in zip(of_afdb, known, strict=True)]),
    )
    scored = [Scored(rhythm, cut, _sigmoid(logit / divisor)) for (rhythm, _), cut, logit in zip(pairs, cuts, raw, strict=True)]
    figures = {name: report([record for record in scored if record.rhythm.database == name]) for name in ("afdb", "nsr2db")}
    partly = {
        str(filled): se_sp(
            [
                window_counts(Scored(rhythm, cut, _sigmoid(logits(network, _features(cut, filled)) / divisor)))
                for rhythm, network in pairs
                if rhythm.database == "afdb"
                for cut in [windows(rhythm, 4 * STEP)]
            ]
        )
        for filled in FILLED
    }
    return divisor, figures | {"afdb_by_valid_intervals": partly}


def report(scored: Sequence[Scored]) -> dict[str, Any]:
    """The figures of one database."""
    known = [record.windows.labels != UNUSED for record in scored]
    probability = np.concatenate([record.probability[used] for record, used in zip(scored, known, strict=True)])
    is_af = np.concatenate([record.windows.labels[used] == AF for record, used in zip(scored, known, strict=True)])
    return {
        "windows": se_sp([window_counts(record) for record in scored]),
        "windows_at_on_threshold": se_sp([window_counts(record, ON_THRESHOLD) for record in scored]),
        "ece": expected_calibration_error(probability, is_af),
        **score(scored, ON_THRESHOLD, OFF_THRESHOLD),
        "records": {
            record.rhythm.name: se_sp([window_counts(record)]) | {"alerts": alert_count(record, ON_THRESHOLD, OFF_THRESHOLD)}
            for record in scored
        },
    }


def write_manifest(release: Path) -> None:
    """Size and SHA-256 of every released file; the agent refuses bytes that differ."""
    files = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in sorted(release.iterdir())
        if path.suffix in {".onnx", ".json", ".md"} and path.name != "manifest.json"
    }
    (release / "manifest.json").write_text(json.dumps({"release": 1, "files": files}, indent=1) + "\n")


def _others(groups: Sequence[Sequence[Rhythm]], place: int) -> list[Rhythm]:
    return [rhythm for other, group in enumerate(groups) if other != place for rhythm in group]


def _features(cut: Windows, filled: int = WINDOW) -> NDArray[np.float32]:
    valid = np.broadcast_to(np.arange(WINDOW) >= WINDOW - filled, cut.rr_s.shape)
    return rr_features(cut.rr_s, valid)


def _sample(rhythms: Sequence[Rhythm]) -> NDArray[np.float32]:
    return np.concatenate([_features(windows(rhythm, 50 * STEP)) for rhythm in rhythms])


def _released(model: RrAf, rhythms: Sequence[Rhythm]) -> list[Scored]:
    cuts = [windows(rhythm, STEP) for rhythm in rhythms]
    return [
        Scored(rhythm, cut, model.probabilities(cut.rr_s, np.ones(cut.rr_s.shape, np.bool_)))
        for rhythm, cut in zip(rhythms, cuts, strict=True)
    ]


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logit))


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(part) for key, part in value.items()}
        case _:
            return value


if __name__ == "__main__":
    main()
