"""Records what SQLite writes and syncs in this process, so that a power cut can be replayed (`benchmarks.chaos.power_cut`).

`record_writes` registers a VFS (https://sqlite.org/vfs.html) that writes like the default one and appends each write to a log.
"""

import ctypes
import os
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

HEADER: Final = struct.Struct("<BBqI")
"""Operation, length of the file's name, offset or size, length of the data."""
_OK: Final = 0
_POINTER: Final = ctypes.c_void_p
_NAME: Final = b"recorded"


class Op(IntEnum):
    """What was done to a file. A mark is the caller's: `value` is its number."""

    WRITE = 1
    TRUNCATE = 2
    SYNC = 3
    DELETE = 4
    MARK = 5


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log. `value` is the offset of a write, the size after a truncation or the number of a mark."""

    op: Op
    file: str
    value: int
    data: bytes


class _Vfs(ctypes.Structure):
    """`sqlite3_vfs` of version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes", ctypes.c_int),
        ("next", _POINTER),
        ("name", ctypes.c_char_p),
        ("data", _POINTER),
        ("open", _POINTER),
        ("delete", _POINTER),
        ("others", _POINTER * 13),
    )


class _Methods(ctypes.Structure):
    """`sqlite3_io_methods` of version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _POINTER),
        ("read", _POINTER),
        ("write", _POINTER),
        ("truncate", _POINTER),
        ("sync", _POINTER),
        ("others", _POINTER * 13),
    )


_Open = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_int, _POINTER)
_Delete = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_int)
_Close = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER)
_Write = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64)
_Truncate = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int64)
_Sync = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int)


class WriteLog:
    """Appends entries to a log file. A kill of this process leaves whole entries, and perhaps a part of the last one."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, op: Op, file: str, value: int, data: bytes = b"") -> None:
        name = file.encode()
        os.write(self._fd, HEADER.pack(op, len(name), value, len(data)) + name + data)

    def mark(self, number: int) -> None:
        """Note that everything the caller has stored under this number is durable now."""
        self.add(Op.MARK, "", number)


class _Recorder:
    """The callbacks of the VFS. They live as long as the process: SQLite keeps their addresses."""

    def __init__(self, library: ctypes.CDLL, log: WriteLog) -> None:
        library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
        self._log = log
        self._original: _Vfs = library.sqlite3_vfs_find(None).contents
        self._files: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}
        self._kept: list[Any] = []
        self.vfs = _Vfs.from_buffer_copy(self._original)
        self.vfs.name = _NAME
        self.vfs.open = self._keep(_Open(self._open))
        self.vfs.delete = self._keep(_Delete(self._delete))

    def _keep(self, callback: Any) -> int | None:
        self._kept.append(callback)
        return ctypes.cast(callback, _POINTER).value

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int | None) -> int:
        result = int(_Open(self._original.open)(vfs, name, file, flags, out))
        methods = ctypes.cast(file, ctypes.POINTER(_POINTER))
        if result == _OK and name and methods[0]:
            self._files[file] = Path(os.fsdecode(ctypes.string_at(name))).name
            methods[0] = ctypes.addressof(self._replace_methods(methods[0]))
        return result

    def _delete(self, vfs: int, name: int, sync: int) -> int:
        self._log.add(Op.DELETE, Path(os.fsdecode(ctypes.string_at(name))).name, 0)
        return int(_Delete(self._original.delete)(vfs, name, sync))

    def _replace_methods(self, address: int) -> _Methods:
        """Return the table that records; a system has a few kinds of tables, by its kinds of locks."""
        if address not in self._tables:
            self._tables[address] = self._wrap(_Methods.from_address(address))
        return self._tables[address]

    def _wrap(self, original: _Methods) -> _Methods:
        close, write = _Close(original.close), _Write(original.write)
        truncate, sync = _Truncate(original.truncate), _Sync(original.sync)

        def on_close(file: int) -> int:
            self._files.pop(file, None)
            return int(close(file))

        def on_write(file: int, data: int, size: int, offset: int) -> int:
            return self._note(write(file, data, size, offset), Op.WRITE, file, offset, ctypes.string_at(data, size))

        def on_truncate(file: int, size: int) -> int:
            return self._note(truncate(file, size), Op.TRUNCATE, file, size)

        def on_sync(file: int, flags: int) -> int:
            return self._note(sync(file, flags), Op.SYNC, file, 0)

        table = _Methods.from_buffer_copy(original)
        table.close, table.write = self._keep(_Close(on_close)), self._keep(_Write(on_write))
        table.truncate, table.sync = self._keep(_Truncate(on_truncate)), self._keep(_Sync(on_sync))
        return table

    def _note(self, result: int, op: Op, file: int, value: int, data: bytes = b"") -> int:
        if result == _OK:
            self._log.add(op, self._files[file], value, data)
        return int(result)


_recorders: Final[list[_Recorder]] = []


def record_writes(path: Path) -> WriteLog:
    """Append to a log what SQLite writes in this process from now on, in databases that it opens from now on.

    Raises:
        OSError: Python's SQLite is not a library of the system, so that no VFS can be added.
    """
    import _sqlite3  # noqa: PLC0415  after this import the library is loaded

    library = _find_library(_sqlite3.__file__)
    log = WriteLog(path)
    _recorders.append(_Recorder(library, log))
    result = library.sqlite3_vfs_register(ctypes.byref(_recorders[-1].vfs), 1)
    if result != _OK:
        raise OSError(f"SQLite refuses the VFS: error {result}")
    return log


def _find_library(module: str) -> ctypes.CDLL:
    """Return the SQLite library that Python's module uses: the loaded one, or the module itself."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    loaded = [line.split()[-1] for line in lines if "libsqlite3" in line]
    library = ctypes.CDLL(loaded[0] if loaded else module)
    if not hasattr(library, "sqlite3_vfs_register"):
        raise OSError("this Python has SQLite built in: use one with the system's libsqlite3")
    return library


def read_log(path: Path) -> list[Entry]:
    """Return the entries of a log; the last one may be cut off by a kill, and is left out then."""
    content, at, entries = path.read_bytes(), 0, list[Entry]()
    while at + HEADER.size <= len(content):
        op, name_bytes, value, size = HEADER.unpack_from(content, at)
        start = at + HEADER.size
        at = start + name_bytes + size
        if at > len(content):
            break
        name = content[start : start + name_bytes].decode()
        entries.append(Entry(Op(op), name, value, content[start + name_bytes : at]))
    return entries
