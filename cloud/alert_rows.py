"""The row of an alert in the projections: which of its columns a record changes."""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy.engine import Row

from cloud import tables
from cloud.changes import BlockOrigin, Position
from sync.packing import pack_samples
from sync.records import AlertRecord, Strip

PRIORITY_RANKS: Final[Mapping[str, int]] = {"high": 0, "medium": 1, "low": 2}
"""Order of the priorities in the list of alerts. An unknown one, of a newer hub, ranks with high: it must not be hidden."""
POSITIONS_OF_ALERT: Final = (
    *(tables.alerts.c[prefix + name] for prefix in ("", "first_", "strip_") for name in Position._fields),
    tables.alerts.c.decided_us,
)


def alert_columns(record: AlertRecord, origin: BlockOrigin, known: Row[Any] | None) -> dict[str, Any]:
    """Return the columns that this record changes; `known` has the positions of the records that the row holds so far."""
    latest, first, strip = (_position_at(known, index) for index in (0, 2, 4))
    columns: dict[str, Any] = {}
    if latest is None or latest <= origin.position:
        columns |= _alert_state(record, origin)
        if record.raised_us is not None and (known is None or known.decided_us != record.raised_us):
            columns |= _times_of_raise(record.raised_us, origin)
    if first is None or origin.position < first:
        columns |= _position_columns("first_", origin)
        if record.raised_us is None:
            columns |= _times_of_raise(record.decided_us, origin)
    if record.strip is not None and (strip is None or strip <= origin.position):
        columns |= _strip_columns(record.strip) | _position_columns("strip_", origin)
    if known is None or not origin.is_proven:
        columns["is_proven"] = origin.is_proven
    return columns


def _position_at(known: Row[Any] | None, index: int) -> Position | None:
    return None if known is None or known[index] is None else Position(*known[index : index + 2])


def _times_of_raise(raised_us: int, origin: BlockOrigin) -> dict[str, int]:
    return {"decided_us": raised_us, "raised_us": min(raised_us, origin.received_us)}


def _alert_state(record: AlertRecord, origin: BlockOrigin) -> dict[str, Any]:
    return {
        "sensor": record.sensor,
        "kind": record.kind,
        "priority": record.priority,
        "rank": PRIORITY_RANKS.get(record.priority, 0),
        "onset_us": record.onset_us,
        "end_us": record.end_us,
        "received_us": origin.received_us,
        "source": record.source,
        "reasons": json.dumps(record.reasons),
        "probability": record.probability,
        "measured": None if record.measured is None else json.dumps(dict(record.measured)),
        **_position_columns("", origin),
    }


def _position_columns(prefix: str, origin: BlockOrigin) -> dict[str, int]:
    return {prefix + name: value for name, value in origin.position._asdict().items()}


def _strip_columns(strip: Strip) -> dict[str, Any]:
    return {
        "strip_start_us": strip.start_us,
        "strip_rate_hz": strip.rate_hz,
        "strip_scale": strip.scale,
        "strip_samples": pack_samples(strip.samples),
        "strip_beats_us": json.dumps(strip.beats_us),
        "strip_labels": strip.labels,
    }
