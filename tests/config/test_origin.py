import sys
from pathlib import Path

import pytest

from config.origin import OriginError, check_package_folders


def test_accepts_packages_that_lie_in_one_folder() -> None:
    check_package_folders()
    assert "config" in sys.modules


def test_rejects_a_foreign_package_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "drivers").mkdir()
    (tmp_path / "drivers" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "drivers", raising=False)
    with pytest.raises(OriginError, match=r"package 'drivers' comes from .*: run pulsegate in its own environment"):
        check_package_folders()
