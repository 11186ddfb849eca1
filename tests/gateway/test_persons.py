"""Results that may be another person's: how they are stored, asked about and answered while the agent runs."""

import asyncio
import contextlib
import json
import re
import stat
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY as ANY_TEXT

import pytest

from config.limits import DEFAULT_LIMITS
from config.settings import SensorSettings
from drivers.readings import Origin, Reading, Vital
from drivers.registry import build_registry
from gateway import virtual_time
from gateway.buffer_alert import BufferAlert
from gateway.cli import main
from gateway.clock import VirtualClock
from gateway.models import LoadedModels
from gateway.persons import ANSWERS_FOLDER, deliver_answers, describe, leave_answer, read_answers, read_questions
from gateway.pipeline import Pipeline
from gateway.recorder import Recorder
from gateway.sensor_events import Notification
from gateway.sensor_runner import SensorRunner, state_key
from gateway.status import STATUS_FILE, StatusReporter
from gateway.timeline import Arrival
from sync.errors import PermanentError
from sync.outbox import Outbox
from sync.record_codec import decode_records
from sync.records import Record, VitalRecord
from sync.seal import SealError
from sync.uplink import UplinkStatistics
from tests.gateway.list_outbox import call_inline
from tests.sync.outboxes import HUB_KEYS, all_pending, open_at, open_at_clinic

START_US, S, DAY = 1_790_000_000_000_000, 1_000_000, 86_400_000_000
CANARY = 61.4375
GAINED = 83.438
"""Weights whose texts and bytes occur nowhere by chance; the second raises an alert."""


def weight(at_us: int, kg: float, user: int | None = None) -> Reading:
    measured = datetime.fromtimestamp(at_us / 1e6, UTC).replace(tzinfo=None)
    return Vital("weight", kg, (), Origin(at_us // S, measured, "set", user=user))


def make_runner(outbox: Outbox, user: int | None = None) -> SensorRunner:
    clock = VirtualClock(asyncio.get_running_loop(), START_US)
    recorder = Recorder(outbox, call_inline, lambda: None, BufferAlert(clock))
    stored = outbox.load_state(state_key("scale"))
    slots = () if user is None else (user,)
    pipeline = Pipeline("scale", DEFAULT_LIMITS, LoadedModels(), json.loads(stored) if stored else None, slots=slots, zone=UTC)
    settings = SensorSettings("scale", advertised_name="scale", user=user)
    return SensorRunner(settings, pipeline, build_registry([]), clock, recorder, call_inline)


async def weigh(runner: SensorRunner, *weights: tuple[int, float], user: int | None = None) -> None:
    for at_us, kg in weights:
        arrival = Arrival(at_us + 5 * S, (at_us + 5 * S) * 1000)
        await runner._process_batch([Notification("weight", b"", (weight(at_us, kg, user),), arrival, is_indicated=True)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    key = folder / "hub.key"
    key.write_bytes(HUB_KEYS.hub.secret)
    key.chmod(0o600)
    return folder


def sent(outbox: Outbox) -> list[Record]:
    return [record for block in all_pending(outbox) for record in decode_records(open_at_clinic(outbox, block))]


def sent_weights(outbox: Outbox) -> list[float]:
    return [record.value for record in sent(outbox) if isinstance(record, VitalRecord)]


def run_with_held(data: Path, scenario: Callable[[SensorRunner, Outbox], Any]) -> None:
    """A scale on which the patient, of 80 kg, and then somebody else stood; the rest happens in the same run of the agent."""

    async def main() -> None:
        with contextlib.closing(open_at(data / "buffer.db")) as outbox:
            runner = make_runner(outbox)
            await weigh(runner, (START_US - 2 * DAY, 80.0), (START_US - DAY, 80.25), (START_US, CANARY))
            await scenario(runner, outbox)

    virtual_time.run(main())


async def process_answers(data: Path, runner: SensorRunner) -> None:
    """What the agent does with the answers, for ten seconds."""
    tasks = [
        asyncio.create_task(deliver_answers(data, [runner], call_inline)),
        asyncio.create_task(runner._process_events()),
    ]
    await asyncio.sleep(10)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


@pytest.mark.parametrize(("user", "warnings"), [(None, 1), (1, 0)])
def test_the_log_says_once_that_the_settings_lack_the_patients_number(
    data: Path, caplog: pytest.LogCaptureFixture, user: int | None, warnings: int
) -> None:
    async def main() -> None:
        with contextlib.closing(open_at(data / "buffer.db")) as outbox:
            runner = make_runner(outbox, user)
            await weigh(runner, (START_US - DAY, 80.0), (START_US, CANARY), user=2)
            assert sent_weights(outbox) == []

    virtual_time.run(main())
    assert [message.count("set `user`") for message in caplog.messages] == [1] * warnings


@pytest.mark.parametrize("is_patient", [True, False])
def test_an_answer_is_carried_out_while_the_agent_runs(data: Path, is_patient: bool) -> None:
    async def scenario(runner: SensorRunner, outbox: Outbox) -> None:
        (question,) = read_questions(data, "subject-1")
        assert (question.sensor, question.held.values) == ("scale", [("weight", CANARY, ())])
        assert sent_weights(outbox) == [80.0, 80.25]
        leave_answer(data, question.held.id, is_patient=is_patient)
        await process_answers(data, runner)
        assert read_questions(data, "subject-1") == []
        assert read_answers(data) == {}
        assert sent_weights(outbox) == [80.0, 80.25, CANARY][: 2 + is_patient]

    run_with_held(data, scenario)


def test_a_held_result_is_durable_at_once_and_survives_a_restart(data: Path) -> None:
    async def scenario(_runner: SensorRunner, outbox: Outbox) -> None:
        again = make_runner(outbox)
        assert [held.values for held in again.pipeline.spots.held] == [[("weight", CANARY, ())]]

    run_with_held(data, scenario)


def test_an_answer_left_while_the_agent_was_stopped_is_carried_out_later(data: Path) -> None:
    async def nothing(_runner: SensorRunner, _outbox: Outbox) -> None:
        pass

    async def restart() -> None:
        with contextlib.closing(open_at(data / "buffer.db")) as outbox:
            await process_answers(data, make_runner(outbox))
            assert sent_weights(outbox)[-1] == CANARY

    run_with_held(data, nothing)
    (question,) = read_questions(data, "subject-1")
    leave_answer(data, question.held.id, is_patient=False)
    leave_answer(data, question.held.id, is_patient=True)  # the patient corrects it
    virtual_time.run(restart())


def test_answers_about_nothing_are_deleted_and_other_files_left_alone(data: Path) -> None:
    async def scenario(runner: SensorRunner, outbox: Outbox) -> None:
        leave_answer(data, "0" * 12, is_patient=True)
        (data / ANSWERS_FOLDER / ("1" * 12)).write_text("perhaps")
        (data / ANSWERS_FOLDER / "notes.txt").write_text("yes")
        await process_answers(data, runner)
        assert sorted(path.name for path in (data / ANSWERS_FOLDER).iterdir()) == ["1" * 12, "notes.txt"]
        assert len(runner.pipeline.spots.held) == 1
        assert sent_weights(outbox) == [80.0, 80.25]

    run_with_held(data, scenario)


def test_an_answer_waits_for_the_sensors_turn_once(data: Path) -> None:
    """While the radio is away, nothing processes the sensor's events."""

    async def scenario(runner: SensorRunner, _outbox: Outbox) -> None:
        leave_answer(data, runner.pipeline.spots.held[0].id, is_patient=True)
        delivering = asyncio.create_task(deliver_answers(data, [runner], call_inline))
        await asyncio.sleep(60)
        delivering.cancel()
        assert len(runner.events.drain(10)) == 1
        assert len(read_answers(data)) == 1

    run_with_held(data, scenario)


def test_an_answer_is_readable_by_its_owner_only(data: Path) -> None:
    leave_answer(data, "0" * 12, is_patient=True)
    folder = data / ANSWERS_FOLDER
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / ("0" * 12))] == [0o700, 0o600]


def test_a_question_is_a_line_for_the_patient(data: Path) -> None:
    async def scenario(_runner: SensorRunner, _outbox: Outbox) -> None:
        (question,) = read_questions(data, "subject-1")
        assert re.fullmatch(r"[0-9a-f]{12}  2026-09-2\d \d\d:\d\d  scale: weight 61\.4375 kg", describe(question))

    run_with_held(data, scenario)


def test_the_questions_of_another_subject_are_not_read(data: Path) -> None:
    async def scenario(_runner: SensorRunner, _outbox: Outbox) -> None:
        assert read_questions(data, "subject-2") == []

    run_with_held(data, scenario)


def test_without_the_hub_key_there_is_nothing_to_read(data: Path, tmp_path: Path) -> None:
    async def scenario(_runner: SensorRunner, _outbox: Outbox) -> None:
        (data / "hub.key").write_bytes(bytes(32))
        with pytest.raises(SealError):
            read_questions(data, "subject-1")

    run_with_held(data, scenario)
    with pytest.raises(PermanentError, match="never run"):
        read_questions(tmp_path, "subject-1")


def test_the_command_lists_and_answers(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = data.parent / "pulsegate.toml"
    config.write_text(
        'hub = "hub-1"\nsubject = "subject-1"\ndata = "data"\nradio = "bluetooth"\n[clinic]\nhost = "127.0.0.1"\nport = 1883\n'
        'registration = "registration.toml"\n[[sensor]]\nname = "scale"\nadvertised_name = "scale"\n'
    )

    def persons(*arguments: str) -> tuple[int, str]:
        status = main(["persons", *arguments, "--config", str(config)])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    async def scenario(runner: SensorRunner, outbox: Outbox) -> None:
        status, text = persons()
        (id_, *_) = text.split()
        assert (status, read_answers(data)) == (0, {})
        assert "weight 61.4375 kg" in text
        assert persons("yes", "0" * 12) == (1, ANY_TEXT)
        assert persons("no") == (1, ANY_TEXT)
        assert persons("no", id_) == (0, ANY_TEXT)
        assert read_answers(data) == {id_: False}
        await process_answers(data, runner)
        assert persons() == (0, "no result waits for an answer\n")
        assert sent_weights(outbox) == [80.0, 80.25]

    run_with_held(data, scenario)


def test_no_file_shows_a_value_that_was_measured(data: Path) -> None:
    """Held, in the comparisons of the rules, in an alert: while the agent runs, and after it was closed."""

    async def scenario(runner: SensorRunner, outbox: Outbox) -> None:
        await weigh(runner, (START_US + DAY, GAINED))
        saved = runner.pipeline.state()
        (alert,) = saved["alerts"]
        assert alert["measured"]["weight_kg"] == saved["vitals"]["rules"]["weight"][-1][1] == GAINED
        assert saved["spots"]["held"][0]["values"] == [["weight", CANARY, []]]
        storage: Any = SimpleNamespace(
            call=call_inline, outbox=outbox, recorder=runner.recorder, uplink=SimpleNamespace(statistics=UplinkStatistics())
        )
        models: Any = SimpleNamespace(status=dict)
        await StatusReporter(data, runner.clock, "hub-1", storage, [runner], models).write()
        assert json.loads((data / STATUS_FILE).read_text())["results_unconfirmed"] == 1
        assert_nothing_is_shown(data, "buffer.db", "buffer.db-wal", STATUS_FILE)

    run_with_held(data, scenario)
    assert_nothing_is_shown(data, "buffer.db")


def assert_nothing_is_shown(data: Path, *names: str) -> None:
    files = [path for path in data.iterdir() if path.is_file()]
    assert set(names) <= {path.name for path in files}
    content = b"\0".join(path.read_bytes() for path in files)
    for value in (CANARY, GAINED, 3.438):
        for planted in (str(value).encode(), struct.pack(">d", value), struct.pack("<d", value)):
            assert planted not in content
    assert b"weight" not in content
