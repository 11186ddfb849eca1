"""Speed and latency benchmarks: `make bench`. They print and store figures; no test asserts them."""

from config.openssl import use_tls_policy

use_tls_policy()  # before any module loads OpenSSL
