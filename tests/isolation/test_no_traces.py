"""No command leaves a file outside its data folder, looks up a name, or connects to another machine.

onnxruntime's telemetry did all three, in native code. Its first look-up comes some ten seconds after the first model is loaded.
"""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sync.signing import SigningKey, Use
from tests.fake_clinic import FakeClinic
from tests.namespaces import unshare_command

with warnings.catch_warnings(action="ignore"):  # wfdb 4.3 calls what pandas 3 deprecates
    import wfdb

ROOT = Path(__file__).parents[2]
OBSERVED_S = 12
"""How long `run` and `replay` run: until after onnxruntime's first look-up (9.6 s, measured with 1.32)."""
RATE_HZ = 250
RECORD_S = 310
"""`pulsegate evaluate` does not count the first five minutes."""


def refuse(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def namespaces() -> list[str]:
    """The command that runs another one in new namespaces."""
    missing = [name for name in ("unshare", "ip", "mount", "chroot") if shutil.which(name) is None]
    if missing:
        refuse(f"cannot isolate a process: {', '.join(missing)} is not installed")
    return unshare_command("--net", "--mount")


def write_record(folder: Path) -> None:
    """An ECG-like record with its beats annotated."""
    folder.mkdir()
    t = np.arange(RECORD_S * RATE_HZ) / RATE_HZ
    mv = 1.2 * np.exp(-((((t % 0.8) - 0.4) / 0.012) ** 2)) + 0.02 * np.sin(9 * t)
    beats = np.round((np.arange(math.floor(RECORD_S / 0.8)) * 0.8 + 0.4) * RATE_HZ).astype(int)
    signal = np.round(mv * 200).astype(int)[:, None]
    with warnings.catch_warnings(action="ignore"):
        wfdb.wrsamp(
            "r", fs=RATE_HZ, units=["mV"], sig_name=["MLII"], d_signal=signal,
            fmt=["16"], adc_gain=[200.0], baseline=[0], write_dir=str(folder),
        )  # fmt: skip
        wfdb.wrann("r", "atr", beats, ["N"] * beats.size, write_dir=str(folder))


def write_settings(data: Path) -> Path:
    FakeClinic("hub-1", SigningKey.generate(Use.DEVICE).public).registration.save(data / "registration.toml")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (data / "pulsegate.toml").write_text(
        f'hub = "hub-1"\nsubject = "subject-1"\ndata = "agent"\nradio = "virtual:none.sock"\n'
        f'[clinic]\nhost = "127.0.0.1"\nport = {port}\nregistration = "registration.toml"\n'
        '[[sensor]]\nname = "strap"\nadvertised_name = "Virtual H10"\n'
    )
    return data / "pulsegate.toml"


def observe(folder: Path, namespaces: list[str], commands: dict[str, list[str]]) -> dict[str, Any]:
    (folder / "layers").mkdir()
    (folder / "home").mkdir()
    (folder / "tmp").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    home, temporary = str(folder / "home"), str(folder / "tmp")  # not /tmp, where demos of other tests come and go
    environment = kept | {"HOME": home, "TMPDIR": temporary, "PYTHONDONTWRITEBYTECODE": "1"}
    request = {
        "layers": str(folder / "layers"),
        "keep": [str(ROOT), str(folder)],
        "commands": commands,
        "environment": environment,
        "seconds": OBSERVED_S,
    }
    (folder / "request.json").write_text(json.dumps(request))
    command = [*namespaces, sys.executable, str(Path(__file__).with_name("sandbox.py")), str(folder / "request.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        refuse(f"cannot isolate a process: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout))


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short path: a socket's path has at most 107 bytes."""
    return tmp_path_factory.mktemp("f")


def test_the_sandbox_sees_what_a_process_does(folder: Path, namespaces: list[str]) -> None:
    program = (
        "import os, pathlib, socket\n"
        "pathlib.Path.home().joinpath('trace').touch()\n"
        "pathlib.Path('/usr/trace').mkdir()\n"
        "socket.setdefaulttimeout(0.2)\n"
        "try: socket.gethostbyname('telemetry.example.org')\n"
        "except OSError: socket.socket().connect_ex(('192.0.2.1', 443))\n"
    )
    seen = observe(folder, namespaces, {"trace": [sys.executable, "-c", program]})
    assert seen["commands"]["trace"] == {"status": 0, "output": ""}
    assert seen["files"] == sorted([str(folder / "home" / "trace"), "/usr/trace"])
    assert seen["names"] == ["telemetry.example.org"]
    assert seen["hosts"] == ["192.0.2.1"]
    assert not Path("/usr/trace").exists()


def test_no_command_leaves_a_trace_outside_its_data_folder_or_looks_for_another_machine(
    folder: Path, namespaces: list[str]
) -> None:
    data = folder / "data"
    data.mkdir()
    write_record(data / "records")
    rows = [f"{i / RATE_HZ:.3f},{0.1 * (i % 7):.2f}" for i in range((OBSERVED_S - 1) * RATE_HZ)]
    (data / "ecg.csv").write_text("\n".join(["time [s],ecg [mV]", *rows]) + "\n")
    pulsegate = [sys.executable, "-m", "gateway.cli"]
    commands = {
        "demo": [*pulsegate, "demo", "--seconds", "5", "--port", "0", "--data", str(data / "demo")],
        "run": [*pulsegate, "run", "--config", str(write_settings(data))],
        "replay": [*pulsegate, "replay", "--json", "--speed", "1", str(data / "ecg.csv")],
        "evaluate": [*pulsegate, "evaluate", "beats", "--json", "--data", str(data / "records")],
    }
    seen = observe(folder, namespaces, commands)
    stopped = {"replay": 130}  # where the machine is slow
    failed = {name: end for name, end in seen["commands"].items() if end["status"] not in (0, stopped.get(name, 0))}
    assert failed == {}
    assert f"{data}/agent/buffer.db" in seen["files"]
    assert [file for file in seen["files"] if not file.startswith(f"{data}/")] == []
    assert (seen["names"], seen["hosts"]) == ([], [])
