"""Queries about alerts and patients against the projections; results are ready for JSON.

The list of alerts has first the current alerts (ongoing, or received within the last day) by priority, ongoing before ended,
newest first; then the earlier ones, newest first. A late backlog therefore cannot hide a more important or a newer alert. Age
counts from `raised_us`, in which a hub's clock that is ahead has no effect.

What lies outside the scope is not found, and the newest revision is that of an alert in the scope. Revisions count the changes
of all alerts of the clinic: a gap between two of them says that there were other changes, but not whose.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Engine, Select, func, select, tuple_
from sqlalchemy.engine import Connection, RowMapping

from cloud import tables
from cloud.alert_rows import PRIORITY_RANKS
from cloud.alert_strips import LONGEST, PARTS
from cloud.api.numbers import Json, to_millivolts
from cloud.changes import AlertKey
from cloud.scope import Scope
from sync.packing import unpack_samples
from sync.records import TECHNICAL_KINDS

PAGE_ALERTS: Final = 100
"""Alerts in one answer: several screens; an answer of some 60 kB."""
CURRENT_US: Final = 86_400_000_000
"""An ended alert stays among the current ones for a day after the clinic received its latest record."""
MAX_CHANGED_ALERTS: Final = 500
"""After more changes than this a page starts again with the first page of the list."""

_alerts: Final = tables.alerts.c
_IS_ENDED: Final = _alerts.end_us.is_not(None)
_STRIP_COLUMNS: Final = tuple(column for column in tables.alerts.c if column.name.startswith("strip_"))
_HIDDEN: Final = frozenset({"epoch", "seq", "first_epoch", "first_seq"})
_SUMMARY_COLUMNS: Final = tuple(c for c in tables.alerts.c if c.name not in _HIDDEN and c not in set(_STRIP_COLUMNS))
_NEWEST_FIRST: Final = (_alerts.raised_us.desc(), _alerts.revision.desc())


class CursorError(ValueError):
    """A cursor that did not come from the list of alerts."""


@dataclass(frozen=True, slots=True)
class ListCursor:
    """The place in the list behind an alert. `since_us` divides the current from the earlier alerts on all pages of a list.

    `after` has the values by which that alert is sorted: (rank, is ended, raised, revision), or the last two if it is earlier.
    """

    since_us: int
    is_current: bool = True
    after: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "ListCursor":
        """Parse what `format` returned.

        Raises:
            CursorError: the text is something else.
        """
        match = re.fullmatch(r"(-?[0-9]{1,16}),([01])((?:,-?[0-9]{1,16})*)", text)
        after = tuple(int(part) for part in match[3].split(",")[1:]) if match else ()
        if match is None or len(after) not in {0, 4 if match[2] == "1" else 2}:
            raise CursorError("not a cursor of this list: take it from the answer before")
        return cls(int(match[1]), match[2] == "1", after)

    def format(self) -> str:
        return ",".join(str(int(part)) for part in (self.since_us, self.is_current, *self.after))


def list_alerts(engine: Engine, scope: Scope, cursor: ListCursor) -> Json:
    """Return a page of the list without strips, the newest revision, and the cursor of the next page (null after the last)."""
    rows: list[RowMapping] = []
    following: ListCursor | None = cursor
    with engine.connect() as connection:
        newest = _read_newest_revision(connection, scope)
        while following is not None and len(rows) < PAGE_ALERTS:
            found, following = _read_section(connection, scope, following, PAGE_ALERTS - len(rows))
            rows += found
    following_text = following.format() if following else None
    return {"revision": newest, "alerts": [_alert_as_json(row) for row in rows], "next": following_text}


def list_changed_alerts(engine: Engine, scope: Scope, revision: int) -> Json:
    """Return the alerts new or changed since `revision`, without strips, and the newest revision.

    `complete` is false if more than `MAX_CHANGED_ALERTS` have changed: the page then starts again with `list_alerts`.
    """
    query = _select_summaries(scope).where(_alerts.revision > revision).order_by(_alerts.revision)
    with engine.connect() as connection:
        newest = _read_newest_revision(connection, scope)
        rows = connection.execute(query.limit(MAX_CHANGED_ALERTS + 1)).mappings().all()
    changed = [_alert_as_json(row) for row in rows[:MAX_CHANGED_ALERTS]]
    return {"revision": newest, "alerts": changed, "complete": len(rows) <= MAX_CHANGED_ALERTS}


def find_alert(connection: Connection, scope: Scope, key: AlertKey) -> Json | None:
    """Return one alert with its latest strip, and with `strips`, those of two of its episodes; None if there is none."""
    is_this = (_alerts[name] == value for name, value in key._asdict().items())
    row = connection.execute(select(tables.alerts).where(*is_this, scope.allows(_alerts.subject))).mappings().first()
    if row is None:
        return None
    strip = _strip_as_json(row)
    strips = _read_strips(connection, key) or ([strip] if strip else [])
    return _alert_as_json(row) | {"strip": strip, "strips": strips}


def list_patients(engine: Engine, scope: Scope) -> list[Json]:
    """Return every patient of the scope, by the pseudonym, with the number of ongoing alerts of each priority."""
    subject = tables.patients.c.subject
    with engine.connect() as connection:
        subjects = connection.scalars(select(subject).where(scope.allows(subject)).order_by(subject)).all()
        counts = connection.execute(_count_ongoing(scope)).all()
    ongoing: dict[str, dict[int, int]] = {}
    for row in counts:
        ongoing.setdefault(row.subject, {})[row.rank] = row.n
    return [_patient_as_json(subject, ongoing.get(subject, {})) for subject in subjects]


def find_patient(connection: Connection, scope: Scope, subject: str) -> Json | None:
    """Return one patient in the form of `list_patients`; None if it is unknown."""
    patients = tables.patients.c
    is_this = (patients.subject == subject, scope.allows(patients.subject))
    if connection.execute(select(patients.subject).where(*is_this)).first() is None:
        return None
    counts = connection.execute(_count_ongoing(scope).where(_alerts.subject == subject)).all()
    return _patient_as_json(subject, {row.rank: row.n for row in counts})


def _count_ongoing(scope: Scope) -> Select[Any, Any, int]:
    columns = (_alerts.subject, _alerts.rank)
    is_ongoing = (_alerts.end_us.is_(None), scope.allows(_alerts.subject))
    return select(*columns, func.count().label("n")).where(*is_ongoing).group_by(*columns)


def _patient_as_json(subject: str, ongoing: dict[int, int]) -> Json:
    return {"subject": subject, "ongoing": {priority: ongoing.get(rank, 0) for priority, rank in PRIORITY_RANKS.items()}}


def _read_newest_revision(connection: Connection, scope: Scope) -> int:
    patients = tables.patients.c
    return connection.execute(select(func.max(patients.revision)).where(scope.allows(patients.subject))).scalar() or 0


def _read_section(
    connection: Connection, scope: Scope, cursor: ListCursor, limit: int
) -> tuple[list[RowMapping], ListCursor | None]:
    """Return up to `limit` alerts behind the cursor, of the current or of the earlier ones, and the cursor behind them."""
    query = _select_current(scope, cursor) if cursor.is_current else _select_earlier(scope, cursor)
    rows = connection.execute(query.limit(limit + 1)).mappings().all()
    if len(rows) <= limit:
        return list(rows), ListCursor(cursor.since_us, is_current=False) if cursor.is_current else None
    last = rows[limit - 1]
    importance = (last["rank"], int(last["end_us"] is not None)) if cursor.is_current else ()
    after = (*importance, last["raised_us"], last["revision"])
    return list(rows[:limit]), ListCursor(cursor.since_us, cursor.is_current, after)


def _select_current(scope: Scope, cursor: ListCursor) -> Select[Any]:
    # A union of two searches by index: SQLite would answer the same condition with OR by reading the whole table. The scope is
    # applied to their result: inside them it could make SQLite search a subject's whole history.
    ongoing = select(_alerts.revision).where(_alerts.end_us.is_(None))
    current = ongoing.union(select(_alerts.revision).where(_alerts.received_us >= cursor.since_us))
    query = _select_summaries(scope).where(_alerts.revision.in_(current)).order_by(_alerts.rank, _IS_ENDED, *_NEWEST_FIRST)
    if cursor.after:
        rank, is_ended, raised_us, revision = cursor.after
        place = tuple_(_alerts.rank, _IS_ENDED, -_alerts.raised_us, -_alerts.revision)
        query = query.where(place > tuple_(rank, is_ended, -raised_us, -revision))
    return query


def _select_earlier(scope: Scope, cursor: ListCursor) -> Select[Any]:
    query = _select_summaries(scope).where(_IS_ENDED, _alerts.received_us < cursor.since_us).order_by(*_NEWEST_FIRST)
    if cursor.after:
        query = query.where(tuple_(_alerts.raised_us, _alerts.revision) < tuple_(*cursor.after))
    return query


def _select_summaries(scope: Scope) -> Select[Any]:
    return select(*_SUMMARY_COLUMNS, _alerts.strip_start_us).where(scope.allows(_alerts.subject))


def _alert_as_json(row: RowMapping) -> Json:
    summary = {column.name: row[column.name] for column in _SUMMARY_COLUMNS}
    return summary | {
        "reasons": json.loads(row["reasons"]),
        "measured": json.loads(row["measured"] or "{}"),
        "is_technical": row["kind"] in TECHNICAL_KINDS,
        "has_strip": row["strip_start_us"] is not None,
    }


def _read_strips(connection: Connection, key: AlertKey) -> list[Json]:
    """Return the strips of an alert: those of its latest episode, then those of its longest one if that is another.

    Of each they are in the order of `PARTS`; `part` is null for the whole episode. Unknown parts come last.
    """
    table = tables.alert_strips
    query = select(table).where(*(table.c[name] == value for name, value in key._asdict().items()))
    return [
        {
            "part": row["part"].removeprefix(LONGEST) or None,
            "is_longest": row["part"].startswith(LONGEST),
            **{name: row[name] for name in ("start_us", "rate_hz", "labels", "mark_from_us", "mark_to_us")},
            "mv": to_millivolts(unpack_samples(row["samples"]), row["scale"]),
            "beats_us": json.loads(row["beats_us"]),
        }
        for row in sorted(connection.execute(query).mappings(), key=_place_of_strip)
    ]


def _place_of_strip(row: RowMapping) -> tuple[bool, int, str]:
    part = row["part"].removeprefix(LONGEST)
    place = PARTS.index(part) if part in PARTS else len(PARTS)
    return row["part"].startswith(LONGEST), place, part


def _strip_as_json(row: RowMapping) -> Json | None:
    if row["strip_start_us"] is None:
        return None
    return {
        "start_us": row["strip_start_us"],
        "rate_hz": row["strip_rate_hz"],
        "mv": to_millivolts(unpack_samples(row["strip_samples"]), row["strip_scale"]),
        "beats_us": json.loads(row["strip_beats_us"]),
        "labels": row["strip_labels"],
    }
