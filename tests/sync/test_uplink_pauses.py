"""The clinic asks a hub to wait, or refuses its blocks as outdated: alerts are sent all the same, and every pause ends."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.cbor import decode_cbor, encode_cbor
from sync.in_flight import ACK_TIMEOUT_S
from sync.message_rows import Outcome
from sync.messages import Ack, decode_ack, encode_ack
from sync.outbox import Outbox
from sync.signing import Label, SigningKey, Use
from sync.uplink import OUTDATED_PAUSE_S, SPREAD, Uplink
from sync.versions import OUTDATED
from sync.wire import MESSAGE_LIMIT_BYTES, RETRY_AFTER_LIMIT_S, WireError, ack_topic
from tests.link import Link
from tests.sync.uplink_testbed import HUB, UplinkTestbed, open_testbed, wait_until


@pytest.fixture
def testbed(tmp_path: Path) -> Iterator[UplinkTestbed]:
    with open_testbed(tmp_path) as opened:
        yield opened


def ack(testbed: UplinkTestbed, **changes: Any) -> Ack:
    """An acknowledgement of nothing, after one more commit."""
    clinic = testbed.clinic
    clinic.commits += 1
    return replace(Ack(HUB, "main", clinic.store, clinic.fence, clinic.commits), **changes)


def always(testbed: UplinkTestbed, **changes: Any) -> None:
    """Let every acknowledgement of the clinic say this, too."""
    commit = testbed.clinic.commit
    testbed.clinic.commit = lambda message: replace(commit(message), **changes)  # type: ignore[method-assign]


async def send(testbed: UplinkTestbed, message: Ack) -> None:
    await testbed.link.clinic.publish(ack_topic(HUB), testbed.clinic.encode(message))
    await asyncio.sleep(0.01)


def pending(outbox: Outbox) -> dict[str, int]:
    return {lane: n for lane, n in outbox.statistics().pending.items() if n}


def test_a_pause_holds_all_lanes_but_alerts_and_ends_by_itself(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        always(testbed, retry_after_s=40)
        link.connect()
        await send(testbed, ack(testbed, retry_after_s=40))
        testbed.outbox.put_many([("vital", b"v"), ("wave", b"w"), ("alert", b"a")])
        uplink.wake()
        await asyncio.sleep(39.0)
        assert pending(testbed.outbox) == {"vital": 1, "wave": 1}
        await asyncio.sleep(40 * SPREAD - 39.0 + 1.0)
        assert pending(testbed.outbox) == {}
        assert uplink.statistics.pauses == 4

    testbed.run(scenario)


def test_a_pause_survives_a_reconnection_and_ends_when_the_clinic_says_so(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        await send(testbed, ack(testbed, retry_after_s=RETRY_AFTER_LIMIT_S))
        link.cut()
        link.connect()
        testbed.outbox.put("wave", b"w")
        uplink.wake()
        await asyncio.sleep(60.0)
        assert pending(testbed.outbox) == {"wave": 1}
        testbed.outbox.put("alert", b"a")  # its acknowledgement asks for no pause
        uplink.wake()
        await wait_until(testbed.is_drained, 5.0)

    testbed.run(scenario)


def test_no_acknowledgement_can_ask_for_more_than_five_minutes() -> None:
    key = SigningKey.generate(Use.ACKNOWLEDGEMENT)
    longest = Ack(HUB, "main", bytes(16), 1, 1, retry_after_s=RETRY_AFTER_LIMIT_S)
    payload = encode_ack(longest, key)
    assert decode_ack(payload, key.public) == longest
    message = decode_cbor(payload, limit_bytes=MESSAGE_LIMIT_BYTES)
    del message["sig"]
    for value in (RETRY_AFTER_LIMIT_S + 1, 2**53, 2**70, 0, -1, True, 1.0, "60", None):
        fields = message | {"retry_after_s": value}
        content = hashlib.sha256(encode_cbor(fields)).digest() if value != 2**70 else bytes(32)
        forged = encode_cbor(fields | {"sig": key.sign(Label.ACKNOWLEDGEMENT, HUB, content)})
        with pytest.raises(WireError):
            decode_ack(forged, key.public)


def test_a_clinic_that_always_asks_to_wait_still_gets_everything(testbed: UplinkTestbed) -> None:
    """Whoever holds the acknowledgement key can slow a hub down, not silence it."""
    testbed.outbox.put_many([("wave", bytes(100))] * 3)
    always(testbed, retry_after_s=RETRY_AFTER_LIMIT_S)

    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        for n in range(3):
            testbed.outbox.put("wave", b"%d" % n)
            uplink.wake()
            await asyncio.sleep(RETRY_AFTER_LIMIT_S + 1.0)
        assert testbed.is_drained()

    testbed.run(scenario)


def test_an_older_acknowledgement_starts_no_pause(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        link.connect()
        old = ack(testbed, retry_after_s=RETRY_AFTER_LIMIT_S, update_by_s=1)
        testbed.clinic.commits += 1
        await send(testbed, ack(testbed))
        await send(testbed, old)
        testbed.outbox.put("wave", b"w")
        uplink.wake()
        await wait_until(testbed.is_drained, 5.0)
        assert (uplink.statistics.pauses, uplink.statistics.update_by_s) == (0, None)

    testbed.run(scenario)


def test_an_outdated_hub_keeps_what_is_refused_and_sends_only_alerts(testbed: UplinkTestbed) -> None:
    def refuse_all_but_alerts(uplink: Uplink) -> Ack:
        blocks = testbed.outbox.pending("vital", (0, 0), 10**6)
        refused = tuple(Outcome(*block.id, digest, OUTDATED) for block in blocks for digest in [bytes(32)])
        return ack(testbed, update_by_s=1_790_000_000, refused=refused)

    async def scenario(link: Link, uplink: Uplink) -> None:
        testbed.outbox.put_many([("vital", b"1"), ("vital", b"2")])
        testbed.clinic.failures = 10**6
        link.connect()
        await asyncio.sleep(0.1)
        n_sent = len(link.sent)
        await send(testbed, refuse_all_but_alerts(uplink))
        await asyncio.sleep(ACK_TIMEOUT_S[1])
        assert len(link.sent) == n_sent + 1  # the acknowledgement
        assert "outdated" in (uplink.statistics.problem or "")
        assert uplink.statistics.update_by_s == 1_790_000_000
        testbed.clinic.failures = 0
        always(testbed, update_by_s=1_790_000_000)
        testbed.outbox.put("alert", b"a")
        uplink.wake()
        await asyncio.sleep(1.0)
        assert pending(testbed.outbox) == {"vital": 2}
        assert testbed.outbox.statistics().refused == 0

    testbed.run(scenario)
    testbed.drain()  # the agent was updated
    assert testbed.clinic.opened_plaintexts() == [b"a", b"1", b"2"]


def test_an_outdated_hub_tries_again_after_an_hour(testbed: UplinkTestbed) -> None:
    async def scenario(link: Link, uplink: Uplink) -> None:
        testbed.outbox.put("vital", b"1")
        testbed.clinic.failures = 1
        link.connect()
        await asyncio.sleep(0.1)
        block = testbed.outbox.pending("vital", (0, 0), 10**6)[0]
        await send(testbed, ack(testbed, update_by_s=1, refused=(Outcome(*block.id, bytes(32), OUTDATED),)))
        await asyncio.sleep(OUTDATED_PAUSE_S - 60.0)
        assert pending(testbed.outbox) == {"vital": 1}
        await asyncio.sleep(61.0)
        assert pending(testbed.outbox) == {}
        assert uplink.statistics.problem is None

    testbed.run(scenario)
