"""The file of `--gatt`: which handle holds which characteristic, for captures that lack the discovery of the services.

JSON, one object: handles as in Wireshark or nRF Connect (`"0x0011"`, or decimal), and UUIDs of 16 or 128 bits::

    {"0x0011": "2a37", "0x0021": "fb005c82-02e7-f387-1cad-8acd2d8df0c8"}

These are the handles of values, not those of the declarations before them.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from captures.files import read_file
from captures.recording import RecordingError
from drivers.spec import uuid16

_LIMIT_BYTES: Final = 1 << 20
_HANDLE: Final = re.compile(r"0[xX][0-9a-fA-F]{1,4}|[0-9]{1,5}")
_SHORT: Final = re.compile(r"(?:0x)?([0-9a-f]{4})")
_LONG: Final = re.compile(r"([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})")


def read_gatt_map(path: Path) -> Mapping[int, str]:
    """Read the file: 128-bit UUIDs in lower case, by handle.

    Raises:
        RecordingError: the file is missing, or is not such a map.
    """
    try:
        found = json.loads(read_file(path, _LIMIT_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise RecordingError(f"{path}: cannot read the map of --gatt: {error.strerror or error}; check the name") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f'{path}: the map of --gatt is not JSON; write {{"0x0011": "2a37"}}') from None
    if not isinstance(found, dict) or not found:
        raise RecordingError(f'{path}: the map of --gatt is not an object with handles; write {{"0x0011": "2a37"}}')
    return {_parse_handle(path, handle): _parse_uuid(path, handle, uuid) for handle, uuid in found.items()}


def _parse_handle(path: Path, text: str) -> int:
    handle = int(text, 0 if text[:2].lower() == "0x" else 10) if _HANDLE.fullmatch(text) else 0
    if not 0 < handle <= 0xFFFF:
        raise RecordingError(f'{path}: {text[:40]!r} is not a handle; give a number from 1 to 65535 such as "0x0011"')
    return handle


def _parse_uuid(path: Path, handle: str, uuid: object) -> str:
    text = uuid.strip().lower() if isinstance(uuid, str) else ""
    short, long = _SHORT.fullmatch(text), _LONG.fullmatch(text)
    if short:
        return uuid16(int(short[1], 16))
    if long:
        return "-".join(long.groups())
    raise RecordingError(f'{path}: handle {handle[:40]}: {str(uuid)[:40]!r} is not a UUID; give 4 digits such as "2a37", or 32')
