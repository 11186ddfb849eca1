"""The clinic's side of commands: made once and logged, sent to hubs that are there until they answer, and listed."""

import asyncio
import json
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from cloud.audit_actors import operator
from cloud.cli import main
from cloud.cli_commands import parse_values
from cloud.commands import HEARD_WITHIN_US, LIFE_S, RESEND_S, CommandSender, send_command
from cloud.errors import ClinicError
from cloud.registry import Assignment, RegisteredHub, load_hub
from cloud.store import Store
from cloud.store.audit import read_rows
from cloud.store.commands import CommandAnswer, StoredCommand, list_commands, note_answers
from cloud.store.hub_states import note_heard
from gateway import virtual_time
from gateway.startup import load_command_key, load_device_key
from sync.audit import read_row
from sync.commands import CommandKey, CommandKind, decode_command
from sync.errors import TransientError
from sync.recipients import RecipientKeyPair
from sync.signing import SigningKey, Use
from tests.databases import ON_BOTH

DATABASES = ON_BOTH
NOW_S = 1_800_000_000
NOW_US = NOW_S * 1_000_000
KEY, HUB_KEY = SigningKey.generate(Use.COMMAND), CommandKey(RecipientKeyPair.generate())
DEVICE = SigningKey.generate(Use.DEVICE).public
HUB = RegisteredHub("hub-1", DEVICE, (Assignment("subject-1", 0),), command_key=HUB_KEY.public)


def send(store: Store, hub: RegisteredHub = HUB, at_s: int = NOW_S, level: str = "debug") -> StoredCommand:
    return send_command(store, KEY, hub, CommandKind.LOG_LEVEL, {"level": level}, operator(), at_s * 1_000_000)


def answer(store: Store, command: StoredCommand, *, is_applied: bool = True) -> None:
    with store.transaction() as connection:
        note_answers(connection, [CommandAnswer(command.hub, command.number, None if is_applied else "expired", NOW_US)])


def listed(store: Store, now_s: int = NOW_S) -> list[tuple[str, int, str]]:
    with store.transaction() as connection:
        return [(one.hub, one.number, one.state_at(now_s)) for one in list_commands(connection)]


class Sending:
    """A sender on virtual time; `sent` are the seconds and payloads of what it published."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sent: list[tuple[float, str, bytes]] = []
        self.is_down = False

    def hear(self, hub: str, at_us: int) -> None:
        with self.store.transaction() as connection:
            note_heard(connection, hub, at_us)

    async def publish(self, topic: str, payload: bytes) -> None:
        if self.is_down:
            raise TransientError("the broker is not there")
        self.sent.append((asyncio.get_running_loop().time(), topic, payload))

    def run(self, scenario) -> None:
        async def call(function, *arguments):
            return function(*arguments)

        async def main() -> None:
            loop = asyncio.get_running_loop()
            sender = CommandSender(self.store, self.publish, lambda: NOW_US + round(loop.time() * 1e6))
            running = asyncio.create_task(sender.run(call))
            await scenario()
            running.cancel()
            await asyncio.wait([running])

        virtual_time.run(main())


def test_a_command_is_sealed_for_its_hub_logged_and_listed(store: Store) -> None:
    sent = send_command(store, KEY, HUB, CommandKind.UPLOAD, {"policy": "none"}, operator(), NOW_US)
    command = decode_command(sent.payload, "hub-1", HUB_KEY, KEY.public)
    assert (command.kind, command.subject, command.arguments) == (CommandKind.UPLOAD, "subject-1", {"policy": "none"})
    assert command.expires_s == sent.expires_s == NOW_S + LIFE_S
    assert listed(store) == [("hub-1", command.number, "sent")]
    with store.transaction() as connection:
        (row,) = [read_row(number, encoded).event for number, encoded in read_rows(connection)]
    objects = ("hub:hub-1", "command:upload", f"number:{sent.number}")
    assert (row.action, row.subject, row.objects) == ("send-command", "subject-1", objects)


def test_numbers_grow_for_each_hub_also_when_the_clock_goes_back_or_the_store_is_restored(store: Store) -> None:
    numbers = [send(store, at_s=at_s).number for at_s in (NOW_S, NOW_S, NOW_S - 10, NOW_S + 5)]
    assert numbers == [NOW_S, NOW_S + 1, NOW_S + 2, NOW_S + 5]
    assert send(store, replace(HUB, hub="hub-2")).number == NOW_S


def test_commands_that_a_hub_could_not_take_are_not_made(store: Store) -> None:
    with pytest.raises(ClinicError, match="enrol it again"):
        send(store, replace(HUB, command_key=None))
    with pytest.raises(ClinicError, match="log_level"):
        send(store, level="loud")
    with pytest.raises(ClinicError, match="fever"):
        send_command(store, KEY, HUB, CommandKind.LIMITS, {"values": {"fever": 99}}, operator(), NOW_US)
    with pytest.raises(ClinicError, match=r"contexts\.paced = 'no' is not allowed"):
        send_command(
            store, KEY, HUB, CommandKind.CONTEXTS, parse_values(CommandKind.CONTEXTS, ["paced=no"]), operator(), NOW_US
        )
    ended = replace(HUB, assignments=(Assignment("subject-1", 0, 5),))
    with pytest.raises(ClinicError, match="no patient"):
        send_command(store, KEY, ended, CommandKind.UPLOAD, {"policy": "all"}, operator(), NOW_US)
    assert listed(store) == []


def test_a_command_is_sent_again_every_minute_until_it_is_answered(store: Store) -> None:
    command, sending = send(store), Sending(store)

    async def scenario() -> None:
        for minute in range(3):
            sending.hear("hub-1", NOW_US + minute * 60_000_000)
            await asyncio.sleep(60)
        answer(store, command)
        sending.hear("hub-1", NOW_US + 180_000_000)
        await asyncio.sleep(180)

    sending.run(scenario)
    times = [at_s for at_s, _, _ in sending.sent]
    assert len(times) == 3
    assert all(RESEND_S <= after - before <= RESEND_S + 1 for before, after in pairwise(times))
    assert {(topic, payload) for _, topic, payload in sending.sent} == {("pulsegate/v1/hub-1/down/command", command.payload)}


def test_a_command_waits_for_its_hub_and_for_the_one_before_it(store: Store) -> None:
    first, second = send(store), send(store)
    sending = Sending(store)

    async def scenario() -> None:
        await asyncio.sleep(200)
        assert sending.sent == []
        sending.hear("hub-1", NOW_US + 200_000_000)
        await asyncio.sleep(2)
        assert [payload for _, _, payload in sending.sent] == [first.payload]
        answer(store, first, is_applied=False)
        await asyncio.sleep(2)
        assert [payload for _, _, payload in sending.sent] == [first.payload, second.payload]
        await asyncio.sleep(HEARD_WITHIN_US / 1e6 + 300)

    sending.run(scenario)
    assert len(sending.sent) <= 4
    assert [state for _, _, state in listed(store)] == ["refused", "sent"]


def test_an_expired_command_is_not_sent_and_the_next_one_is(store: Store) -> None:
    send(store, at_s=NOW_S - LIFE_S)
    second, sending = send(store), Sending(store)
    sending.hear("hub-1", NOW_US)
    sending.run(lambda: asyncio.sleep(5))
    assert [payload for _, _, payload in sending.sent] == [second.payload]
    assert [state for _, _, state in listed(store)] == ["expired", "sent"]


def test_a_broker_that_is_away_only_delays_a_command(store: Store) -> None:
    command, sending = send(store), Sending(store)
    sending.hear("hub-1", NOW_US)

    async def scenario() -> None:
        sending.is_down = True
        await asyncio.sleep(10)
        sending.is_down = False
        await asyncio.sleep(3)

    sending.run(scenario)
    assert [payload for _, _, payload in sending.sent] == [command.payload]


def test_only_the_first_answer_of_the_hub_itself_counts(store: Store) -> None:
    command = send(store)
    answer(store, replace(command, hub="hub-2"))
    answer(store, replace(command, number=command.number + 1))
    assert listed(store) == [("hub-1", command.number, "sent")]
    answer(store, command)
    answer(store, command, is_applied=False)
    assert listed(store, command.expires_s) == [("hub-1", command.number, "applied")]


def test_erasing_a_subject_deletes_the_commands_about_them(store: Store) -> None:
    kept = send(store)
    send_command(store, KEY, HUB, CommandKind.UPLOAD, {"policy": "none"}, operator(), NOW_US)
    store.erase("subject-1", NOW_US)
    assert listed(store) == [("hub-1", kept.number, "sent")]


@pytest.mark.parametrize(
    ("kind", "values", "arguments"),
    [
        ("limits", ["fever=38.2", "pause=2"], {"values": {"fever": 38.2, "pause": 2.0}}),
        ("limits", [], {"values": {}}),
        ("contexts", ["paced", "age_years=71"], {"values": {"paced": True, "age_years": 71}}),
        ("contexts", [], {"values": {}}),
        ("restart", [], {}),
        ("request", ["1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z"], {"lane": "archive", "from_s": 1, "to_s": 2}),
    ],
)
def test_values_on_the_command_line(kind: str, values: list[str], arguments: object) -> None:
    assert parse_values(CommandKind(kind), values) == arguments


@pytest.mark.parametrize(
    ("kind", "values"), [("limits", ["fever"]), ("restart", ["now"]), ("upload", []), ("request", ["a", "b"])]
)
def test_wrong_values_on_the_command_line(kind: str, values: list[str]) -> None:
    with pytest.raises(ClinicError, match=f"give {kind}"):
        parse_values(CommandKind(kind), values)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for load in (load_device_key, load_command_key):
        load(tmp_path)
    return tmp_path


def test_the_operator_registers_commands_and_looks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(folder / "clinic")]
    register = ["register", *data, "--hub", "hub-1", "--subject", "subject-1", "--hub-key", str(folder / "device.pub")]
    register += ["--out", str(folder / "registration.toml")]
    assert main(register) == 0
    assert main(["command", *data, "hub-1", "restart"]) == 1
    assert "--command-key" in capsys.readouterr().err
    assert main([*register, "--command-key", str(folder / "command.pub")]) == 0
    assert load_hub(folder / "clinic" / "hubs" / "hub-1.toml").command_key is not None
    assert main(["command", *data, "hub-1", "upload", "none"]) == 0
    assert main(["command", *data, "hub-3", "upload", "none"]) == 1
    capsys.readouterr()
    assert main(["commands", *data, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["hub"], row["kind"], row["state"], row["answered"]) == ("hub-1", "upload", "sent", None)
    with closing(Store.open(folder / "clinic" / "blocks.db")) as store:
        assert len(listed(store)) == 1
