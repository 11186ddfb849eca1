"""Atomic replacement of files."""

from pathlib import Path

import pytest

from config.files import replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "status.json"
    path.write_text("old")
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_replaces_the_content_when_the_body_ends(path: Path, durable: bool) -> None:
    with replacing(path, durable=durable) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".json")
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(path.parent) == ["status.json"]


def test_creates_a_missing_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "new.json") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "new.json").read_text() == "new"


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_new_file_has_the_given_mode(path: Path, mode: int) -> None:
    path.chmod(0o666)
    with replacing(path, mode=mode):
        pass
    assert path.stat().st_mode & 0o777 == mode


def test_only_the_owner_may_read_the_new_file_by_default(path: Path) -> None:
    path.chmod(0o666)
    with replacing(path):
        pass
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_error_keeps_the_old_file_and_deletes_the_temporary_one(path: Path) -> None:
    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail_half_way()
    assert path.read_text() == "old"
    assert names(path.parent) == ["status.json"]


def test_follows_a_symbolic_link(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "folder" / "link.json"
    link.parent.mkdir()
    link.symlink_to(path)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert names(link.parent) == ["link.json"]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "missing" / "status.json"):
        pytest.fail("the body must not run")
