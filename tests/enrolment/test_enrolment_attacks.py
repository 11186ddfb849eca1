"""Attacks on enrolment: on codes, and by false sites. `docs/attacks.md` lists them."""

import contextlib
import hashlib
import http.client
import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.enrolment import service, throttle
from cloud.enrolment.invitations import LIFE_S
from cloud.enrolment.service import EnrolmentService, answer
from cloud.registry import load_hub
from cloud.site import Authority, Kind
from config.tls import make_fetching_context, make_server_context
from gateway.enrolment.site_client import SiteError
from sync.enrolment import (
    REQUEST_LIMIT_BYTES,
    Broker,
    EnrolRequest,
    decode_refusal,
)
from sync.invitation import Invitation
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SigningKey, Use, VerifyingKey
from tests.enrolment.site_testbed import DAY_S, NOW_S, HubMachine, Site, renewal

STRANGER = "192.0.2.1"
COMMAND = RecipientKeyPair.generate().public
TRUSTING_TO_SEND = {"/v2/enrol", "/v2/renew", "/v2/nonce"}
"""Requests that hold something of the hub's."""


def enrol_request(code: Invitation) -> bytes:
    return EnrolRequest.make(code.secret, SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.TLS), COMMAND).encode()


class TestCodes:
    def test_a_code_admits_one_device_only(self, site: Site, hub: HubMachine, tmp_path: Path) -> None:
        code = site.invite()
        hub.enrol(code)

        with pytest.raises(SiteError, match="used already, by another device"):
            HubMachine(tmp_path / "thief").enrol(code)
        assert load_hub(site.folder.hubs / "hub-1.toml").device == hub.device.public
        assert hub.enrol(code).hub == "hub-1"

    def test_of_many_devices_with_one_code_at_once_one_is_admitted(self, tmp_path: Path) -> None:
        """By two services of one site."""
        site = Site(tmp_path / "clinic")
        code, services = site.invite(), [site.service, site.make_service()]
        answers: list[tuple[int, bytes]] = []
        barrier = threading.Barrier(8)

        def enrol(number: int) -> None:
            body = enrol_request(code)
            barrier.wait()
            answers.append(answer(services[number % 2], "/v2/enrol", body, STRANGER, site.moment()))

        threads = [threading.Thread(target=enrol, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        refused = [decode_refusal(body) for status, body in answers if status == 403]
        assert sorted(status for status, _ in answers) == [200] + [403] * 7
        assert refused == ["used"] * 7
        assert len(site.authority.list_issued(Kind.HUBS, "hub-1")) == 1
        assert load_hub(site.folder.hubs / "hub-1.toml").former_keys == ()

    def test_a_device_that_was_replaced_does_not_come_back_by_its_old_code(
        self, site: Site, hub: HubMachine, tmp_path: Path
    ) -> None:
        code = site.invite()
        hub.enrol(code)
        second = HubMachine(tmp_path / "second")
        second.enrol(site.invite())

        with pytest.raises(SiteError, match="used already"):
            hub.enrol(code)
        assert load_hub(site.folder.hubs / "hub-1.toml").device == second.device.public
        back = site.invite()
        for _ in range(2):
            hub.enrol(back)
        assert load_hub(site.folder.hubs / "hub-1.toml").device == hub.device.public

    def test_a_revocation_ends_the_invitations_before_it(self, site: Site, hub: HubMachine) -> None:
        """Used by the same device and not used; a new one admits the hub again."""
        used, unused = site.invite(), site.invite()
        hub.enrol(used)
        site.pass_time(60)
        site.authority.revoke(Kind.HUBS, "hub-1", site.now_s)

        for code in (used, unused):
            with pytest.raises(SiteError, match="blocked this hub"):
                hub.enrol(code)
        site.pass_time(60)
        assert hub.enrol(site.invite()).hub == "hub-1"

    def test_a_code_expires(self, site: Site, hub: HubMachine) -> None:
        code = site.invite()
        site.pass_time(LIFE_S)

        with pytest.raises(SiteError, match="expired"):
            hub.enrol(code)

    def test_a_cancelled_code_is_refused_and_a_used_one_cannot_be_cancelled(self, site: Site, hub: HubMachine) -> None:
        cancelled, used = site.invite(), site.invite("hub-2")
        site.invitations.cancel(hashlib.sha256(cancelled.secret).hexdigest()[:8])
        with pytest.raises(SiteError, match="cancelled this code"):
            hub.enrol(cancelled)
        hub.enrol(used)

        with pytest.raises(service.ClinicError, match="was used already"):
            site.invitations.cancel(hashlib.sha256(used.secret).hexdigest())
        assert [found.state(site.now_s) for found in site.invitations.list()].count("cancelled") == 1

    def test_who_guesses_codes_must_wait_and_others_need_not(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        site = Site(tmp_path / "clinic")
        code = site.invite()

        def guess(address: str = STRANGER) -> tuple[int, bytes]:
            wrong = Invitation.generate("enrol.example", 1, bytes(32))
            return answer(site.service, "/v2/enrol", enrol_request(wrong), address, site.moment())

        guesses = [guess()[0] for _ in range(throttle.ADDRESS_LIMIT + 1)]
        assert guesses == [403] * throttle.ADDRESS_LIMIT + [429]
        right = enrol_request(code)
        assert answer(site.service, "/v2/enrol", right, STRANGER, site.moment())[0] == 429
        assert answer(site.service, "/v2/enrol", right, "192.0.2.2", site.moment())[0] == 200
        site.pass_time(throttle.WINDOW_S)
        assert answer(site.service, "/v2/enrol", right, STRANGER, site.moment())[0] == 200
        assert len(caplog.records) == throttle.ADDRESS_LIMIT

    def test_guesses_from_many_addresses_stop_too(self, tmp_path: Path) -> None:
        site = Site(tmp_path / "clinic")
        wrong = enrol_request(Invitation.generate("enrol.example", 1, bytes(32)))
        addresses = [f"2001:db8:{number:x}::1" for number in range(throttle.TOTAL_LIMIT + 1)]

        statuses = [answer(site.service, "/v2/enrol", wrong, address, site.moment())[0] for address in addresses]

        assert statuses == [403] * throttle.TOTAL_LIMIT + [429]

    def test_one_subscriber_with_many_ipv6_addresses_is_one(self, tmp_path: Path) -> None:
        site = Site(tmp_path / "clinic")
        wrong = enrol_request(Invitation.generate("enrol.example", 1, bytes(32)))
        addresses = [f"2001:db8::{number:x}" for number in range(throttle.ADDRESS_LIMIT + 1)]

        assert answer_statuses(site, wrong, addresses)[-1] == 429

    def test_a_stranger_learns_nothing(self, tmp_path: Path) -> None:
        """A wrong code, and renewals of hubs that exist and that do not, have one answer."""
        site = Site(tmp_path / "clinic")
        answer(site.service, "/v2/enrol", enrol_request(site.invite()), STRANGER, site.moment())
        stranger = SigningKey.generate(Use.DEVICE)
        wrong = enrol_request(Invitation.generate("enrol.example", 1, bytes(32)))

        answers = {
            answer(site.service, "/v2/enrol", wrong, STRANGER, site.moment()),
            answer(site.service, "/v2/renew", renewal(site, stranger), STRANGER, site.moment()),
            answer(site.service, "/v2/renew", renewal(site, stranger, "hub-9"), STRANGER, site.moment()),
        }

        assert len(answers) == 1
        assert {decode_refusal(body) for _, body in answers} == {"refused"}

    def test_a_code_without_the_private_keys_enrols_nobody_and_is_not_used_up(self, site: Site, hub: HubMachine) -> None:
        code = site.invite()
        right = EnrolRequest.make(code.secret, hub.device, SigningKey.generate(Use.TLS), COMMAND)
        for changed in (
            replace(right, device=SigningKey.generate(Use.DEVICE).public),
            replace(right, tls=SigningKey.generate(Use.TLS).public),
        ):
            assert answer(site.service, "/v2/enrol", changed.encode(), STRANGER, site.moment())[0] == 403

        assert hub.enrol(code).hub == "hub-1"

    @pytest.mark.parametrize("body", [b"", b"\xa0", bytes(1024), b"{}"])
    @pytest.mark.parametrize("path", ["/v2/enrol", "/v2/renew", "/v2/time", "/v2/nonce"])
    def test_other_bytes_are_refused(self, tmp_path: Path, path: str, body: bytes) -> None:
        site = Site(tmp_path / "clinic")

        assert answer(site.service, path, body, STRANGER, site.moment()) == (400, b"")


def answer_statuses(site: Site, body: bytes, addresses: list[str]) -> list[int]:
    return [answer(site.service, "/v2/enrol", body, address, site.moment())[0] for address in addresses]


class TestFalseSites:
    def test_a_code_of_another_site_is_not_sent(self, site: Site, other_site: Site, hub: HubMachine) -> None:
        foreign = site.invite(root=other_site.authority.fingerprints()[0])

        with pytest.raises(SiteError, match="not the site that made this code; the code was not sent"):
            hub.enrol(foreign)
        assert site.paths == ["/v2/roots"]

    def test_a_man_in_the_middle_with_the_true_roots_gets_no_secret(
        self, site: Site, other_site: Site, hub: HubMachine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """He answers the first request as the site does. His certificate is of another site."""
        true_roots = site.service.roots()
        monkeypatch.setattr(other_site.service.__class__, "roots", lambda _self: true_roots)
        code = Invitation.generate("127.0.0.1", other_site.port, site.authority.fingerprints()[0])

        with pytest.raises(SiteError, match="is not your clinic: has a certificate of another site"):
            hub.enrol(code)
        assert other_site.paths == ["/v2/roots"]

    def test_a_hub_of_the_site_cannot_be_its_enrolment_service(self, site: Site, hub: HubMachine, tmp_path: Path) -> None:
        """His chain leads to the right root, but his certificate is one of a client."""
        thief = HubMachine(tmp_path / "thief")
        thief.enrol(site.invite("hub-2"))
        site.paths.clear()
        code = site.invite()
        with site.serving(make_server_context(thief.folder)):
            code = replace(code, port=site.port)
            with pytest.raises(SiteError, match="is not your clinic"):
                hub.enrol(code)
        assert not TRUSTING_TO_SEND & set(site.paths)

    def test_a_service_of_the_site_with_another_name_is_refused(self, site: Site, hub: HubMachine) -> None:
        code = replace(site.invite(), host="localhost")

        with pytest.raises(SiteError, match="certificate for another name"):
            hub.enrol(code)
        assert not TRUSTING_TO_SEND & set(site.paths)

    def test_an_expired_certificate_of_the_service_is_refused_at_the_sites_time(self, site: Site, hub: HubMachine) -> None:
        """The hub's own clock stands where it was valid."""
        code = site.invite()
        old = make_server_context(site.folder.path / "enrolment" / "tls")
        hub.enrol(code)
        site.pass_time(100 * DAY_S)
        hub.reboot(wall_s=NOW_S)
        site.paths.clear()
        newcomer = HubMachine(hub.data / "newcomer", wall_s=NOW_S)
        with site.serving(old):
            with pytest.raises(SiteError, match="expired on"):
                newcomer.enrol(site.invite("hub-2"))
            assert site.paths == ["/v2/roots", "/v2/time"]
            site.paths.clear()
            record = (hub.folder / "site.json").read_text()
            (hub.folder / "site.json").write_text(record.replace(f'"port": {code.port}', f'"port": {site.port}'))
            with pytest.raises(SiteError, match="expired on"):
                hub.renew()
        assert site.paths == ["/v2/time"]

    def test_a_site_outside_the_eu_is_refused(self, tmp_path: Path, hub: HubMachine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cloud.site.authority.is_allowed_region", lambda _country: True)
        monkeypatch.setattr(Authority, "create", classmethod(_create_abroad(Authority.create)))
        with Site(tmp_path / "clinic", "Abroad").serving() as site, pytest.raises(SiteError, match="outside the EU"):
            hub.enrol(site.invite())
        assert site.paths == ["/v2/roots"]

    def test_a_broker_outside_the_eu_is_refused(self, site: Site, hub: HubMachine) -> None:
        site.service.brokers = [Broker("mqtt.example", 8883, "DE"), Broker("mqtt.example", 8883, "US")]

        with pytest.raises(SiteError, match="a broker outside the EU"):
            hub.enrol(site.invite())
        assert not (hub.folder / "identity.pem").exists()

    @pytest.mark.parametrize(
        ("method", "path", "body", "status"),
        [
            ("POST", "/v2/enrol", bytes(REQUEST_LIMIT_BYTES + 1), 413),
            ("POST", "/v2/enrol", b"", 400),
            ("GET", "/v2/enrol", None, 405),
            ("POST", "/v2/roots", b"", 405),
            ("PUT", "/v2/roots", b"", 405),
            ("POST", "/docs", b"", 404),
            ("POST", "/v2/enrol/", b"", 404),
        ],
    )
    def test_other_requests_get_a_status_and_nothing_else(
        self, site: Site, method: str, path: str, body: bytes | None, status: int
    ) -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", site.port, context=make_fetching_context(), timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, b"")
            headers = {name.lower(): value for name, value in response.getheaders()}
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers

    def test_the_service_speaks_nothing_older_than_tls_1_3(self, site: Site) -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", site.port)) as connection, pytest.raises(ssl.SSLError):
            old.wrap_socket(connection)


def _create_abroad(create):
    return lambda _cls, folder, site, _country, region, now_s: create(folder, site, "US", region, now_s)


def test_a_certificate_for_another_key_is_not_taken(site: Site, hub: HubMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.enrol(site.invite())
    before = {path: path.read_bytes() for path in hub.folder.iterdir() if path.name != "time.json"}
    grant, other = site.service._grant, SigningKey.generate(Use.TLS)

    def for_another_key(subject: str, registration: Registration, _tls: VerifyingKey, now_s: int) -> bytes:
        return grant(subject, registration, other.public, now_s)

    monkeypatch.setattr(EnrolmentService, "_grant", staticmethod(for_another_key))

    with pytest.raises(SiteError, match="for another hub"):
        hub.renew()
    assert {path: path.read_bytes() for path in before} == before
