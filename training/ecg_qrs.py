"""Train, quantize and release `ecg_qrs`: `python -m training.ecg_qrs --data DIR`.

The bumps that it learns from depend on who decides while the detector runs. In the first round it is the truth, in each later
one the network of the round before, so that it learns to go on after its own errors.

Takes a quarter of an hour on one core. What an interrupted run has done, bumps and networks, is taken from `--runs`.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from evaluation.statistics import best_temperature
from models.inference.ecg_qrs import EcgQrs
from models.inference.release import RELEASE_DIR
from training import qrs_check as check
from training import qrs_data, qrs_net
from training.cards import write_card
from training.cinc import load_cinc
from training.fit import Schedule, fitted
from training.qrs_card import describe
from training.qrs_data import Bumps, Group, clean_recordings, collected, joined
from training.qrs_net import QrsNet, batches, loss, parameters, to_onnx
from training.qrs_premature import ventricular
from training.quantize import Parity, quantize, run
from training.sources import code

NAME: Final = "ecg_qrs"
VERSION: Final = "3"
SEED: Final = 31_700
TIMES: Final = (1, 2)
"""That each recording is met in a round, each time in other noise."""

STEPS: Final = (3500, 14_000)
"""Of gradient descent, a round: each has the bumps of the one before too, and the last one's network is released."""

HELD_OUT: Final = 10
"""Every tenth recording is held out of all rounds, for the temperature and the figures."""

FLOAT_NODES: Final = ("convolution0", "convolution1", "convolution2", "hidden1", "output")
"""Layers that stay float, a quarter of the weights: as int8 they would bring most of the error and, so small, take longer."""

CALIBRATION: Final = 1500
"""Bumps that the ranges of int8 are taken from."""

HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Setting:
    """Where everything lies, and what is learnt from."""

    data: Path
    runs: Path
    learnt: Group
    held_out: Group


def main() -> None:
    """Write the model and its card."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds mitdb, noise and the archive of CinC 2017")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where bumps and networks are kept")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    train(chosen.data, chosen.runs, chosen.release)


def train(data: Path, runs: Path, release: Path) -> None:
    """Everything from recordings to released files."""
    with Progress() as progress:
        setting = _setting(data, runs, progress)
        network, judge, learnt = _rounds(setting, progress)
        unseen = collected(setting.held_out, SEED + len(STEPS), data, judge, runs / "held_out.npz", progress)
        temperature = best_temperature(_two_classes(network, unseen), unseen.beats.astype(np.int64))
        float_model, int8_model = runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx"
        to_onnx(network, temperature, {"name": NAME, "version": VERSION}, float_model)
        quantize(float_model, int8_model, _calibration(learnt), FLOAT_NODES, float_sums=True)
    card = {
        "name": NAME,
        "version": VERSION,
        **describe(len(setting.learnt.records), len(setting.held_out.records)),
        "training": {
            "seed": SEED,
            "steps": list(STEPS),
            "parameters": parameters(network),
            "size_bytes": int8_model.stat().st_size,
            "bumps": len(learnt.beats),
            "share_of_beats": float(learnt.beats.mean()),
        },
        "calibration": {"temperature": temperature, "chosen_on": "bumps of the recordings held out, by cross-entropy"},
        "int8_parity": asdict(_parity(float_model, int8_model, unseen)) | _moved(float_model, int8_model, unseen),
        **check.figures(data, unseen, run(int8_model, unseen.values), EcgQrs(int8_model.read_bytes())),
    }
    write_card(release, card)


def _setting(data: Path, runs: Path, progress: Progress) -> Setting:
    """Recordings learnt from and held out, each with the ventricular beats in them."""
    clean = clean_recordings(load_cinc(data, progress))
    held_out = clean[::HELD_OUT]
    names = {record.name for record in held_out}
    learnt = [record for record in clean if record.name not in names]
    groups = (Group(records, ventricular(records, progress)) for records in (learnt, held_out))
    return Setting(data, runs, *groups)


def _rounds(setting: Setting, progress: Progress) -> tuple[QrsNet, bytes, Bumps]:
    """The last round's network, the judge that its bumps were met with, and the bumps that it learnt from."""
    judge: bytes | None = None
    network: QrsNet | None = None
    before: list[Bumps] = []
    for place, times in enumerate(TIMES):
        group = replace(setting.learnt, records=setting.learnt.records * times)
        bumps = collected(group, SEED + place, setting.data, judge, setting.runs / f"bumps{place}.npz", progress)
        learnt = joined([*before[-1:], bumps])
        before.append(bumps)
        network = _fitted(setting, learnt, place, progress)
        file = setting.runs / f"round{place}.onnx"
        to_onnx(network, 1.0, {"name": NAME, "version": VERSION}, file)
        judge = file.read_bytes()
    assert network is not None
    assert judge is not None
    return network, judge, learnt


def _fitted(setting: Setting, learnt: Bumps, place: int, progress: Progress) -> QrsNet:
    recipe = {
        "seed": SEED + place,
        "steps": list(STEPS[: place + 1]),
        "records": [record.name for record in setting.learnt.records],
        "code": code(qrs_net, qrs_data) + qrs_data.digest(),
    }
    stream = lambda: batches(learnt, SEED + place)  # noqa: E731
    schedule = Schedule(STEPS[place])
    network: QrsNet = fitted(setting.runs / f"round{place}.pt", QrsNet, stream, loss, schedule, recipe, progress)
    return network


def _two_classes(network: QrsNet, bumps: Bumps) -> NDArray[np.float64]:
    """Logits of no beat and beat, (n, 2)."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(bumps.values))[:, 0].numpy().astype(np.float64)
    return np.stack((np.zeros_like(logits), logits), -1)


def _calibration(bumps: Bumps) -> NDArray[np.float32]:
    return bumps.values[np.random.default_rng(SEED).permutation(len(bumps.beats))[:CALIBRATION]]


def _parity(float_model: Path, int8_model: Path, bumps: Bumps) -> Parity:
    one, other = (run(path, bumps.values)[:, 0] for path in (float_model, int8_model))
    return Parity(float(np.mean((one >= 0.5) == (other >= 0.5))), float(np.abs(one - other).max()), len(one))


def _moved(float_model: Path, int8_model: Path, bumps: Bumps) -> dict[str, Any]:
    beats = bumps[bumps.beats > 0]
    one, other = (run(path, beats.values)[:, 1] for path in (float_model, int8_model))
    moved_ms = 1000 * qrs_data.UNIT_S * np.abs(one - other)
    return {"r_peak_moved_ms": {"mean": float(moved_ms.mean()), "99 %": float(np.percentile(moved_ms, 99))}}


if __name__ == "__main__":
    main()
