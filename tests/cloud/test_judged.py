"""How much of an ECG was judged: the length of the signal, the reasons why parts were not, and the beats by class."""

from sqlalchemy import Engine

from cloud.api.judged import read_judged
from cloud.changes import SensorKey
from cloud.scope import EVERY_SUBJECT, Scope
from cloud.store import Store
from sync.records import BeatsRecord, FindingRecord
from tests.clinic_testbed import Clinic, Hub, open_all
from tests.cloud.synthetic import START_US
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
STRAP = SensorKey("subject-1", "hub-1", "strap-1")
MINUTE_US = 60_000_000
DAY_US = 86_400_000_000


def stretch(minute: int, *classes: int) -> BeatsRecord:
    """A minute of ECG with a beat at each of its first seconds."""
    from_us = START_US + minute * MINUTE_US
    times_ms = tuple(from_us // 1000 + 1000 * i for i in range(len(classes)))
    return BeatsRecord("strap-1", "ecg", from_us, from_us + MINUTE_US, times_ms, classes)


def inconclusive(kind: str, reason: str, from_minute: float, to_minute: float | None) -> FindingRecord:
    onset_us = START_US + round(from_minute * MINUTE_US)
    end_us = None if to_minute is None else START_US + round(to_minute * MINUTE_US)
    return FindingRecord("strap-1", kind, onset_us, end_us, "model", None, reason)


def test_each_moment_counts_once_and_only_where_there_was_signal(
    store: Store, engine: Engine, hub: Hub, clinic: Clinic
) -> None:
    hub.send(store, "vital", *(stretch(minute, 0, 0, 2, 4) for minute in (0, 1, 2, 5)))  # no signal in minutes 3 and 4
    hub.send(
        store,
        "vital",
        inconclusive("ecg_quality", "noise", 1, None),
        inconclusive("ecg_quality", "noise", 1, 4),
        inconclusive("rhythm", "out_of_distribution", 0.5, 2),
        inconclusive("ecg_quality", "lead_off", 5.5, None),
        FindingRecord("strap-1", "rhythm_af", START_US, None, "model", 0.9),
    )
    open_all(store, engine, clinic)
    found = read_judged(engine, EVERY_SUBJECT, STRAP, START_US, START_US + DAY_US)
    assert found["analysed_us"] == 4 * MINUTE_US
    assert found["not_judged_us"] == {
        "lead_off": MINUTE_US // 2,
        "noise": 2 * MINUTE_US,
        "out_of_distribution": MINUTE_US // 2,
    }
    assert found["beats"] == {"N": 8, "V": 4, "?": 4}


def test_a_stretch_that_stands_twice_counts_once(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    """As after a rebuild by an opener that does not know the table, and so did not empty it."""
    hub.send(store, "vital", stretch(0, 0, 2))
    hub.send(store, "vital", stretch(0, 0, 2))
    open_all(store, engine, clinic)
    found = read_judged(engine, EVERY_SUBJECT, STRAP, START_US, START_US + DAY_US)
    assert (found["analysed_us"], found["beats"]) == (MINUTE_US, {"N": 1, "V": 1})


def test_only_what_is_in_the_span_and_the_scope_counts(store: Store, engine: Engine, hub: Hub, clinic: Clinic) -> None:
    hub.send(store, "vital", stretch(0, 0, 0, 0), stretch(1, 1, 3))
    open_all(store, engine, clinic)
    from_us = START_US + 1_500_000
    found = read_judged(engine, EVERY_SUBJECT, STRAP, from_us, START_US + MINUTE_US)
    assert (found["analysed_us"], found["beats"]) == (MINUTE_US - 1_500_000, {"N": 1})
    longest = read_judged(engine, EVERY_SUBJECT, STRAP, from_us, from_us + 10 * DAY_US)
    assert (longest["to_us"], longest["beats"]) == (from_us + DAY_US, {"N": 1, "S": 1, "F": 1})
    hidden = read_judged(engine, Scope(frozenset()), STRAP, START_US, START_US + DAY_US)
    assert (hidden["analysed_us"], hidden["beats"]) == (0, {})
