"""Messages of made-up hubs, and ingest workers in processes of their own, for the benchmarks of the clinic's ingest."""

import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from cloud.block_reader import BlockReader
from cloud.databases import DatabaseLocation
from cloud.device_keys import DeviceKey
from cloud.folder import ClinicFolder
from cloud.ingest import handle_messages, run_ingest
from cloud.key_store import KeyStore
from cloud.opener import Opener
from cloud.projections_database import open_projections
from cloud.receipts import ReceiptQueue
from cloud.registry import Assignment, Registry
from cloud.services import leave_to_the_page, look_for_work
from cloud.store import Store
from config.endpoint import Endpoint
from sync.chain import block_digest, extend_chain, start_chain
from sync.data_keys import DataKey, WrappedKey, sign_statement
from sync.message_rows import Head
from sync.messages import Envelope, encode_envelope
from sync.mqtt import Message, MqttClient
from sync.seal import BlockHeader, seal_block
from sync.signing import SigningKey, Use, VerifyingKey
from sync.wire import EPOCH_RANDOM_BITS, UP_TOPICS, up_topic

SUBJECT: Final = "subject-1"
BLOCK_BYTES: Final = 1000
"""About ten seconds of a strap's ECG, sealed."""
EPOCH: Final = int(time.time()) << EPOCH_RANDOM_BITS
SYNCS: Final = 21
_SPAWN: Final = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class AnyHub:
    """A registry in which all hubs have one device key and one subject."""

    device: VerifyingKey

    def device_key(self, _hub: str) -> VerifyingKey:
        return self.device

    def device_keys(self, _hub: str) -> tuple[DeviceKey, ...]:
        return (DeviceKey(self.device),)

    def may_seal(self, _hub: str, subject: str, epoch: int) -> bool:
        return subject == SUBJECT and epoch > 0

    def assignments(self, _hub: str) -> tuple[Assignment, ...]:
        return (Assignment(SUBJECT, 0),)


def make_messages(hub: str, n: int, blocks_each: int, device: SigningKey) -> list[Message]:
    """Return messages of one hub's lane. The first has the data key; each has the lane's head at its time."""
    key = DataKey.generate()
    statement = sign_statement(key, hub=hub, subject=SUBJECT, day=1, device=device)
    wrapped = WrappedKey(key.id, bytes(8), bytes(1168))
    chain, messages = start_chain(hub, "wave", EPOCH), []
    for first in range(1, n * blocks_each + 1, blocks_each):
        blocks = []
        for seq in range(first, first + blocks_each):
            blocks.append(seal_block(BlockHeader(hub, SUBJECT, EPOCH, "wave", seq, key.id), bytes(BLOCK_BYTES), key))
            chain = extend_chain(chain, block_digest(blocks[-1]))
        heads = (Head("wave", first + blocks_each - 1, chain, 0),)
        keys, wraps = ((statement,), (wrapped,)) if first == 1 else ((), ())
        envelope = Envelope(hub, EPOCH, None, heads, None, tuple(blocks), keys, wraps)
        messages.append(Message(up_topic(hub, "wave"), encode_envelope(envelope, device)))
    return messages


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What one worker handles: messages in the order of their arrival, of which so many wait at a time."""

    location: DatabaseLocation
    device: bytes
    messages: Sequence[Message]
    waiting: int


@dataclass(frozen=True, slots=True)
class WorkerTime:
    """When a worker began and ended (`time.monotonic`, the same for all processes), and the processor time of its process."""

    began_s: float
    ended_s: float
    cpu_s: float


def _handle_load(load: WorkerLoad, pipe: Connection) -> None:
    """Handle the first group, say so, wait, handle the others and say how long it took; end when told."""
    registry, key = AnyHub(VerifyingKey.from_bytes(Use.DEVICE, load.device)), SigningKey.generate(Use.ACKNOWLEDGEMENT)
    groups = [load.messages[start : start + load.waiting] for start in range(0, len(load.messages), load.waiting)]
    with closing(Store.open(load.location)) as store:
        handle_messages(store, registry, key, groups[0], time.time_ns() // 1000)
        pipe.send(None)
        pipe.recv()
        began_s, cpu_s = time.monotonic(), time.process_time()
        for group in groups[1:]:
            handled = handle_messages(store, registry, key, group, time.time_ns() // 1000)
            assert all(one.payload is not None and one.n_work for one in handled)
        pipe.send(WorkerTime(began_s, time.monotonic(), time.process_time() - cpu_s))
        pipe.recv()


@contextmanager
def run_loads(loads: Sequence[WorkerLoad]) -> Iterator[list[WorkerTime]]:
    """Handle each load in a process of its own, all at once. The workers' connections last until the end of the context."""
    pipes, processes = list[Connection](), list[BaseProcess]()
    for load in loads:
        own, others = _SPAWN.Pipe()
        processes.append(_SPAWN.Process(target=_handle_load, args=(load, others)))
        processes[-1].start()
        others.close()  # the end of the process then ends its pipe
        pipes.append(own)
        own.recv()  # one after the other: the first creates the tables
    for pipe in pipes:
        pipe.send(None)
    try:
        yield [pipe.recv() for pipe in pipes]
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join()


@contextmanager
def running_worker(location: DatabaseLocation, broker: Endpoint, device: VerifyingKey, key: SigningKey) -> Iterator[None]:
    """Run an ingest worker on a broker, in a process of its own; `key` signs its acknowledgements."""
    own, others = _SPAWN.Pipe()
    arguments = (location, broker, device.to_bytes(), key.to_bytes(), others)
    process = _SPAWN.Process(target=_run_worker, args=arguments, daemon=True)
    process.start()
    others.close()
    try:
        own.recv()
        yield
    finally:
        process.terminate()
        process.join()


def _run_worker(location: DatabaseLocation, broker: Endpoint, device: bytes, key: bytes, pipe: Connection) -> None:
    registry, signing = AnyHub(VerifyingKey.from_bytes(Use.DEVICE, device)), SigningKey.from_bytes(Use.ACKNOWLEDGEMENT, key)

    async def serve() -> None:
        mqtt = MqttClient(broker, client_id="ingest/1", subscriptions=UP_TOPICS)
        with closing(Store.open(location)) as store:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(mqtt.run())
                await mqtt.receive()
                pipe.send(None)
                await run_ingest(store, registry, signing, mqtt, lambda: None, now_us=lambda: time.time_ns() // 1000)

    asyncio.run(serve())


@contextmanager
def running_opener(locations: tuple[DatabaseLocation, DatabaseLocation], folder: Path, broker: Endpoint) -> Iterator[None]:
    """Run an opener of the store and projections at `locations` in a process of its own; `folder` is the clinic's."""
    own, others = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_run_opener, args=(locations, folder, broker, others), daemon=True)
    process.start()
    others.close()
    try:
        own.recv()
        yield
    finally:
        process.terminate()
        process.join()


def _run_opener(locations: tuple[DatabaseLocation, DatabaseLocation], folder: Path, broker: Endpoint, pipe: Connection) -> None:
    clinic = ClinicFolder(folder)
    registry, receipt = Registry(clinic.hubs, time.monotonic), clinic.load_or_create_signing_keys().receipt

    async def serve() -> None:
        mqtt = MqttClient(broker, client_id="opener/1", subscriptions=())
        with closing(Store.open(locations[0])) as store:
            receipts = ReceiptQueue(store, receipt, mqtt.publish)
            reader = BlockReader(store, registry, KeyStore(clinic.keys))
            opener = Opener(store, open_projections(locations[1]), reader, receipts.put)
            opener.check_databases()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(mqtt.run())
                await mqtt.receive()
                pipe.send(None)
                for part in (opener.run(leave_to_the_page), look_for_work(opener), receipts.run()):
                    tasks.create_task(part)

    asyncio.run(serve())


def server_cpu_s(database: str) -> float:
    """Return the processor time of all PostgreSQL processes that serve a database."""
    return sum(_cpu_s(path.parent) for path in Path("/proc").glob("[0-9]*/cmdline") if f"pulsegate {database} " in _read(path))


def _cpu_s(process: Path) -> float:
    fields = _read(process / "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100 if fields else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that `percent` of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def describe_machine() -> dict[str, Any]:
    """Return what else used the machine: the number of processors, the load of the last minute, and the time of a sync."""
    load = float(_read(Path("/proc/loadavg")).split()[0])
    return {"processors": multiprocessing.cpu_count(), "load": load, "sync_ms": _time_sync_ms()}


def _time_sync_ms() -> float:
    """Return the median time to write 8 KiB to the disk, where the server's files are."""
    times_s = list[float]()
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            began_s = time.perf_counter()
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())
            times_s.append(time.perf_counter() - began_s)
    return round(percentile(times_s, 50) * 1e3, 1)
