"""Train, cross-validate, calibrate, quantize and release `ecg_rhythm`: `python -m training.ecg_rhythm --data DIR`.

Takes about half an hour on one core. Networks already trained by this very recipe are taken from `--runs`, so that a run
that was interrupted goes on where it was.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

from models.inference import ecg_rhythm
from models.inference.release import RELEASE_DIR
from training import rhythm_data, rhythm_net
from training.cards import write_card
from training.cinc import Recorded, folds, load_cinc
from training.fit import Schedule, fitted
from training.quantize import quantize
from training.rhythm_card import card
from training.rhythm_data import Example, Sampler, examples
from training.rhythm_equal import equalised
from training.rhythm_net import RhythmNet, to_onnx
from training.rhythm_score import Calibration
from training.rhythm_test import Exported, Tested, parity_figures
from training.sources import code


def soft_cross_entropy(logits: Any, targets: Any) -> Any:
    """Of (n, classes) logits and shares of each class."""
    return -(torch.log_softmax(logits, -1) * targets).sum(-1).mean()


NAME: Final = "ecg_rhythm"
VERSION: Final = "1"
SEED: Final = 20_261
BATCH: Final = 64
SCHEDULE: Final = Schedule(steps=3600, rate=4e-3, decay=2e-2, averaged=0.997, bfloat16=True)
RANGES: Final = 600
"""Training windows that the ranges of int8 are taken from."""

COVERAGE: Final = 0.9
"""Share of the recordings that gets an answer: the least confident rest is inconclusive."""

PLAIN: Final = Calibration(1.0, (0.0,) * len(ecg_rhythm.CLASSES))
SOURCES: Final = (
    RhythmNet,
    rhythm_net.Block,
    rhythm_data,
    soft_cross_entropy,
    ecg_rhythm.features,
    ecg_rhythm._scale_window,
)
HERE: Final = Path(__file__).parent


def main() -> None:
    """Write the model and its card."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, required=True, help="folder that holds cinc2017-dev.tar.xz and noise")
    options.add_argument("--runs", type=Path, default=HERE / "runs" / NAME, help="where trained networks are kept")
    options.add_argument("--release", type=Path, default=RELEASE_DIR)
    options.add_argument("--steps", type=int, default=SCHEDULE.steps, help="of gradient descent, per network")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.release.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        train(chosen.data, chosen.runs, chosen.release, replace(SCHEDULE, steps=chosen.steps), progress)


def train(data: Path, runs: Path, release: Path, schedule: Schedule, progress: Progress) -> None:
    """Everything from recordings to released files."""
    records = load_cinc(data, progress)
    pool = examples(records, data, runs, SEED, progress)
    groups = folds(records)
    facts = {"name": NAME, "version": VERSION, "lowest_probability": "0"}
    exported = []
    for place, group in enumerate(groups):
        others = [record for other in groups if other is not group for record in other]
        network = _fitted(place, others, pool, runs, schedule, progress)
        pair = Exported(runs / f"fold{place}.float.onnx", runs / f"fold{place}.int8.onnx")
        exported.append(_exported(network, PLAIN, facts, pair, _ranges(others, pool)))
    final = _fitted(len(groups), records, pool, runs, schedule, progress)
    tested = Tested.of(exported, groups, progress)
    facts["lowest_probability"] = f"{tested.confidence(COVERAGE):.3f}"
    pair = Exported(runs / f"{NAME}.float.onnx", release / f"{NAME}.onnx")
    _exported(final, tested.calibration, facts, pair, _ranges(records, pool))
    training = {
        "seed": SEED,
        "steps": schedule.steps,
        "batch": BATCH,
        "parameters": rhythm_net.parameters(final),
        "rate": schedule.rate,
        "decay": schedule.decay,
    }
    figures = parity_figures(pair, tested, Sampler([pool[record.name] for record in records], SEED + 101))
    write_card(release, card(facts, training, tested, figures, pair.int8_model.stat().st_size, data, progress))


def _ranges(records: Sequence[Recorded], pool: dict[str, list[Example]]) -> NDArray[np.float32]:
    return Sampler([pool[record.name] for record in records], SEED + 100).batch(RANGES)[0]


def _exported(
    network: RhythmNet, calibration: Calibration, facts: Mapping[str, str], files: Exported, ranges: NDArray[np.float32]
) -> Exported:
    """Both files of one network written."""
    to_onnx(network, calibration, facts, files.float_model)
    like = files.float_model.with_suffix(".equalised.onnx")
    to_onnx(equalised(network, ranges[:200]), calibration, facts, like)
    quantize(like, files.int8_model, ranges, rhythm_net.FLOAT_NODES, float_sums=True)
    return files


def _fitted(
    place: int, records: Sequence[Recorded], pool: dict[str, list[Example]], runs: Path, schedule: Schedule, progress: Progress
) -> RhythmNet:
    """The network of one fold (0 to 4), or of all recordings (5)."""
    sampler = Sampler([pool[record.name] for record in records], SEED + 1 + place)
    recipe: dict[str, Any] = {
        "seed": SEED + 1 + place,
        "records": [record.name for record in records],
        "code": code(*SOURCES),
    }
    network: RhythmNet = fitted(
        runs / f"network{place}.pt", RhythmNet, lambda: sampler.batches(BATCH), soft_cross_entropy, schedule, recipe, progress
    )
    return network


if __name__ == "__main__":
    main()
