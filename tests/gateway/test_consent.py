"""The code with which a scale lets the hub have the patient's data."""

from pathlib import Path

import pytest

from config.settings import SensorSettings
from drivers.conversation import Consent
from gateway.startup import load_consent
from sync.errors import PermanentError


def scale(folder: Path, content: bytes, mode: int = 0o600) -> SensorSettings:
    path = folder / "scale.code"
    path.write_bytes(content)
    path.chmod(mode)
    return SensorSettings("scale", advertised_name="scale", user=2, consent_code_file=path)


@pytest.mark.parametrize(("content", "code"), [(b"0", 0), (b"0042\n", 42), (b" 9999 ", 9999)])
def test_reads_the_code(tmp_path: Path, content: bytes, code: int) -> None:
    assert load_consent(scale(tmp_path, content)) == Consent(2, code)


def test_a_sensor_without_a_code_has_no_consent() -> None:
    assert load_consent(SensorSettings("scale", advertised_name="scale", user=2)) is None


@pytest.mark.parametrize("content", [b"", b"10000", b"-1", b"4711a", b"\xff", "４２".encode()])
def test_another_content_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(PermanentError, match="holds no consent code: write the number") as error:
        load_consent(scale(tmp_path, content))
    assert "4711" not in str(error.value)


def test_a_file_that_others_can_read_or_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="chmod 600"):
        load_consent(scale(tmp_path, b"42", 0o644))
    (tmp_path / "scale.code").unlink()
    with pytest.raises(PermanentError, match="cannot read"):
        load_consent(SensorSettings("scale", advertised_name="s", user=2, consent_code_file=tmp_path / "scale.code"))
