"""Perturbations of recordings for robustness tests: added noise, lost packets, other sampling rates."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from evaluation.noise import SNR_DB, add_noise, load_noise
from evaluation.records import EvaluationError

Samples = NDArray[np.float64]

DROPPED_PERCENT: Final = (1, 2, 5, 10, 20)
PACKET_S: Final = 73 / 130
"""Length of one notification of a chest strap: 73 samples at 130 Hz."""

RATES_HZ: Final = (128, 130, 250, 256, 300, 500)


@dataclass(frozen=True, slots=True)
class Ecg:
    """One lead: `mv` (n,) with NaN where samples are missing; `qrs_mv` is the mean peak-to-peak amplitude of QRS complexes."""

    name: str
    mv: Samples
    rate_hz: float
    qrs_mv: float


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One way to change a recording. `path` is the place of its figures in the report, empty for the unchanged recording."""

    path: tuple[str, ...]
    change: Callable[[Ecg], Ecg]


AS_RECORDED: Final = Perturbation((), lambda ecg: ecg)


def list_perturbations(noise_folder: Path | None, *, drop: bool, fs: bool) -> list[Perturbation]:
    """Returns `AS_RECORDED` and every perturbation asked for; noise if there is a folder for it.

    Raises:
        EvaluationError: the noise records or scipy are missing.
    """
    chosen = [AS_RECORDED]
    try:
        if noise_folder is not None:
            chosen += _noise_perturbations(noise_folder)
        if drop:
            chosen += [Perturbation(("drop", f"{percent}"), drop_packets(percent)) for percent in DROPPED_PERCENT]
        if fs:
            chosen += [Perturbation(("fs", f"{rate_hz}"), _resampling(rate_hz)) for rate_hz in RATES_HZ]
    except ImportError as error:
        raise EvaluationError(
            f"--noise and --fs need {error.name}: run make setup, or install pulsegate with the extra evaluate"
        ) from error
    return chosen


def find_noise(data: Path) -> Path:
    """Returns the folder `noise` with BW.mat, EM.mat and MA.mat, in the data folder or beside it.

    Raises:
        EvaluationError: there is no such folder.
    """
    for folder in (data, data / "noise", data.resolve().parent / "noise"):
        if (folder / "BW.mat").exists():
            return folder
    raise EvaluationError(f"no noise/BW.mat in {data} or beside it: give its folder, as in --noise ../shared/data/noise")


def _noise_perturbations(folder: Path) -> Iterator[Perturbation]:
    try:
        noise = load_noise(folder)
    except (OSError, ValueError, TypeError) as error:
        raise EvaluationError(f"cannot read the noise in {folder}: {error}; fetch BW.mat, EM.mat and MA.mat again") from error

    def adding(kind: str, snr_db: int, noise: Mapping[str, Samples]) -> Callable[[Ecg], Ecg]:
        return lambda ecg: replace(ecg, mv=add_noise(ecg.mv, ecg.rate_hz, noise, kind, snr_db, ecg.qrs_mv, ecg.name))

    for kind in noise:
        for snr_db in SNR_DB:
            yield Perturbation(("noise", kind, f"{snr_db}"), adding(kind, snr_db, noise))


def drop_packets(percent: int, draw: int = 0) -> Callable[[Ecg], Ecg]:
    """Returns a change that drops this percentage of the packets of 73 samples at 130 Hz; each `draw` drops other packets."""

    def change(ecg: Ecg) -> Ecg:
        seed = f"{ecg.name} {percent} {draw}" if draw else f"{ecg.name} {percent}"
        lost = lost_samples(ecg.mv.size, ecg.rate_hz, percent / 100, seed)
        return replace(ecg, mv=np.where(lost, np.nan, ecg.mv))

    return change


def lost_samples(count: int, rate_hz: float, share: float, seed: str) -> NDArray[np.bool_]:
    """Returns which samples lie in lost packets, shape (count,): a share of all packets, drawn at random by `seed`."""
    size = max(round(PACKET_S * rate_hz), 1)
    packets = -(-count // size)
    lost = np.zeros(packets, np.bool_)
    lost[np.random.default_rng(crc32(seed.encode())).permutation(packets)[: round(share * packets)]] = True
    return np.repeat(lost, size)[:count]


def _resampling(rate_hz: int) -> Callable[[Ecg], Ecg]:
    from evaluation.resampling import resampled  # noqa: PLC0415  needs scipy

    return lambda ecg: replace(ecg, mv=resampled(ecg.mv, ecg.rate_hz, rate_hz), rate_hz=float(rate_hz))
