"""Chaos: kills the processes of a site and of twenty hubs, breaks links, disks and clocks, and audits what is left.

`python -m benchmarks.chaos FOLDER` runs it; `docs/chaos.md` says what is done and what is proved.
"""

from config.openssl import use_tls_policy

use_tls_policy()
