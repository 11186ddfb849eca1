"""All blocks of a clinic's folder, opened with the key files in it."""

import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.second_reader.blocks import Block, check_statement, open_block, parse_block
from tests.second_reader.cbor import RefusedError
from tests.second_reader.keys import Recipient, Statement, load_recipient, read_private_key, unwrap_key
from tests.second_reader.records import Record, decode_plaintext

BlockId = tuple[str, str, int, int]
"""Hub, lane, epoch, seq."""


@dataclass(frozen=True)
class Clinic:
    """The records of each block that opened, and why the others did not."""

    records: dict[BlockId, list[Record]] = field(default_factory=dict)
    refused: dict[BlockId, str] = field(default_factory=dict)


def read_clinic(folder: Path) -> Clinic:
    """Return the content of all blocks in `blocks.db`, in the order of their ids."""
    clinic = Clinic()
    with closing(sqlite3.connect(f"file:{folder / 'blocks.db'}?mode=ro", uri=True)) as store:
        store.row_factory = sqlite3.Row
        for stored in store.execute("SELECT * FROM blocks ORDER BY hub, lane, epoch, seq"):
            block_id = (stored["hub"], stored["lane"], stored["epoch"], stored["seq"])
            try:
                clinic.records[block_id] = decode_plaintext(_open(folder, store, stored))
            except RefusedError as error:
                clinic.refused[block_id] = str(error)
    return clinic


def _open(folder: Path, store: sqlite3.Connection, stored: sqlite3.Row) -> bytes:
    block = parse_block(stored["block"])
    if any(block.header[name] != stored[name] for name in ("hub", "epoch", "lane", "seq", "subject", "key")):
        raise RefusedError("the block is stored as another")
    if block.digest != stored["digest"]:
        raise RefusedError("the block has another digest")
    key = (stored["hub"], stored["key"])
    signed = store.execute("SELECT * FROM statements WHERE hub = ? AND id = ?", key).fetchone()
    if signed is None:
        raise RefusedError("the block's key has no statement")
    statement = Statement(signed["id"], signed["commitment"], signed["subject"], signed["day"], signed["signature"])
    _check_statement(folder, block, statement)
    wraps = dict(store.execute("SELECT recipient, wrapped FROM wrapped_keys WHERE hub = ? AND id = ?", key).fetchall())
    for recipient in _read_recipients(folder, stored["subject"]):
        if recipient.fingerprint in wraps:
            return open_block(block, unwrap_key(wraps[recipient.fingerprint], recipient, stored["hub"], statement))
    raise RefusedError("the block's key is wrapped for no recipient of its subject")


def _check_statement(folder: Path, block: Block, statement: Statement) -> None:
    """Return if a device key that the hub had on the statement's day signed it."""
    hub = block.header["hub"]
    try:
        check_statement(block, statement, read_device_key(folder, hub))
    except RefusedError:
        for key, last_day in _read_former_keys(folder, hub):
            if statement.day <= last_day:
                with suppress(RefusedError):
                    return check_statement(block, statement, key)
        raise


def _read_former_keys(folder: Path, hub: str) -> Iterator[tuple[bytes, int]]:
    """Yield each device key that a hub had before, and the last day that it may have signed for."""
    settings: dict[str, Any] = tomllib.loads((folder / "hubs" / f"{hub}.toml").read_text())
    for former in settings.get("former_key", []):
        yield bytes.fromhex(former["key"]), int(former["until"].timestamp() + 3600) // 86_400


def read_device_key(folder: Path, hub: str) -> bytes:
    """Return the registered public key of a hub's device."""
    try:
        settings: dict[str, Any] = tomllib.loads((folder / "hubs" / f"{hub}.toml").read_text())
        return bytes.fromhex(settings["device_key"])
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        raise RefusedError(f"no device key in hubs/{hub}.toml") from None


def _read_recipients(folder: Path, subject: str) -> Iterator[Recipient]:
    for path in sorted((folder / "keys" / subject).glob("*.key")):
        yield load_recipient(read_private_key(path, "pulsegate recipient private key, version 2"))
