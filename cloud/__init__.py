"""The clinic: ingest, store of sealed blocks, opener, API and page."""

from config.openssl import use_tls_policy

use_tls_policy()  # before any module below loads OpenSSL
