"""The signed release: what a pinned key signed is accepted, and nothing that differs from it by a single bit."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from config.version import VERSION
from models.inference import release as release_module
from models.inference.pinned_keys import PINNED
from models.inference.release import (
    DOMAIN,
    LARGEST_MANIFEST,
    MANIFEST,
    RELEASED,
    SIGNATURE,
    ReleaseError,
    key_id,
    open_release,
    released,
)
from models.inference.rr_af import RrAf

ROOT = Path(__file__).parents[2]
MODEL = "rr_af.onnx"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {key_id(PUBLIC): PUBLIC.hex()}

opened: list[str] = []
"""Every file that this process opened, while it is watched."""
watching = [False]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if watching[0] and event == "open" and isinstance(arguments[0], str):
        opened.append(Path(arguments[0]).name)


sys.addaudithook(_hook)


def write(folder: Path, manifest: bytes, key: Ed25519PrivateKey = KEY, domain: bytes = DOMAIN) -> None:
    (folder / MANIFEST).write_bytes(manifest)
    (folder / SIGNATURE).write_bytes(base64.b64encode(key.sign(domain + manifest)) + b"\n")


def manifest_of(**changes: Any) -> dict[str, Any]:
    """The released manifest, as the key of these tests would state it."""
    stated: dict[str, Any] = json.loads((RELEASED / MANIFEST).read_bytes())
    return {**stated, "release": 7, "minimum_agent": "0.1.0", "key": key_id(PUBLIC), **changes}


def signed(folder: Path, **changes: Any) -> Path:
    write(folder, json.dumps(manifest_of(**changes)).encode())
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the release, signed with the key of these tests."""
    shutil.copytree(RELEASED, tmp_path / "release")
    return signed(tmp_path / "release")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, for tests that put back what they change."""
    folder = tmp_path_factory.mktemp("shared") / "release"
    shutil.copytree(RELEASED, folder)
    return signed(folder)


@contextmanager
def changed(file: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(change(before))
    try:
        yield
    finally:
        file.write_bytes(before)


def flip(data: bytes, bit: int) -> bytes:
    place = bit % (8 * len(data))
    return data[: place // 8] + bytes([data[place // 8] ^ 1 << place % 8]) + data[place // 8 + 1 :]


def assert_refused(folder: Path, cause: str, *parts: str, **settings: Any) -> None:
    """With one line that says all of it and what to do."""
    with pytest.raises(ReleaseError) as caught:
        open_release(folder, **({"keys": KEYS} | settings)).bytes(MODEL)
    message = str(caught.value)
    assert caught.value.cause == cause
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
    assert message.endswith(("Reinstall pulsegate.", "Update pulsegate."))


class TestCommitted:
    def test_it_verifies_with_the_pinned_keys(self) -> None:
        release = open_release()
        assert release.key in PINNED
        assert all(len(release.bytes(file)) == entry.size for file, entry in release.files.items())

    def test_it_has_every_model_and_card_of_the_folder(self) -> None:
        here = {path.name for path in RELEASED.iterdir() if not path.name.startswith(".")}
        assert set(open_release().files) == here - {MANIFEST, SIGNATURE}

    def test_the_ids_are_those_of_the_keys(self) -> None:
        assert all(name == key_id(bytes.fromhex(public)) and len(public) == 64 for name, public in PINNED.items())

    def test_no_private_key_is_in_the_repository(self) -> None:
        if not (ROOT / ".git").exists():
            pytest.skip("no checkout")
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
        paths = [ROOT / os.fsdecode(name) for name in names if name]
        content = {path: path.read_bytes() for path in paths if path.is_file()}
        assert len(content) > 100
        armour = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]")
        assert [path for path, data in content.items() if armour.search(data)] == []
        for seed in {found for data in content.values() for found in re.findall(rb"\b[0-9a-f]{64}\b", data)}:
            secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed.decode()))
            assert secret.public_key().public_bytes_raw().hex() not in PINNED.values()

    def test_the_version_is_that_of_the_package(self) -> None:
        assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


class TestAccepted:
    def test_what_was_signed(self, folder: Path) -> None:
        release = open_release(folder, keys=KEYS, newest_seen=7)
        assert (release.number, release.minimum_agent) == (7, "0.1.0")
        assert release.bytes(MODEL) == (RELEASED / MODEL).read_bytes()

    def test_any_of_the_pinned_keys(self, folder: Path) -> None:
        assert open_release(folder, keys=PINNED | KEYS).key == key_id(PUBLIC)

    def test_released_is_the_short_way(self) -> None:
        assert released(MODEL) == open_release().bytes(MODEL)
        assert RrAf.load_release().name == "rr_af"

    def test_every_file_is_opened_once_and_its_bytes_are_what_is_used(self, folder: Path) -> None:
        opened.clear()
        watching[0] = True
        data = open_release(folder, keys=KEYS).bytes(MODEL)
        watching[0] = False
        assert opened == [MANIFEST, SIGNATURE, MODEL]
        (folder / MODEL).write_bytes(b"swapped afterwards")
        assert RrAf(data).name == "rr_af"

    @pytest.mark.parametrize(("minimum", "agent"), [("0.1", "0.1.0"), ("0.9.9", "0.10.0"), ("1.2.3", "1.2.3"), ("1", "1.0.1")])
    def test_minimum_agent(self, folder: Path, minimum: str, agent: str) -> None:
        assert open_release(signed(folder, minimum_agent=minimum), keys=KEYS, agent=agent).minimum_agent == minimum


class TestRefused:
    def test_every_bit_of_the_signature(self, folder: Path) -> None:
        signature = (folder / SIGNATURE).read_bytes()
        for bit in range(8 * len(signature)):
            (folder / SIGNATURE).write_bytes(flip(signature, bit))
            with pytest.raises(ReleaseError, match=SIGNATURE if bit >= 8 * 88 else "sign"):
                open_release(folder, keys=KEYS)

    @given(bit=st.integers(0, 1 << 20))
    def test_any_bit_of_the_manifest(self, shared: Path, bit: int) -> None:
        with changed(shared / MANIFEST, lambda data: flip(data, bit)):
            assert_refused(shared, "altered", MANIFEST, "not signed")

    @given(bit=st.integers(0, 1 << 20))
    def test_any_bit_of_a_model(self, shared: Path, bit: int) -> None:
        with changed(shared / MODEL, lambda data: flip(data, bit)):
            assert_refused(shared, "altered", MODEL, "is not the released file")

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, MODEL])
    @pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\n", lambda d: d[1:], lambda _: b""])
    def test_shorter_or_longer(self, shared: Path, file: str, change: Callable[[bytes], bytes]) -> None:
        with changed(shared / file, change):
            assert_refused(shared, "altered", file)

    def test_another_key(self, folder: Path) -> None:
        other = Ed25519PrivateKey.generate()
        write(folder, (folder / MANIFEST).read_bytes(), other)
        assert_refused(folder, "altered", "not signed with a key of this agent's")

    def test_no_keys_at_all(self, folder: Path) -> None:
        assert_refused(folder, "altered", "not signed", keys={})

    def test_a_key_that_is_no_longer_pinned(self, folder: Path) -> None:
        assert_refused(folder, "altered", "not signed", keys=dict(PINNED))

    def test_a_manifest_that_names_another_pinned_key(self, folder: Path) -> None:
        assert_refused(signed(folder, key=next(iter(PINNED))), "altered", "another key", keys=PINNED | KEYS)

    @pytest.mark.parametrize("domain", [b"", b"pulsegate model release 2\0", b"pulsegate block 1\0"])
    def test_a_signature_made_for_something_else(self, folder: Path, domain: bytes) -> None:
        write(folder, (folder / MANIFEST).read_bytes(), domain=domain)
        assert_refused(folder, "altered", "not signed")

    def test_an_older_release(self, folder: Path) -> None:
        assert_refused(folder, "older", "release 7 is older than release 8", "Update", newest_seen=8)

    @pytest.mark.parametrize("minimum", ["0.1.1", "0.2", "1", "0.10.0"])
    def test_a_release_for_a_newer_agent(self, folder: Path, minimum: str) -> None:
        assert_refused(
            signed(folder, minimum_agent=minimum), "agent", f"needs pulsegate {minimum}, this is 0.1.0", agent="0.1.0"
        )

    def test_swapped_files(self, folder: Path) -> None:
        card, model = (folder / "rr_af.json").read_bytes(), (folder / MODEL).read_bytes()
        (folder / MODEL).write_bytes(card)
        (folder / "rr_af.json").write_bytes(model)
        assert_refused(folder, "altered", MODEL)

    def test_the_signature_of_an_earlier_release(self, folder: Path) -> None:
        before = (folder / SIGNATURE).read_bytes()
        signed(folder, release=8)
        (folder / SIGNATURE).write_bytes(before)
        assert_refused(folder, "altered", "not signed")

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, MODEL])
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        assert_refused(folder, "altered", f"{file} cannot be read (No such file")

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, MODEL])
    def test_a_symbolic_link_to_the_right_content(self, folder: Path, file: str) -> None:
        (folder / file).rename(folder / "elsewhere")
        (folder / file).symlink_to("elsewhere")
        assert_refused(folder, "altered", file)

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_a_pipe_or_folder_in_its_place(self, folder: Path, make: Callable[[Path], None]) -> None:
        (folder / MODEL).unlink()
        make(folder / MODEL)
        assert_refused(folder, "altered", MODEL, "no plain file")

    def test_a_huge_file_is_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with (folder / MANIFEST).open("r+b") as file:
            file.truncate(1 << 40)
        monkeypatch.setattr(release_module.os, "fdopen", None)
        assert_refused(folder, "altered", f"larger than {LARGEST_MANIFEST} bytes")

    def test_a_file_that_is_not_of_the_release(self, folder: Path) -> None:
        with pytest.raises(ReleaseError, match=r"other\.onnx is no part of model release 7"):
            open_release(folder, keys=KEYS).bytes("other.onnx")

    @pytest.mark.parametrize(
        "name",
        ["../rr_af.onnx", "/etc/passwd", "a/b.onnx", "..", ".", "", ".hidden", "a\0b", "a\n", "a b", MANIFEST, 101 * "x"],
    )
    def test_names_that_lead_elsewhere(self, folder: Path, name: str) -> None:
        entry = json.loads((RELEASED / MANIFEST).read_bytes())["files"][MODEL]
        assert_refused(signed(folder, files={name: entry}), "altered", "malformed", "no plain file name")


class TestMalformed:
    """Signed with the right key, and yet no manifest: a mistake of ours must be one clear line on the hub."""

    @pytest.mark.parametrize(
        "manifest",
        [b"", b"[]", b"null", b"{", b"\xff\xfe", b"{}", b'"release"', b"[" * 60_000, b'{"release":' + b"9" * 5000 + b"}"],
        ids=["empty", "list", "null", "half", "no utf-8", "nothing in it", "string", "deep", "huge number"],
    )
    def test_no_manifest(self, folder: Path, manifest: bytes) -> None:
        write(folder, manifest)
        assert_refused(folder, "altered", "malformed")

    @pytest.mark.parametrize(
        "changes",
        [
            {"release": value} for value in (0, -1, True, 1.0, "1", None, 1 << 31)
        ] + [{"minimum_agent": value} for value in (None, 1, "", "1.x", "1.2.3.4.5", "1." * 9, "٣.1")]
        + [{"key": value} for value in (None, 5)]
        + [{"files": value} for value in (None, [], "x", {"a": None}, {"a": {}}, {"a": {"size": 1}})],
        ids=str,
    )  # fmt: skip
    def test_wrong_values(self, folder: Path, changes: dict[str, Any]) -> None:
        assert_refused(signed(folder, **changes), "altered", "malformed")

    @pytest.mark.parametrize("size", [0, -1, True, 1.5, "33974", 1 << 23])
    def test_wrong_sizes(self, folder: Path, size: object) -> None:
        assert_refused(signed(folder, files={MODEL: {"size": size, "sha256": "0" * 64}}), "altered", "malformed")

    @pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, 0, None])
    def test_wrong_hashes(self, folder: Path, sha256: object) -> None:
        assert_refused(signed(folder, files={MODEL: {"size": 5, "sha256": sha256}}), "altered", "malformed")

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("a0./-\n", max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a0./-\n", max_size=8), inner, max_size=3),
        max_leaves=8,
    )

    @given(values=st.fixed_dictionaries({}, optional=dict.fromkeys(["release", "minimum_agent", "key", "files"], json_values)))
    def test_any_json(self, shared: Path, values: dict[str, Any]) -> None:
        manifest = json.dumps(manifest_of() | values).encode()
        signature = base64.b64encode(KEY.sign(DOMAIN + manifest)) + b"\n"
        with changed(shared / MANIFEST, lambda _: manifest), changed(shared / SIGNATURE, lambda _: signature):
            try:
                open_release(shared, keys=KEYS).bytes(MODEL)
            except ReleaseError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017
