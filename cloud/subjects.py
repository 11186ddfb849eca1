"""What the commands about a subject have in common."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cloud.errors import ClinicError
from cloud.folder import ClinicFolder
from cloud.store import Store
from cloud.store.consents import consents_now
from sync.wire import is_name


def check_name(subject: str) -> None:
    """Raise ClinicError if no subject can have this name."""
    if not is_name(subject):
        raise ClinicError("a subject has a name of 1 to 64 letters, digits, '.', '_' and '-': correct --subject")


@contextlib.contextmanager
def opened_store(folder: ClinicFolder) -> Iterator[Store]:
    """Open the store of a clinic that exists.

    Raises:
        ClinicError: there is none.
        PermanentError: as `Store.open`.
    """
    if isinstance(folder.blocks, Path) and not folder.blocks.exists():
        raise ClinicError(f"no clinic in {folder.path}: give the folder that pulsegate-cloud dev was started with")
    with contextlib.closing(Store.open(folder.blocks)) as store:
        yield store


def check_consents(folder: ClinicFolder, subject: str) -> None:
    """Raise ClinicError if a subject has withdrawn its consent: no hub may be given to it."""
    with contextlib.closing(Store.open(folder.blocks)) as store, store.transaction() as connection:
        if not consents_now(connection, subject):
            raise ClinicError(
                f"{subject} does not consent: when the patient has agreed, record it with pulsegate-cloud consent give"
            )
