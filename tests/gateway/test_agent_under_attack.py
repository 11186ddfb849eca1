"""The whole agent with a strap and a sensor that sends nonsense to every driver: only what is valid reaches the clinic."""

import asyncio
import json
import logging
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bumble.core import UUID
from bumble.device import Connection
from bumble.gatt import Characteristic, Service

from cloud.validate import validate_record
from config.settings import SensorSettings
from drivers.registry import load_drivers
from gateway.models import LoadedModels
from sync.records import QuarantinedRecord, StatusRecord, VitalRecord
from tests.gateway.hostile_testbed import ATTACKER, Attacker, readable
from tests.gateway.testbed import Testbed, run_scenario

VECTORS = Path(__file__).parents[1] / "drivers" / "vectors"
PROPERTIES = Characteristic.Properties
SECONDS = 80
VALUES_PER_S = 20
ODD_DATES = ("0F27 0C1F 173B3B", "0000 0000 000000", "FFFF FFFF FFFFFF", "E907 021E 080000", "0100 0101 000000")
"""31 December 9999; zeros; ones; 30 February; the year 1."""


def known_payloads() -> list[tuple[str, bytes]]:
    """The known payloads of all drivers, each with its characteristic."""
    found = []
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_text())["vectors"]:
            number = vector.get("characteristic", "")
            if "hex" in vector and number:
                uuid = f"0000{number.lower()}-0000-1000-8000-00805f9b34fb" if len(number) == 4 else number.lower()
                found.append((uuid, bytes.fromhex(vector["hex"])))
    return found


def endless_nonsense() -> Iterator[tuple[str, bytes]]:
    """Known payloads with wrong dates, not-a-numbers, infinities, and octets that are changed, cut off or added."""
    rng = random.Random(3)
    known = known_payloads()
    dates = [bytes.fromhex(date) for date in ODD_DATES]
    while True:
        uuid, payload = rng.choice(known)
        value = bytearray(payload)
        patch = rng.choice([rng.choice(dates), b"\xff\x07" * 3, b"\xfe\x07\x02\x08", bytes([rng.randrange(256)]), b""])
        at = rng.randrange(1, max(2, len(value)))
        value[at : at + len(patch)] = patch
        if rng.random() < 0.2:
            del value[rng.randrange(len(value)) :]
        if rng.random() < 0.1:
            value += bytes(rng.randrange(490))
        yield uuid, bytes(value)


def make_attacker() -> Attacker:
    """A sensor with the services of all drivers."""
    services, streams = [], {}
    for driver in load_drivers().drivers:
        if driver.service and not driver.bonding and not driver.identifies:
            each = [
                Characteristic(UUID(item.uuid), PROPERTIES.NOTIFY, Characteristic.Permissions(0), b"")
                for item in driver.streams
            ]
            streams.update({item.uuid: made for item, made in zip(driver.streams, each, strict=True)})
            services.append(Service(UUID(driver.service), each))
    identity = [readable(0x2A24, b"\x1b[2Jmodel \xe2\x80\xae\x00" * 20), readable(0x2A29, b"\xff" * 512)]
    services.append(Service(UUID.from_16_bits(0x180A), identity))
    nonsense = endless_nonsense()

    async def serve(attacker: Attacker, connection: Connection) -> None:
        await asyncio.sleep(3)
        while True:
            uuid, payload = next(nonsense)
            if uuid in streams:
                await attacker.device.notify_subscriber(connection, streams[uuid], payload)
            await asyncio.sleep(1 / VALUES_PER_S)

    return Attacker(services, serve)


def test_nonsense_costs_the_strap_nothing_and_only_valid_records_reach_the_clinic(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    testbed = Testbed(tmp_path, LoadedModels())
    testbed.settings = replace(testbed.settings, sensors=(*testbed.settings.sensors, SensorSettings("evil", address=ATTACKER)))
    attacker = make_attacker()

    async def scenario(testbed: Testbed) -> None:
        await attacker.start(testbed.link)
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(SECONDS)
        testbed.link.remove_device(ATTACKER)
        audited = testbed.audit()
        assert audited.passed, audited
        assert audited.samples_stored > (SECONDS - 10) * 130
        records = testbed.records()
        for record in records:
            validate_record(record)
        evil = [record for record in records if getattr(record, "sensor", "") == "evil"]
        assert sum(isinstance(record, QuarantinedRecord) for record in evil) > 100
        assert sum(isinstance(record, VitalRecord) for record in evil) > 100
        strap = [record for record in records if getattr(record, "sensor", "") == "strap" and isinstance(record, StatusRecord)]
        assert [record.value for record in strap if record.kind == "link"].count("backing_off") == 0

    with caplog.at_level(logging.INFO):
        run_scenario(testbed, scenario)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("gateway", "sync"))]
    assert len([line for line in lines if line.startswith("evil:")]) < 15, lines
    assert not [line for line in lines if "\x1b" in line]
    assert not [line for line in lines if "the analysis failed" in line], lines
