"""Attacks on enrolment, renewal and time. `docs/attacks.md` lists them."""

import contextlib
import hashlib
import http.client
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.enrolment import service, throttle
from cloud.enrolment.invitations import LIFE_S
from cloud.enrolment.service import EnrolmentService, answer
from cloud.registry import load_hub
from cloud.site import Authority, Kind
from config.tls import make_fetching_context, make_server_context
from gateway.enrolment.site_client import SiteError
from gateway.enrolment.site_clock import EnrolledHubClock, SiteTimeError
from sync.enrolment import (
    REQUEST_LIMIT_BYTES,
    Broker,
    EnrolRequest,
    RenewRequest,
    SignedTime,
    decode_nonce,
    decode_refusal,
    decode_roots,
    encode_nonce_request,
    encode_time_request,
)
from sync.invitation import Invitation
from sync.recipients import RecipientKeyPair
from sync.registration import Registration
from sync.signing import SignatureError, SigningKey, Use, VerifyingKey
from sync.site_time import verify_time
from tests.enrolment.site_testbed import DAY_S, NOW_S, HubMachine, Site

STRANGER = "192.0.2.1"
NONCE = bytes(range(16))
COMMAND = RecipientKeyPair.generate().public
TRUSTING_TO_SEND = {"/v2/enrol", "/v2/renew", "/v2/nonce"}
"""Requests that hold something of the hub's."""


@pytest.fixture
def other_site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "other-clinic", "Andere").serving() as site:
        yield site


def enrol_request(code: Invitation) -> bytes:
    return EnrolRequest.make(code.secret, SigningKey.generate(Use.DEVICE), SigningKey.generate(Use.TLS), COMMAND).encode()


def renewal(site: Site, device: SigningKey, hub: str = "hub-1", *, nonce_for: str | None = None) -> bytes:
    nonce = decode_nonce(site.service.make_nonce(encode_nonce_request(nonce_for or hub), site.moment()))
    return RenewRequest.make(hub, nonce, device, SigningKey.generate(Use.TLS)).encode()


def send_renewal(site: Site, body: bytes, at: EnrolmentService | None = None) -> tuple[int, str]:
    """Return the status, and why it was refused."""
    status, data = answer(at or site.service, "/v2/renew", body, STRANGER, site.moment())
    return status, "" if status == 200 else decode_refusal(data)


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


class TestRenewals:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        return Site(tmp_path / "clinic")

    @pytest.fixture
    def device(self, site: Site) -> SigningKey:
        """The device key of the enrolled hub-1."""
        device = SigningKey.generate(Use.DEVICE)
        body = EnrolRequest.make(site.invite().secret, device, SigningKey.generate(Use.TLS), COMMAND).encode()
        assert answer(site.service, "/v2/enrol", body, STRANGER, site.moment())[0] == 200
        return device

    def test_a_replayed_renewal_is_refused(self, site: Site, device: SigningKey) -> None:
        body = renewal(site, device)

        assert send_renewal(site, body) == (200, "")
        assert send_renewal(site, body) == (403, "refused")
        assert send_renewal(site, body, site.make_service()) == (403, "refused")

    def test_a_nonce_is_for_one_hub_one_service_and_a_minute(self, site: Site, device: SigningKey) -> None:
        assert send_renewal(site, renewal(site, device, nonce_for="hub-2")) == (403, "refused")
        assert send_renewal(site, renewal(site, device), site.make_service()) == (403, "refused")
        late = renewal(site, device)
        site.mono_s += 61
        assert send_renewal(site, late) == (403, "refused")
        nonce = bytearray(decode_nonce(site.service.make_nonce(encode_nonce_request("hub-1"), site.moment())))
        nonce[7] += 1
        longer = RenewRequest.make("hub-1", bytes(nonce), device, SigningKey.generate(Use.TLS))
        assert send_renewal(site, longer.encode()) == (403, "refused")
        assert send_renewal(site, renewal(site, device)) == (200, "")

    def test_no_other_device_key_renews(self, site: Site, device: SigningKey) -> None:
        other = SigningKey.generate(Use.DEVICE)
        body = EnrolRequest.make(site.invite("hub-2").secret, other, SigningKey.generate(Use.TLS), COMMAND).encode()
        assert answer(site.service, "/v2/enrol", body, STRANGER, site.moment())[0] == 200

        assert send_renewal(site, renewal(site, other)) == (403, "refused")
        assert send_renewal(site, renewal(site, device, "hub-2")) == (403, "refused")
        assert send_renewal(site, renewal(site, other, "hub-2")) == (200, "")

    def test_a_revoked_hub_gets_no_certificate_until_it_enrols_anew(self, site: Site, device: SigningKey) -> None:
        site.authority.revoke(Kind.HUBS, "hub-1", site.now_s)
        assert send_renewal(site, renewal(site, device)) == (403, "revoked")
        site.pass_time(60 * DAY_S)
        assert send_renewal(site, renewal(site, device)) == (403, "revoked")

        body = EnrolRequest.make(site.invite().secret, device, SigningKey.generate(Use.TLS), COMMAND).encode()
        assert answer(site.service, "/v2/enrol", body, STRANGER, site.moment())[0] == 200
        assert send_renewal(site, renewal(site, device)) == (200, "")

    def test_one_renewal_sent_at_once_many_times_gets_one_certificate(self, site: Site, device: SigningKey) -> None:
        body, statuses = renewal(site, device), list[int]()
        threads = [threading.Thread(target=lambda: statuses.append(send_renewal(site, body)[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(statuses) == [200] + [403] * 7

    def test_a_revocation_waits_for_a_renewal_and_then_holds(self, site: Site, device: SigningKey) -> None:
        """Else the certificate of the renewal would be the latest one, and not revoked."""
        statuses: list[int] = []
        with site.folder.issuing():
            renewing = threading.Thread(target=lambda: statuses.append(send_renewal(site, renewal(site, device))[0]))
            renewing.start()
            site.authority.revoke(Kind.HUBS, "hub-1", site.now_s)
        renewing.join()

        assert statuses == [403]
        assert site.authority.is_revoked(Kind.HUBS, "hub-1")

    def test_used_nonces_are_forgotten_when_they_expire(self, site: Site, device: SigningKey) -> None:
        for _ in range(5):
            assert send_renewal(site, renewal(site, device))[0] == 200
        site.mono_s += 61
        send_renewal(site, renewal(site, device))

        assert len(site.service._nonces._used) == 1


class TestTime:
    @pytest.fixture
    def site(self, tmp_path: Path) -> Site:
        return Site(tmp_path / "clinic")

    def roots(self, site: Site) -> tuple[bytes, ...]:
        return decode_roots(site.service.roots())

    def signed(self, site: Site, nonce: bytes = NONCE) -> SignedTime:
        return SignedTime.decode(site.service.sign_time(encode_time_request(nonce), site.moment()))

    def test_a_time_is_signed_over_the_hubs_nonce(self, site: Site) -> None:
        assert verify_time(self.signed(site), NONCE, self.roots(site)) == NOW_S

    def test_an_answer_to_another_nonce_or_an_old_answer_is_refused(self, site: Site) -> None:
        for answered in (self.signed(site, bytes(16)), replace(self.signed(site), time_s=NOW_S + 1)):
            with pytest.raises(SignatureError):
                verify_time(answered, NONCE, self.roots(site))

    def test_another_site_tells_no_time(self, site: Site, tmp_path: Path) -> None:
        other = Site(tmp_path / "other", "Andere")
        for answered in (self.signed(other), replace(self.signed(other), chain=self.signed(site).chain)):
            with pytest.raises(SignatureError):
                verify_time(answered, NONCE, self.roots(site))

    @pytest.mark.parametrize("kind", ["hub", "service"])
    def test_no_hub_and_no_other_service_of_the_site_tells_the_time(self, site: Site, kind: str) -> None:
        """Also not under the name "time"."""
        key = SigningKey.generate(Use.TIME)
        if kind == "hub":
            pem = site.authority.issue_hub("time", key.public.key, NOW_S)
        else:
            pem = site.authority.issue_service("time", ["mqtt.example"], key.public.key, NOW_S)
        chain = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem))

        with pytest.raises(SignatureError):
            verify_time(SignedTime.make(NONCE, NOW_S, key, chain), NONCE, self.roots(site))

    @pytest.mark.parametrize("time_s", [0, NOW_S - DAY_S, NOW_S + 91 * DAY_S, 2**53 - 1])
    def test_an_expired_key_tells_no_time(self, site: Site, time_s: int) -> None:
        signer = site.service.signer

        with pytest.raises(SignatureError, match="valid at that time"):
            verify_time(signer.sign(NONCE, time_s), NONCE, self.roots(site))

    @pytest.mark.parametrize("chain", [(), (b"certificate",)])
    def test_a_damaged_chain_is_refused(self, site: Site, chain: tuple[bytes, ...]) -> None:
        with pytest.raises(SignatureError):
            verify_time(replace(self.signed(site), chain=chain), NONCE, self.roots(site))

    def test_a_key_of_another_curve_is_refused(self, site: Site) -> None:
        pem = site.authority.issue_service(
            "time", ["time.pulsegate.invalid"], ec.generate_private_key(ec.SECP384R1()).public_key(), NOW_S
        )
        chain = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(pem))
        with pytest.raises(SignatureError, match="P-256"):
            verify_time(replace(self.signed(site), chain=chain), NONCE, self.roots(site))


class TestClocks:
    def test_no_time_before_one_that_the_site_signed_is_taken(self, site: Site, hub: HubMachine) -> None:
        hub.enrol(site.invite())
        hub.reboot(wall_s=0.0)
        before = (hub.folder / "identity.pem").read_bytes()
        site.now_s -= 60

        with pytest.raises(SiteTimeError, match="earlier time"):
            hub.renew()
        assert hub.clock.now_s() is None
        assert (hub.folder / "identity.pem").read_bytes() == before
        site.paths.clear()
        with pytest.raises(SiteTimeError, match="earlier time"):
            hub.enrol(site.invite("hub-2"))
        assert site.paths == ["/v2/roots", "/v2/time"]

    def test_a_replayed_answer_of_the_time_is_refused(
        self, site: Site, hub: HubMachine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        hub.enrol(site.invite())
        recorded = site.service.sign_time(encode_time_request(NONCE), site.moment())
        site.pass_time(30 * DAY_S)
        monkeypatch.setattr(EnrolmentService, "sign_time", lambda *_: recorded)
        caplog.set_level(logging.DEBUG)

        with pytest.raises(SiteError, match="tells a time that your clinic did not sign"):
            hub.renew()

    @pytest.mark.parametrize(("wall_s", "known_s"), [(NOW_S - 1, None), (NOW_S, NOW_S), (NOW_S + 500, NOW_S + 500), (0, None)])
    def test_after_a_boot_the_wall_clock_counts_unless_it_is_too_early(
        self, site: Site, hub: HubMachine, wall_s: float, known_s: float | None
    ) -> None:
        hub.enrol(site.invite())
        hub.reboot(wall_s)

        assert hub.clock.now_s() == known_s

    def test_until_the_next_boot_the_wall_clock_does_not_count(self, site: Site, hub: HubMachine) -> None:
        hub.enrol(site.invite())
        hub.since_boot_s += 60
        hub.wall_s += 365 * DAY_S

        assert hub.clock.now_s() == NOW_S + 60

    def test_readings_get_the_sites_time_while_the_wall_clock_is_too_early(
        self, site: Site, hub: HubMachine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.enrol(site.invite())
        agents = EnrolledHubClock(hub.clock)
        monkeypatch.setattr("gateway.enrolment.site_clock.READ_INTERVAL_NS", 0)
        assert agents.wall_us() == NOW_S * 1_000_000
        hub.reboot(wall_s=100.0)
        assert agents.wall_us() == 100_000_000
        site.pass_time(DAY_S)
        hub.renew()
        hub.pass_time(1.5)
        assert agents.wall_us() == (NOW_S + DAY_S) * 1_000_000 + 1_500_000
        hub.wall_s = NOW_S + DAY_S + 7.0
        assert agents.wall_us() == (NOW_S + DAY_S + 7) * 1_000_000
        (hub.folder / "time.json").write_text("{")
        assert agents.wall_us() == (NOW_S + DAY_S + 7) * 1_000_000
        assert agents.mono_ns() < agents.mono_ns()

    def test_another_site_may_have_an_earlier_clock(self, site: Site, other_site: Site, hub: HubMachine) -> None:
        hub.enrol(site.invite())
        other_site.now_s -= 60

        assert hub.enrol(other_site.invite("hub-7")).hub == "hub-7"
        assert hub.clock.now_s() == NOW_S - 60


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
