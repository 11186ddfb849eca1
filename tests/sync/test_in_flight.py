"""The blocks in flight: room, measured throughput, overdue blocks, and which were sent before."""

from sync.in_flight import (
    ACK_TIMEOUT_S,
    ALERT_INTERVAL_S,
    ALERT_MESSAGES,
    LIVE_MESSAGES,
    LIVE_SHARE,
    MAX_BLOCKS,
    MAX_MESSAGES,
    MESSAGES_QUEUED,
    RECEIVER_DEAD_S,
    WINDOW_BYTES,
    InFlight,
    SentBlocks,
)
from sync.wire import BlockId, Lane

SMALLEST, LARGEST = WINDOW_BYTES


def ids(lane: Lane, first: int, last: int) -> list[BlockId]:
    return [BlockId(lane, 1, seq) for seq in range(first, last + 1)]


def measured(message_bytes: int, round_trip_s: float) -> InFlight:
    """After one message that was acknowledged."""
    in_flight = InFlight()
    in_flight.add(ids("wave", 1, 1), message_bytes, 0.0)
    in_flight.settle(ids("wave", 1, 1), round_trip_s)
    return in_flight


def test_the_window_is_a_second_of_the_measured_throughput_within_its_bounds() -> None:
    assert InFlight().window_bytes == SMALLEST
    assert measured(10_000, 0.5).window_bytes == 20_000
    assert measured(1000, 1.0).window_bytes == SMALLEST
    assert measured(50_000, 0.01).window_bytes == LARGEST


def test_one_message_is_in_flight_until_the_clinic_answers_and_after_a_timeout() -> None:
    in_flight = measured(20_000, 0.5)
    in_flight.add(ids("wave", 2, 2), 15_000, 1.0)
    assert in_flight.room_bytes("vital", 1000.0) == 25_000
    assert in_flight.expire(1000.0) == ids("wave", 2, 2)
    assert in_flight.room_bytes("wave", 1000.0) is None
    in_flight.add(ids("wave", 2, 2), 15_000, 1000.0)
    assert (in_flight.room_bytes("vital", 1000.0), in_flight.room_bytes("alert", 1000.0)) == (0, None)


def test_alerts_do_not_wait_for_other_lanes_and_take_no_room_from_them() -> None:
    in_flight = measured(20_000, 0.5)
    in_flight.add(ids("vital", 1, MAX_BLOCKS), 30_000, 1.0)
    assert (in_flight.room_bytes("wave", 1000.0), in_flight.room_bytes("alert", 1000.0)) == (0, None)
    in_flight.settle(ids("vital", 1, MAX_BLOCKS), 1.1)
    in_flight.add(ids("alert", 1, 1), 50_000, 2.0)
    assert in_flight.room_bytes("wave", 1000.0) is None


def test_a_block_sent_twice_counts_from_its_first_sending() -> None:
    in_flight = InFlight()
    in_flight.add(ids("wave", 1, 1), 30_000, 0.0)
    assert in_flight.expire(15.0) == ids("wave", 1, 1)
    in_flight.add(ids("wave", 1, 1), 30_000, 15.0)
    in_flight.settle(ids("wave", 1, 1), 15.1)
    assert in_flight.window_bytes == SMALLEST
    in_flight.add(ids("wave", 2, 2), 100, 20.0)
    assert in_flight.next_expiry() == 20.0 + 15.1


def test_a_block_is_overdue_when_the_link_had_time_to_carry_it() -> None:
    in_flight = InFlight()
    in_flight.add(ids("wave", 1, 1), 50_000, 0.0)
    assert in_flight.next_expiry() == ACK_TIMEOUT_S[0] + 20.0  # at 20 kbit/s
    in_flight = measured(50_000, 0.1)
    in_flight.add(ids("wave", 2, 2), 50_000, 1.0)
    assert in_flight.next_expiry() == 1.0 + ACK_TIMEOUT_S[0] + 0.1


def test_a_new_connection_forgets_what_was_measured() -> None:
    in_flight = measured(50_000, 0.01)
    in_flight.add(ids("wave", 2, 3), 10_000, 1.0)
    in_flight.reset()
    assert in_flight.is_empty
    assert (in_flight.window_bytes, in_flight.room_bytes("wave", 1000.0)) == (SMALLEST, None)
    assert in_flight.sent_blocks() == SentBlocks(frozenset(), frozenset(ids("wave", 2, 3)))


def test_blocks_that_are_never_settled_take_bounded_memory() -> None:
    in_flight = InFlight()
    for first in range(1, 5 * MAX_BLOCKS, 100):
        in_flight.add(ids("wave", first, first + 99), 10_000, 0.0)
        in_flight.reset()
    assert 0 < len(in_flight.sent_blocks().before) <= 2 * MAX_BLOCKS
    in_flight.add(ids("wave", 1, 2), 100, 0.0)
    in_flight.settle(ids("wave", 1, 2), 1.0)
    assert not in_flight.sent_blocks().in_flight


def test_a_backlog_leaves_room_for_live_data() -> None:
    """In bytes and in messages: live data need not wait until the clinic has acknowledged a part of the backlog."""
    in_flight = measured(LARGEST, 1.0)
    share, message_bytes, seq = LARGEST // LIVE_SHARE, LARGEST // 4, 2
    in_flight.add(ids("wave", 2, 2), message_bytes, 1.0)
    while room := in_flight.room_bytes("wave", 1.0, is_backlog=True):
        seq += 1
        in_flight.add(ids("wave", seq, seq), min(room, message_bytes), 1.0)
    assert in_flight.room_bytes("vital", 1.0) == share
    in_flight = measured(LARGEST, 1.0)
    for seq in range(2, 2 + MAX_MESSAGES - LIVE_MESSAGES):
        in_flight.add(ids("wave", seq, seq), 400, 1.0)
    assert in_flight.room_bytes("wave", 1.0, is_backlog=True) == 0
    assert in_flight.room_bytes("vital", 1.0) == LARGEST - 400 * (MAX_MESSAGES - LIVE_MESSAGES)


def test_at_most_eight_messages_of_other_lanes_are_in_flight() -> None:
    in_flight = measured(WINDOW_BYTES[1], 0.1)
    for seq in range(2, 2 + MAX_MESSAGES):
        assert in_flight.room_bytes("wave", 1.0) != 0
        in_flight.add(ids("wave", seq, seq), 400, 1.0)
    assert (in_flight.room_bytes("wave", 1.0), in_flight.room_bytes("alert", 1.0)) == (0, None)
    in_flight.settle(ids("wave", 2, 2), 1.1)
    assert in_flight.room_bytes("wave", 1.1) != 0


def test_alerts_without_an_answer_are_sent_at_once_up_to_a_number_and_then_one_at_a_time() -> None:
    in_flight = InFlight()
    for seq in range(1, 1 + ALERT_MESSAGES):
        assert in_flight.room_bytes("alert", 5.0) is None
        in_flight.add(ids("alert", seq, seq), 400, 5.0)
    assert (in_flight.room_bytes("alert", 5.0), in_flight.alert_wait_s(5.0)) == (0, ALERT_INTERVAL_S)
    in_flight.reset()  # a new connection: the broker may still have them
    in_flight.expire(1000.0)
    assert in_flight.room_bytes("alert", 5.0 + ALERT_INTERVAL_S) is None
    in_flight.add(ids("alert", 99, 99), 400, 7.0)
    assert in_flight.room_bytes("alert", 7.5) == 0
    in_flight.settle(ids("alert", 99, 99), 7.6)
    assert in_flight.room_bytes("alert", 7.6) is None


def test_a_dead_clinic_is_sent_no_more_than_a_broker_has_to_queue_of_one_hub() -> None:
    """Alerts and other blocks always wait, each in a message of its own, at the fastest hub."""
    in_flight, sent, now = measured(WINDOW_BYTES[1], 0.001), 0, 1.0
    seq = 10
    while now < 1.0 + RECEIVER_DEAD_S:
        in_flight.expire(now)
        for lane in ("alert", "wave"):
            while in_flight.room_bytes(lane, now) != 0:
                seq += 1
                in_flight.add(ids(lane, seq, seq), 400, now)
                sent += 1
        now += 0.05
    n_statuses = 2
    assert sent + n_statuses <= MESSAGES_QUEUED
    assert sent > ALERT_MESSAGES + MAX_MESSAGES
