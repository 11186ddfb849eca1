from pathlib import Path

import pytest

from config.contexts import NO_CONTEXTS, Contexts
from config.endpoint import Endpoint
from config.settings import SettingsError, load_settings

GOOD = """
hub = "hub-1"
subject = "subject-1"
data = "data"
radio = "bluetooth"
[clinic]
host = "127.0.0.1"
port = 1883
registration = "registration.toml"
[[sensor]]
name = "strap"
address = "a0:9e:1a:00:00:01"
[limits]
tachycardia_rate = 140
[contexts]
paced = true
known_af = false
age_years = 71
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pulsegate.toml"
    path.write_text(text)
    return path


def test_reads_all_settings_of_a_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, GOOD), {})
    assert settings.data == tmp_path / "data"
    assert settings.sensors[0].address == "A0:9E:1A:00:00:01"
    assert settings.limits.tachycardia_rate.value == 140
    assert settings.contexts == Contexts(paced=True, age_years=71)


def test_without_contexts_nothing_is_known(tmp_path: Path) -> None:
    without = GOOD[: GOOD.index("[contexts]")]
    assert load_settings(write(tmp_path, without), {}).contexts == NO_CONTEXTS
    with pytest.raises(SettingsError, match=r"contexts = 3 is not allowed: set it to a \[contexts\] table"):
        load_settings(write(tmp_path, f"contexts = 3\n{without}"), {})


def test_reads_whose_results_of_a_shared_sensor_are_taken(tmp_path: Path) -> None:
    shared = GOOD.replace('name = "strap"', 'name = "scale"\nuser = 2\nconsent_code_file = "scale.code"')
    (scale,) = load_settings(write(tmp_path, shared), {}).sensors
    assert (scale.user, scale.consent_code_file) == (2, tmp_path / "scale.code")
    (strap,) = load_settings(write(tmp_path, GOOD), {}).sensors
    assert (strap.user, strap.consent_code_file) == (None, None)


@pytest.mark.parametrize("user", ["255", "-1", "true", '"1"', "1.0"])
def test_rejects_a_number_that_no_user_has(tmp_path: Path, user: str) -> None:
    with pytest.raises(SettingsError, match=r"sensor\[0\]\.user = .* is not allowed: .* 0 to 254"):
        load_settings(write(tmp_path, GOOD.replace('name = "strap"', f'name = "strap"\nuser = {user}')), {})


def test_a_consent_code_needs_a_user(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"sensor\[0\]\.user is missing"):
        load_settings(write(tmp_path, GOOD.replace('name = "strap"', 'name = "strap"\nconsent_code_file = "code"')), {})


def test_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, GOOD), {"PULSEGATE_HUB": "hub-2", "PULSEGATE_CLINIC_PORT": "1884"})
    assert (settings.hub, settings.clinic.broker) == ("hub-2", Endpoint("127.0.0.1", 1884))


def test_a_server_elsewhere_needs_an_identity_and_a_region(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD.replace('host = "127.0.0.1"', 'host = "mqtt.example.org"\nidentity = "id"\nregion = "DE"'))
    assert load_settings(path, {}).clinic.broker == Endpoint("mqtt.example.org", 1883, tmp_path / "id", "DE")
    changed = load_settings(path, {"PULSEGATE_CLINIC_IDENTITY": "/b", "PULSEGATE_CLINIC_REGION": "NO"}).clinic.broker
    assert changed == Endpoint("mqtt.example.org", 1883, Path("/b"), "NO")


@pytest.mark.parametrize("port", ["²", "x", "-1", "", "0", "70000", pytest.param("9" * 5000, id="long")])
def test_rejects_an_invalid_port_from_the_environment(tmp_path: Path, port: str) -> None:
    with pytest.raises(SettingsError, match=r"clinic.port = .* is not allowed"):
        load_settings(write(tmp_path, GOOD), {"PULSEGATE_CLINIC_PORT": port})


def test_environment_does_not_hide_a_wrong_table(tmp_path: Path) -> None:
    wrong = GOOD.replace("[clinic]", "[clinics]").replace('radio = "bluetooth"', 'radio = "bluetooth"\nclinic = 3')
    with pytest.raises(SettingsError, match="clinic"):
        load_settings(write(tmp_path, wrong), {"PULSEGATE_CLINIC_PORT": "5"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('hub = "hub-1"', 'hub = "a/b"', "hub = 'a/b' is not allowed: set it to a name of 1 to 64 letters"),
        ('hub = "hub-1"', "", "hub is missing: set it to a name of 1 to 64 letters"),
        ('radio = "bluetooth"', 'radio = "wifi"', "radio = 'wifi' is not allowed"),
        ('host = "127.0.0.1"', 'host = "mqtt.example.org"', "clinic.host = 'mqtt.example.org' is not allowed"),
        ('host = "127.0.0.1"', 'host = "localhost"', "clinic.host = 'localhost' is not allowed: set it to a loopback address"),
        ('host = "127.0.0.1"', "", "clinic.host is missing: set it to a loopback address (127.0.0.1 or ::1)"),
        ('host = "127.0.0.1"', "host = 2130706433", "clinic.host = 2130706433 is not allowed"),
        ("port = 1883", "", "clinic.port is missing: set it to a number from 1 to 65535"),
        ("port = 1883", "port = 0", "clinic.port = 0 is not allowed: set it to a number from 1 to 65535"),
        ("port = 1883", 'port = 1883\nregion = "DE"', "clinic.region is set without identity"),
        ("port = 1883", 'port = 1883\nidentity = "id"', "clinic.region = None is not allowed"),
        (
            "port = 1883",
            'port = 1883\nidentity = "id"\nregion = "US"',
            "clinic.region = 'US' is not allowed: set it to the code",
        ),
        ("port = 1883", 'port = 1883\nidentity = "id"\nregion = 49', "clinic.region = 49 is not allowed"),
        ("port = 1883", "port = 1883\nidentity = true", "clinic.identity = True is not allowed: set it to a path"),
        ("port = 1883", 'port = 1883\ncredentials = "hub.pem"', "unknown setting clinic.credentials"),
        ("port = 1883", "port = 70000", "clinic.port = 70000 is not allowed: set it to a number from 1 to 65535"),
        ("port = 1883", "port = true", "clinic.port = True is not allowed"),
        ("port = 1883", "prt = 1883", "unknown setting clinic.prt: use one of host, identity, port, region, registration"),
        ('address = "a0:9e:1a:00:00:01"', "", "sensor[0] has neither of address and advertised_name: set exactly one of them"),
        ('address = "a0:9e:1a:00:00:01"', 'address = "here"', "a Bluetooth address such as"),
        ("tachycardia_rate = 140", "tachycardia_rate = 999", "tachycardia_rate = 999 /min is not allowed"),
        ("tachycardia_rate = 140", 'tachycardia_rate = "fast"', "limits.tachycardia_rate = 'fast' is not allowed"),
        ("paced = true", 'paced = "yes"', "contexts.paced = 'yes' is not allowed: set it to true or false"),
        ("paced = true", "paced = 1", "contexts.paced = 1 is not allowed: set it to true or false"),
        ("paced = true", "paced_by = true", "unknown setting contexts.paced_by: use one of known_af, paced,"),
        (
            "age_years = 71",
            "age_years = 131",
            "age_years = 131 is not allowed: set it to a whole number of years from 0 to 130",
        ),
        ("age_years = 71", "age_years = -1", "contexts.age_years = -1 is not allowed"),
        ("age_years = 71", "age_years = 71.5", "contexts.age_years = 71.5 is not allowed"),
        ("age_years = 71", "age_years = true", "contexts.age_years = True is not allowed"),
        ('radio = "bluetooth"', 'radio = ["bluetooth", "wifi"]', "radio = ['bluetooth', 'wifi'] is not allowed"),
        ('radio = "bluetooth"', 'radio = ["bluetooth", "bluetooth"]', "or a list of such names"),
        ('radio = "bluetooth"', "radio = []", "radio = [] is not allowed"),
        ('radio = "bluetooth"', "radio = [[1]]", "radio = [[1]] is not allowed"),
        ('radio = "bluetooth"', "", "radio is missing"),
        ('radio = "bluetooth"', "radio = ", "not valid TOML"),
    ],
)
def test_error_names_the_wrong_setting_and_what_is_allowed(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_settings(write(tmp_path, GOOD.replace(old, new)), {})
    assert message in str(error.value)


def test_error_for_a_missing_file_points_to_the_config_option(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--config"):
        load_settings(tmp_path / "none.toml", {})


def test_several_radios_are_used_in_their_order(tmp_path: Path) -> None:
    several = GOOD.replace('radio = "bluetooth"', 'radio = ["bluetooth:hci1", "bluetooth:hci0"]')
    settings = load_settings(write(tmp_path, several), {})
    assert (settings.radio, settings.fallback_radios) == ("bluetooth:hci1", ("bluetooth:hci0",))
    assert load_settings(write(tmp_path, GOOD), {}).fallback_radios == ()
