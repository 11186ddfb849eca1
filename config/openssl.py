"""Names the configuration file of OpenSSL, `openssl.cnf`, which allows TLS 1.3 with AES-GCM only.

OpenSSL reads the file once, when `ssl` or `hashlib` is first imported. So the packages of the commands call `use_tls_policy`
before anything else. Child processes, such as a PostgreSQL server, inherit it.
"""

import os
from pathlib import Path
from typing import Final

TLS_POLICY: Final = Path(__file__).with_name("openssl.cnf")


def use_tls_policy() -> None:
    """Set OPENSSL_CONF, whatever it was: no other configuration may allow more."""
    os.environ["OPENSSL_CONF"] = str(TLS_POLICY)
