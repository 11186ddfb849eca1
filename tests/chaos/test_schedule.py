"""The order of the faults of a whole run."""

import random
from collections import Counter

from benchmarks.chaos.copies import STORE_RESTORED
from benchmarks.chaos.faults import PROCESS_FAULTS
from benchmarks.chaos.run import FULL, make_schedule


def test_each_fault_comes_as_often_as_planned_in_an_order_that_the_seed_determines() -> None:
    schedule = make_schedule(FULL, random.Random(1))
    assert Counter(schedule) == Counter(FULL)
    assert schedule == make_schedule(FULL, random.Random(1))
    assert schedule != make_schedule(FULL, random.Random(2))


def test_each_process_is_killed_forty_times() -> None:
    assert set(PROCESS_FAULTS) == {f"kill {name}" for name in ("agent", "hub", "broker", "ingest", "opener", "postgresql")}
    assert {FULL[kind] for kind in PROCESS_FAULTS} == {40}


def test_stores_are_restored_in_the_first_part() -> None:
    for seed in range(20):
        schedule = make_schedule(FULL, random.Random(seed))
        last = max(number for number, kind in enumerate(schedule) if kind == STORE_RESTORED)
        assert last < len(schedule) / 2
