"""Signing of a release: keys, folders, and that nothing is signed that an agent would reject."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from models.inference.release import MANIFEST, RELEASE_DIR, SIGNATURE, ReleaseError, key_id, open_release
from models.inference.session import ModelError
from training.release import SigningError, create_key, load_key, main, sign

ROOT = Path(__file__).parents[2]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {key_id(PUBLIC): PUBLIC.hex()}


def no_passphrase(_prompt: str) -> bytes:
    raise AssertionError("asked for a passphrase")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one model and its cards, not signed yet."""
    folder = tmp_path / "release"
    folder.mkdir()
    for suffix in ("onnx", "json", "md"):
        shutil.copy(RELEASE_DIR / f"rr_af.{suffix}", folder)
    return folder


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    path.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def content(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestSigning:
    def test_an_agent_accepts_a_signed_release(self, folder: Path) -> None:
        signed = sign(folder, KEY, pinned=KEYS)
        assert open_release(folder, keys=KEYS) == signed
        assert signed.number == 1
        assert set(signed.files) == {"rr_af.onnx", "rr_af.json", "rr_af.md"}
        assert set(content(folder)) == {*signed.files, MANIFEST, SIGNATURE}

    def test_the_number_rises_by_default(self, folder: Path) -> None:
        assert [sign(folder, KEY, pinned=KEYS).number for _ in range(3)] == [1, 2, 3]

    def test_a_chosen_number_must_be_higher(self, folder: Path) -> None:
        sign(folder, KEY, 41, pinned=KEYS)
        before = content(folder)
        for number in (41, 40, 0, -1, 1 << 31):
            with pytest.raises(SigningError, match="cannot follow release 41: choose one from 42 to"):
                sign(folder, KEY, number, pinned=KEYS)
        assert content(folder) == before
        assert sign(folder, KEY, 50, pinned=KEYS).number == 50

    def test_a_manifest_without_a_number_must_be_restored_first(self, folder: Path) -> None:
        (folder / MANIFEST).write_text("{}")
        with pytest.raises(SigningError, match="restore it from version control"):
            sign(folder, KEY, pinned=KEYS)

    def test_rejects_a_key_that_is_not_pinned(self, folder: Path) -> None:
        with pytest.raises(SigningError, match=f'pin it first in .*\n    "{key_id(PUBLIC)}": "{PUBLIC.hex()}",'):
            sign(folder, KEY)

    def test_states_and_checks_the_minimum_agent(self, folder: Path) -> None:
        assert sign(folder, KEY, minimum_agent="9.0.0", pinned=KEYS).minimum_agent == "9.0.0"
        with pytest.raises(ReleaseError, match=r"needs pulsegate 9\.0\.0"):
            open_release(folder, keys=KEYS)
        with pytest.raises(SigningError, match="--minimum-agent: 'new' is not a version"):
            sign(folder, KEY, minimum_agent="new", pinned=KEYS)

    @pytest.mark.parametrize(
        ("file", "text", "expected"),
        [("rr_af.md", None, "check rr_af.md"), ("other.onnx", "", "check other"), ("notes.md", "", "check notes")],
    )
    def test_rejects_an_incomplete_folder(self, folder: Path, file: str, text: str | None, expected: str) -> None:
        if text is None:
            (folder / file).unlink()
        else:
            (folder / file).write_text(text)
        with pytest.raises(SigningError, match=f"each model needs its two cards.*{expected}"):
            sign(folder, KEY, pinned=KEYS)
        assert not (folder / MANIFEST).exists()

    def test_rejects_a_folder_without_models(self, tmp_path: Path) -> None:
        with pytest.raises(SigningError, match="contains no model: run make train"):
            sign(tmp_path, KEY, pinned=KEYS)
        with pytest.raises(SigningError, match="is not a folder: run make train"):
            sign(tmp_path / "none", KEY, pinned=KEYS)

    def test_rejects_a_model_that_does_not_load(self, folder: Path) -> None:
        (folder / "rr_af.onnx").write_bytes(b"no model")
        with pytest.raises(ModelError, match="rr_af cannot be loaded"):
            sign(folder, KEY, pinned=KEYS)

    def test_rejects_a_model_under_another_name(self, folder: Path) -> None:
        for suffix in ("onnx", "json", "md"):
            (folder / f"rr_af.{suffix}").rename(folder / f"ecg_beat.{suffix}")
        with pytest.raises(ModelError, match="ecg_beat cannot be loaded: the file holds rr_af"):
            sign(folder, KEY, pinned=KEYS)

    def test_rejects_a_symbolic_link(self, folder: Path) -> None:
        (folder / "rr_af.md").unlink()
        (folder / "rr_af.md").symlink_to("rr_af.json")
        with pytest.raises(ModelError, match=r"rr_af\.md cannot be read"):
            sign(folder, KEY, pinned=KEYS)


class TestKeys:
    def test_a_new_key_is_private_and_its_line_pins_it(self, tmp_path: Path) -> None:
        line = create_key(tmp_path / "new.pem", b"")
        assert stat.S_IMODE((tmp_path / "new.pem").stat().st_mode) == 0o600
        public = load_key(tmp_path / "new.pem", no_passphrase).public_key().public_bytes_raw()
        assert line.startswith(f'    "{key_id(public)}": "{public.hex()}",  # since ')

    def test_does_not_overwrite_a_key(self, key_file: Path) -> None:
        before = key_file.read_bytes()
        with pytest.raises(SigningError, match=r"cannot create the key .* \(File exists"):
            create_key(key_file, b"")
        assert key_file.read_bytes() == before

    def test_loads_an_encrypted_key_with_its_passphrase(self, tmp_path: Path) -> None:
        create_key(tmp_path / "new.pem", b"right")
        assert b"ENCRYPTED" in (tmp_path / "new.pem").read_bytes()
        assert load_key(tmp_path / "new.pem", lambda _: b"right")
        with pytest.raises(SigningError, match="the passphrase is wrong"):
            load_key(tmp_path / "new.pem", lambda _: b"wrong")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o660])
    def test_rejects_a_key_open_to_other_users(self, key_file: Path, mode: int) -> None:
        key_file.chmod(mode)
        with pytest.raises(SigningError, match=f"open to other users .mode {mode:04o}.: run chmod 600"):
            load_key(key_file, no_passphrase)

    def test_rejects_a_key_inside_this_checkout(self) -> None:
        path = ROOT / "build" / "key.pem"
        for use_key in (lambda: load_key(path, no_passphrase), lambda: create_key(path, b"")):
            with pytest.raises(SigningError, match="is inside a checkout"):
                use_key()
        assert not path.exists()

    def test_rejects_a_key_inside_any_checkout_or_linked_from_one(self, tmp_path: Path, key_file: Path) -> None:
        (tmp_path / "other" / ".git").mkdir(parents=True)
        inside = key_file.rename(tmp_path / "other" / "key.pem")
        (tmp_path / "link.pem").symlink_to(inside)
        for path in (inside, tmp_path / "link.pem"):
            with pytest.raises(SigningError, match="is inside a checkout"):
                load_key(path, no_passphrase)

    def test_rejects_files_that_are_not_ed25519_keys(self, tmp_path: Path) -> None:
        path = tmp_path / "key.pem"
        with pytest.raises(SigningError, match=r"cannot read the key .* \(No such file"):
            load_key(path, no_passphrase)
        path.touch(mode=0o600)
        with pytest.raises(SigningError, match="is not a PEM private key"):
            load_key(path, no_passphrase)
        path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(SigningError, match="is not an Ed25519 key"):
            load_key(path, no_passphrase)


class TestCommand:
    def test_reports_a_failure_in_one_line(self, key_file: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        key_file.chmod(0o644)
        assert main(["--key", str(key_file), "--folder", str(folder)]) == 1
        printed = capsys.readouterr()
        assert printed.err.startswith("release: the key ")
        assert printed.err.count("\n") == 1

    def test_bad_usage_exits_with_2(self) -> None:
        for words in ([], ["--key", "a", "--new-key", "b"], ["--key", "a", "--passphrase", "secret"]):
            with pytest.raises(SystemExit) as caught:
                main(words)
            assert caught.value.code == 2

    def test_reads_the_passphrase_from_a_descriptor(self, tmp_path: Path) -> None:
        read_end, write_end = os.pipe()
        os.write(write_end, b"secret\n")
        os.close(write_end)
        path = tmp_path / "new.pem"
        command = [sys.executable, "-m", "training.release", "--new-key", path, "--passphrase-fd", str(read_end)]
        run = subprocess.run(command, cwd=ROOT, pass_fds=[read_end], capture_output=True, text=True, timeout=60, check=True)
        os.close(read_end)
        assert "pin this line" in run.stdout
        assert load_key(path, lambda _: b"secret")

    def test_does_not_import_torch(self) -> None:
        code = "import sys, training.release; print([m for m in ('torch', 'onnx', 'scipy') if m in sys.modules])"
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        assert run.stdout.strip() == "[]"

    def test_the_manifest_is_readable_json(self, folder: Path) -> None:
        sign(folder, KEY, pinned=KEYS)
        manifest = json.loads((folder / MANIFEST).read_bytes())
        assert list(manifest) == ["release", "minimum_agent", "key", "files"]
        assert manifest["files"]["rr_af.onnx"]["size"] == (RELEASE_DIR / "rr_af.onnx").stat().st_size
