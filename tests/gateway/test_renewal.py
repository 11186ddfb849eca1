"""The agent renews its certificate in time, after an expiry, and without a clock; and a failure costs nothing but time."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from gateway import renewal, virtual_time
from gateway.enrolment.identity import SiteRecord
from gateway.enrolment.site_clock import Clocks, SiteClock
from gateway.renewal import BACKOFF_S, CHECK_INTERVAL_S, JITTER, RENEW_AFTER, is_due, keep_renewed, renew_by_process

NOW_S = 1_790_000_000
LIFE_S = 7 * 86_400


def write_record(folder: Path, from_s: float) -> None:
    record = SiteRecord("h", 1, "DE", "hub-1", "subject-1", int(from_s), int(from_s + LIFE_S), [["h", 1, "DE"]])
    (folder / "site.json").write_text(json.dumps(asdict(record)))


@dataclass
class Renewals:
    """Stands for `pulsegate renew`: notes when it is called, and fails while `is_down`."""

    folder: Path
    is_down: Callable[[float], bool] = lambda _at: False
    at_s: list[float] = field(default_factory=list)

    async def __call__(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        self.at_s.append(now_s)
        if self.is_down(now_s):
            return False
        write_record(self.folder, NOW_S + now_s)
        (self.folder / "time.json").write_text(
            json.dumps({"highest_s": int(NOW_S + now_s), "boot": "boot", "since_boot_s": now_s})
        )
        return True


def run_agent_for(seconds: float, folder: Path, renewals: Renewals, wall_s: Callable[[float], float]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = SiteClock(folder, Clocks(lambda: wall_s(loop.time()), loop.time, lambda: "boot"))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await keep_renewed(folder, clock, renewals)

    virtual_time.run(main())


def test_a_certificate_is_renewed_at_two_thirds_of_its_life(tmp_path: Path) -> None:
    write_record(tmp_path, NOW_S)
    renewals = Renewals(tmp_path)
    run_agent_for(4 * LIFE_S, tmp_path, renewals, lambda at: NOW_S + at)

    gaps = [after - before for before, after in zip([0.0, *renewals.at_s], renewals.at_s, strict=False)]
    assert len(gaps) >= 5
    assert all(RENEW_AFTER * LIFE_S <= gap <= (RENEW_AFTER + JITTER) * LIFE_S + CHECK_INTERVAL_S for gap in gaps)


def test_hubs_that_enrolled_together_renew_apart(tmp_path: Path) -> None:
    first: list[float] = []
    for _ in range(20):
        write_record(tmp_path, NOW_S)
        renewals = Renewals(tmp_path, is_down=lambda _at: True)
        run_agent_for(LIFE_S, tmp_path, renewals, lambda at: NOW_S + at)
        first.append(renewals.at_s[0])

    assert max(first) - min(first) > 3600
    assert len(set(first)) > 10


def test_a_site_that_is_down_is_asked_less_and_less_often_until_it_answers(tmp_path: Path) -> None:
    write_record(tmp_path, NOW_S - LIFE_S)
    renewals = Renewals(tmp_path, is_down=lambda at: at < 2 * 86_400)
    run_agent_for(3 * 86_400, tmp_path, renewals, lambda at: NOW_S + at)

    gaps = [after - before for before, after in zip(renewals.at_s, renewals.at_s[1:], strict=False)]
    assert renewals.at_s[0] == 0.0
    assert BACKOFF_S[0] / 2 <= gaps[0] <= BACKOFF_S[0]
    assert all(gap <= BACKOFF_S[1] for gap in gaps)
    assert min(gaps[10:]) >= BACKOFF_S[1] / 2
    assert 2 * 86_400 <= renewals.at_s[-1] <= 2 * 86_400 + BACKOFF_S[1]
    assert not renewals.is_down(renewals.at_s[-1])


def test_a_hub_whose_clock_shows_1970_asks_at_once_and_then_goes_by_the_sites_time(tmp_path: Path) -> None:
    write_record(tmp_path, NOW_S - 3600)
    (tmp_path / "time.json").write_text(json.dumps({"highest_s": NOW_S - 3600, "boot": "before", "since_boot_s": 1.0}))
    renewals = Renewals(tmp_path)
    run_agent_for(LIFE_S, tmp_path, renewals, lambda at: at)

    assert renewals.at_s[0] == 0.0
    assert RENEW_AFTER * LIFE_S <= renewals.at_s[1] <= (RENEW_AFTER + JITTER) * LIFE_S + CHECK_INTERVAL_S
    assert len(renewals.at_s) == 2


@pytest.mark.parametrize("damage", [None, "", "[]", '{"host": 1}'])
def test_an_identity_that_cannot_be_read_does_not_end_the_agent(
    tmp_path: Path, damage: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if damage is not None:
        (tmp_path / "site.json").write_text(damage)

    assert not is_due(tmp_path, SiteClock(tmp_path, Clocks.of_system()), 0.0)
    assert "enrol" in caplog.text


def test_a_damaged_time_does_not_end_the_agent_and_no_server_is_valid_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_record(tmp_path, 0)
    (tmp_path / "time.json").write_text("{")
    clock = SiteClock(tmp_path, Clocks.of_system())

    assert not is_due(tmp_path, clock, 0.0)
    assert clock.verification_s() == 0.0
    assert "enrol this hub again" in caplog.text


def test_the_renewal_is_a_process_of_its_own_whose_failure_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    before = set(sys.modules)
    assert not asyncio.run(renew_by_process(tmp_path / "missing.toml"))
    assert "cannot renew the certificate of this hub" in caplog.text
    assert "missing.toml" in caplog.text
    assert "http" not in {name.partition(".")[0] for name in set(sys.modules) - before}

    monkeypatch.setattr(sys, "executable", "/bin/true")
    assert asyncio.run(renew_by_process(tmp_path))
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(renewal, "TIMEOUT_S", 0.05)
    assert not asyncio.run(renew_by_process(tmp_path))
    assert "it took too long" in caplog.text
