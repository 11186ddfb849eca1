"""A clinic in this process for the agent on virtual time: its ingest, its store, and what its keys open."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NoReturn

from cloud.folder import ClinicFolder
from cloud.ingest import handle_message
from cloud.key_store import KeyStore
from cloud.receipts import OPENED_LANES
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from cloud.registry import Registry
from cloud.signing_keys import SigningKeys
from cloud.store import Store
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key
from sync.data_keys import DataKey, unwrap_key
from sync.messages import Receipt, decode_ack, encode_receipt
from sync.mqtt import Connected, Message, MqttEvent
from sync.record_codec import decode_records
from sync.records import Record
from sync.seal import open_block
from sync.wire import ack_topic, hub_of_status_topic, receipt_topic

HUB: Final = "hub-1"
SUBJECT: Final = "subject-1"
_PAGE_BLOCKS: Final = 500


class InProcessClinic:
    """The clinic of the hub whose data folder is `data`. Its files are in `folder`."""

    def __init__(self, folder: Path, data: Path, start_s: int) -> None:
        """Register the hub from `start_s` on (Unix time), unless that was done."""
        self.registration = folder / "registration.toml"
        self._start_us = start_s * 1_000_000
        data.mkdir(parents=True, exist_ok=True)
        load_device_key(data)
        clinic = ClinicFolder(folder / "clinic")
        if not self.registration.exists():
            request = RegistrationRequest(HUB, data / DEVICE_PUBLIC_FILE, SUBJECT, start_s, BACKUP_INTERVAL_H)
            register_hub(clinic, request, start_s).save(self.registration)
        self._keys, self._signing = KeyStore(clinic.keys), SigningKeys.load(clinic.path)
        self._registry = Registry(clinic.hubs, lambda: 0.0)
        self._store = Store.open(clinic.blocks)
        self._known = {block.id for block in self._blocks()}

    def transport(self) -> "ClinicConnection":
        """Return a connection of the hub to this clinic."""
        return ClinicConnection(self.answer)

    def answer(self, message: Message) -> list[Message]:
        """Commit a message; return the acknowledgement, and the receipt of what an opener opens at once.

        A status has no answer. Without a receipt, the hub sends the blocks again every ten minutes.
        """
        key = self._signing.acknowledgement
        payload, _, _ = handle_message(self._store, self._registry, key, message, self._start_us)
        if hub_of_status_topic(message.topic) is not None:
            return []
        assert payload is not None
        ack = decode_ack(payload, key.public)
        opened = tuple(held for held in ack.held if held.lane in OPENED_LANES)
        receipt = encode_receipt(Receipt(HUB, ack.store, ack.fence, opened), self._signing.receipt) if opened else None
        return [Message(ack_topic(HUB), payload), *([Message(receipt_topic(HUB), receipt)] if receipt else [])]

    def new_records(self) -> list[Record]:
        """Return the records that were stored since this object was made, by lane in the order of their sealing."""
        records: list[Record] = []
        keys: dict[bytes, DataKey] = {}
        for block in self._blocks():
            if block.id not in self._known:
                if block.key not in keys:
                    keys[block.key] = self._unwrap(block.key)
                records += decode_records(open_block(block.block, keys[block.key])[1])
        return records

    def _unwrap(self, id_: bytes) -> DataKey:
        (wrapped,) = self._store.wrapped_keys(HUB, id_)
        statement, recipient = self._store.key_statement(HUB, id_), self._keys.recipient(wrapped.recipient)
        assert statement is not None
        assert recipient is not None
        return unwrap_key(wrapped, statement, hub=HUB, recipient=recipient)

    def close(self) -> None:
        self._store.close()

    def _blocks(self) -> Any:
        last = None
        while page := self._store.blocks_after(last, _PAGE_BLOCKS):
            yield from page
            last = page[-1].id


class ClinicConnection:
    """Delivers messages at once to a clinic in this process, in place of the broker and the network."""

    def __init__(self, answer: Callable[[Message], Iterable[Message]]) -> None:
        """`answer` handles a message at the clinic and returns its answers."""
        self._answer = answer
        self._events: asyncio.Queue[MqttEvent] = asyncio.Queue()

    async def run(self) -> NoReturn:
        self._events.put_nowait(Connected())
        await asyncio.Event().wait()
        raise AssertionError

    async def publish(self, topic: str, payload: bytes) -> None:
        for answer in self._answer(Message(topic, payload)):
            self._events.put_nowait(answer)

    async def receive(self) -> MqttEvent:
        return await self._events.get()
