"""The demo's processes: starts them, restarts them when they exit, and stops them cleanly."""

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RESTART_DELAY_S: Final = 0.5
"""Delay of a restart, as in a service manager (systemd's RestartSec is 0.1 s by default); long enough to be seen in the log."""
MAX_FAST_EXITS: Final = 5
"""The demo fails when a process exits this many times in a row, each time within `FAST_EXIT_S` of its start."""
FAST_EXIT_S: Final = 2.0
STOP_TIMEOUT_S: Final = 20.0
"""Time limit of a clean stop, in which the agent stops the sensor and sends its last blocks. Then the process is killed."""
MAX_LINE_BYTES: Final = 1 << 20


class ProcessFailedError(Exception):
    """A process cannot be kept running. The message holds the last line of its standard error; `log` has all of it."""

    def __init__(self, message: str, log: Path) -> None:
        super().__init__(message)
        self.log = log


@dataclass(slots=True)
class ManagedProcess:
    """A Python module that runs in its own process and is restarted when it exits.

    Each JSON object that it prints, one a line, is passed to `on_event`; its other output is appended to `log`.
    """

    name: str
    arguments: Sequence[str]
    log: Path
    on_event: Callable[[Mapping[str, Any]], None] = lambda _event: None
    restarts: int = 0
    pid: int | None = None
    _stopping: bool = False
    _process: asyncio.subprocess.Process | None = None
    _last_error_line: str = ""

    async def run(self) -> None:
        """Keep the process running until `terminate` or `kill`.

        Raises:
            ProcessFailedError: it exits with status 1, or repeatedly just after its start.
        """
        loop, fast_exits = asyncio.get_running_loop(), 0
        while not self.is_stopping:
            started_s = loop.time()
            status = await self._run_once()
            if not self.is_stopping:
                is_fast = status >= 0 and loop.time() - started_s < FAST_EXIT_S  # negative: killed by a signal from outside
                fast_exits = fast_exits + 1 if is_fast else 0
                self._raise_if_failed(status, fast_exits)
                self.restarts += 1
                await asyncio.sleep(RESTART_DELAY_S)

    def _raise_if_failed(self, status: int, fast_exits: int) -> None:
        if status == 1 or fast_exits >= MAX_FAST_EXITS:
            reason = self._last_error_line or f"exit status {status}"
            raise ProcessFailedError(f"cannot run the {self.name}: {reason}", self.log)

    @property
    def is_stopping(self) -> bool:
        """Whether the process was asked to stop."""
        return self._stopping

    def terminate(self) -> None:
        """Ask the process to stop (SIGTERM), and do not restart it."""
        self._stopping = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the process (SIGKILL), and do not restart it."""
        self._stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run_once(self) -> int:
        with self.log.open("ab") as log:
            # A session of its own, so Ctrl-C in the terminal reaches only the demo, which stops its processes in order.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=MAX_LINE_BYTES,
            )
            self._process, self.pid = process, process.pid
            if self.is_stopping:
                process.terminate()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read_events(process.stdout, log.write))
                    group.create_task(self._copy_errors(process.stderr, log.write))
                return await process.wait()
            finally:
                self.pid = None
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _read_events(self, stream: asyncio.StreamReader | None, write_log: Callable[[bytes], object]) -> None:
        assert stream is not None
        async for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                write_log(line)
                continue
            if isinstance(event, dict):
                self.on_event(event)

    async def _copy_errors(self, stream: asyncio.StreamReader | None, write_log: Callable[[bytes], object]) -> None:
        assert stream is not None
        async for line in stream:
            write_log(line)
            self._last_error_line = line.decode(errors="replace").strip() or self._last_error_line


@asynccontextmanager
async def run_processes(*processes: ManagedProcess) -> AsyncIterator[None]:
    """Run processes during the `with` body and stop them in the order given. A process that fails cancels the body."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(process.run(), name=process.name) for process in processes]
        try:
            yield
        finally:
            for process, task in zip(processes, tasks, strict=True):
                process.terminate()
                await asyncio.wait([task], timeout=STOP_TIMEOUT_S)
                process.kill()
