"""A release is accepted only if every byte is what a pinned key signed; a single changed bit is refused."""

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
from models.inference.pinned_keys import PINNED_KEYS
from models.inference.release import (
    DOMAIN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    RELEASE_DIR,
    SIGNATURE,
    ReleaseError,
    key_id,
    open_release,
    read_release_file,
)
from models.inference.rr_af import RrAf

ROOT = Path(__file__).parents[2]
MODEL = "rr_af.onnx"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
KEYS = {key_id(PUBLIC): PUBLIC.hex()}

opened: list[str] = []
"""Names of the files that this process opened while `is_recording`."""
is_recording = [False]


def _record_open(event: str, arguments: tuple[Any, ...]) -> None:
    if is_recording[0] and event == "open" and isinstance(arguments[0], str):
        opened.append(Path(arguments[0]).name)


sys.addaudithook(_record_open)


def write_manifest(folder: Path, manifest: bytes, key: Ed25519PrivateKey = KEY, domain: bytes = DOMAIN) -> None:
    (folder / MANIFEST).write_bytes(manifest)
    (folder / SIGNATURE).write_bytes(base64.b64encode(key.sign(domain + manifest)) + b"\n")


def make_manifest(**changes: Any) -> dict[str, Any]:
    """Return the released manifest with the test key, release 7 and `changes`."""
    manifest: dict[str, Any] = json.loads((RELEASE_DIR / MANIFEST).read_bytes())
    return {**manifest, "release": 7, "minimum_agent": "0.1.0", "key": key_id(PUBLIC), **changes}


def sign(folder: Path, **changes: Any) -> Path:
    """Write the folder's manifest and sign it with the test key."""
    write_manifest(folder, json.dumps(make_manifest(**changes)).encode())
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the release, signed with the test key."""
    shutil.copytree(RELEASE_DIR, tmp_path / "release")
    return sign(tmp_path / "release")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed copy like `folder`, shared by tests that undo their changes."""
    folder = tmp_path_factory.mktemp("shared") / "release"
    shutil.copytree(RELEASE_DIR, folder)
    return sign(folder)


@contextmanager
def changed(file: Path, change: Callable[[bytes], bytes]) -> Iterator[None]:
    """Change a file within the context."""
    before = file.read_bytes()
    file.write_bytes(change(before))
    try:
        yield
    finally:
        file.write_bytes(before)


def flip_bit(data: bytes, bit: int) -> bytes:
    index = bit % (8 * len(data))
    return data[: index // 8] + bytes([data[index // 8] ^ 1 << index % 8]) + data[index // 8 + 1 :]


def assert_refused(folder: Path, cause: str, *parts: str, **settings: Any) -> None:
    """Assert that the release is refused with one line that contains `parts` and says what to do."""
    with pytest.raises(ReleaseError) as caught:
        open_release(folder, **({"keys": KEYS} | settings)).read_file(MODEL)
    message = str(caught.value)
    assert caught.value.cause == cause
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
    assert message.endswith(("Reinstall pulsegate.", "Update pulsegate."))


class TestCommittedRelease:
    def test_verifies_with_the_pinned_keys(self) -> None:
        release = open_release()
        assert release.key_id in PINNED_KEYS
        assert all(len(release.read_file(file)) == entry.size for file, entry in release.files.items())

    def test_lists_every_model_and_card_of_the_folder(self) -> None:
        in_folder = {path.name for path in RELEASE_DIR.iterdir() if not path.name.startswith(".")}
        assert set(open_release().files) == in_folder - {MANIFEST, SIGNATURE}

    def test_every_key_id_matches_its_key(self) -> None:
        assert all(name == key_id(bytes.fromhex(public)) and len(public) == 64 for name, public in PINNED_KEYS.items())

    def test_the_repository_contains_no_private_key(self) -> None:
        if not (ROOT / ".git").exists():
            pytest.skip("not a checkout")
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
        paths = [ROOT / os.fsdecode(name) for name in names if name]
        content = {path: path.read_bytes() for path in paths if path.is_file()}
        assert len(content) > 100
        armour = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+[A-Za-z0-9+/]")
        assert [path for path, data in content.items() if armour.search(data)] == []
        for seed in {found for data in content.values() for found in re.findall(rb"\b[0-9a-f]{64}\b", data)}:
            secret = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed.decode()))
            assert secret.public_key().public_bytes_raw().hex() not in PINNED_KEYS.values()

    def test_the_agent_version_is_that_of_the_package(self) -> None:
        assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


class TestAccepted:
    def test_the_signed_files(self, folder: Path) -> None:
        release = open_release(folder, keys=KEYS, newest_seen=7)
        assert (release.number, release.minimum_agent) == (7, "0.1.0")
        assert release.read_file(MODEL) == (RELEASE_DIR / MODEL).read_bytes()

    def test_any_of_the_pinned_keys(self, folder: Path) -> None:
        assert open_release(folder, keys=PINNED_KEYS | KEYS).key_id == key_id(PUBLIC)

    def test_read_release_file_reads_from_the_packaged_release(self) -> None:
        assert read_release_file(MODEL) == open_release().read_file(MODEL)
        assert RrAf.load_release().name == "rr_af"

    def test_every_file_is_opened_once_and_the_verified_bytes_are_used(self, folder: Path) -> None:
        opened.clear()
        is_recording[0] = True
        data = open_release(folder, keys=KEYS).read_file(MODEL)
        is_recording[0] = False
        assert opened == [MANIFEST, SIGNATURE, MODEL]
        (folder / MODEL).write_bytes(b"swapped afterwards")
        assert RrAf(data).name == "rr_af"

    @pytest.mark.parametrize(("minimum", "agent"), [("0.1", "0.1.0"), ("0.9.9", "0.10.0"), ("1.2.3", "1.2.3"), ("1", "1.0.1")])
    def test_an_agent_that_is_new_enough(self, folder: Path, minimum: str, agent: str) -> None:
        assert open_release(sign(folder, minimum_agent=minimum), keys=KEYS, agent=agent).minimum_agent == minimum


class TestRefused:
    def test_a_flip_of_any_bit_of_the_signature(self, folder: Path) -> None:
        signature = (folder / SIGNATURE).read_bytes()
        for bit in range(8 * len(signature)):
            (folder / SIGNATURE).write_bytes(flip_bit(signature, bit))
            with pytest.raises(ReleaseError, match=SIGNATURE if bit >= 8 * 88 else "sign"):
                open_release(folder, keys=KEYS)

    @given(bit=st.integers(0, 1 << 20))
    def test_a_flip_of_any_bit_of_the_manifest(self, shared: Path, bit: int) -> None:
        with changed(shared / MANIFEST, lambda data: flip_bit(data, bit)):
            assert_refused(shared, "altered", MANIFEST, "not signed")

    @given(bit=st.integers(0, 1 << 20))
    def test_a_flip_of_any_bit_of_a_model(self, shared: Path, bit: int) -> None:
        with changed(shared / MODEL, lambda data: flip_bit(data, bit)):
            assert_refused(shared, "altered", MODEL, "is not the released file")

    @pytest.mark.parametrize("file", [MANIFEST, SIGNATURE, MODEL])
    @pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\n", lambda d: d[1:], lambda _: b""])
    def test_a_file_that_is_shorter_or_longer(self, shared: Path, file: str, change: Callable[[bytes], bytes]) -> None:
        with changed(shared / file, change):
            assert_refused(shared, "altered", file)

    def test_another_key(self, folder: Path) -> None:
        other = Ed25519PrivateKey.generate()
        write_manifest(folder, (folder / MANIFEST).read_bytes(), other)
        assert_refused(folder, "altered", "not signed with a key that this agent accepts")

    def test_an_agent_without_keys(self, folder: Path) -> None:
        assert_refused(folder, "altered", "not signed", keys={})

    def test_a_key_that_is_no_longer_pinned(self, folder: Path) -> None:
        assert_refused(folder, "altered", "not signed", keys=dict(PINNED_KEYS))

    def test_a_manifest_that_names_another_pinned_key(self, folder: Path) -> None:
        assert_refused(sign(folder, key=next(iter(PINNED_KEYS))), "altered", "a different key", keys=PINNED_KEYS | KEYS)

    @pytest.mark.parametrize("domain", [b"", b"pulsegate model release 2\0", b"pulsegate block 1\0"])
    def test_a_signature_made_for_something_else(self, folder: Path, domain: bytes) -> None:
        write_manifest(folder, (folder / MANIFEST).read_bytes(), domain=domain)
        assert_refused(folder, "altered", "not signed")

    def test_an_older_release(self, folder: Path) -> None:
        assert_refused(folder, "older", "release 7 is older than release 8", "Update", newest_seen=8)

    @pytest.mark.parametrize("minimum", ["0.1.1", "0.2", "1", "0.10.0"])
    def test_a_release_for_a_newer_agent(self, folder: Path, minimum: str) -> None:
        assert_refused(sign(folder, minimum_agent=minimum), "agent", f"needs pulsegate {minimum}, this is 0.1.0", agent="0.1.0")

    def test_swapped_files(self, folder: Path) -> None:
        card, model = (folder / "rr_af.json").read_bytes(), (folder / MODEL).read_bytes()
        (folder / MODEL).write_bytes(card)
        (folder / "rr_af.json").write_bytes(model)
        assert_refused(folder, "altered", MODEL)

    def test_the_signature_of_an_earlier_release(self, folder: Path) -> None:
        before = (folder / SIGNATURE).read_bytes()
        sign(folder, release=8)
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
    def test_a_pipe_or_folder_instead_of_a_file(self, folder: Path, make: Callable[[Path], None]) -> None:
        (folder / MODEL).unlink()
        make(folder / MODEL)
        assert_refused(folder, "altered", MODEL, "not a regular file")

    def test_a_huge_file_is_not_read(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with (folder / MANIFEST).open("r+b") as file:
            file.truncate(1 << 40)
        monkeypatch.setattr(release_module.os, "fdopen", None)
        assert_refused(folder, "altered", f"larger than {MAX_MANIFEST_BYTES} bytes")

    def test_a_file_that_is_not_part_of_the_release(self, folder: Path) -> None:
        with pytest.raises(ReleaseError, match=r"other\.onnx is not part of model release 7"):
            open_release(folder, keys=KEYS).read_file("other.onnx")

    @pytest.mark.parametrize(
        "name",
        ["../rr_af.onnx", "/etc/passwd", "a/b.onnx", "..", ".", "", ".hidden", "a\0b", "a\n", "a b", MANIFEST, 101 * "x"],
    )
    def test_names_that_are_not_plain_file_names(self, folder: Path, name: str) -> None:
        entry = json.loads((RELEASE_DIR / MANIFEST).read_bytes())["files"][MODEL]
        assert_refused(sign(folder, files={name: entry}), "altered", "malformed", "not a plain file name")


class TestMalformed:
    """Manifests signed with a pinned key but malformed: a mistake at signing must give one clear error line on the hub."""

    @pytest.mark.parametrize(
        "manifest",
        [b"", b"[]", b"null", b"{", b"\xff\xfe", b"{}", b'"release"', b"[" * 60_000, b'{"release":' + b"9" * 5000 + b"}"],
        ids=["empty", "list", "null", "truncated", "not utf-8", "empty object", "string", "deeply nested", "huge number"],
    )
    def test_bytes_that_are_not_a_manifest(self, folder: Path, manifest: bytes) -> None:
        write_manifest(folder, manifest)
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
        assert_refused(sign(folder, **changes), "altered", "malformed")

    @pytest.mark.parametrize("size", [0, -1, True, 1.5, "33974", 1 << 23])
    def test_wrong_sizes(self, folder: Path, size: object) -> None:
        assert_refused(sign(folder, files={MODEL: {"size": size, "sha256": "0" * 64}}), "altered", "malformed")

    @pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, 0, None])
    def test_wrong_hashes(self, folder: Path, sha256: object) -> None:
        assert_refused(sign(folder, files={MODEL: {"size": 5, "sha256": sha256}}), "altered", "malformed")

    json_values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text("a0./-\n", max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a0./-\n", max_size=8), inner, max_size=3),
        max_leaves=8,
    )

    @given(values=st.fixed_dictionaries({}, optional=dict.fromkeys(["release", "minimum_agent", "key", "files"], json_values)))
    def test_any_json_is_accepted_or_refused_with_one_line(self, shared: Path, values: dict[str, Any]) -> None:
        manifest = json.dumps(make_manifest() | values).encode()
        signature = base64.b64encode(KEY.sign(DOMAIN + manifest)) + b"\n"
        with changed(shared / MANIFEST, lambda _: manifest), changed(shared / SIGNATURE, lambda _: signature):
            try:
                open_release(shared, keys=KEYS).read_file(MODEL)
            except ReleaseError as error:
                assert len(str(error).splitlines()) == 1  # noqa: PT017
