"""The list of alerts: by priority, state and age, in pages; a late backlog cannot hide today's alerts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud.alert_rows import PRIORITY_RANKS
from cloud.api.alert_queries import (
    CURRENT_US,
    MAX_CHANGED_ALERTS,
    PAGE_ALERTS,
    CursorError,
    ListCursor,
    list_alerts,
    list_changed_alerts,
)
from cloud.changes import BlockOrigin, Position
from cloud.projections import project_records
from cloud.projections_database import open_projections, reset_projections
from cloud.scope import EVERY_SUBJECT
from sync.records import AlertRecord
from tests.cloud.synthetic import START_US, alert
from tests.databases import ON_BOTH

DATABASES = ON_BOTH

HOUR_US = 3_600_000_000
NOW_US = START_US + 10 * 24 * HOUR_US


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    path: Path = tmp_path_factory.mktemp("alerts") / "projections.db"
    engine = open_projections(path)
    yield engine
    engine.dispose()


def project(engine: Engine, hub: str, alerts: list[AlertRecord], received_us: int) -> None:
    with engine.begin() as connection:
        for seq, record in enumerate(alerts, 1):
            project_records(
                connection,
                BlockOrigin(f"patient-of-{hub}", hub, "alert", Position(1, seq), received_us, is_proven=True),
                [record],
            )


def list_pages(engine: Engine) -> list[list[dict[str, Any]]]:
    pages: list[list[dict[str, Any]]] = []
    cursor: str | None = ListCursor(NOW_US - CURRENT_US).format()
    while cursor is not None:
        answer = list_alerts(engine, EVERY_SUBJECT, ListCursor.parse(cursor))
        pages.append(answer["alerts"])
        cursor = answer["next"]
    return pages


def test_a_late_backlog_does_not_hide_todays_alerts(engine: Engine) -> None:
    reset_projections(engine)
    today = [alert("pause", "medium", NOW_US - HOUR_US + n) for n in range(10)]
    project(engine, "hub-now", today, NOW_US - HOUR_US)
    project(engine, "hub-back", [alert("pause", "low", START_US + n) for n in range(150)], NOW_US)
    ended = [alert("pause", "high", START_US + n, end_us=START_US + n + 5) for n in range(200)]
    project(engine, "hub-ended", ended, START_US)
    pages = list_pages(engine)
    assert [one["hub"] for one in pages[0][:10]] == ["hub-now"] * 10
    assert sum(map(len, pages)) == 360
    assert len(pages[0]) == PAGE_ALERTS


ALERTS = st.lists(
    st.tuples(
        st.sampled_from(["high", "medium", "low", "of a newer hub"]),
        st.booleans(),
        st.integers(START_US, START_US + 20),
        st.sampled_from([START_US, NOW_US]),
    ),
    max_size=20,
)


@given(ALERTS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_every_alert_once_in_order(engine: Engine, alerts: list[tuple[str, bool, int, int]]) -> None:
    reset_projections(engine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cloud.api.alert_queries.PAGE_ALERTS", 3)
        for n, (priority, is_ended, onset_us, received_us) in enumerate(alerts):
            end_us = onset_us + 1 if is_ended else None
            project(engine, f"hub-{n}", [alert("pause", priority, onset_us, end_us=end_us)], received_us)
        listed = [one for page in list_pages(engine) for one in page]
    assert sorted(one["hub"] for one in listed) == sorted(f"hub-{n}" for n in range(len(alerts)))
    assert listed == sorted(listed, key=place_in_list)


def place_in_list(one: dict[str, Any]) -> tuple[object, ...]:
    is_ended, age = one["end_us"] is not None, (-one["raised_us"], -one["revision"])
    if is_ended and one["received_us"] < NOW_US - CURRENT_US:
        return (1, *age)
    return (0, PRIORITY_RANKS.get(one["priority"], 0), is_ended, *age)


def test_changes_are_listed_up_to_a_limit(engine: Engine) -> None:
    reset_projections(engine)
    project(engine, "hub-1", [alert("pause", "low", START_US + n) for n in range(MAX_CHANGED_ALERTS + 2)], NOW_US)
    few, many = (list_changed_alerts(engine, EVERY_SUBJECT, revision) for revision in (MAX_CHANGED_ALERTS - 1, 1))
    assert (few["complete"], [one["revision"] for one in few["alerts"]]) == (
        True,
        [MAX_CHANGED_ALERTS, MAX_CHANGED_ALERTS + 1, MAX_CHANGED_ALERTS + 2],
    )
    assert (many["complete"], few["revision"]) == (False, MAX_CHANGED_ALERTS + 2)


@pytest.mark.parametrize("text", ["", "1", "1,1,2", "1,2,0,0,0,0", "1,0,1,2,3,4", "1,1,0,0,0,x", "1,1," + "9" * 17, "١,1"])
def test_rejects_a_cursor_of_another_origin(text: str) -> None:
    with pytest.raises(CursorError):
        ListCursor.parse(text)
