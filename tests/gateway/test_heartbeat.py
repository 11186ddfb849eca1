"""The agent's status for the clinic: what it says, that it names nobody, and when it is sent."""

import asyncio
import json
from pathlib import Path

import pytest

from config.version import VERSION
from gateway.enrolment.identity import SITE_FILE
from gateway.enrolment.site_clock import FILE as TIME_FILE
from gateway.enrolment.site_clock import Clocks, SiteClock
from gateway.heartbeat import StatusCollector
from gateway.models import LoadedModels, load_models
from gateway.power import read_battery
from gateway.startup import load_device_key
from gateway.status_table import make_status_table
from sync.audit_heads import hub_audit_from_bytes
from sync.cbor import decode_cbor
from sync.consent import ToldConsent
from sync.signing import VerifyingKey
from sync.status import STATUS_LIMIT_BYTES, Battery, HubStatus, decode_status
from sync.versions import REVISION
from sync.wire import LANES, status_topic
from tests.gateway.testbed import START_US, Testbed, run_scenario
from tests.sync.uplink_testbed import open_testbed

HUB_TOPIC = status_topic("hub-1").encode()


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return load_models()


def sent_statuses(testbed: Testbed) -> list[bytes]:
    return [sent[len(HUB_TOPIC) :] for sent in testbed.sent_messages if sent.startswith(HUB_TOPIC)]


def decoded(testbed: Testbed) -> list[HubStatus]:
    device: VerifyingKey = load_device_key(testbed.settings.data).public
    return [decode_status(payload, device) for payload in sent_statuses(testbed)]


def test_an_agent_sends_a_status_at_once_and_every_minute_that_names_nobody(tmp_path: Path, models: LoadedModels) -> None:
    testbed = Testbed(tmp_path, models)

    async def scenario(testbed: Testbed) -> None:
        async with testbed.strap(), testbed.agent():
            await asyncio.sleep(65)

    run_scenario(testbed, scenario)
    statuses = decoded(testbed)
    assert [(status.seq, status.epoch) for status in statuses] == [(n, statuses[0].epoch) for n in (1, 2)]
    assert [round((status.at_us - START_US) / 60e6, 1) for status in statuses] == [0.0, 1.0]
    last = statuses[-1]
    assert (last.version, last.revision, last.models) == (VERSION, REVISION, models.release)
    assert (last.clock_offset_us, last.certificate_days) == (None, None)
    assert last.audit is not None
    assert hub_audit_from_bytes(last.audit).head.number == 1  # the start of the agent
    assert last.links == (("streaming", 1),)
    assert [row.lane for row in last.backlog] == list(LANES)
    assert last.free_bytes > 0
    for payload in sent_statuses(testbed):
        assert testbed.settings.subject.encode() not in payload
        assert not any(sensor.name.encode() in payload for sensor in testbed.settings.sensors)
        assert set(decode_cbor(payload, limit_bytes=STATUS_LIMIT_BYTES)) == {
            *("v", "hub", "sig", "epoch", "seq", "at_us", "version", "revision", "backlog", "battery", "clock_offset_us"),
            *("certificate_days", "models", "free_bytes", "links", "audit", "consent"),
        }


def supply(folder: Path, name: str, **files: str) -> None:
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_text(text + "\n")


class TestBattery:
    """The files as the kernel writes them: Documentation/ABI/testing/sysfs-class-power."""

    def test_a_hub_on_mains_without_a_battery(self, tmp_path: Path) -> None:
        assert read_battery(tmp_path) is None
        assert read_battery(tmp_path / "missing") is None
        supply(tmp_path, "AC", type="Mains", online="1")
        assert read_battery(tmp_path) is None

    @pytest.mark.parametrize(
        ("status", "is_charging"),
        [("Charging", True), ("Full", True), ("Not charging", True), ("Discharging", False), ("Unknown", False)],
    )
    def test_the_battery_of_the_hub(self, tmp_path: Path, status: str, is_charging: bool) -> None:
        supply(tmp_path, "AC", type="Mains", online="1")
        supply(tmp_path, "BAT0", type="Battery", scope="System", capacity="81", status=status)
        assert read_battery(tmp_path) == Battery(81, is_charging)

    def test_the_battery_of_a_mouse_is_not_that_of_the_hub(self, tmp_path: Path) -> None:
        supply(tmp_path, "hid-0", type="Battery", scope="Device", capacity="5", status="Discharging")
        assert read_battery(tmp_path) is None

    def test_a_battery_that_cannot_be_read_is_unknown(self, tmp_path: Path) -> None:
        supply(tmp_path, "BAT0", type="Battery", status="Discharging")
        supply(tmp_path, "BAT1", type="Battery", capacity="nonsense", status="Discharging")
        (tmp_path / "BAT2").mkdir()
        (tmp_path / "BAT2" / "type").write_bytes(b"\xff\xfe")
        assert read_battery(tmp_path) is None

    def test_a_capacity_over_100_percent_is_full(self, tmp_path: Path) -> None:
        supply(tmp_path, "BAT0", type="Battery", capacity="104", status="Full")
        assert read_battery(tmp_path) == Battery(100, is_charging=True)


def test_the_status_command_tells_to_update() -> None:
    table = make_status_table({"at_us": 1_000_000, "update_by_s": 1_800_000_000}, 1_000_000)
    labels, values = (list(map(str, column.cells)) for column in table.columns)
    rows = dict(zip(labels, values, strict=True))
    assert rows["version"] == "outdated: update pulsegate; from 2027-01-15 on the clinic takes only alerts"
    assert "update by s" not in rows


class FakeClocks:
    """Clocks of an enrolled hub, in one boot."""

    def __init__(self) -> None:
        self.wall, self.boot, self.id = 1_790_000_000.0, 100.0, "boot-1"

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.boot, lambda: self.id)


def test_the_clock_offset_is_that_to_the_sites_last_signed_time_in_this_boot(tmp_path: Path) -> None:
    fake = FakeClocks()
    clock = SiteClock(tmp_path, fake.clocks())
    assert clock.wall_offset_s() is None
    clock.begin(1_790_000_000)
    fake.wall, fake.boot = fake.wall + 70.0, fake.boot + 60.0
    assert clock.wall_offset_s() == pytest.approx(10.0)
    fake.wall -= 100.0
    assert clock.wall_offset_s() == pytest.approx(-90.0)
    fake.id = "boot-2"
    assert clock.wall_offset_s() is None


@pytest.mark.parametrize(("until_s", "days"), [(START_US // 1_000_000 + 5 * 86_400 + 7, 5), (START_US // 1_000_000 - 1, -1)])
def test_an_enrolled_hub_tells_the_days_of_its_certificate(
    tmp_path: Path, models: LoadedModels, until_s: int, days: int
) -> None:
    record = {"host": "clinic.example", "port": 8443, "region": "DE", "hub": "hub-1", "subject": "s", "from_s": 1}
    (tmp_path / SITE_FILE).write_text(json.dumps(record | {"until_s": until_s, "brokers": []}))
    with open_testbed(tmp_path) as hub:
        collector = StatusCollector(
            tmp_path,
            tmp_path,
            FixedClock(),
            "hub-1",
            hub.outbox,
            [],
            models,
            lambda: None,
            lambda: ToldConsent(bytes(8), 0, None),
        )
        status = collector.collect(1)
        assert (status.certificate_days, status.clock_offset_us) == (days, None)
        (tmp_path / SITE_FILE).write_text("damaged")
        (tmp_path / TIME_FILE).write_text("damaged")
        status = collector.collect(2)
        assert (status.certificate_days, status.clock_offset_us) == (None, None)


class FixedClock:
    def mono_ns(self) -> int:
        return 0

    def wall_us(self) -> int:
        return START_US
