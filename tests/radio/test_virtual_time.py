"""The event loop on virtual time, which skips waiting times."""

import asyncio
import time

import pytest

from gateway import virtual_time
from gateway.clock import SystemClock, VirtualClock


def test_a_day_passes_in_an_instant_and_in_order() -> None:
    order: list[tuple[str, float]] = []

    async def tick(name: str, period_s: float, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(period_s)
            order.append((name, asyncio.get_running_loop().time()))

    async def main() -> float:
        await asyncio.gather(tick("hour", 3600, 24), tick("half a day", 43_000, 2))
        return asyncio.get_running_loop().time()

    start = time.monotonic()
    assert virtual_time.run(main()) == 86_400
    assert time.monotonic() - start < 60
    assert [at_s for _, at_s in order] == sorted([3600.0 * n for n in range(1, 25)] + [43_000.0, 86_000.0])


def test_a_deadlock_names_the_waiting_tasks() -> None:
    async def main() -> None:
        await asyncio.sleep(5)
        await asyncio.create_task(asyncio.Event().wait(), name="waiting task")

    with pytest.raises(virtual_time.DeadlockError, match=r"at 5.000 s: .* \['Task-\d+', 'waiting task'\]"):
        virtual_time.run(main())


def test_a_timeout_fires_at_its_time() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(90):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 90


def test_work_for_a_thread_has_run_before_the_call_returns() -> None:
    async def main() -> list[int]:
        done: list[int] = []
        asyncio.get_running_loop().run_in_executor(None, done.append, 1)
        done.append(2)
        await asyncio.to_thread(done.append, 3)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return done

    assert virtual_time.run(main()) == [1, 2, 3]


def test_the_virtual_clocks_follow_the_loop() -> None:
    async def main() -> tuple[int, int, int, int]:
        clock = VirtualClock(asyncio.get_running_loop(), start_wall_us=1_000_000)
        before = clock.mono_ns(), clock.wall_us()
        await asyncio.sleep(1.5)
        return (*before, clock.mono_ns(), clock.wall_us())

    assert virtual_time.run(main()) == (0, 1_000_000, 1_500_000_000, 2_500_000)


def test_the_system_clock_shows_the_machines_time() -> None:
    clock = SystemClock()
    assert clock.mono_ns() <= time.monotonic_ns() <= clock.mono_ns()
    assert abs(clock.wall_us() - time.time() * 1e6) < 60e6
