"""A clinic of two patients, each with a hub that has a real buffer: everything from sealing to the receipts."""

from contextlib import ExitStack, closing
from pathlib import Path

from sqlalchemy import Engine, select

from cloud import tables
from cloud.block_reader import BlockReader, UnreadableError
from cloud.cli import main
from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.key_store import KeyStore
from cloud.opener import Opener
from cloud.projections_database import open_projections
from cloud.receipts import BlockOutcome, make_receipts
from cloud.register import RegistrationRequest, register_hub
from cloud.registry import Registry
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from sync.keys import HubKey, HubKeys
from sync.messages import Ack, Envelope, decode_ack, decode_receipt, encode_envelope
from sync.mqtt import Message
from sync.outbox import Outbox
from sync.outbox.keys import local_purpose
from sync.record_codec import encode_records
from sync.records import Record
from sync.seal import SealError
from sync.signing import SigningKey, Use
from sync.wire import UPLINK_LANES, up_topic
from tests.cloud.synthetic import START_US, alert, counts, ecg_mv, heart_rate, strip, waveform
from tests.databases import Databases

NOW_S = START_US // 1_000_000
LOCAL_BYTES = 61
"""Of a data key that is sealed with the hub key: version, nonce, key, tag."""
PATIENTS = {"hub-1": "patient-1", "hub-2": "patient-2"}
CANARIES = {"patient-1": "canary-4711", "patient-2": "linnet-0815"}


def records_of(subject: str) -> dict[str, list[Record]]:
    """What a hub seals, with the subject's canary wherever a record takes a text."""
    word = CANARIES[subject]
    samples = counts(ecg_mv([0.5], 1.0))
    return {
        "alert": [alert(id=word, sensor=word, kind=word, source=word, reasons=(word,), strip=strip(START_US, [0.5], 1.0))],
        "vital": [heart_rate(START_US + 1_000_000 * n, 61.0 + n, word) for n in range(20)],
        "wave": [waveform(START_US + 1_000_000 * n, samples, word) for n in range(10)],
    }


class RegisteredHub:
    """A hub with a folder of its own: buffer, hub key and registration. It keeps every message that it sent."""

    def __init__(self, folder: Path, clinic: "TwoPatients", name: str) -> None:
        folder.mkdir()
        self.folder, self.name, self.subject = folder, name, PATIENTS[name]
        device = SigningKey.generate(Use.DEVICE)
        device.public.save(folder / "device.pub")
        self.keys = HubKeys(HubKey.load_or_create(folder / "hub.key"), device)
        request = RegistrationRequest(name, folder / "device.pub", self.subject, NOW_S, 24)
        self.registration = register_hub(clinic.folder, request, NOW_S)
        self.sent: list[Message] = []
        self.outbox = self.open()

    def open(self) -> Outbox:
        return Outbox.open(
            self.folder / "outbox.db",
            hub=self.name,
            subject=self.subject,
            keys=self.keys,
            registration=self.registration,
            clock=lambda: NOW_S,
        )

    def put(self, records: dict[str, list[Record]]) -> None:
        blocks = [(lane, encode_records(found)) for lane, found in records.items()]
        self.outbox.put_many(blocks, {"alerts": CANARIES[self.subject].encode()})  # type: ignore[arg-type]

    def next_messages(self) -> list[Message]:
        """Return a message of each lane that has pending blocks."""
        view, messages = self.outbox.clinic_view(), []
        for lane in UPLINK_LANES:
            blocks = self.outbox.pending(lane, (0, 0), 2**20)
            statements, wraps = self.outbox.keys_for((block.key for block in blocks), also_held=True)
            sealed = tuple(block.sealed for block in blocks)
            envelope = Envelope(
                self.name, view.epoch, view.previous_epoch, view.heads, view.seen, sealed, tuple(statements), tuple(wraps)
            )
            messages += [Message(up_topic(self.name, lane), encode_envelope(envelope, self.keys.device))] if blocks else []
        self.sent += messages
        return messages

    def openable_keys(self, folder: Path, key_ids: set[bytes]) -> int:
        """Count data keys in the raw bytes of a folder's files that the hub key opens, wherever they are."""
        n = 0
        for path in folder.iterdir():
            data, at = path.read_bytes(), -1
            while (at := data.find(b"\x01", at + 1)) >= 0:
                n += any(self._opens(data[at : at + LOCAL_BYTES], id_) for id_ in key_ids)
        return n

    def _opens(self, sealed: bytes, key_id: bytes) -> bool:
        try:
            return bool(self.keys.hub.open(sealed, local_purpose(key_id)))
        except SealError:
            return False


class TwoPatients:
    """A clinic and its two hubs. `start` opens the databases; `receive` handles what a hub sends, to the receipts."""

    def __init__(self, path: Path, databases: Databases) -> None:
        """On SQLite the databases are files in `path`."""
        locations = [databases.location(name) for name in ("blocks", "projections")]
        urls = [None if isinstance(location, Path) else location for location in locations]
        self.databases, self.folder = databases, ClinicFolder(path, *urls)
        names = ("--store", "--projections")
        self.options = [part for name, url in zip(names, urls, strict=True) if url for part in (name, str(url))]
        self.hubs = {name: RegisteredHub(path / name, self, name) for name in PATIENTS}
        self.signing = SigningKeys.load(path)
        self._stack = ExitStack()
        self.start()

    def start(self) -> None:
        self.store = self._stack.enter_context(closing(Store.open(self.folder.blocks)))
        self.engine = open_projections(self.folder.projections)
        self._stack.callback(self.engine.dispose)

    def stop(self) -> None:
        self._stack.close()

    def reader(self, keys: KeyStore | None = None) -> BlockReader:
        return BlockReader(self.store, self.registry(), keys or KeyStore(self.folder.keys))

    def registry(self) -> Registry:
        return Registry(self.folder.hubs, lambda: 0.0)

    def handle(self, message: Message) -> Ack:
        payload, _, _ = handle_message(self.store, self.registry(), self.signing.acknowledgement, message, START_US)
        assert payload is not None
        return decode_ack(payload, self.signing.acknowledgement.public)

    def receive(self, hub: RegisteredHub) -> list[Ack]:
        """Handle what a hub has to send. It applies acknowledgements and receipts."""
        acks = [self.handle(message) for message in hub.next_messages()]
        for ack in acks:
            assert hub.outbox.apply_ack(ack).accepted
        for receipt in self.open_all(hub.name):
            assert hub.outbox.apply_receipt(decode_receipt(receipt, self.signing.receipt.public)).accepted
        return acks

    def open_all(self, hub: str) -> list[bytes]:
        """Open all work; returns the receipts for a hub."""
        outcomes: list[BlockOutcome] = []
        opener = Opener(self.store, self.engine, self.reader(), outcomes.extend)
        while opener.open_batch() is not None:
            pass
        found = make_receipts(outcomes, self.store.identity(), self.signing.receipt)
        return [payload for name, payload in found if name == hub]

    def erase(self, subject: str) -> int:
        return main(["erase", "--data", str(self.folder.path), *self.options, "--subject", subject])

    def shown(self) -> set[str]:
        return shown_subjects(self.engine)

    def openable(self, keys: KeyStore) -> set[str]:
        """Subjects of the stored blocks that open with a key store, if nobody looks at what was erased."""
        reader, found = self.reader(keys), set()
        for block in self.store.blocks_after(None, 1000):
            try:
                found.add(reader.read(block).subject)
            except UnreadableError:
                continue
        return found


def shown_subjects(engine: Engine) -> set[str]:
    """Subjects of any row of the projections."""
    with engine.connect() as connection:
        holders = [table for table in tables.metadata.sorted_tables if "subject" in table.c]
        return {subject for table in holders for subject in connection.scalars(select(table.c.subject))}
