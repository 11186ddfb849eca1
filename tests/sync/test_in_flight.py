"""The blocks in flight: room, measured throughput, overdue blocks, and which were sent before."""

from sync.in_flight import ACK_TIMEOUT_S, MAX_BLOCKS, WINDOW_BYTES, InFlight, SentBlocks
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
    assert in_flight.room_bytes("vital") == 25_000
    assert in_flight.expire(1000.0) == ids("wave", 2, 2)
    assert in_flight.room_bytes("wave") is None
    in_flight.add(ids("wave", 2, 2), 15_000, 1000.0)
    assert (in_flight.room_bytes("vital"), in_flight.room_bytes("alert")) == (0, None)


def test_alerts_do_not_wait_for_other_lanes_and_take_no_room_from_them() -> None:
    in_flight = measured(20_000, 0.5)
    in_flight.add(ids("vital", 1, MAX_BLOCKS), 30_000, 1.0)
    assert (in_flight.room_bytes("wave"), in_flight.room_bytes("alert")) == (0, None)
    in_flight.settle(ids("vital", 1, MAX_BLOCKS), 1.1)
    in_flight.add(ids("alert", 1, 1), 50_000, 2.0)
    assert in_flight.room_bytes("wave") is None


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
    assert (in_flight.window_bytes, in_flight.room_bytes("wave")) == (SMALLEST, None)
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
