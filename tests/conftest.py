"""What every test may use."""

import ctypes
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import models.inference.runtime  # noqa: F401  before any test imports onnxruntime
from config.openssl import TLS_POLICY, use_tls_policy
from tests.databases import Databases, PostgresDatabases, SqliteDatabases
from tests.mosquitto import Broker, run_broker
from tests.postgresql import Server, run_server
from tests.traceability.outcomes import register_outcomes

os.environ.pop("SUDO_USER", None)  # the audit log names it
# pytest has loaded OpenSSL before. The commands set OPENSSL_CONF first: `tests/config/test_tls_policy.py`.
use_tls_policy()
openssl = ctypes.CDLL(ssl._ssl.__file__)  # type: ignore[attr-defined]
assert openssl.CONF_modules_load_file(bytes(TLS_POLICY), None, 0) == 1

Samples = NDArray[np.float64]
Synthesise = Callable[..., tuple[Samples, Samples]]


def pytest_configure(config: pytest.Config) -> None:
    """Fail a whole run if a test that a requirement names did not pass."""
    register_outcomes(config)


def _recordings() -> Path | None:
    candidates = [os.environ.get("PULSEGATE_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    return next((Path(c) for c in candidates if c and Path(c).is_dir()), None)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of recordings: `$PULSEGATE_DATA`, or `../shared/data` beside the checkout."""
    folder = _recordings()
    if folder is None:
        reason = "no recordings: set PULSEGATE_DATA to their folder"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def synthesise() -> Synthesise:
    """Pulses at given intervals: a systolic wave and a lower dicrotic one; the signal and the times of the steepest rise."""

    def make(intervals_s: Samples, rate_hz: float = 50.0, dicrotic: float = 0.3, noise: float = 0.0) -> tuple[Samples, Samples]:
        peaks_s = 0.6 + np.concatenate(([0.0], np.cumsum(intervals_s)))
        t = np.arange(round((peaks_s[-1] + 1.5) * rate_hz)) / rate_hz
        ppg = np.zeros(t.size)
        for peak_s in peaks_s:
            for height, delay_s, rise_s, fall_s in ((1.0, 0.0, 0.06, 0.15), (dicrotic, 0.35, 0.07, 0.2)):
                since = t - peak_s - delay_s
                ppg += height * np.exp(-0.5 * (since / np.where(since < 0, rise_s, fall_s)) ** 2)
        return ppg + np.random.default_rng(5).normal(0, noise or 1e-12, t.size), peaks_s - 0.06

    return make


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server, started for the first test that needs it."""
    with run_server() as server:
        yield server


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A mosquitto of a site, started for the first test that needs it."""
    with run_broker(tmp_path_factory.mktemp("site")) as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module on each of its `DATABASES`, by default SQLite; those marked `sqlite_only` on SQLite."""
    if "databases" in metafunc.fixturenames:
        names: tuple[str, ...] = getattr(metafunc.module, "DATABASES", ("sqlite",))
        if metafunc.definition.get_closest_marker("sqlite_only"):
            names = ("sqlite",)
        metafunc.parametrize("databases", names, indirect=True)


@pytest.fixture
def databases(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    """The databases of a clinic."""
    if request.param == "sqlite":
        yield SqliteDatabases(tmp_path)
        return
    server: Server = request.getfixturevalue("postgresql")
    monkeypatch.setenv("PGPASSFILE", str(server.password_file))
    yield PostgresDatabases(server)
