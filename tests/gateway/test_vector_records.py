"""What known payloads of real sensors become: records that the clinic accepts, the same after encoding."""

import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from cloud.validate import validate_record
from config.limits import DEFAULT_LIMITS
from drivers.readings import Quarantined, Reading
from drivers.registry import load_drivers
from drivers.spec import DriverSpec, uuid16
from gateway.models import LoadedModels
from gateway.pipeline import Pipeline
from gateway.timeline import Arrival
from sync.record_codec import decode_records, encode_records
from sync.records import StatusRecord, VitalRecord

VECTORS = Path(__file__).parents[1] / "drivers" / "vectors"
REGISTRY = load_drivers()
NOW_US = 1_790_000_000_000_000


def read(driver: DriverSpec, case: dict[str, Any]) -> tuple[Reading, ...]:
    name, payload = case["characteristic"], bytes.fromhex(case["hex"])
    for broadcast in driver.broadcasts:
        if name == f"{broadcast.field} {broadcast.key}":
            return REGISTRY.decode_broadcast(broadcast.field, broadcast.key, payload)
    return REGISTRY.decode(uuid16(int(name, 16)) if len(name) == 4 else name, payload, service=driver.service)


@pytest.mark.parametrize("driver", REGISTRY.drivers, ids=lambda driver: driver.name)
def test_every_vector_becomes_records_that_the_clinic_accepts(driver: DriverSpec) -> None:
    pipeline = Pipeline("sensor", DEFAULT_LIMITS, LoadedModels(), zone=UTC)
    n_readings = 0
    for number, case in enumerate(json.loads((VECTORS / f"{driver.name}.json").read_text())["vectors"]):
        readings = [reading for reading in read(driver, case) if not isinstance(reading, Quarantined)]
        arrived_us = NOW_US + number * 1_000_000
        records = pipeline.feed(readings, Arrival(arrived_us, arrived_us * 1000)).records
        for record in records:
            validate_record(record)
            assert not isinstance(record, VitalRecord | StatusRecord) or record.times.at_us <= arrived_us
        assert encode_records(decode_records(encode_records(records))) == encode_records(records)
        n_readings += len(readings)
    assert n_readings
