"""Processes that a run kills: each is started again when it ends, as a service manager does, until it is held or stopped."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESTART_S: Final = 0.3
"""Pause before a restart: systemd's is 0.1 s by default; a service that cannot start must not take a whole core."""
ANSWER_LIMIT_S: Final = 30.0
END_LIMIT_S: Final = 30.0
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL")


class ProcessGoneError(Exception):
    """The process ended before it answered."""


@dataclass(slots=True)
class Supervised:
    """A process that is kept running. `starts` counts its starts; its output is appended to `log`.

    A process that answers (`ask`) prints one line of JSON for each line that it reads.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    user: Sequence[str] = ()
    """Further options of setpriv, which run it as another user."""
    is_asked: bool = False
    """Whether its standard output is read by `ask`. Otherwise it goes to the log: a pipe that nobody reads fills."""
    starts: int = 0
    _process: asyncio.subprocess.Process | None = None
    _is_free: asyncio.Event = field(default_factory=asyncio.Event)
    _keeping: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, if it runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    def start(self) -> None:
        """Keep the process running from now on."""
        self._is_free.set()
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(), name=self.name)

    async def hold(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the process, and do not start it again before `start`."""
        self._is_free.clear()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(how)
            await asyncio.wait_for(process.wait(), END_LIMIT_S)

    async def stop(self) -> None:
        """End the process for good."""
        if self._keeping is None:
            return
        await self.hold()
        self._keeping.cancel()
        await asyncio.wait([self._keeping])
        self._keeping = None

    def kill(self) -> bool:
        """Kill the process (SIGKILL); it is started again. Returns false if it was not running."""
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            return False
        return True

    def send(self, line: str) -> None:
        """Write a line to the process, if it runs."""
        process = self._process
        if process is not None and process.returncode is None and process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(line.encode() + b"\n")

    async def ask(self, line: str) -> dict[str, Any]:
        """Write a line, and return the answer.

        Raises:
            ProcessGoneError: the process does not run, or ended or was silent instead.
        """
        process = self._process
        if process is None or process.stdout is None or process.returncode is not None:
            raise ProcessGoneError(self.name)
        self.send(line)
        try:
            answer = await asyncio.wait_for(process.stdout.readline(), ANSWER_LIMIT_S)
        except TimeoutError as error:
            raise ProcessGoneError(f"{self.name} does not answer") from error
        if not answer:
            raise ProcessGoneError(self.name)
        return dict(json.loads(answer))

    async def _keep(self) -> None:
        while True:
            await self._is_free.wait()
            self.starts += 1
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(*_DIE_WITH_PARENT, *self.user, "--", *self.command),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE if self.is_asked else log,
                    stderr=log,
                    env=None if self.environment is None else dict(self.environment),
                )
            await self._process.wait()
            await asyncio.sleep(RESTART_S)
