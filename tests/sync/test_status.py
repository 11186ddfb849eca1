"""The status: its fields and limits, its signature, and when it is sent."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.virtual_time import run
from sync.cbor import decode_cbor, encode_cbor
from sync.consent import TAG_BYTES, ToldConsent, subject_tag
from sync.errors import TransientError
from sync.heartbeat import Heartbeat
from sync.signing import Label, SignatureError, SigningKey, Use
from sync.status import (
    AUDIT_LIMIT_BYTES,
    MAX_ERASED,
    MAX_LINK_STATES,
    STATUS_INTERVAL_S,
    STATUS_LIMIT_BYTES,
    Backlog,
    Battery,
    HubStatus,
    count_links,
    decode_status,
    encode_status,
    read_verified_status,
)
from sync.wire import LANES, MAX_COUNT, WireError, status_topic
from tests.link import Link

DEVICE = SigningKey.generate(Use.DEVICE)
VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "revision_1.json").read_text())
STATUS = HubStatus(
    hub="hub-1",
    epoch=1_790_000_000 << 20,
    seq=7,
    at_us=1_790_000_123_456_789,
    version="0.1.0",
    revision=1,
    backlog=(Backlog("alert", 0, None), Backlog("vital", 3, 12), Backlog("wave", 40, 86_400), Backlog("archive", 0, None)),
    battery=Battery(81, is_charging=True),
    clock_offset_us=-1500,
    certificate_days=None,
    models=4,
    free_bytes=5_000_000_000,
    links=(("absent", 2), ("streaming", 1)),
)

counts = st.integers(0, MAX_COUNT)
signed_integers = st.integers(-MAX_COUNT, MAX_COUNT)
backlogs = st.one_of(st.just((0, None)), st.tuples(st.integers(1, MAX_COUNT), counts))
tags = st.binary(min_size=TAG_BYTES, max_size=TAG_BYTES)
statuses = st.builds(
    HubStatus,
    st.just("hub-1"),
    st.integers(1, MAX_COUNT),
    st.integers(1, MAX_COUNT),
    counts,
    st.from_regex(r"[0-9][0-9A-Za-z.+-]{0,31}", fullmatch=True),
    counts,
    st.tuples(*(backlogs.map(lambda row, lane=lane: Backlog(lane, *row)) for lane in LANES)),
    st.none() | st.builds(Battery, st.integers(0, 100), st.booleans()),
    st.none() | signed_integers,
    st.none() | signed_integers,
    st.none() | counts,
    counts,
    st.dictionaries(st.from_regex(r"[a-z_]{1,24}", fullmatch=True), st.integers(1, MAX_COUNT), max_size=MAX_LINK_STATES).map(
        lambda states: tuple(sorted(states.items()))
    ),
    st.none() | st.binary(min_size=1, max_size=AUDIT_LIMIT_BYTES),
    st.none() | st.builds(ToldConsent, tags, counts, st.none() | st.integers(1, MAX_COUNT)),
    st.lists(tags, max_size=MAX_ERASED).map(tuple),
)


def with_fields(**fields: Any) -> bytes:
    """The status with other fields, signed; a field that is `...` is left out."""
    message = decode_cbor(encode_status(STATUS, DEVICE), limit_bytes=STATUS_LIMIT_BYTES) | fields
    message = {name: value for name, value in message.items() if value is not ... and name != "sig"}
    content = hashlib.sha256(encode_cbor(message)).digest()
    return encode_cbor(message | {"sig": DEVICE.sign(Label.STATUS, str(message["hub"]), content)})


@given(statuses)
def test_round_trip(status: HubStatus) -> None:
    payload = encode_status(status, DEVICE)
    assert len(payload) <= STATUS_LIMIT_BYTES
    assert decode_status(payload, DEVICE.public) == read_verified_status(payload) == status


def test_a_tag_is_what_the_protocol_says_and_differs_by_hub() -> None:
    content = b"\x84\x71pulsegate subject\x02\x65hub-1\x69subject-1"
    assert subject_tag("hub-1", "subject-1") == hashlib.sha256(content).digest()[:8]
    assert subject_tag("hub-2", "subject-1") != subject_tag("hub-1", "subject-1")


def test_the_frozen_status_of_revision_1_is_read() -> None:
    device = SigningKey.from_bytes(Use.DEVICE, bytes.fromhex(VECTOR["device_private"]))
    status = decode_status(bytes.fromhex(VECTOR["status"]), device.public)
    assert status == replace(STATUS, audit=b"head")


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 3},
        {"seq": 0},
        {"seq": -1},
        {"epoch": 2**53},
        {"at_us": -1},
        {"at_us": 1.5},
        {"version": ""},
        {"version": "1" * 33},
        {"version": "1\n"},
        {"revision": True},
        {"backlog": []},
        {"backlog": [["alert", 0, None], ["wave", 0, None], ["vital", 0, None], ["archive", 0, None]]},
        {"backlog": [["alert", 0, 5], ["vital", 0, None], ["wave", 0, None], ["archive", 0, None]]},
        {"backlog": [["alert", 1, None], ["vital", 0, None], ["wave", 0, None], ["archive", 0, None]]},
        {"battery": [101, True]},
        {"battery": [50, 1]},
        {"battery": [50]},
        {"clock_offset_us": 2**53},
        {"certificate_days": "7"},
        {"models": -1},
        {"free_bytes": None},
        {"links": [["streaming", 1], ["absent", 1]]},
        {"links": [["absent", 1], ["absent", 2]]},
        {"links": [["absent", 0]]},
        {"links": [["Maria's strap", 1]]},
        {"links": [[chr(97 + n), 1] for n in range(MAX_LINK_STATES + 1)]},
        {"audit": b""},
        {"consent": None},
        {"consent": [bytes(7), 0, None]},
        {"consent": [bytes(8), -1, None]},
        {"consent": [bytes(8), 0, 0]},
        {"consent": [bytes(8), 0]},
        {"erased": []},
        {"erased": ["subject-1"]},
        {"erased": [bytes(8)] * (MAX_ERASED + 1)},
        {"audit": bytes(AUDIT_LIMIT_BYTES + 1)},
        {"free_bytes": ...},
        {"new": 1, "crit": ["new"]},
        {"padding": bytes(STATUS_LIMIT_BYTES)},
    ],
    ids=repr,
)
def test_a_malformed_status_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_status(with_fields(**fields), DEVICE.public)


def test_a_field_of_a_newer_hub_is_ignored() -> None:
    assert decode_status(with_fields(new=1), DEVICE.public) == STATUS


def test_only_the_device_key_of_the_hub_signs_a_status() -> None:
    payload = encode_status(STATUS, DEVICE)
    message = decode_cbor(payload, limit_bytes=STATUS_LIMIT_BYTES)
    content = hashlib.sha256(encode_cbor({name: value for name, value in message.items() if name != "sig"})).digest()
    as_envelope = encode_cbor(message | {"sig": DEVICE.sign(Label.ENVELOPE, "hub-1", content)})
    for forged in (encode_status(STATUS, SigningKey.generate(Use.DEVICE)), payload.replace(b"0.1.0", b"0.1.1"), as_envelope):
        with pytest.raises(SignatureError):
            decode_status(forged, DEVICE.public)
    with pytest.raises(ValueError, match="does not sign"):
        encode_status(STATUS, SigningKey.generate(Use.RECEIPT))


def test_counts_links_without_naming_a_sensor() -> None:
    assert count_links(["streaming", "absent", "streaming"]) == (("absent", 1), ("streaming", 2))


class TestHeartbeat:
    def run(self, link: Link, scenario: Any, collect: Any = lambda seq: replace(STATUS, seq=seq)) -> list[tuple[float, int]]:
        """Returns the time and the number of each status that the clinic gets."""

        async def call(function: Any, /, *values: Any) -> Any:
            return function(*values)

        async def main() -> list[tuple[float, int]]:
            heartbeat = Heartbeat(link.hub, DEVICE, collect, call)
            received: list[tuple[float, int]] = []

            async def receive() -> None:
                while True:
                    event = await link.clinic.receive()
                    if hasattr(event, "payload"):
                        assert event.topic == status_topic("hub-1")
                        received.append((asyncio.get_running_loop().time(), decode_status(event.payload, DEVICE.public).seq))

            tasks = [asyncio.create_task(heartbeat.run()), asyncio.create_task(receive())]
            await scenario(heartbeat)
            for task in tasks:
                task.cancel()
            return received

        return run(main())

    def test_is_sent_at_each_connection_and_every_minute(self) -> None:
        async def scenario(heartbeat: Heartbeat) -> None:
            link.connect()
            heartbeat.on_connected()
            await asyncio.sleep(2.5 * STATUS_INTERVAL_S)
            heartbeat.on_connected()
            await asyncio.sleep(1.0)

        link = Link()
        assert self.run(link, scenario) == [(0.0, 1), (60.0, 2), (120.0, 3), (150.0, 4)]

    def test_neither_a_lost_connection_nor_a_locked_buffer_ends_it(self) -> None:
        n_calls = 0

        def collect(seq: int) -> HubStatus:
            nonlocal n_calls
            n_calls += 1
            if n_calls == 2:
                raise TransientError("locked")
            return replace(STATUS, seq=seq)

        async def scenario(heartbeat: Heartbeat) -> None:
            await asyncio.sleep(3.5 * STATUS_INTERVAL_S)  # not connected
            link.connect()
            await asyncio.sleep(STATUS_INTERVAL_S)

        link = Link()
        assert self.run(link, scenario, collect) == [(240.0, 4)]
