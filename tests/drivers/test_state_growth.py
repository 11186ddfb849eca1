"""What a conversation keeps of a sensor that sends for ever: values that are new each time must not accumulate."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.fuzz_inputs import kept_bytes
from drivers.conversation import Consent, Context, Moment
from drivers.decoding import ServiceDecoder
from drivers.registry import load_drivers
from drivers.spec import DriverSpec, uuid16

CONVERSATIONS = [driver for driver in load_drivers().drivers if driver.converse is not None]
VECTORS = Path(__file__).parent / "vectors"
VALUES = 6_000
STATE_LIMIT_BYTES = 300_000
"""The oximeter's conversation keeps the most: the groups of two thousand results."""
MEMORY_LIMIT_BYTES = 64_000
"""What a driver remembers is written with readings."""


def known_payloads(driver: DriverSpec) -> dict[str, list[bytes]]:
    """The known payloads of each characteristic."""
    path = VECTORS / f"{driver.name}.json"
    found: dict[str, list[bytes]] = {item.uuid: [bytes(20)] for item in driver.streams}
    for vector in json.loads(path.read_text())["vectors"] if path.exists() else ():
        number = vector["characteristic"].lower()
        uuid = uuid16(int(number, 16)) if len(number) == 4 else number
        if uuid in found and "hex" in vector:
            found[uuid].append(bytes.fromhex(vector["hex"]))
    return found


def endless_values(driver: DriverSpec) -> Iterator[tuple[str, bytes]]:
    """Values that are mostly well-formed and never the same: a few octets of known ones are changed."""
    rng = random.Random(7)
    known = list(known_payloads(driver).items())
    for number in range(VALUES):
        uuid, payloads = rng.choice(known)
        payload = bytearray(rng.choice(payloads))
        for _ in range(min(len(payload), rng.randrange(4))):
            payload[rng.randrange(len(payload))] = rng.randrange(256)
        if len(payload) > 4:
            payload[-2:] = number.to_bytes(2, "little")
        yield uuid, bytes(payload)


@pytest.mark.parametrize("driver", CONVERSATIONS, ids=lambda driver: driver.name)
def test_a_sensor_that_sends_new_values_for_ever_does_not_make_a_conversation_grow(driver: DriverSpec) -> None:
    decoder = ServiceDecoder(driver, Context(consent=Consent(1, 4711)))
    conversation = decoder.conversation
    assert conversation is not None
    kept, memory = 0, 0
    for number, (uuid, payload) in enumerate(endless_values(driver)):
        decoded = decoder.decode(uuid, payload, Moment(1_800_000_000_000_000 + number * 100_000))
        if decoded.memory is not None:
            memory = max(memory, len(json.dumps(decoded.memory)))
        if number % 500 == 0:
            kept = max(kept, kept_bytes(conversation))
    assert kept <= STATE_LIMIT_BYTES
    assert memory <= MEMORY_LIMIT_BYTES
