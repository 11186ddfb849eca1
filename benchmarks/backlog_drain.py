"""How fast a week of one hub's backlog drains, and how long live data take meanwhile: `python -m benchmarks.backlog_drain`.

The outbox, the uplink and the MQTT client are the agent's, the broker is a mosquitto with TLS. Ingest worker and opener have
processes of their own, and a PostgreSQL server on a disk that syncs each commit. A strap's agent seals two blocks in ten
seconds: its ECG (lane wave) and its vital signs. Meanwhile somebody watches, so that it commits every second.

Live data are timed to the acknowledgement, and vital signs also to the receipt: then the page shows them.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.ingest_load import SUBJECT, describe_machine, percentile, running_opener, running_worker, server_cpu_s
from benchmarks.record_size import cut_blocks, make_vitals, make_waveforms
from cloud.folder import ClinicFolder
from cloud.key_store import KeyStore
from cloud.registry import RegisteredHub, save_hub
from cloud.signing_keys import SigningKeys
from config.endpoint import Endpoint
from sync.keys import HubKey, HubKeys
from sync.message_rows import Held
from sync.messages import decode_ack, decode_receipt
from sync.mqtt import Message, MqttClient, MqttEvent
from sync.outbox import Outbox
from sync.record_codec import encode_records
from sync.registration import Registration
from sync.signing import SigningKey, Use
from sync.uplink import Uplink, UplinkCallbacks
from sync.wire import BlockId, Lane, ack_topic, receipt_topic
from tests.cloud.synthetic import counts, ecg_mv
from tests.mosquitto import run_broker
from tests.postgresql import run_server

HUB: Final = "hub-1"
WEEK_S: Final = 7 * 86_400
COMMIT_S: Final = 10
SAMPLED_S: Final = 620.0
"""The blocks repeat those of ten minutes."""
FILL_COMMITS: Final = 200
LIVE_INTERVAL_S: Final = 1.0
"""Somebody watches: the agent then commits every second."""


class TimedTransport:
    """Passes messages through, and notes when each block was acknowledged, and when opened."""

    def __init__(self, mqtt: MqttClient, keys: SigningKeys) -> None:
        self._mqtt, self._keys = mqtt, keys
        self.acked_s, self.opened_s = dict[BlockId, float](), dict[BlockId, float]()

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._mqtt.publish(topic, payload)

    async def receive(self) -> MqttEvent:
        event = await self._mqtt.receive()
        if isinstance(event, Message) and event.topic == ack_topic(HUB):
            _note(self.acked_s, decode_ack(event.payload, self._keys.acknowledgement.public).held)
        elif isinstance(event, Message):
            _note(self.opened_s, decode_receipt(event.payload, self._keys.receipt.public).opened)
        return event


def _note(times_s: dict[BlockId, float], rows: Sequence[Held]) -> None:
    now_s = time.perf_counter()
    for held in rows:
        for n in range(len(held.digests)):
            times_s.setdefault(BlockId(held.lane, held.epoch, held.first + n), now_s)


def _describe(name: str, ended_s: dict[BlockId, float], sealed_s: dict[BlockId, float]) -> dict[str, float]:
    """Percentiles of the time from sealing of the blocks that are done, and the number of the others."""
    delays_s = [ended_s[id_] - began_s for id_, began_s in sealed_s.items() if id_ in ended_s]
    found = {f"{name}_p{percent}_s": round(percentile(delays_s, percent), 3) for percent in (50, 95, 100)} if delays_s else {}
    return found | {f"{name}_missing": len(sealed_s) - len(delays_s)}


def make_commits() -> list[list[tuple[Lane, bytes]]]:
    """Return what a strap's agent seals in each ten seconds of ten minutes."""
    beats_s = np.arange(0.5, SAMPLED_S, 0.8)
    waves = cut_blocks(make_waveforms(counts(ecg_mv(beats_s.tolist(), SAMPLED_S))))
    vitals = cut_blocks(make_vitals([819] * len(beats_s), SAMPLED_S))
    return [
        [("vital", encode_records(vital)), ("wave", encode_records(wave))] for vital, wave in zip(vitals, waves, strict=False)
    ]


def _fill(outbox: Outbox, commits: Sequence[list[tuple[Lane, bytes]]], n: int) -> None:
    for start in range(0, n, FILL_COMMITS):
        outbox.put_many([block for i in range(start, min(start + FILL_COMMITS, n)) for block in commits[i % len(commits)]])


async def _drain(
    outbox: Outbox,
    keys: HubKeys,
    registration: Registration,
    broker: Endpoint,
    signing: SigningKeys,
    commits: Sequence[list[tuple[Lane, bytes]]],
) -> dict[str, Any]:
    """Send what the outbox holds, and a live commit each second; return how long both took."""
    loop, executor = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    async def call(function: Any, /, *values: Any) -> Any:
        return await loop.run_in_executor(executor, function, *values)

    mqtt = MqttClient(broker, client_id=HUB, subscriptions=[ack_topic(HUB), receipt_topic(HUB)])
    transport = TimedTransport(mqtt, signing)
    uplink = Uplink(outbox, transport, hub=HUB, keys=keys, registration=registration, call=call, callbacks=UplinkCallbacks())
    live_s, began_s = dict[BlockId, float](), time.perf_counter()

    async def seal_live() -> None:
        while not transport.acked_s:  # the connection is up
            await asyncio.sleep(LIVE_INTERVAL_S / 10)
        for n in count():
            ids = await call(outbox.put_many, commits[n % len(commits)])
            live_s.update(dict.fromkeys(ids, time.perf_counter()))
            uplink.wake()
            await asyncio.sleep(LIVE_INTERVAL_S)

    n_before = sum((await call(outbox.statistics)).pending.values())
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(part) for part in (mqtt.run(), uplink.run(), seal_live())]
        while sum((await call(outbox.statistics)).pending.values()) > 2 * len(commits[0]):
            await asyncio.sleep(LIVE_INTERVAL_S / 2)
        drained_s = time.perf_counter() - began_s
        sealed_s = {id_: at_s for id_, at_s in live_s.items() if at_s < time.perf_counter() - LIVE_INTERVAL_S}
        n_opened = len(transport.opened_s)
        for task in running:
            task.cancel()
    executor.shutdown()
    vitals_s = {id_: at_s for id_, at_s in sealed_s.items() if id_.lane == "vital"}
    return {
        "blocks": n_before,
        "drained_s": round(drained_s, 1),
        "blocks_per_s": round(n_before / drained_s),
        "live_blocks": len(sealed_s),
        **_describe("live_acknowledged", transport.acked_s, sealed_s),
        **_describe("live_opened", transport.opened_s, vitals_s),
        "opened": n_opened,
        "resent": uplink.statistics.resent,
    }


def measure(backlog_s: int) -> dict[str, Any]:
    """Fill an outbox with so many seconds of a strap, and drain it."""
    device, commits = SigningKey.generate(Use.DEVICE), make_commits()
    keys = HubKeys(HubKey(os.urandom(32)), device)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulsegate-backlog-")))
        server = stack.enter_context(run_server(is_durable=True))
        os.environ["PGPASSFILE"] = str(server.password_file)
        for name in ("backlog", "opened"):
            server.create(name)
        clinic = ClinicFolder(folder / "clinic")
        clinic.create()
        signing, recipient = clinic.load_or_create_signing_keys(), KeyStore(clinic.keys).create(SUBJECT)
        save_hub(clinic.hubs, RegisteredHub(HUB, device.public, ()).assign(SUBJECT, 0))
        public = signing.acknowledgement.public, signing.receipt.public
        registration = Registration(HUB, "main", *public, 24, int(time.time()) - 1, {SUBJECT: recipient})
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
        _fill(outbox, commits, backlog_s // COMMIT_S)
        broker = stack.enter_context(run_broker(folder / "broker"))
        stack.enter_context(
            running_worker(server.url("backlog"), broker.service("ingest"), device.public, signing.acknowledgement)
        )
        locations = server.url("backlog"), server.url("opened")
        stack.enter_context(running_opener(locations, clinic.path, broker.service("opener")))
        cpu_s = time.process_time()
        found = asyncio.run(_drain(outbox, keys, registration, broker.hub(HUB), signing, commits))
        found |= {"hub_cpu_s": round(time.process_time() - cpu_s, 1)}
        found |= {f"server_cpu_s_{name}": round(server_cpu_s(name), 1) for name in ("backlog", "opened")}
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
