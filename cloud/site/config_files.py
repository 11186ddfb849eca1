"""Writes configuration files of the site's servers, which run as users of their own."""

from collections.abc import Mapping
from pathlib import Path

from cloud.errors import ClinicError
from config.files import replacing


def write_config_files(folder: Path, files: Mapping[str, str], server: str) -> None:
    """Write files that every user may read; the folder is created if it is missing. `server` is for the message of an error.

    Raises:
        ClinicError: a file cannot be written.
    """
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name, text in files.items():
            with replacing(folder / name, mode=0o644) as draft:
                draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ClinicError(f"cannot write the {server}'s configuration in {folder} ({error}): choose another folder") from error
