"""The person at the terminal: answers the questions of a pairing and chooses a sensor."""

import asyncio
import os
import sys
from typing import Final

_YES: Final = ("y", "yes")
_READ_BYTES: Final = 1024


class LineReader:
    """Reads lines of a terminal or a pipe.

    A wait can be cancelled. A thread that reads would keep the program alive until the next Enter.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unread = b""

    async def read_line(self) -> str:
        """Return the next line without blanks around it, or "" at the end of the input."""
        while b"\n" not in self._unread:
            await self._wait_readable()
            chunk = os.read(self._descriptor, _READ_BYTES)
            if not chunk:
                break
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode("utf-8", "replace").strip()

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        try:
            loop.add_reader(self._descriptor, readable.set)
        except PermissionError:  # a file, or /dev/null: a read does not wait
            return
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._descriptor)


class ConsoleAnswers:
    """Asks on standard error, so that the output stays for programs; see `pairing.PairingAnswers`."""

    def __init__(self, descriptor: int = 0) -> None:
        self._lines = LineReader(descriptor)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201

    async def ask(self, question: str) -> str:
        print(f"{question} ", end="", file=sys.stderr, flush=True)  # noqa: T201
        return await self._lines.read_line()

    async def enter_passkey(self) -> int | None:
        digits = await self.ask("Type the six digits that the sensor shows (Enter cancels):")
        return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 6 else None

    async def show_passkey(self, passkey: int) -> None:
        self.say(f"Enter these six digits at the sensor: {passkey:06}")

    async def confirm_number(self, number: int) -> bool:
        answer = await self.ask(f"Does the sensor show {number:06}? (y/n)")
        return answer.lower() in _YES
