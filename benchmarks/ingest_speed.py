"""How fast the clinic's ingest verifies, commits and acknowledges: `python -m benchmarks.ingest_speed [--json FILE]`.

It starts a PostgreSQL server on a disk, which syncs each commit, and a mosquitto with TLS. Processor time is given beside wall
time, because other programs use the machine. Blocks have 1 kB.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.ingest_load import (
    WorkerLoad,
    describe_machine,
    make_messages,
    percentile,
    run_loads,
    running_worker,
    server_cpu_s,
)
from cloud.databases import DatabaseLocation
from sync.messages import decode_ack
from sync.mqtt import Connected, Message, MqttClient
from sync.signing import SigningKey, Use
from sync.wire import ack_topic
from tests.mosquitto import run_broker
from tests.postgresql import Server, run_server

RATE_PER_S: Final = 50
LATENCY_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Case:
    """`rounds` messages of `blocks` blocks of each of `hubs` hubs. As many messages wait at a time as there are hubs."""

    name: str
    hubs: int
    blocks: int
    rounds: int


CASES: Final = (
    Case("one hub, 1 block a message", 1, 1, 100),
    Case("one hub, 20 blocks a message", 1, 20, 60),
    Case("100 hubs, 2 blocks a message (a strap's)", 100, 2, 8),
    Case("50 hubs, 20 blocks a message", 50, 20, 6),
    Case("50 hubs, 45 blocks a message (as many as fit)", 50, 45, 4),
)
SCALED: Final = CASES[3]
"""The case that two workers handle, too."""


class Databases:
    """New databases, on PostgreSQL or SQLite."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self._folder, self._n = server, folder, 0

    def new(self, kind: str) -> tuple[str, DatabaseLocation]:
        """Return the name and location of a new database."""
        self._n += 1
        name = f"bench_{self._n}"
        if kind == "sqlite":
            return name, self._folder / f"{name}.db"
        self._server.create(name)
        return name, self._server.url(name)


def measure_throughput(databases: Databases, kind: str, case: Case, n_workers: int = 1) -> dict[str, Any]:
    """Return blocks a second of all workers, and microseconds of processor time for each block."""
    device, (name, location) = SigningKey.generate(Use.DEVICE), databases.new(kind)
    loads = []
    for worker in range(n_workers):
        of_hubs = [make_messages(f"hub-{worker}-{n}", case.rounds + 1, case.blocks, device) for n in range(case.hubs)]
        messages = [message for of_round in zip(*of_hubs, strict=True) for message in of_round]
        loads.append(WorkerLoad(location, device.public.to_bytes(), messages, case.hubs))
    before_s = server_cpu_s(name)
    with run_loads(loads) as times:
        server_s = server_cpu_s(name) - before_s
    n_blocks = n_workers * case.hubs * case.rounds * case.blocks
    wall_s = max(found.ended_s for found in times) - min(found.began_s for found in times)
    worker_s = sum(found.cpu_s for found in times)
    return {
        "case": case.name,
        "database": kind,
        "workers": n_workers,
        "blocks_per_s": round(n_blocks / wall_s),
        "messages_per_s": round(n_blocks / case.blocks / wall_s),
        "worker_us_per_block": round(worker_s / n_blocks * 1e6),
        "server_us_per_block": round(server_s / n_blocks * 1e6),
        "blocks_per_cpu_s": round(n_blocks / (worker_s + server_s)),
        **describe_machine(),
    }


async def _time_acks(mqtt: MqttClient, messages: list[Message], key: SigningKey) -> list[float]:
    """Publish at `RATE_PER_S`; return the seconds from each publish to the acknowledgement of its block."""
    sent_s, delays_s = dict[int, float](), list[float]()

    async def receive() -> None:
        while len(delays_s) < len(messages):
            event = await mqtt.receive()
            if isinstance(event, Message):
                now_s = time.perf_counter()
                for held in decode_ack(event.payload, key.public).held:
                    delays_s.extend(now_s - sent_s[held.first + n] for n in range(len(held.digests)))

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(mqtt.run())
        while not isinstance(await mqtt.receive(), Connected):
            pass
        receiving = tasks.create_task(receive())
        began_s = time.perf_counter()
        for n, message in enumerate(messages):
            await asyncio.sleep(max(0.0, began_s + n / RATE_PER_S - time.perf_counter()))
            sent_s[n + 1] = time.perf_counter()
            await mqtt.publish(message.topic, message.payload)
        await receiving
        running.cancel()
    return delays_s


def measure_latency(databases: Databases, folder: Path) -> dict[str, Any]:
    """Return milliseconds from publish to acknowledgement, over mosquitto with TLS, of one block a message."""
    device, key = SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.ACKNOWLEDGEMENT)
    messages = make_messages("hub-1", int(RATE_PER_S * LATENCY_S), 1, device)
    name, location = databases.new("postgresql")
    with run_broker(folder) as broker, running_worker(location, broker.service("ingest"), device.public, key):
        before_s = server_cpu_s(name)
        mqtt = MqttClient(broker.hub("hub-1"), client_id="hub-1", subscriptions=[ack_topic("hub-1")])
        delays_s = asyncio.run(_time_acks(mqtt, messages, key))
        server_s = server_cpu_s(name) - before_s
    return {
        "case": f"publish to acknowledgement, {RATE_PER_S} blocks a second",
        "p50_ms": round(percentile(delays_s, 50) * 1e3, 1),
        "p95_ms": round(percentile(delays_s, 95) * 1e3, 1),
        "server_us_per_block": round(server_s / len(messages) * 1e6),
        **describe_machine(),
    }


def measure() -> Iterator[dict[str, Any]]:
    """Yield the figures as they are measured."""
    with run_server(is_durable=True) as server, _new_folder() as folder:
        os.environ["PGPASSFILE"] = str(server.password_file)
        databases = Databases(server, folder)
        for case in CASES:
            yield measure_throughput(databases, "postgresql", case)
        one, two = (measure_throughput(databases, "postgresql", SCALED, n) for n in (1, 2))
        yield two
        yield {"case": "two workers to one", "ratio": round(two["blocks_per_s"] / one["blocks_per_s"], 2)}
        for case in CASES:
            yield measure_throughput(databases, "sqlite", case)
        yield measure_latency(databases, folder / "latency")


@contextmanager
def _new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pulsegate-ingest-") as folder:
        yield Path(folder)


def main() -> None:
    """Print each figure as a line of JSON; `--json` writes all of them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    target = parser.parse_args().json
    figures = []
    for found in measure():
        print(json.dumps(found), flush=True)
        figures.append(found)
    if target is not None:
        target.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
