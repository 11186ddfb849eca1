"""What the agent loads: all models of a release that it can trust, or none, and then everyone is told."""

import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.conform import check
from gateway import models as models_module
from gateway.alerts import PRIORITIES
from gateway.models import SEEN_FILE, LoadedModels, load_models, newest_seen, technical_alert
from models.inference.models import Models
from models.inference.release import MANIFEST, RELEASED, SIGNATURE, ReleaseError, key_id
from sync.records import AlertRecord, decode, encode
from training.release import sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {key_id(PUBLIC): PUBLIC.hex()}
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release with number 5."""
    folder = tmp_path / "release"
    folder.mkdir()
    for suffix in ("onnx", "json", "md"):
        shutil.copy(RELEASED / f"rr_af.{suffix}", folder)
    sign(folder, KEY, 5, pinned=KEYS)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def load(data: Path | None, folder: Path, **settings: Any) -> LoadedModels:
    return load_models(data, folder, keys=KEYS, **settings)


def assert_rules_alone(loaded: LoadedModels, cause: str, part: str) -> None:
    models = (loaded.rr_af, loaded.ecg_rhythm, loaded.ecg_beat, loaded.ecg_quality, loaded.ppg_quality, loaded.ecg_qrs)
    assert models == (None,) * 6
    assert (loaded.release, loaded.cause) == (None, cause)
    assert part in " ".join(loaded.refused)
    assert loaded.status() == {"release": None, "running": "rules alone", "refused": list(loaded.refused)}


class TestLoading:
    def test_the_released_models(self) -> None:
        loaded = load_models()
        assert loaded.rr_af is not None
        assert loaded.refused == ()
        stated = json.loads((RELEASED / MANIFEST).read_bytes())
        running = loaded.status()["running"]
        assert isinstance(running, list)
        assert {f"{name.partition(' ')[0]}.onnx" for name in running} == {f for f in stated["files"] if f.endswith(".onnx")}

    def test_what_was_signed_runs_and_its_number_is_remembered(self, folder: Path, data: Path) -> None:
        loaded = load(data, folder)
        version = json.loads((RELEASED / "rr_af.json").read_bytes())["version"]
        assert loaded.status() == {"release": 5, "running": [f"rr_af {version}"]}
        assert newest_seen(data) == 5
        assert [path.name for path in data.iterdir()] == [SEEN_FILE]

    def test_an_older_one_than_ever_ran_is_refused(self, folder: Path, data: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "old")
        sign(folder, KEY, 6, pinned=KEYS)
        assert load(data, folder).release == 6
        loaded = load(data, tmp_path / "old")
        assert_rules_alone(loaded, "older", "release 5 is older than release 6")
        assert loaded.measured == {"release": 5, "newest_release": 6}
        assert newest_seen(data) == 6
        assert load(data, folder).release == 6

    def test_one_that_was_refused_does_not_count_as_seen(self, folder: Path, data: Path) -> None:
        sign(folder, KEY, 9, minimum_agent="7.0", pinned=KEYS)
        assert_rules_alone(load(data, folder), "agent", "needs pulsegate 7.0")
        assert newest_seen(data) == 0
        (folder / "rr_af.onnx").write_bytes(b"")
        assert_rules_alone(load(data, folder, agent="7.0"), "altered", "rr_af.onnx")
        assert newest_seen(data) == 0

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, "rr_af.onnx"])
    def test_altered(self, folder: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)
        loaded = load(None, folder)
        assert_rules_alone(loaded, "altered", file)
        (line,) = caplog.records
        assert line.levelname == "WARNING"
        assert line.getMessage() == f"models refused: {loaded.refused[0]} Going on with rules alone."

    def test_a_model_that_this_version_does_not_know(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "models.inference.rr_af", None)
        assert_rules_alone(load(None, folder), "unusable", "rr_af is not known to this pulsegate. Update")

    def test_a_model_that_cannot_be_run(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.inference.session.onnxruntime.InferenceSession", lambda *_a, **_k: None)
        assert_rules_alone(load(None, folder), "unusable", "rr_af cannot be loaded")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"newest_release": "5"}', b"[" * 200, b"\xff"])
    def test_a_damaged_memory_lets_no_release_pass(self, folder: Path, data: Path, content: bytes) -> None:
        data.mkdir()
        (data / SEEN_FILE).write_bytes(content)
        assert_rules_alone(load(data, folder), "altered", SEEN_FILE)
        with pytest.raises(ReleaseError, match="Delete it once the installed models are the newest"):
            newest_seen(data)

    def test_a_hub_that_cannot_write_runs_its_models(self, folder: Path, data: Path, caplog: pytest.LogCaptureFixture) -> None:
        data.write_text("a file in its place")
        assert load(data, folder).release == 5
        assert "cannot remember model release 5" in caplog.text

    def test_every_model_has_a_class_to_load(self) -> None:
        assert set(models_module._CLASSES) == {field.name for field in fields(Models)}


class TestAlert:
    REFUSED = LoadedModels(refused=("release 5 is older.",), cause="older", measured={"release": 5, "newest_release": 6})

    def test_the_clinic_is_told_once_and_when_it_is_over(self) -> None:
        (raised,), state = technical_alert(self.REFUSED, None, NOW_US)
        assert (raised.kind, raised.priority, raised.sensor) == ("models_refused", PRIORITIES["models_refused"], "hub")
        assert raised.reasons == ("models_refused.criterion", "models_refused.older")
        assert (raised.onset_us, raised.end_us) == (NOW_US, None)
        again, state = technical_alert(self.REFUSED, json.loads(json.dumps(state)), NOW_US + 5)
        assert again == ()
        (ended,), state = technical_alert(LoadedModels(release=6), json.loads(json.dumps(state)), NOW_US + 9)
        assert (ended.id, ended.onset_us, ended.end_us) == (raised.id, NOW_US, NOW_US + 9)
        assert technical_alert(LoadedModels(release=6), json.loads(json.dumps(state)), NOW_US + 10)[0] == ()

    def test_another_reason_is_told_under_the_same_id(self) -> None:
        (raised,), state = technical_alert(self.REFUSED, None, NOW_US)
        (other,), _ = technical_alert(LoadedModels(refused=("x",), cause="altered"), json.loads(json.dumps(state)), NOW_US + 5)
        assert (other.id, other.onset_us, other.reasons) == (
            raised.id,
            NOW_US,
            ("models_refused.criterion", "models_refused.altered"),
        )

    def test_models_that_run_need_no_alert(self) -> None:
        assert technical_alert(LoadedModels(release=6), None, NOW_US) == ((), {"alert": None})

    @pytest.mark.parametrize("loaded", [REFUSED, LoadedModels(refused=("x",), cause="unusable")])
    def test_the_clinic_can_read_it(self, loaded: LoadedModels) -> None:
        (raised,), _ = technical_alert(loaded, None, NOW_US)
        (read,) = decode(encode([raised]))
        assert isinstance(read, AlertRecord)
        check(read)
        assert read == raised
