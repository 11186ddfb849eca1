"""Two hubs with a sensor of the same name are two patients on the page: two entries, two traces, two strips, two trends."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import css_colour, pixels
from tests.cloud.synthetic import alert, counts, ecg_mv, heart_rate, strip, waveform
from tests.page.conftest import Clinic
from tests.page.test_clinic_page import open_page, screenshot

PATIENTS = {"P-1047": ("hub-1", 1.0, 62.0), "P-2093": ("hub-2", -1.0, 148.0)}
"""Hub, polarity of the ECG and heart rate of each patient."""


class TwoPatients:
    """A clinic with two hubs, which send at the same times an alert of the same id, heart rates and ten seconds of ECG."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.hubs = {subject: clinic.make_hub(hub, subject) for subject, (hub, _, _) in PATIENTS.items()}
        now_us = time.time_ns() // 1000
        onset_us = now_us - 7_000_000
        for subject, (_, polarity, rate) in PATIENTS.items():
            hub, mv = self.hubs[subject], polarity * ecg_mv([0.4 + 0.8 * i for i in range(12)], 10.0)
            evidence = replace(strip(onset_us, [0.4, 1.2, 2.0], 4.0), samples=counts(mv[:520]))
            measured = {"rate_bpm": rate, "limit_s": 30}
            clinic.send("alert", alert("af", "high", onset_us, decided_us=now_us, strip=evidence, measured=measured), hub=hub)
            clinic.send("vital", *(heart_rate(now_us - ago_s * 1_000_000, rate) for ago_s in range(60, 0, -2)), hub=hub)
            clinic.send("wave", waveform(now_us - 10_000_000, counts(mv)), hub=hub)

    def send_heart_rates(self) -> None:
        for subject, (_, _, rate) in PATIENTS.items():
            self.clinic.send("vital", heart_rate(time.time_ns() // 1000, rate), hub=self.hubs[subject])


@pytest.fixture(scope="module")
def two_patients(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoPatients]:
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.start()
    yield TwoPatients(clinic)
    assert clinic.stop() == 0


def trace_polarity(page: Page) -> int:
    """The sign of the R peaks of the live trace: of the larger distance from the median row of the dark trace."""
    paper = page.locator("#live-paper")
    dark = (np.abs(pixels(paper) - css_colour(paper, "--trace")) < 60).all(axis=2)
    rows = np.flatnonzero(dark.any(axis=1))
    baseline = np.median(np.nonzero(dark)[0])
    return 1 if baseline - rows[0] > rows[-1] - baseline else -1


@pytest.fixture
def page(browser: Browser, two_patients: TwoPatients) -> Iterator[Page]:
    context = browser.new_context(locale="en-GB", timezone_id="Europe/Berlin", viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    open_page(page, two_patients.clinic.page)
    page.wait_for_load_state("networkidle")  # the page has fetched and drawn everything
    yield page
    context.close()


def test_two_hubs_with_a_sensor_of_the_same_name_are_two_patients(page: Page, two_patients: TwoPatients) -> None:
    patients = page.locator(".patient-row")
    expect(patients).to_have_count(2)
    traces = {}
    for subject, (hub, _, rate) in PATIENTS.items():
        patient = page.get_by_role("button", name=re.compile(f"Patient {subject}.*ongoing alert"))
        patient.click()
        two_patients.send_heart_rates()
        expect(patient).to_have_attribute("aria-current", "true")
        expect(page.locator("#live-patient")).to_have_text(f"Patient {subject}")
        expect(page.locator("#trend-patient")).to_have_text(f"Patient {subject}")
        expect(page.locator("#detail-patient")).to_have_text(f"Patient {subject}")
        expect(page.locator("#sensor-state")).to_contain_text(hub)
        expect(page.locator("#heart-rate")).to_have_text(f"{rate:.0f}")
        expect(page.locator("#live-paper")).to_have_attribute("aria-label", f"Live ECG of patient {subject}, strap-1")
        expect(page.locator("#live-paper canvas")).to_have_count(1)
        page.wait_for_timeout(300)  # several frames of the trace
        traces[subject] = trace_polarity(page)
        label = page.locator("#trend").get_attribute("aria-label") or ""
        assert label.startswith(f"Heart rate of patient {subject} ")
        assert ("lowest 148, highest 148" in label) == (subject == "P-2093")
        screenshot(page, f"clinic-page-two-patients-{subject}.png")
    assert traces == {"P-1047": 1, "P-2093": -1}


def test_alerts_and_strips_name_their_patient(page: Page) -> None:
    """Both alerts have the same id, for the same sensor name and onset; a click shows the strip and the ECG of its patient."""
    for subject, (_, polarity, rate) in PATIENTS.items():
        row = page.get_by_role("button", name=re.compile(f"Atrial fibrillation Patient {subject}"))
        expect(row).to_have_count(1)
        row.click()
        expect(row).to_have_attribute("aria-current", "true")
        expect(page.locator("#detail-patient")).to_have_text(f"Patient {subject}")
        expect(page.locator("#detail")).to_contain_text(f"mean rate {rate:.0f}/min")
        expect(page.locator(".strip-head .patient")).to_have_text(f"Patient {subject}")
        expect(page.locator(".strip svg")).to_have_attribute("aria-label", re.compile(f"Patient {subject}"))
        expect(page.locator("#live-patient")).to_have_text(f"Patient {subject}")
        dark = pixels(page.locator(".strip svg"))[36:, 70:].max(axis=2) < 60
        rows, baseline = np.flatnonzero(dark.any(axis=1)), np.median(np.nonzero(dark)[0])
        assert (baseline - rows[0] > rows[-1] - baseline) == (polarity > 0)


def test_shows_more_alerts_on_request(page: Page, two_patients: TwoPatients) -> None:
    """A backlog of old, ended alerts of the other patient does not move today's alerts down; the button fetches the rest."""
    hub = two_patients.hubs["P-2093"]
    long_ago_us = time.time_ns() // 1000 - 9 * 86_400_000_000
    first = page.locator(".alert-row").first.text_content()
    ended = [alert("pause", "low", long_ago_us + n, end_us=long_ago_us + n + 9) for n in range(120)]
    two_patients.clinic.send("alert", *ended[:60], hub=hub)
    two_patients.clinic.send("alert", *ended[60:], hub=hub)
    expect(page.locator("#alert-count")).to_contain_text(re.compile("^1"))
    page.reload()
    expect(page.locator(".alert-row")).to_have_count(100)
    assert (page.locator(".alert-row").first.text_content() or "")[:30] == (first or "")[:30]
    expect(page.locator("#alert-count")).to_contain_text("100+ alerts")
    page.get_by_role("button", name="Show more alerts").click()
    expect(page.locator(".alert-row")).to_have_count(122)
    expect(page.get_by_role("button", name="Show more alerts")).to_have_count(0)
