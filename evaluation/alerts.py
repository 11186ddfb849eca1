"""`pulsegate evaluate alerts`: episode statistics of every kind of alert, from the ECG through the code of the live agent."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from captures import RecordingError, open_recording
from config.contexts import NO_CONTEXTS, Contexts
from config.limit_profiles import cinc2015_limits
from config.limits import DEFAULT_LIMITS, Limits
from evaluation.alarms_2015 import ALARM_S, ALARMS_FILE, Alarm, Verdict, challenge_report, judge_alarm, read_alarms
from evaluation.alert_lines import AlertLine, trace_alerts
from evaluation.alert_noise import NoiseLevel, add_alert_noise
from evaluation.alert_scores import RecordScore, pool_scores, score_record
from evaluation.alert_strips import draw_outside_alerts
from evaluation.alert_truth import read_truth
from evaluation.records import RECORD_ERRORS, EvaluationError, has_signals, open_complete
from models.inference.models import Models

PROCESSES: Final = 2

Samples = NDArray[np.float64]


class Playback(NamedTuple):
    """What the agent is to play. Without `ends`, the stream is cut off, so nothing is decided by its end."""

    mv: Samples
    rate_hz: float
    limits: Limits
    models: Models
    contexts: Contexts = NO_CONTEXTS
    ends: bool = True


Play = Callable[[Playback], Sequence[AlertLine]]
"""Plays samples through the pipeline of the live agent and returns its alerts."""


class EcgRecord(NamedTuple):
    """An annotated record, or one with a bedside alarm. The name is `database/record`."""

    name: str
    header: Path
    alarm: Alarm | None = None


def no_contexts(name: str) -> Contexts:
    """Returns what is known of a record's patient: nothing."""
    del name
    return NO_CONTEXTS


@dataclass(frozen=True, slots=True)
class AlertRun:
    """How records are played. With more than one process, every part must be picklable.

    Attributes:
        models_for_record: the models for a record's name: those of the release, or of the fold that did not learn from it.
        contexts_for_record: what is known of the patient; nothing by default.
        noise: the noise to be added; None for the signal as recorded.
        strips: a folder for pictures of the high alerts outside; None for no pictures.
    """

    play: Play
    models_for_record: Callable[[str], Models]
    limits: Limits = DEFAULT_LIMITS
    contexts_for_record: Callable[[str], Contexts] = no_contexts
    noise: NoiseLevel | None = None
    strips: Path | None = None


def find_alert_records(data: Path, databases: Sequence[str] = ()) -> list[EcgRecord]:
    """Returns the records with signals and annotations, and those of ALARMS files, in `data` or in the folders in it.

    Args:
        data: the folder of one database, or a folder of databases.
        databases: names of folders; empty for all.

    Raises:
        EvaluationError: there is no such record.
    """
    inner = sorted(path for path in data.iterdir() if path.is_dir() and (not databases or path.name in databases))
    records = [record for folder in ((data,) if not databases else ()) for record in _records_in(folder)]
    records = records or [record for folder in inner for record in _records_in(folder)]
    if not records:
        raise EvaluationError(
            f"no ECG records with annotations (.hea, .dat, .atr) and no ALARMS file in {data} or the folders in it:"
            " give the folder that holds them"
        )
    return records


def _records_in(folder: Path) -> list[EcgRecord]:
    database = folder.resolve().name
    if (folder / ALARMS_FILE).is_file():
        return [EcgRecord(f"{database}/{alarm.header.stem}", alarm.header, alarm) for alarm in read_alarms(folder)]
    return [
        EcgRecord(f"{database}/{header.stem}", header)
        for header in sorted(folder.glob("*.hea"))
        if header.with_suffix(".atr").exists() and has_signals(header)
    ]


def evaluate_alerts(
    records: Sequence[EcgRecord], run: AlertRun, progress: Progress, processes: int = PROCESSES
) -> dict[str, Any]:
    """Returns the report: episodes, false alerts and latencies over all records and by database; `score` for alarms.

    Raises:
        EvaluationError: no record can be played.
    """
    skipped: dict[str, str] = {}
    scores: dict[str, RecordScore] = {}
    verdicts: dict[str, Verdict] = {}
    label = f"alerts, {run.noise.name}" if run.noise else "alerts"
    for name, result in progress.track(_play_records(records, run, processes), total=len(records), description=label):
        match result:
            case str():
                skipped[name] = result
            case Verdict():
                verdicts[name] = result
            case RecordScore():
                scores[name] = result
    if not scores and not verdicts:
        name, reason = next(iter(skipped.items()))
        raise EvaluationError(f"no record can be evaluated; {name}: {reason}")
    report: dict[str, Any] = {"task": "alerts"}
    if scores:
        report |= pool_scores(scores)
        names = sorted({name.split("/")[0] for name in scores})
        of_database = {key: {n: s for n, s in scores.items() if n.split("/")[0] == key} for key in names}
        report["databases"] = {key: pool_scores(part) for key, part in of_database.items()}
        report["records"] = {name: pool_scores({name: score}) for name, score in scores.items()}
    if verdicts:
        report |= {"cinc2015": challenge_report(verdicts)}
        report["score"] = report["cinc2015"]["score"]
    return report | {"skipped": skipped}


Result = RecordScore | Verdict | str
"""What came of a record; a text says why it could not be played."""


def _play_records(records: Sequence[EcgRecord], run: AlertRun, processes: int) -> Iterator[tuple[str, Result]]:
    names = [record.name for record in records]
    if processes == 1 or len(records) == 1:
        yield from zip(names, (play_record(record, run) for record in records), strict=True)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from zip(names, pool.map(partial(play_record, run=run), records), strict=True)


def play_record(record: EcgRecord, run: AlertRun) -> Result:
    """Plays one record and scores its alerts; a record that cannot be read gives the reason."""
    try:
        return _play_to_alarm(record, record.alarm, run) if record.alarm else _score_episodes(record, run)
    except RECORD_ERRORS as error:
        return " ".join(f"{error}".split()) or type(error).__name__


def _score_episodes(record: EcgRecord, run: AlertRun) -> RecordScore:
    recording = open_complete(record.header)
    rate_hz, database = recording.rate_hz, record.name.split("/")[0]
    duration_s = recording.mv.size / rate_hz
    truth = read_truth(record.header.with_suffix(".atr"), rate_hz, duration_s, database)
    mv = add_alert_noise(record.header, recording.mv, rate_hz, run.noise) if run.noise else recording.mv
    alerts = trace_alerts(run.play(_playback(record, mv, rate_hz, run)), duration_s)
    score = score_record(alerts, truth, duration_s)
    if run.strips:
        draw_outside_alerts(run.strips, record.name, mv, rate_hz, score.outside)
    return score


def _play_to_alarm(record: EcgRecord, alarm: Alarm, run: AlertRun) -> Verdict:
    """Plays the record up to the alarm, with the Challenge's limits."""
    recording = open_recording(record.header)
    mv = recording.mv[: round(ALARM_S * recording.rate_hz)]
    if mv.size < round(ALARM_S * recording.rate_hz):
        raise RecordingError(f"{record.header}: ends before the alarm at {ALARM_S:g} s; fetch the record again")
    playback = _playback(record, mv, recording.rate_hz, replace(run, limits=cinc2015_limits()))
    lines = run.play(playback._replace(ends=False))
    return judge_alarm(trace_alerts(lines, ALARM_S), alarm)


def _playback(record: EcgRecord, mv: Samples, rate_hz: float, run: AlertRun) -> Playback:
    return Playback(mv, rate_hz, run.limits, run.models_for_record(record.name), run.contexts_for_record(record.name))
