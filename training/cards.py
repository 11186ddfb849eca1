"""Model cards: intended use, training data, measured performance and known failures, as JSON and as a Markdown page."""

import json
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
    "nsr2db": "Normal Sinus Rhythm RR Interval Database, ODC-By 1.0.",
    "cinc2017": "PhysioNet/CinC Challenge 2017, ODC-By 1.0. Clifford GD et al. Comput Cardiol 44, 2017.",
    "nstdb": "MIT-BIH Noise Stress Test Database, ODC-By 1.0. Moody GB, Muldrow WE, Mark RG. Comput Cardiol 11:381-384, 1984.",
    "bidmc": "BIDMC PPG and Respiration Dataset, ODC-By 1.0. Pimentel MAF et al. IEEE Trans Biomed Eng 64(8):1914-1923, 2016.",
    "welltory-ppg": "Welltory PPG dataset, CC0.",
    "physionet": "PhysioNet: Goldberger AL et al. Circulation 101(23):e215-e220, 2000.",
}

_DIGITS: Final = 4


class CardError(ValueError):
    """A section of a card is missing or unknown."""


def write_card(release: Path, card: Mapping[str, Any]) -> None:
    """Write `<name>.json` and `<name>.md`, with numbers rounded to four digits.

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
    """Return the same value with every number rounded to four digits and NaN replaced by None, which JSON can represent."""
    match value:
        case float() if isnan(value):
            return None
        case float():
            return float(f"{value:.{_DIGITS}g}")
        case Mapping():
            return {str(key): round_numbers(part) for key, part in value.items()}
        case str() | None | bool() | int():
            return value
        case Sequence():
            return [round_numbers(part) for part in value]
        case _:
            return round_numbers(value.item())


def markdown(card: Mapping[str, Any]) -> str:
    """Return the card as a Markdown page. Mappings whose rows are all mappings of simple values become tables, others lists."""
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
        return True
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
    return key.replace("_", " ")


def _cell(value: Any) -> str:
    match value:
        case None:
            return "–"
        case list():
            return ", ".join(map(_cell, value))
        case Mapping():
            return "; ".join(f"{_label(key)} {_cell(part)}" for key, part in value.items())
        case _:
            return str(value)
