"""A clinician closes an alert or marks it as false: by keyboard, after a question, and sees what the hub made of it."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from cloud.registry import hub_file, load_hub, save_hub
from cloud.store import Store
from cloud.store.audit import read_rows
from cloud.store.commands import StoredCommand, list_commands
from sync.audit import read_row
from sync.commands import APPLIED_KIND, CommandKey, decode_command
from sync.recipients import RecipientKeyPair
from sync.records import AlertRecord, StatusRecord
from tests.cloud.synthetic import alert, times
from tests.page.conftest import Clinic
from tests.page.test_clinic_page import CONTRASTS, open_page, screenshot

HUB_KEY = CommandKey(RecipientKeyPair.generate())
WAIT_S = 20
LANGUAGES = {
    "en": ("Close alert", "Mark as false", "Cancel"),
    "de": ("Alarm schließen", "Als Fehlalarm markieren", "Abbrechen"),
    "fr": ("Clôturer l’alerte", "Marquer comme fausse", "Annuler"),
    "es": ("Cerrar la alerta", "Marcar como falsa", "Cancelar"),
}


@pytest.fixture(scope="module")
def clinic(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """A clinic whose hub takes commands."""
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    take_commands(clinic, is_able=True)
    clinic.start()
    yield clinic
    assert clinic.stop() == 0


def take_commands(clinic: Clinic, *, is_able: bool) -> None:
    hubs = clinic.files.folder.hubs
    save_hub(hubs, replace(load_hub(hub_file(hubs, "hub-1")), command_key=HUB_KEY.public if is_able else None))


@pytest.fixture
def raised(clinic: Clinic) -> Iterator[AlertRecord]:
    """An ongoing alert, the first in the list; it ends with the test."""
    now_us = time.time_ns() // 1000
    raised = alert("af", "high", now_us - 60_000_000, decided_us=now_us, measured={})
    clinic.send("alert", raised)
    yield raised
    clinic.send("alert", replace(raised, end_us=raised.decided_us))


def list_sent(clinic: Clinic) -> list[StoredCommand]:
    with closing(Store.open(clinic.files.folder.blocks)) as store, store.transaction() as connection:
        return list_commands(connection)


def wait_command(clinic: Clinic, n_before: int) -> StoredCommand:
    """Wait until the clinic has signed one more command."""
    deadline = time.monotonic() + WAIT_S
    while len(found := list_sent(clinic)) == n_before:
        assert time.monotonic() < deadline, "the clinic signed no command"
        time.sleep(0.05)
    return found[-1]


def answer(clinic: Any, number: int, kind: str) -> None:
    clinic.send("vital", StatusRecord("hub", kind, times(time.time_ns() // 1000), number))


def status(page: Page) -> Any:
    return page.locator(".ending-status")


def test_an_alert_is_closed_by_keyboard_after_a_question(clinic: Clinic, monitored: Any, raised: AlertRecord) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    n_before = len(list_sent(clinic))
    close = page.locator("[data-action=close_alert]")
    expect(close).to_have_text("Close alert")
    close.focus()
    page.keyboard.press("Enter")
    question = page.get_by_role("group", name="Close this alert (Atrial fibrillation, Patient subject-1)?")
    expect(question).to_be_visible()
    expect(page.locator("[data-action=cancel]")).to_be_focused()  # a second Enter confirms nothing
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(close).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("[data-action=confirm]")).to_be_focused()
    screenshot(page, "closing-an-alert.png")
    page.keyboard.press("Enter")
    stored = wait_command(clinic, n_before)
    expect(status(page)).to_contain_text("Close alert, loopback: sent at")
    expect(close).to_have_count(0)
    row = page.locator("#command-table tbody tr").first
    expect(row).to_have_attribute("data-state", "sent")
    command = decode_command(stored.payload, "hub-1", HUB_KEY, clinic.files.signing.command.public)
    assert (command.kind, command.arguments) == ("close_alert", {"alert": raised.id})
    now_us = time.time_ns() // 1000
    ended = replace(raised, end_us=now_us, reasons=(*raised.reasons, "ended.closed_by_clinic"), measured={"command": 1.0})
    clinic.send("alert", ended)
    answer(clinic, command.number, APPLIED_KIND)
    expect(status(page)).to_contain_text("Close alert, loopback: applied by the hub at")
    expect(row).to_have_attribute("data-state", "applied")
    expect(row).to_contain_text("Close alert: Atrial fibrillation")
    expect(page.locator(".reasons")).to_contain_text("The clinic closed the alert")
    expect(page.locator(".alert-row .span").first).to_contain_text("Ended")
    screenshot(page, "closed-alert.png")
    assert monitored.errors == []
    with closing(Store.open(clinic.files.folder.blocks)) as store, store.transaction() as connection:
        events = [read_row(*row).event for row in read_rows(connection)]
    assert [(event.action, event.actor.id) for event in events if "command" in event.action][-2:] == [
        ("ask-command", "loopback"),
        ("send-command", "loopback"),
    ]


def test_a_false_alert_is_marked_and_a_refusal_says_why(clinic: Clinic, monitored: Any, raised: AlertRecord) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    n_before = len(list_sent(clinic))
    page.locator("[data-action=mark_false]").click()
    page.locator("[data-action=confirm]").click()
    number = wait_command(clinic, n_before).number
    answer(clinic, number, "command_refused_time")
    expect(status(page)).to_contain_text("refused: the hub does not know the time")
    expect(page.locator("[data-action=mark_false]")).to_be_visible()  # it can be asked for again
    clinic.send("alert", replace(raised, end_us=raised.decided_us, reasons=(*raised.reasons, "ended.marked_false")))
    expect(page.locator(".alert-row .marked-false").first).to_have_text("Marked as false")
    expect(page.locator("[data-action=mark_false]")).to_have_count(0)


def test_a_hub_without_commands_and_an_alert_that_ended_meanwhile(clinic: Clinic, monitored: Any, raised: AlertRecord) -> None:
    page = monitored.page
    take_commands(clinic, is_able=False)
    open_page(page, clinic.page)
    page.locator("[data-action=close_alert]").click()
    page.locator("[data-action=confirm]").click()
    expect(status(page)).to_contain_text("refused: the hub takes no commands")
    page.route("**/api/commands", lambda route: route.fulfill(status=409, json={}))
    page.locator("[data-action=close_alert]").click()
    page.locator("[data-action=confirm]").click()
    expect(status(page)).to_have_text("Not sent: the alert has ended, or this was asked for already")
    page.unroute("**/api/commands")
    page.route("**/api/commands", lambda route: route.abort())
    page.locator("[data-action=close_alert]").click()
    page.locator("[data-action=confirm]").click()
    expect(status(page)).to_contain_text("Not sent: no connection")
    take_commands(clinic, is_able=True)


def test_a_technical_alert_has_no_such_buttons(clinic: Clinic, monitored: Any, raised: AlertRecord) -> None:
    page = monitored.page
    open_page(page, clinic.page)
    clinic.send("alert", alert("pairing_lost", "low", raised.onset_us, measured={}))
    page.locator(".alert-row", has_text="Sensor no longer paired").click()
    expect(page.locator("#detail-heading")).to_have_text("Sensor no longer paired")
    expect(page.locator(".ending")).to_be_hidden()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 380)])
def test_the_buttons_are_legible_in_every_language(
    clinic: Clinic, monitored: Any, raised: AlertRecord, scheme: Any, width: int
) -> None:
    page = monitored.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    open_page(page, clinic.page)
    n_before = len(list_sent(clinic))
    page.locator("[data-action=mark_false]").click()
    page.locator("[data-action=confirm]").click()
    number = wait_command(clinic, n_before).number
    answer(clinic, number, "command_refused_time")
    expect(page.locator("#command-table tbody tr").first).to_have_attribute("data-state", "refused")
    for language, (close, false, cancel) in LANGUAGES.items():
        page.locator("#language").select_option(language)
        expect(page.locator("[data-action=close_alert]")).to_have_text(close)
        expect(page.locator("[data-action=mark_false]")).to_have_text(false)
        page.locator("[data-action=mark_false]").click()
        expect(page.locator("[data-action=cancel]")).to_have_text(cancel)
        expect(page.locator("[data-action=confirm]")).to_have_text(false)
        assert [text for ratio, text in page.evaluate(CONTRASTS) if ratio < 4.5] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        screenshot(page, f"commands-{language}-{scheme}.png")
        page.locator("[data-action=cancel]").click()
    assert monitored.errors == []
