"""The clinic's alarms about hubs on the page: in words, in four languages, legible, and gone when they end."""

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from cloud.outdated import GRACE_S
from cloud.store import Store
from cloud.store.hub_states import (
    HUB_OUTDATED,
    HUB_SILENT,
    end_alarm,
    list_ongoing_alarms,
    note_heard,
    note_known,
    note_outdated,
    raise_alarm,
)
from tests.page.test_clinic_page import CONTRASTS, open_page, screenshot

LANGUAGES = {
    "en": ("Hub silent", "Hub software outdated", "From an outdated hub"),
    "de": ("Hub meldet sich nicht", "Software des Hubs veraltet", "Von einem veralteten Hub"),
    "fr": ("Boîtier muet", "Logiciel du boîtier obsolète", "D’un boîtier obsolète"),
    "es": ("Concentrador sin señal", "Programa del concentrador obsoleto", "De un concentrador obsoleto"),
}
NAME = "<img src=x onerror=alert(1)>"
OFTEN = "const slow = setInterval; window.setInterval = (f, ms) => slow(f, ms === 10000 ? 300 : ms);"
"""The page asks for hubs every 10 s, and in this test more often."""


@pytest.fixture
def store(clinic: Any) -> Iterator[Store]:
    """The store of the running clinic. Its own watch ends what a test leaves: no hub of the tests is silent."""
    with closing(Store.open(clinic.files.folder.blocks)) as store:
        yield store
        now_us = time.time_ns() // 1000
        with store.transaction() as connection:
            for alarm in list_ongoing_alarms(connection):
                end_alarm(connection, alarm, now_us)
            note_heard(connection, "hub-1", now_us)
            connection.exec_driver_sql("UPDATE hub_states SET outdated_us = NULL")


def make_silent(store: Store) -> None:
    """As the clinic's watch does after five minutes. It ends no alarm about a hub that was last heard when the alarm says."""
    now_us = time.time_ns() // 1000
    with store.transaction() as connection:
        note_known(connection, "hub-1", "subject-1", now_us - 600_000_000)
        note_heard(connection, "hub-1", now_us - 600_000_000)
        raise_alarm(connection, "hub-1", HUB_SILENT, now_us - 600_000_000, now_us)


def make_outdated(store: Store, days: float) -> None:
    since_us = time.time_ns() // 1000 - round(days * 86_400_000_000)
    with store.transaction() as connection:
        note_outdated(connection, "hub-1", since_us)
        raise_alarm(connection, "hub-1", HUB_OUTDATED, since_us, since_us)


def rows(page: Page) -> Any:
    return page.locator(".hub-alarm")


def test_a_silent_hub_appears_with_what_to_do_and_goes(clinic: Any, monitored: Any, store: Store) -> None:
    page = monitored.page
    page.add_init_script(OFTEN)
    open_page(page, clinic.page)
    expect(page.locator(".alert-row[data-alert]")).to_have_count(3)
    expect(page.locator("#hubs")).to_be_hidden()
    make_silent(store)
    expect(rows(page)).to_have_count(1)
    row = rows(page).first
    expect(row).to_contain_text("Hub silent")
    expect(row).to_contain_text("Patient subject-1")
    expect(row).to_contain_text("10 minutes ago")
    expect(row).to_contain_text("nobody watches the patient")
    expect(row.locator(".sign")).to_have_attribute("data-priority", "medium")
    expect(page.locator("#announcer")).to_have_text("New alarm, Medium priority: Hub silent, Patient subject-1, hub-1")
    screenshot(page, "hub-silent.png")
    with store.transaction() as connection:
        (alarm,) = list_ongoing_alarms(connection)
        end_alarm(connection, alarm, time.time_ns() // 1000)
    expect(page.locator("#hubs")).to_be_hidden()
    assert monitored.errors == []


def test_an_outdated_hub_says_how_long_everything_is_taken_and_its_alerts_say_so_afterwards(
    clinic: Any, monitored: Any, store: Store
) -> None:
    page = monitored.page
    with store.transaction() as connection:
        note_known(connection, "hub-1", "subject-1", 1)
    make_outdated(store, 10.5)
    open_page(page, clinic.page)
    expect(rows(page)).to_contain_text(["Update this hub within 80 days"])
    expect(page.get_by_text("From an outdated hub")).to_have_count(0)
    assert GRACE_S == 90 * 86_400


def test_alarms_are_legible_words_in_each_language(clinic: Any, monitored: Any, store: Store) -> None:
    page = monitored.page
    make_silent(store)
    with store.transaction() as connection:
        connection.exec_driver_sql("UPDATE hub_states SET outdated_us = 1")
        raise_alarm(connection, "hub-1", HUB_OUTDATED, 1, 2)
    open_page(page, clinic.page)
    for language, (silent, outdated, label) in LANGUAGES.items():
        page.locator("#language").select_option(language)
        expect(rows(page).locator(".kind")).to_have_text([silent, outdated])
        expect(page.locator(".alert-row[data-alert]").first).to_contain_text(label)
        expect(page.locator("#detail")).to_contain_text(label)
        assert not any("_" in text for text in rows(page).locator(".advice").all_inner_texts())
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            too_low = [(ratio, text) for ratio, text in page.evaluate(CONTRASTS) if ratio < 4.5]
            assert too_low == [], language
        page.set_viewport_size({"width": 375, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 375, language
        page.set_viewport_size({"width": 1400, "height": 1000})
        page.emulate_media(color_scheme="light")
        if language == "de":
            screenshot(page, "hub-alarms-de.png")


def test_a_name_of_a_hub_never_becomes_markup(clinic: Any, monitored: Any, store: Store) -> None:
    """The clinic ends an alarm about a hub that it does not know, so the name is put into its answer."""
    page = monitored.page
    make_silent(store)
    page.route("**/api/hubs*", lambda route: route.fulfill(body=route.fetch().text().replace("hub-1", NAME)))
    open_page(page, clinic.page)
    expect(rows(page)).to_contain_text([NAME])
    assert rows(page).locator("img").count() == 0
