"""An asyncio loop on virtual time: whenever every task waits, the time jumps to the next timer.

A day of `asyncio.sleep` passes as fast as the work between the sleeps, and always in the same order: functions given to
an executor run at once, in the loop's own thread. Only what lives in this process can be waited for: a task that waits
for a socket or another process, with no timer set, is reported as a deadlock.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class DeadlockError(RuntimeError):
    """Every task waits and no timer is set: on virtual time nothing can ever happen again."""


class _TimeJump(selectors.BaseSelector):
    """Asks the real selector without waiting, and hands the time that would have been waited to `on_idle`."""

    def __init__(self, on_idle: Callable[[float | None], None]) -> None:
        self._real = selectors.DefaultSelector()
        self._on_idle = on_idle

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        if not ready and (timeout is None or timeout > 0):
            self._on_idle(timeout)
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`loop.time()` starts at 0.0 and moves only when there is nothing left to do."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_TimeJump(self._idle))

    def time(self) -> float:
        return self._now_s

    def _idle(self, timeout_s: float | None) -> None:
        if timeout_s is None:
            waiting = sorted(task.get_name() for task in asyncio.all_tasks(self))
            raise DeadlockError(f"virtual time stopped at {self._now_s:.3f} s: no timer is set and these tasks wait: {waiting}")
        self._now_s += timeout_s

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func` here and now: with no second thread there is only one order of events."""
        outcome: asyncio.Future[T] = self.create_future()
        try:
            outcome.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  an executor passes on whatever the function raises
            outcome.set_exception(error)
        return outcome


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` on virtual time. Raises DeadlockError where the real one would wait for ever."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
