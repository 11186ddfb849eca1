"""How fast a week of one hub's backlog drains, and how long live data take meanwhile: `python -m benchmarks.backlog_drain`.

The outbox, the uplink and the MQTT client are the agent's, the broker is a mosquitto with TLS, and the ingest worker has a
process of its own and a PostgreSQL server on a disk that syncs each commit. A strap's agent seals two blocks in ten seconds:
its ECG (lane wave) and its vital signs.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest_load import SUBJECT, describe_machine, percentile, running_worker, server_cpu_s
from config.endpoint import Endpoint
from sync.keys import HubKey, HubKeys
from sync.messages import decode_ack
from sync.mqtt import Message, MqttClient, MqttEvent
from sync.outbox import Outbox
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.uplink import Uplink, UplinkCallbacks
from sync.wire import BlockId, Lane, ack_topic
from tests.mosquitto import run_broker
from tests.postgresql import run_server

HUB: Final = "hub-1"
WEEK_S: Final = 7 * 86_400
COMMIT_S: Final = 10
BLOCK_BYTES: Final[dict[Lane, int]] = {"vital": 300, "wave": 1500}
"""Ten seconds of a strap: 1,300 samples at 1.1 bytes, and its heart rates and RR intervals (`benchmarks.record_size`)."""
FILL_COMMITS: Final = 200
LIVE_INTERVAL_S: Final = 1.0
"""Somebody watches: the agent then commits every second."""


class TimedTransport:
    """Passes messages through, and notes when each block was acknowledged."""

    def __init__(self, mqtt: MqttClient, key: SigningKey) -> None:
        self._mqtt, self._key = mqtt, key
        self.acked_s = dict[BlockId, float]()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._mqtt.publish(topic, payload)

    async def receive(self) -> MqttEvent:
        event = await self._mqtt.receive()
        if isinstance(event, Message):
            now_s = time.perf_counter()
            for held in decode_ack(event.payload, self._key.public).held:
                for n in range(len(held.digests)):
                    self.acked_s[BlockId(held.lane, held.epoch, held.first + n)] = now_s
        return event


def _blocks() -> list[tuple[Lane, bytes]]:
    return [(lane, os.urandom(n)) for lane, n in BLOCK_BYTES.items()]


def _fill(outbox: Outbox, n_commits: int) -> None:
    for start in range(0, n_commits, FILL_COMMITS):
        outbox.put_many([block for _ in range(min(FILL_COMMITS, n_commits - start)) for block in _blocks()])


async def _drain(
    outbox: Outbox, keys: HubKeys, registration: Registration, broker: Endpoint, ack: SigningKey
) -> dict[str, Any]:
    """Send what the outbox holds, and a live commit each second; return how long both took."""
    loop, executor = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    async def call(function: Any, /, *values: Any) -> Any:
        return await loop.run_in_executor(executor, function, *values)

    mqtt = MqttClient(broker, client_id=HUB, subscriptions=[ack_topic(HUB)])
    transport = TimedTransport(mqtt, ack)
    uplink = Uplink(outbox, transport, hub=HUB, keys=keys, registration=registration, call=call, callbacks=UplinkCallbacks())
    live_s, began_s = dict[BlockId, float](), time.perf_counter()

    async def seal_live() -> None:
        while not transport.acked_s:  # the connection is up
            await asyncio.sleep(LIVE_INTERVAL_S / 10)
        while True:
            ids = await call(outbox.put_many, _blocks())
            live_s.update(dict.fromkeys(ids, time.perf_counter()))
            uplink.wake()
            await asyncio.sleep(LIVE_INTERVAL_S)

    n_before = sum((await call(outbox.statistics)).pending.values())
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part) for part in (mqtt.run(), uplink.run(), seal_live())]
        while sum((await call(outbox.statistics)).pending.values()) > 2 * len(BLOCK_BYTES):
            await asyncio.sleep(LIVE_INTERVAL_S / 2)
        drained_s = time.perf_counter() - began_s
        for task in running:
            task.cancel()
    delays_s = [transport.acked_s[id_] - sealed_s for id_, sealed_s in live_s.items() if id_ in transport.acked_s]
    executor.shutdown()
    return {
        "blocks": n_before,
        "drained_s": round(drained_s, 1),
        "blocks_per_s": round(n_before / drained_s),
        "live_blocks": len(delays_s),
        "live_p50_s": round(percentile(delays_s, 50), 3),
        "live_p95_s": round(percentile(delays_s, 95), 3),
        "live_max_s": round(max(delays_s), 3),
        "resent": uplink.statistics.resent,
    }


def measure(backlog_s: int) -> dict[str, Any]:
    """Fill an outbox with so many seconds of a strap, and drain it."""
    device, ack = SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.ACKNOWLEDGEMENT)
    receipt, recipient = SigningKey.generate(Use.RECEIPT), RecipientKeyPair.generate()
    registration = Registration(HUB, "main", ack.public, receipt.public, 24, int(time.time()) - 1, {SUBJECT: recipient.public})
    keys = HubKeys(HubKey(os.urandom(32)), device)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulsegate-backlog-")))
        server = stack.enter_context(run_server(is_durable=True))
        os.environ["PGPASSFILE"] = str(server.password_file)
        server.create("backlog")
        outbox = stack.enter_context(
            closing(
                Outbox.open(
                    folder / "outbox.db",
                    hub=HUB,
                    subject=SUBJECT,
                    keys=keys,
                    registration=registration,
                    clock=lambda: int(time.time()),
                )
            )
        )
        _fill(outbox, backlog_s // COMMIT_S)
        broker = stack.enter_context(run_broker(folder / "broker"))
        stack.enter_context(running_worker(server.url("backlog"), broker.service("ingest"), device.public, ack))
        cpu_s = time.process_time()
        found = asyncio.run(_drain(outbox, keys, registration, broker.hub(HUB), ack))
        found |= {"hub_cpu_s": round(time.process_time() - cpu_s, 1), "server_cpu_s": round(server_cpu_s("backlog"), 1)}
    return found | describe_machine()


def main() -> None:
    """Print the figures as JSON; `--json` writes them to a file, too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=WEEK_S / 3600, help="how much to drain (default: a week)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    text = json.dumps(measure(int(options.hours * 3600)), indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
