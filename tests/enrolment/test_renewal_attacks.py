"""Attacks on the renewal of certificates and on the time that a hub takes from its site. `docs/attacks.md` lists them."""

import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from cloud.enrolment.service import EnrolmentService, answer
from cloud.site import Kind
from gateway.enrolment.site_client import SiteError
from gateway.enrolment.site_clock import EnrolledHubClock, SiteTimeError
from sync.enrolment import (
    EnrolRequest,
    RenewRequest,
    SignedTime,
    decode_nonce,
    decode_refusal,
    decode_roots,
    encode_nonce_request,
    encode_time_request,
)
from sync.recipients import RecipientKeyPair
from sync.signing import SignatureError, SigningKey, Use
from sync.site_time import verify_time
from tests.enrolment.site_testbed import DAY_S, NOW_S, HubMachine, Site, renewal

STRANGER = "192.0.2.1"
NONCE = bytes(range(16))
COMMAND = RecipientKeyPair.generate().public


def send_renewal(site: Site, body: bytes, at: EnrolmentService | None = None) -> tuple[int, str]:
    """Return the status, and why it was refused."""
    status, data = answer(at or site.service, "/v2/renew", body, STRANGER, site.moment())
    return status, "" if status == 200 else decode_refusal(data)


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
