"""The processes of the demo: started, watched, started again when they die, and ended cleanly."""

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

RESTART_S: Final = 0.5
"""As a service manager does (systemd's RestartSec is 0.1 s by default); long enough to see it in the log."""
QUICK_DEATHS: Final = 5
"""So many deaths in a row, each within `QUICK_S` of its start, are no accident: the demo ends and says so."""
QUICK_S: Final = 2.0
END_S: Final = 20.0
"""For a clean end: the agent's stop request, its last blocks and their acknowledgements. Then it is killed."""
LINE_LIMIT: Final = 1 << 20


class ChildFailedError(Exception):
    """A process that does not start, with the last line it said."""


@dataclass(slots=True)
class Child:
    """One process, restarted when it dies. Each JSON line it prints goes to `on_event`; the rest goes to its log."""

    name: str
    arguments: Sequence[str]
    log: Path
    on_event: Callable[[Mapping[str, Any]], None] = lambda _event: None
    restarts: int = 0
    pid: int | None = None
    _ending: bool = False
    _process: asyncio.subprocess.Process | None = None
    _said: str = ""

    async def run(self) -> None:
        """Keeps the process running until `end`.

        Raises:
            ChildFailedError: it dies again and again at its start, or gives up with exit status 1.
        """
        loop, quick = asyncio.get_running_loop(), 0
        while not self.is_ending:
            started = loop.time()
            status = await self._run_once()
            if not self.is_ending:
                crashed = status >= 0 and loop.time() - started < QUICK_S  # a negative status is a kill from outside
                quick = quick + 1 if crashed else 0
                self._give_up_after(status, quick)
                self.restarts += 1
                await asyncio.sleep(RESTART_S)

    def _give_up_after(self, status: int, quick_deaths: int) -> None:
        if status == 1 or quick_deaths >= QUICK_DEATHS:
            said = self._said or f"exit status {status}"
            raise ChildFailedError(f"{self.name} does not run: {said} (log: {self.log})")

    @property
    def is_ending(self) -> bool:
        """Whether it was asked to end."""
        return self._ending

    def end(self) -> None:
        """Asks the process to end, and not to be started again."""
        self._ending = True
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it at once."""
        self._ending = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run_once(self) -> int:
        with self.log.open("ab") as log:
            # Its own session: Ctrl-C in the terminal reaches the demo alone, which ends the processes in their order.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", *self.arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=LINE_LIMIT,
            )
            self._process, self.pid = process, process.pid
            if self.is_ending:
                process.terminate()
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._listen(process.stdout, log.write))
                    group.create_task(self._keep(process.stderr, log.write))
                return await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def _listen(self, stream: asyncio.StreamReader | None, keep: Callable[[bytes], object]) -> None:
        assert stream is not None
        async for line in stream:
            try:
                event = json.loads(line)
            except ValueError:
                keep(line)
                continue
            if isinstance(event, dict):
                self.on_event(event)

    async def _keep(self, stream: asyncio.StreamReader | None, keep: Callable[[bytes], object]) -> None:
        assert stream is not None
        async for line in stream:
            keep(line)
            self._said = line.decode(errors="replace").strip() or self._said


@asynccontextmanager
async def running(*children: Child) -> AsyncIterator[None]:
    """Runs the children beside the body; on leaving, ends them in the order given. A child that fails ends the body."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child.run(), name=child.name) for child in children]
        try:
            yield
        finally:
            for child, task in zip(children, tasks, strict=True):
                child.end()
                await asyncio.wait([task], timeout=END_S)
                child.kill()
