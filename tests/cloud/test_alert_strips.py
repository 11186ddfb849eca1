"""The clinic keeps each part of the strips of the latest and of the longest episode, in whatever order blocks are opened."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from cloud.alert_strips import LONGEST, HeldStrip, choose_strips
from cloud.changes import AlertKey
from cloud.store import Store
from sync.record_codec import encode_records
from sync.records import AlertRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US, alert, find_alert, strip
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
ID = f"vt-{START_US}"
Sent = tuple[str | None, int, int, float]
"""A part, the second at which its strip begins, the number of its episode, and how long this has lasted."""


def with_part(part: str | None, start_s: int, episode: int = 1, episode_s: float = 0.0) -> AlertRecord:
    start_us = START_US + start_s * 1_000_000
    shown = replace(strip(start_us, [0.5, 1.3], 2.0), part=part, mark_from_us=start_us + 100, mark_to_us=start_us + 900)
    numbers = {"episodes": float(episode), "episode_s": episode_s} if episode > 1 else {}
    end_us = START_US + round(episode_s * 1e6) if episode_s and episode == 1 else None
    return alert("vt", "high", START_US, id=ID, end_us=end_us, strip=shown, measured=numbers)


def shown_parts(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> list[tuple[str | None, int]]:
    """The part and the second of each strip; those of a longest episode that is not the latest one come after them."""
    open_all(store, engine, clinic)
    found = find_alert(engine, AlertKey(hub.subject, hub.name, ID))
    assert found is not None
    is_longest = [one["is_longest"] for one in found["strips"]]
    assert is_longest == sorted(is_longest)
    return [(one["part"], (one["start_us"] - START_US) // 1_000_000) for one in found["strips"]]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ([("first", 0)], [("first", 0)]),
        ([("first", 0), ("worst", 1), ("worst", 2), ("last", 3)], [("first", 0), ("worst", 2), ("last", 3)]),
        ([("first", 0), ("worst", 1), (None, 2)], [(None, 2)]),
        ([(None, 0), ("first", 1), ("last", 2)], [("first", 1), ("last", 2)]),
        ([("first", 0), ("later", 1)], [("first", 0), ("later", 1)]),
        ([("first", 0, 1, 0.0), (None, 1, 1, 4.0), ("first", 2, 2, 1.0), (None, 3, 2, 3.0)], [(None, 3), (None, 1)]),
        ([(None, 1, 1, 4.0), ("first", 2, 2, 1.0), (None, 3, 2, 5.0)], [(None, 3)]),
        (
            [(None, 1, 1, 4.0), ("first", 2, 2, 1.0), ("last", 3, 2, 50.0), (None, 4, 3, 9.0)],
            [(None, 4), ("first", 2), ("last", 3)],
        ),
        ([(None, 0, 2, 4.0), (None, 1, 3, 2.0), (None, 2, 4, 3.0)], [(None, 2), (None, 0)]),
        ([(None, 0, 2, 4.0), (None, 1, 3, 4.0)], [(None, 1)]),
    ],
)
def test_the_parts_of_the_latest_and_of_the_longest_episode_are_shown(  # type: ignore[no-untyped-def]
    store: Store, engine: Engine, hub: Hub, clinic: Clinic, sent, shown
) -> None:
    for one in sent:
        hub.send(store, "alert", with_part(*one))
    assert shown_parts(store, engine, hub, clinic) == shown


def test_a_strip_of_an_earlier_episode_that_is_opened_late_changes_nothing(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    late = hub.seal("alert", encode_records([with_part("worst", 0)]))
    hub.send(store, "alert", with_part("first", 5))
    assert shown_parts(store, engine, hub, clinic) == [("first", 5)]
    hub.send_block(store, late)
    assert shown_parts(store, engine, hub, clinic) == [("first", 5)]


def test_the_longest_episode_is_shown_also_if_it_is_opened_last(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    late = hub.seal("alert", encode_records([with_part(None, 0, 1, 9.0)]))
    hub.send(store, "alert", with_part(None, 5, 2, 4.0))
    hub.send_block(store, late)
    assert shown_parts(store, engine, hub, clinic) == [(None, 5), (None, 0)]


def test_an_alert_without_parts_shows_its_strip(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "alert", alert("vt", "high", id=ID, strip=strip(START_US, [0.5], 2.0)))
    assert shown_parts(store, engine, hub, clinic) == [(None, 0)]


def test_numbers_of_a_hostile_hub_are_stored(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    for n, episodes in enumerate((1e300, -1e300)):
        shown = replace(strip(START_US + n * 1_000_000, [0.5], 2.0), part=None)
        hub.send(store, "alert", alert("vt", "high", id=ID, strip=shown, measured={"episodes": episodes, "episode_s": 1e300}))
    assert shown_parts(store, engine, hub, clinic) == [(None, 1)]


@st.composite
def sequences(draw: st.DrawFn) -> list[HeldStrip]:
    """Strips as a hub sends them: each episode begins with a first part, and ends with its last one or with all of it."""
    strips = list[HeldStrip]()
    for episode in range(1, draw(st.integers(1, 5)) + 1):
        middle = draw(st.lists(st.sampled_from(["worst"]), max_size=2))
        parts = ["first", *middle, draw(st.sampled_from(["last", ""]))]
        length_s = float(draw(st.integers(1, 100)))
        strips += [HeldStrip((1, len(strips) + n), episode, length_s, part) for n, part in enumerate(parts)]
    return strips


def complete(strips: Sequence[HeldStrip], episode: int) -> set[str]:
    parts = [one.part for one in strips if one.episode == episode]
    return {""} if parts[-1] == "" else set(parts)


@given(sequences())
def test_whichever_episodes_there_were_the_latest_and_the_longest_are_complete(strips: list[HeldStrip]) -> None:
    kept = dict[HeldStrip, str]()
    for one in strips:
        kept = choose_strips([*kept, one])
    longest_s = max(one.episode_s for one in strips)
    assert kept == choose_strips(strips)
    assert {part for part in kept.values() if not part.startswith(LONGEST)} == complete(strips, strips[-1].episode)
    assert max(one.episode_s for one in kept) == longest_s
    for episode in {one.episode for one, part in kept.items() if part.startswith(LONGEST)}:
        assert {one.part for one in kept} >= complete(strips, episode)
        assert strips[-1].episode_s < longest_s
