"""A pipeline that is fed with results of a cuff and a scale."""

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from config.limits import DEFAULT_LIMITS
from drivers.readings import Origin, Reading, Vital
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from sync.records import AlertRecord, Record, VitalRecord

S, MIN, DAY = 1_000_000, 60_000_000, 86_400_000_000
NOW = round(datetime(2026, 7, 15, 8, 0, tzinfo=UTC).timestamp()) * S
MINE = 1


def pipeline(saved: Any = None, *, slots: Iterable[int] | None = (MINE,)) -> Pipeline:
    saved = json.loads(json.dumps(saved)) if saved else None
    return Pipeline("cuff", DEFAULT_LIMITS, LoadedModels(), saved, slots=slots and tuple(slots), zone=ZoneInfo("UTC"))


def origin(at_us: int, **changes: Any) -> Origin:
    measured = datetime.fromtimestamp(at_us / 1e6, UTC).replace(tzinfo=None)
    return replace(Origin(at_us // S, measured, "set"), **changes)


def pressure(at_us: int, systolic: float = 120.0, diastolic: float = 80.0, *flags: str, **changes: Any) -> list[Reading]:
    spot = origin(at_us, **changes)
    return [
        Vital("systolic", systolic, flags, spot),
        Vital("diastolic", diastolic, flags, spot),
        Vital("pulse_rate", 66.0, flags, spot),
    ]


def weight(at_us: int, kg: float, **changes: Any) -> list[Reading]:
    return [Vital("weight", kg, (), origin(at_us, **changes))]


def feed(pipe: Pipeline, readings: list[Reading], arrived_us: int) -> tuple[Record, ...]:
    return pipe.feed(readings, Arrival(arrived_us, arrived_us * 1000)).records


def values(records: Iterable[Record]) -> list[tuple[str, float]]:
    return [(record.kind, record.value) for record in records if isinstance(record, VitalRecord)]


def alerts(records: Iterable[Record]) -> list[AlertRecord]:
    return [record for record in records if isinstance(record, AlertRecord)]


def with_history(days: int = 8, **changes: Any) -> Pipeline:
    """A cuff that the patient has used twice a day, around 120/80 mmHg, with a scale's weights of 80 kg."""
    pipe = pipeline(**changes)
    for i in range(2 * days):
        at_us = NOW - (2 * days - i) * DAY // 2
        feed(pipe, pressure(at_us, 118.0 + i % 5, 79.0, user=MINE), at_us + 5 * S)
        feed(pipe, weight(at_us + MIN, 80.0 + i % 2 * 0.3, user=MINE), at_us + MIN + 5 * S)
    return pipe
