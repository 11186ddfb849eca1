"""An alert that stays open without its signal, one about several episodes, and one that is raised again."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, WebSocketRoute, expect

from cloud import tables
from cloud.projections_database import open_projections
from sync.records import AlertRecord
from tests.cloud.synthetic import alert, strip
from tests.page.conftest import Clinic
from tests.page.test_clinic_page import open_page, screenshot

MINUTE_US = 60_000_000
ARRIVED = "async () => (await (await fetch('/api/alerts')).json()).alerts.some((alert) => alert.measured.beats === 99)"


@pytest.fixture(scope="module")
def running_clinic(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.start()
    yield clinic
    assert clinic.stop() == 0


@pytest.fixture
def clinic(running_clinic: Clinic) -> Iterator[Clinic]:
    """A clinic without any alert."""
    yield running_clinic
    engine = open_projections(running_clinic.files.folder.projections)
    with engine.begin() as connection:
        for table in (tables.alerts, tables.alert_strips, tables.patients):
            connection.execute(table.delete())
    engine.dispose()


def test_a_lost_signal_is_marked_until_the_alert_ends(clinic: Any, monitored: Any) -> None:
    page, now_us = monitored.page, time.time_ns() // 1000
    lost = alert("vf", "high", now_us - MINUTE_US, reasons=("vf.criterion", "latched.signal_lost"), measured={})
    clinic.send("alert", lost)
    open_page(page, clinic.page)
    marks = page.locator(".signal-lost")
    expect(marks).to_have_text(["Signal lost", "Signal lost"])  # in the list and in the details
    expect(page.locator(".reasons")).to_contain_text("stays open until 30 s of organised rhythm are seen")
    screenshot(page, "signal-lost.png")
    clinic.send("alert", replace(lost, end_us=now_us, reasons=("vf.criterion", "ended.organised")))
    expect(page.locator(".reasons")).to_contain_text("The alert ended after 30 s of organised rhythm")
    expect(marks).to_have_count(0)
    assert monitored.errors == []


def test_an_alert_that_may_have_ended_says_so(clinic: Any, monitored: Any) -> None:
    page, now_us = monitored.page, time.time_ns() // 1000
    af = alert("af", "medium", now_us - 2 * MINUTE_US, measured={"limit_s": 30.0})
    clinic.send("alert", af)
    open_page(page, clinic.page)
    states = page.locator(".span.ongoing")
    expect(states).to_contain_text(["Ongoing for 2 min"] * 2)  # in the list and in the details
    clinic.send("alert", replace(af, measured={"limit_s": 30.0, "maybe_ended": 1.0}))
    expect(states).to_contain_text(["May have ended, began 2 min"] * 2)
    assert monitored.errors == []


COUNTED = {
    "en": ("12 episodes", "Recurring, last episode"),
    "de": ("12 Episoden", "Wiederkehrend, letzte Episode"),
    "fr": ("12 épisodes", "Récurrente, dernier épisode"),
    "es": ("12 episodios", "Recurrente, último episodio"),
}


def test_several_episodes_are_counted_in_each_language(clinic: Any, monitored: Any) -> None:
    page, now_us = monitored.page, time.time_ns() // 1000
    onset_us = now_us - 30 * MINUTE_US
    numbers = {"episodes": 12.0, "longest_episode_s": 3.4, "an_hour": 72.0}
    reasons = ("vt.criterion", "recurring.episodes", "worse.more_often")
    measured = {"beats": 7.0, "rate_bpm": 160.0, "limit_beats": 3.0, "limit_bpm": 100.0, **numbers, "latest_s": 1680.0}
    clinic.send("alert", alert("vt", "high", onset_us, decided_us=now_us, raised_us=now_us, reasons=reasons, measured=measured))
    open_page(page, clinic.page)
    row = page.locator(".alert-row").first
    for language, (count, state) in COUNTED.items():
        page.locator("#language").select_option(language)
        expect(row.locator(".episodes")).to_have_text(count)
        expect(row.locator(".span")).to_contain_text(state)
        expect(page.locator(".reasons")).to_contain_text("72")
        screenshot(page, f"several-episodes-{language}.png")


def test_an_alert_that_is_raised_again_is_announced_and_comes_first(clinic: Any, monitored: Any) -> None:
    page, now_us = monitored.page, time.time_ns() // 1000
    pause = alert("pause", "high", now_us - 9_000_000, decided_us=now_us - 6_000_000, raised_us=now_us - 6_000_000)
    vt = alert("vt", "high", now_us - 5_000_000, decided_us=now_us - 4_000_000, raised_us=now_us - 4_000_000)
    clinic.send("alert", pause)
    clinic.send("alert", vt)
    open_page(page, clinic.page)
    expect(page.locator(".alert-row .kind")).to_have_text(["Ventricular tachycardia", "Pause (no beat)"])
    clinic.send("alert", replace(pause, kind="asystole", decided_us=now_us, raised_us=now_us))
    expect(page.locator(".alert-row .kind")).to_have_text(["Asystole", "Ventricular tachycardia"])
    expect(page.locator("#announcer")).to_have_text("New alert, High priority: Asystole, Patient subject-1, strap-1")
    clinic.send("alert", replace(vt, measured={"beats": 99.0}, decided_us=now_us + 1))
    page.wait_for_function(ARRIVED)
    expect(page.locator(".alert-row .kind")).to_have_text(["Asystole", "Ventricular tachycardia"])
    assert monitored.errors == []


EPISODES = {
    "en": ["Latest episode", "Longest episode: First part", "Longest episode: Last 10 s"],
    "de": ["Letzte Episode", "Längste Episode: Beginn", "Längste Episode: Letzte 10 s"],
    "fr": ["Dernier épisode", "Épisode le plus long: Début", "Épisode le plus long: 10 dernières secondes"],
    "es": ["Último episodio", "Episodio más largo: Comienzo", "Episodio más largo: Últimos 10 s"],
}


def of_episode(onset_us: int, episode: int, episode_s: float, part: str | None, begin_s: float) -> AlertRecord:
    start_us = onset_us + round(begin_s * 1e6)
    beats = [0.5 + 0.4 * n for n in range(24)]
    shown = replace(strip(start_us, beats, 10.0), part=part, mark_from_us=start_us + 3_000_000, mark_to_us=start_us + 9_000_000)
    numbers = {"episodes": float(episode), "episode_s": episode_s, "longest_episode_s": 40.0, "an_hour": 12.0}
    measured = {"beats": 7.0, "rate_bpm": 150.0, "limit_beats": 3.0, "limit_bpm": 100.0, **numbers}
    reasons = ("vt.criterion", "recurring.episodes")
    return alert(
        "vt", "high", onset_us, decided_us=start_us, raised_us=start_us, reasons=reasons, measured=measured, strip=shown
    )


def test_the_strips_of_the_latest_and_of_the_longest_episode_are_shown(clinic: Any, monitored: Any) -> None:
    page, onset_us = monitored.page, time.time_ns() // 1000 - 30 * MINUTE_US
    clinic.send("alert", of_episode(onset_us, 2, 4.0, "first", 300.0), of_episode(onset_us, 2, 40.0, "last", 330.0))
    open_page(page, clinic.page)
    heads = page.locator(".strip-head strong")
    expect(heads).to_have_text(["First part", "Last 10 s"])
    clinic.send("alert", of_episode(onset_us, 3, 6.0, None, 600.0))
    for language, names in EPISODES.items():
        page.locator("#language").select_option(language)
        expect(heads).to_have_text(names)
    page.locator("#language").select_option("en")
    expect(page.locator(".strip")).to_have_count(3)
    screenshot(page, "latest-and-longest-episode.png")
    assert monitored.errors == []


def test_strips_that_changed_while_the_page_had_no_connection_are_fetched(clinic: Any, monitored: Any) -> None:
    page, onset_us = monitored.page, time.time_ns() // 1000 - 30 * MINUTE_US
    sockets = list[WebSocketRoute]()

    def hold(socket: WebSocketRoute) -> None:
        """Connect the page, and keep from it what the clinic sends of alerts."""
        sockets.append(socket)
        server = socket.connect_to_server()
        server.on_message(lambda message: None if '"alert"' in str(message) else socket.send(message))

    page.route_web_socket("**/ws", hold)
    clinic.send("alert", of_episode(onset_us, 2, 4.0, "first", 300.0))
    open_page(page, clinic.page)
    heads = page.locator(".strip-head strong")
    expect(heads).to_have_text(["First part"])
    clinic.send("alert", of_episode(onset_us, 2, 40.0, "last", 330.0))
    sockets[0].close()
    expect(heads).to_have_text(["First part", "Last 10 s"])
