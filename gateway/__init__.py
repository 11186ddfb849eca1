"""The agent on the hub."""

from config.openssl import use_tls_policy

use_tls_policy()  # before any module below loads OpenSSL
