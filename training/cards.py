"""Model cards: intended use, training data, measured performance and known failures, as JSON and as a Markdown page."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

SECTIONS: Final = (
    "name",
    "version",
    "intended_use",
    "not_a_medical_device",
    "inputs",
    "outputs",
    "data",
    "splits",
    "training",
    "calibration",
    "figures",
    "per_record",
    "subgroups",
    "robustness",
    "int8_parity",
    "coverage",
    "attempts",
    "known_failures",
)
"""The sections of a card, in this order. Every card has all of them; only `attempts` (variants tried, with their results) is
optional."""

NOT_A_DEVICE: Final = (
    "Not a medical device. It draws a clinician's attention to a stretch of recording. It makes no diagnosis and must not be "
    "the only basis for treatment."
)
INT8_STORAGE: Final = (
    "int8 describes how values are stored: the quantized layers hold weights and activations as int8 (QDQ). With the CPU "
    "kernels of onnxruntime most layers convert them back and compute in float."
)
DETECTOR_TUNING: Final = (
    "About 70 constants of the QRS detector were chosen by their scores on mitdb, so detection figures on mitdb are optimistic."
)
LICENCES: Final[Mapping[str, str]] = {
    "mitdb": "MIT-BIH Arrhythmia Database, ODC-By 1.0. Moody GB, Mark RG. IEEE Eng Med Biol 20(3):45-50, 2001.",
    "afdb": "MIT-BIH Atrial Fibrillation Database, ODC-By 1.0. Moody GB, Mark RG. Comput Cardiol 10:227-230, 1983.",
    "ltafdb": "Long-Term AF Database, ODC-By 1.0. Petrutiu S, Sahakian AV, Swiryn S. Europace 9(7):466-470, 2007.",
    "svdb": "MIT-BIH Supraventricular Arrhythmia Database, ODC-By 1.0. Greenwald SD et al. Comput Cardiol 17:461-464, 1990.",
    "nsrdb-2h": "MIT-BIH Normal Sinus Rhythm Database, ODC-By 1.0.",
    "nsr2db": "Normal Sinus Rhythm RR Interval Database, ODC-By 1.0.",
    "cinc2017": "PhysioNet/CinC Challenge 2017, ODC-By 1.0. Clifford GD et al. Comput Cardiol 44, 2017.",
    "cinc2015": "PhysioNet/CinC Challenge 2015, ODC-By 1.0. Clifford GD et al. Comput Cardiol 42:273-276, 2015.",
    "cudb": "CU Ventricular Tachyarrhythmia Database, ODC-By 1.0. Nolle FM et al. Comput Cardiol 13:515-518, 1986.",
    "vfdb": "MIT-BIH Malignant Ventricular Ectopy Database, ODC-By 1.0. Greenwald SD. MIT thesis, 1986.",
    "nstdb": "MIT-BIH Noise Stress Test Database, ODC-By 1.0. Moody GB, Muldrow WE, Mark RG. Comput Cardiol 11:381-384, 1984.",
    "bidmc": "BIDMC PPG and Respiration Dataset, ODC-By 1.0. Pimentel MAF et al. IEEE Trans Biomed Eng 64(8):1914-1923, 2016.",
    "welltory-ppg": "Welltory PPG dataset, CC0.",
    "physionet": "PhysioNet: Goldberger AL et al. Circulation 101(23):e215-e220, 2000.",
}

LABELS: Final[Mapping[str, str]] = {
    "af_by_pulses": "AF probability by pulses",
    "af_by_reference": "AF probability by reference",
    "all_time": "all windows",
    "answered_percent": "recordings answered, percent",
    "auc_noise_against_rest": "AUC of recordings labelled noise against all others",
    "beat_f1_where_not_bad": "beat F1 in windows not called bad",
    "beats_only": "beats_only",
    "beats_with_intact_shape": "beats with intact shape, percent",
    "burden_found_percent": "AF burden found, percent",
    "burden_percent": "AF burden annotated, percent",
    "by_duration (afdb, cross-validated)": "by duration (afdb, cross-validated)",
    "bytes": "size of the file in bytes",
    "called_by_pulses": "records called AF by pulses",
    "called_by_reference": "records called AF by reference",
    "change_of_f1_mean": "change of mean F1 (0 to 1)",
    "change_of_f1_mean_at_5_percent_lost": "change of mean F1 (0 to 1) with 5 % of packets lost",
    "ci95": "95 % confidence intervals",
    "cinc2017_experts": "CinC 2017, labels of experts",
    "cinc2017_other_than_noise_measured_as_lead_off_percent": "CinC 2017 windows called lead_off although not labelled noise, "
    "percent",
    "classified_as": "classified as, percent of windows",
    "camera, column G": "camera, green channel (column G)",
    "camera, column R": "camera, red channel (column R)",
    "correct_of_answered_percent": "correct among these, percent",
    "duration_95": "95 % confidence intervals by duration",
    "end_delay_s": "delay in s until an end of AF was noticed",
    "episodes_10min": "AF episodes of 10 min or more",
    "f1_beats_only": "F1 beats_only",
    "f1_mean": "mean F1",
    "f1_mean_at_90_percent": "mean F1 of the most confident 90 %",
    "flutter_called": "flutter called AF, percent",
    "float": "figures of the float model on its training records",
    "fraction": "most certain share",
    "gain": "standard deviation of the gain, natural logarithm",
    "high": "upper 95 % limit",
    "int8": "figures of the int8 model on its training records",
    "interval_95": "95 % confidence interval",
    "interval_95_by_patient": "95 % confidence intervals by patient",
    "inverted": "share inverted",
    "low": "lower 95 % limit",
    "latency_s": "latency in s",
    "lowest_probability": "lowest probability of a conclusive answer",
    "mean_95": "95 % interval of the mean",
    "mean_upper_95": "one-sided 95 % upper bound of the mean",
    "median_pp_error_ms_of_a_record": "median PP error of a record in ms",
    "mitdb_experts": "mitdb, notes of experts",
    "muscle noise at 6 dB, detector alone": "F1 at 50 ms with muscle noise at 6 dB, detector alone",
    "muscle noise at 6 dB, with ecg_qrs": "F1 at 50 ms with muscle noise at 6 dB, with ecg_qrs",
    "on_threshold": "probability from which an alert is raised",
    "partly_filled_windows (afdb)": "partly filled windows (afdb)",
    "pp_error_ms": "PP error in ms",
    "pp_error_ms_median": "median PP error in ms",
    "pp_error_ms_p95": "95th percentile of the PP error in ms",
    "pp_error_ms_p95_all_time": "95th percentile of the PP error in ms, all windows",
    "pulse_f1_all_time": "pulse F1, all windows",
    "pulses_held_out": "pulses, held-out figures",
    "pulses_released": "pulses, released network on people that it was trained on",
    "r_peak_error_ms": "error of the R peak in ms, median and 95th percentile",
    "r_peak_moved_ms": "movement of the R peak by int8 in ms, mean and 99th percentile",
    "same_result": "records with the same result, percent",
    "se_95": "95 % interval of Se",
    "share": "most certain share",
    "share_zero": "patients without any, percent",
    "size_bytes": "size of the file in bytes",
    "time_stretch": "largest time stretch, natural logarithm",
    "weights": "class weights",
    "windows_clean": "windows that experts marked clean",
    "windows_held_out": "windows, held-out figures",
    "windows_noisy": "windows that experts marked noisy",
    "windows_with_f1_under_90": "windows with beat F1 under 90 %, percent",
    "within_30_s": "within 30 s, percent",
    "within_30_s_95": "95 % interval of the share within 30 s",
    "without noise, detector alone": "F1 at 50 ms without noise, detector alone",
    "without noise, with ecg_qrs": "F1 at 50 ms without noise, with ecg_qrs",
}
"""Labels on the page of keys that are too short to be understood without the code."""

_ABBREVIATIONS: Final = {
    "af": "AF",
    "auc": "AUC",
    "ece": "ECE",
    "f1": "F1",
    "fn": "FN",
    "fp": "FP",
    "p95": "95th percentile",
    "pp": "PP",
    "ppv": "P+",
    "se": "Se",
    "sp": "Sp",
    "tp": "TP",
}
_ABBREVIATION: Final = re.compile(rf"\b(?:{'|'.join(_ABBREVIATIONS)})\b")
_SIGNIFICANT_DIGITS: Final = 4


class CardError(ValueError):
    """A section of a card is missing or unknown."""


def write_card(release: Path, card: Mapping[str, Any]) -> None:
    """Write `<name>.json` and `<name>.md`, with numbers rounded to four significant digits.

    Raises:
        CardError: a section is missing or unknown.
    """
    wrong = (set(SECTIONS) - {"attempts"} - set(card)) | (set(card) - set(SECTIONS))
    if wrong:
        raise CardError(f"card of {card.get('name', '?')}: missing or unknown sections: {', '.join(sorted(wrong))}")
    ordered = {section: round_numbers(card[section]) for section in SECTIONS if section in card}
    (release / f"{card['name']}.json").write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    (release / f"{card['name']}.md").write_text(markdown(ordered))


def round_numbers(value: Any) -> Any:
    """Return the same value with numbers rounded to four significant digits, and NaN replaced by None as in JSON."""
    match value:
        case float() if isnan(value):
            return None
        case float():
            return float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        case Mapping():
            return {str(key): round_numbers(part) for key, part in value.items()}
        case str() | None | bool() | int():
            return value
        case Sequence():
            return [round_numbers(part) for part in value]
        case _:
            return round_numbers(value.item())


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card as a Markdown page: mappings of rows of simple values become tables, others become lists."""
    lines = [f"# {card['name']} {card['version']}", ""]
    for section, content in card.items():
        if section not in ("name", "version"):
            lines += [f"## {section.replace('_', ' ').capitalize()}", "", *_block(content, 3), ""]
    return "\n".join(lines).rstrip() + "\n"


def _block(content: Any, level: int) -> Iterator[str]:
    match content:
        case Mapping() if _is_table(content):
            yield from _table(content)
        case Mapping():
            simple = {key: part for key, part in content.items() if not _is_nested(part)}
            yield from (f"- {_label(key)}: {_cell(part)}" for key, part in simple.items())
            for key, part in content.items():
                if key not in simple:
                    yield from ("", f"{'#' * min(level, 6)} {_label(key)}", "", *_block(part, level + 1))
        case list():
            yield from (f"- {_cell(part)}" for part in content)
        case _:
            yield _cell(content)


def _is_nested(part: Any) -> bool:
    if isinstance(part, Mapping):
        return bool(part)
    return isinstance(part, list) and any(isinstance(item, (Mapping, list)) or len(str(item)) > 40 for item in part)


def _is_table(content: Mapping[str, Any]) -> bool:
    rows = list(content.values())
    return len(rows) > 1 and all(isinstance(row, Mapping) and row and not any(map(_is_nested, row.values())) for row in rows)


def _table(content: Mapping[str, Any]) -> Iterator[str]:
    columns = list(dict.fromkeys(column for row in content.values() for column in row))
    yield f"| | {' | '.join(map(_label, columns))} |"
    yield "|---" * (len(columns) + 1) + "|"
    for name, row in content.items():
        yield f"| {_label(name)} | {' | '.join(_cell(row.get(column)) for column in columns)} |"


def _label(key: str) -> str:
    """Return the label of a key. Keys with spaces are text already, keys like `bidmc_01` are names of records."""
    is_text = " " in key or re.fullmatch(r"[a-z]+_\d+", key)
    text = LABELS.get(key) or (key if is_text else key.replace("_", " "))
    return _ABBREVIATION.sub(lambda found: _ABBREVIATIONS[found[0]], text)


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(_cell, value))
        case Mapping() if not value:
            return "none"
        case Mapping():
            return "; ".join(f"{_label(key)} {_cell(part)}" for key, part in value.items())
        case _:
            return str(value)
