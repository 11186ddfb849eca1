"""Scores alerts as the PhysioNet/CinC Challenge 2015 scored verdicts on bedside alarms (Clifford et al. 2015).

Each record holds one alarm of a bedside monitor at 5:00. The agent plays the lead in real time. It calls the alarm true if an
alert of the alarm's kind is open at some moment of the 10 s before it: EC13 demands an alarm within 10 s of the onset.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from captures.files import read_file
from evaluation.alert_lines import RaisedAlert
from evaluation.records import EvaluationError, interval, percent

ALARMS_FILE: Final = "ALARMS"
ALARM_S: Final = 300.0
"""The alarm is at sample 75,000 at 250 Hz; what follows is not played."""
BEFORE_S: Final = 10.0
MISSED_WEIGHT: Final = 5
"""The Challenge counts a suppressed true alarm five times."""

ALARM_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "Asystole": frozenset({"asystole", "no_beats", "pause"}),
    "Bradycardia": frozenset({"bradycardia"}),
    "Tachycardia": frozenset({"tachycardia", "vt", "vf"}),
    "Ventricular_Tachycardia": frozenset({"vt"}),
    "Ventricular_Flutter_Fib": frozenset({"vf"}),
}
"""The kinds of alerts that confirm an alarm. With the Challenge's limits a `pause` lasts as long as an asystole. A ventricular
tachycardia is one alert: none is raised for its rate."""


class Alarm(NamedTuple):
    """One record: its header, the kind of its alarm, and whether experts called it true."""

    header: Path
    kind: str
    is_true: bool


class Verdict(NamedTuple):
    """What the agent called an alarm; `is_lasting`: without alerts that only waited for their next episode."""

    kind: str
    is_true: bool
    is_called: bool
    is_lasting: bool

    @property
    def outcome(self) -> str:
        """`tp`, `fp`, `fn` or `tn`."""
        return ("t" if self.is_true == self.is_called else "f") + ("p" if self.is_called else "n")


def read_alarms(folder: Path) -> list[Alarm]:
    """Returns the records of a folder with an ALARMS file.

    Raises:
        EvaluationError: a line is not record, kind, 1 or 0.
        OSError: the file cannot be read.
    """
    alarms = []
    for row in csv.reader(read_file(folder / ALARMS_FILE).decode("utf-8", "replace").splitlines()):
        if not row:
            continue
        if len(row) != 3 or row[1] not in ALARM_KINDS or row[2] not in ("0", "1"):
            raise EvaluationError(f"{folder / ALARMS_FILE}: {','.join(row)[:80]!r} is not RECORD,KIND,0 or 1; fetch it again")
        alarms.append(Alarm(folder / f"{row[0]}.hea", row[1], row[2] == "1"))
    return alarms


def judge_alarm(alerts: Iterable[RaisedAlert], alarm: Alarm) -> Verdict:
    """Returns whether an alert of the alarm's kind was open within 10 s before the alarm."""
    spans = [
        span
        for alert in alerts
        for span in alert.opened
        if span.kind in ALARM_KINDS[alarm.kind] and span.end_s >= ALARM_S - BEFORE_S and span.start_s <= ALARM_S
    ]
    return Verdict(alarm.kind, alarm.is_true, bool(spans), any(span.lasts for span in spans))


def challenge_report(verdicts: Mapping[str, Verdict]) -> dict[str, Any]:
    """Returns the Challenge's score in percent, over all alarms and by kind of alarm."""
    every = list(verdicts.values())
    return {
        "score": _score(every),
        "score_95": interval(every, _score),
        "score_lasting": _score([verdict._replace(is_called=verdict.is_lasting) for verdict in every]),
        **_counts(every),
        "alarms": {
            kind: {"score": _score(chosen), **_counts(chosen)}
            for kind in ALARM_KINDS
            if (chosen := [verdict for verdict in every if verdict.kind == kind])
        },
        "records": {
            name: {"alarm": verdict.kind, "true": verdict.is_true, "called": verdict.is_called}
            for name, verdict in verdicts.items()
        },
    }


def _counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    counts = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counts[outcome] for outcome in ("tp", "tn", "fp", "fn")}


def _score(verdicts: Iterable[Verdict]) -> float | None:
    counts = _counts(verdicts)
    right = counts["tp"] + counts["tn"]
    return percent(right, right + counts["fp"] + MISSED_WEIGHT * counts["fn"])
