"""Invitations, enrolments, renewals and revocations are in the site's audit log; refusals are counted by the hour."""

import contextlib
from dataclasses import replace

import pytest

from cloud.cli import main
from cloud.store.audit import read_rows
from cloud.store.audit_refusals import log_refusals
from gateway.enrolment.site_client import SiteError
from sync.audit import End, Origin, read_row
from sync.invitation import Invitation
from tests.enrolment.site_testbed import NOW_S, HubMachine, Site

ORIGIN = Origin(End.SITE, "main")


def logged(site: Site) -> list[tuple[str, str, str | None, str]]:
    with site.store.snapshot() as connection:
        events = [read_row(*row).event for row in read_rows(connection)]
    return [(event.actor.role, event.action, event.subject, event.outcome) for event in events]


def test_enrolment_and_renewal_are_logged_by_the_hub(site: Site, hub: HubMachine) -> None:
    hub.enrol(site.invite())
    hub.renew()
    assert logged(site) == [("hub", "enrol", "subject-1", "done"), ("hub", "renew", "subject-1", "done")]


def test_refused_requests_are_counted(site: Site, hub: HubMachine, tmp_path) -> None:
    used = site.invite()
    hub.enrol(used)
    with pytest.raises(SiteError):
        HubMachine(tmp_path / "other").enrol(used)
    wrong = replace(site.invite(), secret=bytes(len(used.secret)))
    for _ in range(3):
        with contextlib.suppress(SiteError):
            hub.enrol(wrong)
    with site.store.transaction() as connection:
        log_refusals(connection, ORIGIN, (NOW_S + 3600) * 1_000_000)
    with site.store.snapshot() as connection:
        events = [read_row(*row).event for row in read_rows(connection)][1:]
    counts = {event.objects[:2]: event.count for event in events}
    assert counts == {("hub:hub-1", "reason:invitation-used"): 1, ("hub:unregistered", "reason:wrong-code"): 3}


def test_what_the_operator_does_is_logged(tmp_path) -> None:
    site = Site(tmp_path / "clinic")
    clinic = str(site.folder.path)
    names = ("--hub", "hub-1", "--subject", "subject-1", "--address", "127.0.0.1:8443")
    assert main(["invite", "--data", clinic, *names]) == 0
    assert main(["cancel-invitation", "--data", clinic, site.invitations.list()[0].id]) == 0
    assert main(["site", "revoke", "--data", clinic, "hubs", "hub-9"]) == 1
    assert logged(site) == [
        ("operator", "invite", "subject-1", "done"),
        ("operator", "cancel-invitation", None, "done"),
        ("operator", "revoke", None, "done"),
        ("operator", "revoke", None, "failed"),
    ]


def test_a_code_is_not_in_the_log(site: Site, hub: HubMachine) -> None:
    code: Invitation = site.invite()
    hub.enrol(code)
    with site.store.snapshot() as connection:
        assert all(code.secret not in row and code.secret.hex().encode() not in row for _, row in read_rows(connection))
