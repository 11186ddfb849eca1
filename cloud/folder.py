"""The files of one clinic.

folder/keys/                    recipient key pairs of the subjects (`cloud.key_store`)
folder/hubs/                    registered hubs (`cloud.registry`)
folder/acknowledgement.key, receipt.key, audit.key, command.key   signing keys (`cloud.signing_keys`)
folder/clinic.key, clinic.pub   the one key pair of format 1, until its data keys are wrapped again
folder/blocks.db                sealed blocks, unless they are in PostgreSQL
folder/projections.db           opened blocks: plaintext, can be rebuilt from the sealed blocks at any time; or in PostgreSQL
folder/site/                    certification authority of the site (`cloud.site`)
folder/clinic.json              addresses of the running clinic; exists only while it runs
folder/enrolment/               certificates of the enrolment service (`cloud.enrolment`)
folder/invitations/             invitations of hubs (`cloud.enrolment.invitations`)
folder/lock                     locked by the process that writes the projections
folder/issuing.lock             locked while a hub's certificate is issued or revoked
"""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cloud.database_url import PostgresUrl
from cloud.databases import DatabaseLocation
from cloud.errors import ClinicError
from cloud.signing_keys import SigningKeys
from config.endpoint import Endpoint
from config.files import locked, replacing


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of a running clinic: the page's URL, and the broker."""

    page: str
    broker: Endpoint


@dataclass(frozen=True, slots=True)
class ClinicFolder:
    """Paths of the clinic's files and URLs of its databases, the lock, the keys and the endpoints file."""

    path: Path
    store_url: PostgresUrl | None = None
    projections_url: PostgresUrl | None = None

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def hubs(self) -> Path:
        return self.path / "hubs"

    @property
    def site(self) -> Path:
        return self.path / "site"

    @property
    def key_1(self) -> Path:
        return self.path / "clinic.key"

    @property
    def public_key_1(self) -> Path:
        return self.path / "clinic.pub"

    @property
    def blocks(self) -> DatabaseLocation:
        return self.store_url or self.path / "blocks.db"

    @property
    def projections(self) -> DatabaseLocation:
        return self.projections_url or self.path / "projections.db"

    @property
    def endpoints(self) -> Path:
        return self.path / "clinic.json"

    def create(self) -> None:
        """Create the folder if it is missing, readable by its owner only.

        Raises:
            ClinicError: the folder cannot be created.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ClinicError(f"cannot create {self.path} ({error.strerror}): choose another --data") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock: two openers on one folder would project every block twice.

        Raises:
            ClinicError: another process holds the lock.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / "lock"))
            except BlockingIOError as error:
                raise ClinicError(
                    f"{self.path} is in use by another pulsegate-cloud: stop it or choose another --data"
                ) from error
            except OSError as error:
                raise ClinicError(f"cannot lock {self.path} ({error.strerror}): choose another --data") from error
            yield

    @contextmanager
    def issuing(self) -> Iterator[None]:
        """Wait for the lock of those who issue certificates to hubs, change their files or revoke them: one at a time.

        Raises:
            ClinicError: the lock cannot be created.
        """
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.path / "issuing.lock", wait=True))
            except OSError as error:
                raise ClinicError(f"cannot lock {self.path} ({error.strerror}): check the folder") from error
            yield

    def load_or_create_signing_keys(self) -> SigningKeys:
        """Load the clinic's signing keys; create them as long as no hub is registered.

        Raises:
            ClinicError: a key file is missing, and hubs are registered with it.
            KeyFileError: a key file is damaged, readable by others, or cannot be written.
        """
        return SigningKeys.load_or_create(self.path, may_create=not any(self.hubs.glob("*.toml")))

    def write_endpoints(self, endpoints: Endpoints) -> None:
        """Write clinic.json atomically: a process that waits for the file may read it as soon as it exists."""
        content = {
            "page": endpoints.page,
            "mqtt": {"host": endpoints.broker.host, "port": endpoints.broker.port},
            "pid": os.getpid(),
        }
        with replacing(self.endpoints) as draft:
            draft.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def delete_endpoints(self) -> None:
        """Delete clinic.json if it exists."""
        self.endpoints.unlink(missing_ok=True)
