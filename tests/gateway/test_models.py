"""The agent loads all models of a trusted release, or refuses all of them and reports it."""

import hashlib
import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.validate import validate_record
from gateway import models as models_module
from gateway.models import NEWEST_RELEASE_FILE, LoadedModels, load_models, read_newest_release, update_refusal_alert
from gateway.priorities import PRIORITIES
from models.inference.models import Models
from models.inference.release import MANIFEST, RELEASE_DIR, SIGNATURE, ReleaseError, key_id
from sync.record_codec import decode_records, encode_records
from sync.records import AlertRecord
from training.release import sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {key_id(PUBLIC): PUBLIC.hex()}
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a signed release with the number 5."""
    folder = tmp_path / "release"
    folder.mkdir()
    for suffix in ("onnx", "json", "md"):
        shutil.copy(RELEASE_DIR / f"rr_af.{suffix}", folder)
    sign(folder, KEY, 5, pinned=KEYS)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def load(data: Path | None, folder: Path, **settings: Any) -> LoadedModels:
    return load_models(data, folder, keys=KEYS, **settings)


def assert_refused(loaded: LoadedModels, cause: str, part: str) -> None:
    models = (loaded.rr_af, loaded.ecg_rhythm, loaded.ecg_beat, loaded.ecg_quality, loaded.ppg_quality, loaded.ecg_qrs)
    assert (*models, loaded.ecg_organised) == (None,) * 7
    assert (loaded.release, loaded.cause) == (None, cause)
    assert part in " ".join(loaded.refused)
    assert loaded.status() == {"release": None, "running": "rules alone", "refused": list(loaded.refused)}


class TestLoading:
    def test_loads_the_released_models(self) -> None:
        loaded = load_models()
        assert loaded.rr_af is not None
        assert loaded.refused == ()
        stated = json.loads((RELEASE_DIR / MANIFEST).read_bytes())
        running = loaded.status()["running"]
        assert isinstance(running, list)
        assert {f"{name.partition(' ')[0]}.onnx" for name in running} == {f for f in stated["files"] if f.endswith(".onnx")}

    def test_loads_a_signed_release_and_stores_its_number(self, folder: Path, data: Path) -> None:
        loaded = load(data, folder)
        version = json.loads((RELEASE_DIR / "rr_af.json").read_bytes())["version"]
        assert loaded.status() == {"release": 5, "running": [f"rr_af {version}"]}
        assert read_newest_release(data) == 5
        assert [path.name for path in data.iterdir()] == [NEWEST_RELEASE_FILE]

    def test_refuses_a_release_older_than_one_that_has_run(self, folder: Path, data: Path, tmp_path: Path) -> None:
        shutil.copytree(folder, tmp_path / "old")
        sign(folder, KEY, 6, pinned=KEYS)
        assert load(data, folder).release == 6
        loaded = load(data, tmp_path / "old")
        assert_refused(loaded, "older", "release 5 is older than release 6")
        assert loaded.measured == {"release": 5, "newest_release": 6}
        assert read_newest_release(data) == 6
        assert load(data, folder).release == 6

    def test_does_not_store_the_number_of_a_refused_release(self, folder: Path, data: Path) -> None:
        sign(folder, KEY, 9, minimum_agent="7.0", pinned=KEYS)
        assert_refused(load(data, folder), "agent", "needs pulsegate 7.0")
        assert read_newest_release(data) == 0
        (folder / "rr_af.onnx").write_bytes(b"")
        assert_refused(load(data, folder, agent="7.0"), "altered", "rr_af.onnx")
        assert read_newest_release(data) == 0

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, "rr_af.onnx"])
    def test_refuses_an_altered_file(self, folder: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
        content = bytearray((folder / file).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / file).write_bytes(content)
        loaded = load(None, folder)
        assert_refused(loaded, "altered", file)
        (line,) = caplog.records
        assert line.levelname == "WARNING"
        assert line.getMessage() == f"models refused: {loaded.refused[0]} Continuing with rules alone."

    def test_refuses_a_model_that_this_version_does_not_know(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "models.inference.rr_af", None)
        assert_refused(load(None, folder), "unusable", "does not know the model rr_af. Update")

    def test_refuses_a_model_that_cannot_be_loaded(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("models.inference.session.onnxruntime.InferenceSession", lambda *_a, **_k: None)
        assert_refused(load(None, folder), "unusable", "rr_af cannot be loaded")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"newest_release": "5"}', b"[" * 200, b"\xff"])
    def test_refuses_every_release_if_the_stored_number_is_damaged(self, folder: Path, data: Path, content: bytes) -> None:
        data.mkdir()
        (data / NEWEST_RELEASE_FILE).write_bytes(content)
        assert_refused(load(data, folder), "altered", NEWEST_RELEASE_FILE)
        with pytest.raises(ReleaseError, match="Delete it once the installed models are the newest"):
            read_newest_release(data)

    def test_loads_the_models_if_their_number_cannot_be_stored(
        self, folder: Path, data: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        data.write_text("a file in its place")
        assert load(data, folder).release == 5
        assert "cannot store the number of model release 5" in caplog.text

    def test_every_model_has_a_class_to_load(self) -> None:
        assert set(models_module._MODEL_CLASSES) == {field.name for field in fields(Models)}


class TestAlert:
    REFUSED = LoadedModels(refused=("release 5 is older.",), cause="older", measured={"release": 5, "newest_release": 6})

    def test_alerts_once_and_ends_the_alert_when_the_models_run_again(self) -> None:
        (raised,), state = update_refusal_alert(self.REFUSED, None, NOW_US)
        assert (raised.kind, raised.priority, raised.sensor) == ("models_refused", PRIORITIES["models_refused"], "hub")
        assert raised.reasons == ("models_refused.criterion", "models_refused.older")
        assert (raised.onset_us, raised.end_us) == (NOW_US, None)
        again, state = update_refusal_alert(self.REFUSED, json.loads(json.dumps(state)), NOW_US + 5)
        assert again == ()
        (ended,), state = update_refusal_alert(LoadedModels(release=6), json.loads(json.dumps(state)), NOW_US + 9)
        assert (ended.id, ended.onset_us, ended.end_us) == (raised.id, NOW_US, NOW_US + 9)
        assert update_refusal_alert(LoadedModels(release=6), json.loads(json.dumps(state)), NOW_US + 10)[0] == ()

    def test_alerts_about_another_reason_with_the_same_id(self) -> None:
        (raised,), state = update_refusal_alert(self.REFUSED, None, NOW_US)
        (other,), _ = update_refusal_alert(
            LoadedModels(refused=("x",), cause="altered"), json.loads(json.dumps(state)), NOW_US + 5
        )
        assert (other.id, other.onset_us, other.reasons) == (
            raised.id,
            NOW_US,
            ("models_refused.criterion", "models_refused.altered"),
        )

    def test_the_id_of_the_alert_is_the_hash_of_sensor_kind_and_onset(self) -> None:
        (raised,), _ = update_refusal_alert(self.REFUSED, None, NOW_US)
        assert raised.id == hashlib.sha256(b"hub|models_refused|1800000000000000").hexdigest()[:24]

    def test_does_not_alert_if_the_models_run(self) -> None:
        assert update_refusal_alert(LoadedModels(release=6), None, NOW_US) == ((), {"alert": None})

    @pytest.mark.parametrize("loaded", [REFUSED, LoadedModels(refused=("x",), cause="unusable")])
    def test_the_alert_passes_the_validation_of_the_clinic(self, loaded: LoadedModels) -> None:
        (raised,), _ = update_refusal_alert(loaded, None, NOW_US)
        (read,) = decode_records(encode_records([raised]))
        assert isinstance(read, AlertRecord)
        validate_record(read)
        assert read == raised
