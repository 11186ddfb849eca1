"""A hub key under a systemd credential that a TPM 2.0 seals: systemd's own program, and swtpm as the TPM.

The unit does the same with LoadCredentialEncrypted=, which decrypts the file into its CREDENTIALS_DIRECTORY.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from config.settings import load_settings
from gateway.commands.keys import move_hub_key
from gateway.hub_key import CREDENTIAL, HubKeyError, Place, load_hub_key, unlock_hub_key
from gateway.startup import load_device_key
from sync.signing import Use, VerifyingKey

MISSING = "programs are missing: run make tpm-tools"
SECRET = bytes(range(32, 64))


class Tpm:
    """A TPM 2.0 in software, with a state of its own that outlives it."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self._state.mkdir()
        self._socket = folder / "tpm"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Switch it on and, at the end, off. A session of systemd-creds stays until then, and three fill it."""
        control = f"{self._socket}.ctrl"
        sockets = ("--server", f"type=unixio,path={self._socket}", "--ctrl", f"type=unixio,path={control}")
        flags = ("--flags", "not-need-init,startup-clear", "--daemon")
        run("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._state}", *sockets, *flags)
        try:
            yield
        finally:
            run("swtpm_ioctl", "--unix", control, "-s")

    def seal(self, secret: bytes, credential: Path) -> None:
        with self.running():
            self._systemd_creds("encrypt", "--with-key=tpm2", "-", credential, secret=secret)

    def unseal(self, credential: Path, folder: Path) -> None:
        """Write the credential as systemd does for a unit.

        Raises:
            CalledProcessError: this TPM does not open it.
        """
        with self.running():
            self._systemd_creds("decrypt", credential, folder / CREDENTIAL)

    def boot_something_else(self, credential: Path, folder: Path) -> None:
        """Unseal after the firmware has measured another boot loader (PCR 7)."""
        with self.running():
            run("tpm2_pcrextend", "--tcti", self._tcti, f"7:sha256={'ab' * 32}")
            self._systemd_creds("decrypt", credential, folder / CREDENTIAL)

    @property
    def _tcti(self) -> str:
        return f"swtpm:path={self._socket}"

    def _systemd_creds(self, verb: str, *arguments: str | Path, secret: bytes = b"") -> None:
        run("systemd-creds", f"--tpm2-device={self._tcti}", f"--name={CREDENTIAL}", verb, *arguments, secret=secret)


def run(program: str, *arguments: str | Path, secret: bytes = b"") -> None:
    assert shutil.which(program), MISSING
    subprocess.run([program, *arguments], input=secret, check=True, capture_output=True, timeout=60)


@contextmanager
def new_tpm() -> Iterator[Tpm]:
    with tempfile.TemporaryDirectory(prefix="tpm-") as folder:  # the name of a socket has at most 107 bytes
        yield Tpm(Path(folder))


@pytest.fixture
def tpm() -> Iterator[Tpm]:
    with new_tpm() as tpm:
        yield tpm


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where a unit finds its credentials."""
    folder = tmp_path / "loaded"
    folder.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.fixture
def protected(hub: Path, tpm: Tpm, loaded: Path) -> Path:
    """A hub whose hub key is sealed under a credential of this TPM; the unit has ended."""
    load_device_key(hub / "data").public.save(hub / "before.pub")
    tpm.seal(SECRET, hub / "hub-key.cred")
    tpm.unseal(hub / "hub-key.cred", loaded)
    move_hub_key(load_settings(hub / "pulsegate.toml", {}), Place.CREDENTIAL, lambda _: SECRET)
    (loaded / CREDENTIAL).unlink()
    return hub


def test_the_keys_open_at_every_start_with_the_tpm(protected: Path, tpm: Tpm, loaded: Path) -> None:
    data = protected / "data"
    with pytest.raises(HubKeyError, match="which this process has not got"):
        unlock_hub_key(data)

    tpm.unseal(protected / "hub-key.cred", loaded)

    assert load_device_key(data, load_hub_key(data)).public == VerifyingKey.load(protected / "before.pub", Use.DEVICE)


def test_a_thief_of_the_disk_gets_no_key(protected: Path, loaded: Path) -> None:
    files = [path.read_bytes() for path in protected.rglob("*") if path.is_file()]
    assert not any(SECRET in content or SECRET.hex().encode() in content for content in files)

    with new_tpm() as other, pytest.raises(subprocess.CalledProcessError):
        other.unseal(protected / "hub-key.cred", loaded)
    assert not (loaded / CREDENTIAL).exists()


def test_another_boot_loader_gets_no_key(protected: Path, tpm: Tpm, loaded: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        tpm.boot_something_else(protected / "hub-key.cred", loaded)
    assert not (loaded / CREDENTIAL).exists()
