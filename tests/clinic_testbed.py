"""A clinic with its keys and registered hubs, and hubs that seal, sign and send as the agent does."""

from collections.abc import Sequence
from copy import copy
from itertools import count
from pathlib import Path

from sqlalchemy import Engine

from cloud.block_reader import BlockReader
from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.key_store import KeyStore
from cloud.opener import Opener, Report
from cloud.receipts import BlockOutcome
from cloud.registry import RegisteredHub, Registry, hub_file, load_hub, save_hub
from cloud.store import Store
from cloud.store import tables as store_tables
from sync.chain import block_digest, extend_chain, start_chain
from sync.data_keys import DataKey, KeyStatement, WrappedKey, sign_statement, wrap_key
from sync.message_rows import Head
from sync.messages import Ack, Envelope, decode_ack, encode_envelope
from sync.mqtt import Message
from sync.recipients import RecipientPublicKey
from sync.record_codec import encode_records
from sync.records import Record
from sync.seal import BlockHeader, parse_header, seal_block
from sync.signing import SigningKey, Use
from sync.wire import UPLINK_LANES, Lane, up_topic
from tests.cloud.synthetic import START_US

SECONDS_PER_DAY = 86_400


def ignore(_outcomes: Sequence[BlockOutcome]) -> None:
    """Send no receipts."""


class Clinic:
    """The files of a clinic: signing keys, key store and registry."""

    def __init__(self, folder: Path) -> None:
        self.folder = ClinicFolder(folder)
        self.folder.create()
        self.signing = self.folder.load_or_create_signing_keys()
        self.key_store = KeyStore(self.folder.keys)
        self._devices: dict[str, SigningKey] = {}
        self.registry = Registry(self.folder.hubs, count(step=10).__next__)  # reads changed files at each use

    def add_hub(self, name: str = "hub-1", subject: str = "subject-1", epoch: int = 1) -> "Hub":
        """Register a hub for a subject. One that is known keeps its device: it goes to the next patient."""
        hub = Hub(self, name, subject, epoch, self._devices.setdefault(name, SigningKey.generate(Use.DEVICE)))
        if not hub_file(self.folder.hubs, name).exists():
            save_hub(self.folder.hubs, RegisteredHub(name, hub.device.public, ()))
        self.assign(hub, subject)
        return hub

    def assign(self, hub: "Hub", subject: str, from_s: int = 0) -> None:
        """Let a hub seal for a subject from a time on; it seals for it from now on."""
        registered = load_hub(hub_file(self.folder.hubs, hub.name))
        save_hub(self.folder.hubs, registered.assign(subject, from_s))
        hub.subject = subject
        hub.use_key(DataKey.generate())

    def without_recipients(self) -> "Clinic":
        """Return the same clinic as if all private keys of its subjects were missing."""
        clinic = copy(self)
        clinic.key_store = KeyStore(self.folder.path / "no-keys")
        return clinic

    def recipient(self, subject: str) -> RecipientPublicKey:
        return self.key_store.public(subject) or self.key_store.create(subject)

    def reader(self, store: Store) -> BlockReader:
        return BlockReader(store, self.registry, self.key_store)

    def opener(self, store: Store, engine: Engine, report: Report = ignore) -> Opener:
        return Opener(store, engine, self.reader(store), report)


class Hub:
    """Seals records of one subject, with gap-free sequence numbers in each lane, and sends them to its clinic."""

    def __init__(self, clinic: Clinic, name: str, subject: str, epoch: int, device: SigningKey) -> None:
        self.clinic = clinic
        self.name = name
        self.subject = subject
        self.epoch = epoch
        self.device = device
        self._ends: dict[tuple[int, Lane], tuple[int, bytes]] = {}
        """The last sequence number of each epoch and lane, and the chain value there."""

    def use_key(self, key: DataKey) -> None:
        """Seal with this data key from now on, for the hub's subject."""
        day = START_US // 1_000_000 // SECONDS_PER_DAY
        recipient = self.clinic.recipient(self.subject)
        self.key = key
        self.statement = sign_statement(key, hub=self.name, subject=self.subject, day=day, device=self.device)
        self.wrapped = wrap_key(key, hub=self.name, subject=self.subject, recipient=recipient)

    def seal(self, lane: Lane, plaintext: bytes) -> bytes:
        """Seal the lane's next block."""
        seq, chain = self._end(lane)
        block = seal_block(self.header(lane, seq + 1), plaintext, self.key)
        self._ends[self.epoch, lane] = seq + 1, extend_chain(chain, block_digest(block))
        return block

    def header(self, lane: Lane, seq: int) -> BlockHeader:
        return BlockHeader(self.name, self.subject, self.epoch, lane, seq, self.key.id)

    def seal_records(self, lane: Lane, *records: Record) -> bytes:
        return self.seal(lane, encode_records(records))

    def envelope(self, *blocks: bytes) -> Envelope:
        """Put blocks into an envelope with the key of all of them."""
        heads = tuple(Head(lane, *self._end(lane), mark=0) for lane in UPLINK_LANES)
        return Envelope(self.name, self.epoch, None, heads, None, blocks, (self.statement,), (self.wrapped,))

    def message(self, *blocks: bytes) -> Message:
        """Return the signed message with blocks, on the topic of the first."""
        return self.sign(self.envelope(*blocks), parse_header(blocks[0]).lane)

    def sign(self, envelope: Envelope, lane: Lane) -> Message:
        """Return a signed message on the topic of a lane."""
        return Message(up_topic(self.name, lane), encode_envelope(envelope, self.device))

    def send(self, store: Store, lane: Lane, *records: Record, received_us: int = START_US) -> None:
        """Seal records to one block and let the clinic receive it."""
        self.send_block(store, self.seal_records(lane, *records), received_us)

    def send_block(self, store: Store, block: bytes, received_us: int = START_US) -> Ack:
        """Let the clinic receive a block that it does not hold."""
        ack, n_new = self.receive(store, self.message(block), received_us)
        assert n_new == 1
        return ack

    def receive(self, store: Store, message: Message, received_us: int = START_US) -> tuple[Ack, int]:
        """Let the clinic receive a message; returns its acknowledgement and the number of new blocks."""
        key = self.clinic.signing.acknowledgement
        payload, hub, n_new = handle_message(store, self.clinic.registry, key, message, received_us)
        assert payload is not None
        assert hub == self.name
        return decode_ack(payload, key.public), n_new

    def _end(self, lane: Lane) -> tuple[int, bytes]:
        return self._ends.get((self.epoch, lane)) or (0, start_chain(self.name, lane, self.epoch))


def put_into_store(
    store: Store, block: bytes, *, statement: KeyStatement | None = None, wrapped: WrappedKey | None = None
) -> None:
    """Write a block to the store as a compromised ingest could: nothing is checked."""
    header = parse_header(block)
    id_ = {"hub": header.hub, "epoch": header.epoch, "lane": header.lane, "seq": header.seq}
    with store.transaction() as connection:
        connection.execute(
            store_tables.blocks.insert().values(
                **id_, subject=header.subject, key=header.key, digest=block_digest(block), block=block, received_us=START_US
            )
        )
        connection.execute(store_tables.work.insert().values(**id_, is_alert=header.lane == "alert", received_us=START_US))
        if statement is not None:
            connection.execute(store_tables.statements.insert().values(hub=header.hub, **statement._asdict()))
        if wrapped is not None:
            connection.execute(store_tables.wrapped_keys.insert().values(hub=header.hub, **wrapped._asdict()))


def open_all(store: Store, engine: Engine, clinic: Clinic) -> list[BlockOutcome]:
    """Open everything that is stored; returns what became of each block."""
    outcomes: list[BlockOutcome] = []
    opener = clinic.opener(store, engine, report=outcomes.extend)
    while opener.open_batch() is not None:
        pass
    return outcomes
