"""Commands in Linux namespaces of their own, for tests of the disk and the network."""

import os
import subprocess
from pathlib import Path

import pytest


def unshare_command(*namespaces: str) -> list[str]:
    """The words before a command that run it in new namespaces, such as "--net" and "--mount".

    Skips the test where namespaces are not permitted, and fails it under `CI=true`.
    """
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *namespaces, *as_root]
    if (problem := _try(words)) and not _is_any_mount_shared():
        # In a chroot the root is not a mount point, so unshare cannot make its mounts private. None is shared: no need to.
        words += ["--propagation", "unchanged"]
        problem = _try(words)
    if problem:
        reason = f"namespaces are not permitted here: {problem}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return words


def _try(words: list[str]) -> str:
    done = subprocess.run([*words, "true"], capture_output=True, text=True, check=False)
    return done.stderr.strip() or "unshare failed" if done.returncode else ""


def _is_any_mount_shared() -> bool:
    return " shared:" in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
