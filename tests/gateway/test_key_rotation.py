"""Data keys change while the agent streams: at midnight, on demand, and their wrapping when the clinic has a new key."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloud.key_store import KeyStore
from config.files import destroy_file
from gateway.audit_log import open_audit_log
from gateway.cli import main
from gateway.key_rotation import REQUEST_FILE, ask_for_rotation
from gateway.models import LoadedModels
from sync.audit import read_row
from sync.errors import TransientError
from sync.mqtt import Connected, Disconnected
from sync.outbox import Outbox, read_keys
from sync.outbox.keys import StoredKey
from sync.registration import Registration
from sync.signing import SigningKey, Use
from tests.gateway.testbed import HUB, START_S, InProcessTransport, Testbed, run_scenario

DAY_S = 86_400
BEFORE_MIDNIGHT_S = 20
SUBJECT = "subject-1"


class CutTransport(InProcessTransport):
    """A connection that loses every message until `reconnect`."""

    newest: "ClassVar[CutTransport]"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.is_cut = True
        type(self).newest = self

    async def publish(self, topic: str, payload: bytes) -> None:
        if not self.is_cut:
            await super().publish(topic, payload)

    def reconnect(self) -> None:
        self.is_cut = False
        self._events.put_nowait(Disconnected("cut"))
        self._events.put_nowait(Connected())


@pytest.fixture
def testbed(tmp_path: Path) -> Testbed:
    return Testbed(tmp_path, LoadedModels())


def keys_of_hub(testbed: Testbed) -> list[StoredKey]:
    return read_keys(testbed.settings.data / "buffer.db")


def used_keys(testbed: Testbed) -> list[bytes]:
    """The ids of the data keys of the clinic's blocks with vital signs, in the order of their first use."""
    blocks = testbed.clinic.store.blocks_after(None, 10**9)
    ordered = sorted((block.id.epoch, block.id.seq, block.key) for block in blocks if block.id.lane == "vital")
    return list(dict.fromkeys(key for _, _, key in ordered))


def logged(testbed: Testbed, action: str) -> list[tuple[str, ...]]:
    events = [read_row(*row).event for row in open_audit_log(testbed.settings, lambda: 0).rows()]
    return [event.objects for event in events if event.action == action]


def write_settings(testbed: Testbed, path: Path) -> None:
    """The settings of the testbed as a file, for commands beside the agent."""
    lines = (
        'hub = "hub-1"',
        'subject = "subject-1"',
        'data = "agent"',
        'radio = "virtual:none"',
        "[clinic]",
        'host = "127.0.0.1"',
    )
    sensor = ("[[sensor]]", 'name = "strap"', 'advertised_name = "Virtual H10"')
    path.write_text("\n".join((*lines, "port = 1883", 'registration = "registration.toml"', *sensor)))


def test_at_midnight_a_streaming_hub_changes_to_the_new_days_key(testbed: Testbed) -> None:
    testbed.wall_step_us = (DAY_S - BEFORE_MIDNIGHT_S - START_S % DAY_S) * 1_000_000

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(2 * BEFORE_MIDNIGHT_S)
        audited = testbed.audit()
        assert audited.passed, audited
        first, second = keys_of_hub(testbed)
        assert (first.day, second.day) == (START_S // DAY_S, START_S // DAY_S + 1)
        assert used_keys(testbed) == [first.id, second.id]

    run_scenario(testbed, scenario)


def test_on_demand_a_streaming_hub_changes_its_key_each_time(testbed: Testbed, capsys: pytest.CaptureFixture[str]) -> None:
    config = testbed.folder / "pulsegate.toml"
    write_settings(testbed, config)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            for _ in range(3):
                await asyncio.sleep(10)
                assert main(["keys", "rotate", "--config", str(config)]) == 0
            await asyncio.sleep(10)
        audited = testbed.audit()
        assert audited.passed, audited
        keys = keys_of_hub(testbed)
        assert len(keys) == 4
        assert {key.day for key in keys} == {START_S // DAY_S}
        assert used_keys(testbed) == [key.id for key in keys]
        assert logged(testbed, "create-key") == [(f"data-key:{key.id.hex()}",) for key in keys[1:]]

    run_scenario(testbed, scenario)
    assert not (testbed.settings.data / REQUEST_FILE).exists()
    assert "within seconds" in capsys.readouterr().out


def test_a_hub_that_is_killed_while_its_key_changes_goes_on_with_the_new_one(testbed: Testbed) -> None:
    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap():
            async with testbed.agent(crash=True):
                await asyncio.sleep(10)
                ask_for_rotation(testbed.settings.data)
                await asyncio.sleep(4)
            ask_for_rotation(testbed.settings.data)  # as if it had been killed before it deleted the request
            async with testbed.agent():
                await asyncio.sleep(15)
        audited = testbed.audit()
        assert audited.passed, audited
        keys = [key.id for key in keys_of_hub(testbed)]
        assert len(keys) == 3
        assert used_keys(testbed) in (keys, [keys[0], keys[2]], [keys[1], keys[2]])
        assert used_keys(testbed)[-1] == keys[-1]

    run_scenario(testbed, scenario)


def test_a_full_disk_only_delays_the_change(testbed: Testbed, monkeypatch: pytest.MonkeyPatch) -> None:
    rotate, calls = Outbox.rotate_key, []

    def fail_once(outbox: Outbox) -> bytes:
        calls.append(outbox)
        if len(calls) == 1:
            raise TransientError("the disk is full")
        return rotate(outbox)

    monkeypatch.setattr(Outbox, "rotate_key", fail_once)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            ask_for_rotation(testbed.settings.data)
            await asyncio.sleep(15)
        assert testbed.audit().passed
        assert len(keys_of_hub(testbed)) == len(calls) == 2

    run_scenario(testbed, scenario)


def test_what_waits_is_wrapped_for_the_clinics_new_pair_and_opens_without_the_old_one(testbed: Testbed) -> None:
    testbed.transport_type = CutTransport

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(20)
            testbed.clinic.keys.create(SUBJECT)
            testbed.clinic.register(SUBJECT)
            await asyncio.sleep(10)
            destroy_file(testbed.folder / "clinic" / "keys" / SUBJECT / "1.key")
            testbed.clinic.keys = KeyStore(testbed.folder / "clinic" / "keys")
            CutTransport.newest.reconnect()
            await asyncio.sleep(20)
        assert len(testbed.clinic.keys.pairs(SUBJECT)) == 1
        audited = testbed.audit()
        assert audited.passed, audited
        assert len(logged(testbed, "change-registration")) == 1

    run_scenario(testbed, scenario)


def test_a_registration_of_another_clinic_or_a_damaged_one_waits_for_a_start(
    testbed: Testbed, caplog: pytest.LogCaptureFixture
) -> None:
    path = testbed.settings.clinic.registration
    mine = Registration.load(path, HUB)
    other = replace(mine, acknowledgement=SigningKey.generate(Use.ACKNOWLEDGEMENT).public)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(5)
            other.save(path)
            await asyncio.sleep(5)
            path.write_text("damaged")
            await asyncio.sleep(10)
            mine.save(path)
            await asyncio.sleep(5)
        assert testbed.audit().passed

    run_scenario(testbed, scenario)
    said = [record.message for record in caplog.records if record.name == "gateway.key_rotation"]
    assert len(said) == 2
    assert "of another clinic" in said[0]
    assert "not valid TOML" in said[1]
