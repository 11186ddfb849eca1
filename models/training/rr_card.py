"""The label of `rr_af`: what it is for, what it was trained on, and how it fared; as data and as a page to read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from models.recordings.rhythms import Rhythm

PURPOSE: Final = (
    "Tells atrial fibrillation from other rhythms by the last 64 RR (or PP) intervals, of which at least 24 must be valid. "
    "It draws a clinician's attention to a stretch of recording; it makes no diagnosis. Not a medical device."
)
DATA: Final = {
    "afdb": "MIT-BIH Atrial Fibrillation Database: 17 of its records, beats by a detector and not audited, 250 Hz, ODC-By 1.0. "
    "Moody GB, Mark RG. A new method for detecting atrial fibrillation using R-R intervals. Comput Cardiol 10:227-230, 1983.",
    "nsr2db": "Normal Sinus Rhythm RR Interval Database: 27 of its records, 128 Hz, as more negatives, ODC-By 1.0.",
    "physionet": "Both: Goldberger AL et al. PhysioBank, PhysioToolkit, and PhysioNet. Circulation 101(23):e215-e220, 2000.",
}
LABELS: Final = (
    "A window is AF when most of its beats lie in (AFIB. Windows that are mostly flutter, (AFL, neither train nor count; the "
    "share of them called AF is given apart."
)
AUGMENTATION: Final = (
    "Training windows: rate scaled by 0.85 to 1.2, beat times dithered over their tick, jitter of 1 to 6 ms, up to 6 % of "
    "beats missed and 5 % false, up to 25 % of intervals lost, half of the windows filled with 24 to 64 intervals only, times "
    "in ticks of 1/1024 s. Those without AF also get respiratory arrhythmia, premature beats (every 2nd to 5th, scattered, in "
    "couplets; any coupling and pause) and blocked beats."
)
KNOWN_FAILURES: Final = (
    "Frequent ectopic beats of varying coupling without AF (mitdb 106, 208, 223): mark the intervals at ectopic beats as not "
    "valid where beats are classified.",
    "AF with regular ventricular response (AV block, pacing, rate control) and flutter with fixed conduction are missed.",
    "Flutter with varying conduction and multifocal atrial tachycardia look like AF.",
    "With 24 of 64 intervals it finds 6 % fewer AF windows than with all; short episodes suffer (afdb 04048, 05091).",
    "Where a detector misses many beats (ltafdb 112, 208: up to nine in ten are not in the .qrs file), so does it.",
    "Windows of afdb fall short of the goal of Se 97 % and Sp 98 %; one error in six is a window in which the rhythm changes.",
    "The patients are few (17 with AF), all adults, on two-channel Holter recorders.",
)


def describe(groups: Sequence[Sequence[Rhythm]], facts: Mapping[str, str]) -> dict[str, Any]:
    """What holds whatever the figures are."""
    return {
        "name": facts["name"],
        "version": facts["version"],
        "intended_use": PURPOSE,
        "data": DATA,
        "labels": LABELS,
        "augmentation": AUGMENTATION,
        "folds": [[f"{rhythm.database}/{rhythm.name}" for rhythm in group] for group in groups],
        "thresholds": {"on": float(facts["on_threshold"]), "off": float(facts["off_threshold"]), "shortest_s": 30.0},
        "known_failures": list(KNOWN_FAILURES),
    }


def markdown(card: Mapping[str, Any]) -> str:
    """The card as a page."""
    training, parity, tested = card["training"], card["int8_parity"], card["cross_validation"]
    thresholds = card["thresholds"]
    lines = [
        f"# {card['name']} {card['version']}: atrial fibrillation from RR intervals",
        card["intended_use"],
        "## Data",
        *(f"- {text}" for text in card["data"].values()),
        card["labels"],
        card["augmentation"],
        "## Network",
        f"{training['parameters']} weights, five convolutions and two dense layers, int8, {card['size_bytes']} bytes; "
        f"{training['steps']} steps of AdamW, seed {training['seed']}; temperature {training['temperature']}.",
        *(_parity(name, figures) for name, figures in parity.items()),
        f"An episode begins at p ≥ {thresholds['on']}, ends at p < {thresholds['off']} and counts from 30 s on.",
        "## Cross-validated by patient, five folds",
        *_figures("afdb", tested["afdb"]),
        *_figures("nsr2db", tested["nsr2db"]),
        "Windows that are only partly filled (afdb):",
        _table(
            ["valid intervals", "Se %", "Sp %"],
            [[filled, row["se"], row["sp"]] for filled, row in tested["afdb_by_valid_intervals"].items()],
        ),
        "## Patients and databases it was not trained on (released int8 model)",
        *_figures("ltafdb", card["not_trained_on"]["ltafdb"]),
        *_figures("mitdb", card["not_trained_on"]["mitdb"]),
        "## Known failures",
        *(f"- {failure}" for failure in card["known_failures"]),
        "## Folds",
        *(f"{place + 1}. {', '.join(group)}" for place, group in enumerate(card["folds"])),
    ]
    return "\n\n".join(lines).replace("\n\n- ", "\n- ").replace(":\n- ", ":\n\n- ") + "\n"


def _parity(name: str, figures: Mapping[str, Any]) -> str:
    agreement, change = 100 * figures["agreement"], figures["largest_change"]
    kind = name.replace("_", " ")
    return f"int8 against float, {figures['windows']} windows {kind}: {agreement:.4g} % equal decisions, |Δp| ≤ {change}."


def _figures(name: str, figures: Mapping[str, Any]) -> list[str]:
    windows, duration, alerts = figures["windows"], figures["duration"], figures["false_alerts_per_patient_day"]
    facts = [
        f"windows: Se {_number(windows['se'])} %, Sp {_number(windows['sp'])} %, flutter called AF "
        f"{_number(windows['flutter_called'])} %; ECE {figures['ece']}",
        f"duration of episodes: Se {_number(duration['se'])} %, Sp {_number(duration['sp'])} %",
    ]
    if figures["latency_s"]:
        found, latency = figures["episodes_10min"], figures["latency_s"]
        facts.append(
            f"{found['count']} true episodes of 10 min or more: found {found['se']} %, after {latency['median']} s (median), "
            f"{latency['p95']} s (95th percentile)"
        )
    if alerts:
        facts.append(
            f"false alerts per day of a patient without AF: mean {alerts['mean']}, median {alerts['median']}, 95th percentile "
            f"{alerts['p95']}; none in {alerts['share_zero']} % of them"
        )
    rows = [
        [record, row["se"], row["sp"], row["alerts"]["af"], row["alerts"]["flutter"], row["alerts"]["false"]]
        for record, row in figures["records"].items()
    ]
    table = _table(["record", "Se %", "Sp %", "alerts in AF", "in flutter", "false"], rows)
    return [f"### {name}", "\n".join(f"- {fact}" for fact in facts), table]


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_number(cell) for cell in line) + " |" for line in lines)


def _number(value: Any) -> str:
    return "–" if value is None else str(value)
