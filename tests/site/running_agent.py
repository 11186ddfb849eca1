"""A hub's agent, a process of its own, on a virtual radio with sensors that measure the canary."""

import os
import subprocess
import sys
import time
from pathlib import Path

from cloud.folder import ClinicFolder
from cloud.register import BACKUP_INTERVAL_H, RegistrationRequest, register_hub
from cloud.site import Kind
from gateway.startup import DEVICE_PUBLIC_FILE, load_device_key
from tests.mosquitto import HOST, Broker

LIMIT_S = 90
HUB, SUBJECT = "hub-2", "subject-2"
ROOT = Path(__file__).parents[2]
SETTINGS = """
hub = "{hub}"
subject = "{subject}"
data = "data"
radio = "virtual:{radio}"
upload = "all"
[clinic]
host = "{host}"
port = {port}
registration = "data/registration.toml"
identity = "{identity}"
region = "DE"
[[sensor]]
name = "strap"
advertised_name = "Virtual H10"
[[sensor]]
name = "thermometer"
advertised_name = "Virtual Thermo"
"""


class RunningAgent:
    """The agent's files, registered at a clinic, its sensors and its process. `outputs` is all that was printed and logged."""

    def __init__(self, folder: Path, clinic: ClinicFolder, broker: Broker) -> None:
        self.folder, data = folder, folder / "data"
        data.mkdir(parents=True, mode=0o700)
        load_device_key(data)
        now_s = int(time.time())
        request = RegistrationRequest(HUB, data / DEVICE_PUBLIC_FILE, SUBJECT, now_s, BACKUP_INTERVAL_H)
        register_hub(clinic, request, now_s).save(data / "registration.toml")
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
        words = [sys.executable, "-m", "tests.site.marked_sensors"]
        self._sensors = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert self._sensors.stdout is not None
        radio = self._sensors.stdout.readline().strip()
        self.config = folder / "pulsegate.toml"
        values = {"hub": HUB, "subject": SUBJECT, "radio": radio, "host": HOST, "port": broker.hubs_port}
        self.config.write_text(SETTINGS.format(identity=broker.identity(Kind.HUBS, HUB), **values))
        self.log_file = folder / "agent.log"
        self._log = self.log_file.open("wb")
        self._agent = self._start("-m", "gateway.cli")
        self.pid = self._agent.pid
        self.outputs: dict[str, tuple[int, str]] = {}

    def _start(self, *program: str) -> "subprocess.Popen[bytes]":
        words = [sys.executable, *program, "run", "--config", str(self.config), "--log-level", "debug"]
        return subprocess.Popen(words, stdout=self._log, stderr=subprocess.STDOUT, env=self._environment)

    def ask(self, *words: str) -> str:
        """Run a command of the hub, and return what it prints."""
        command = [sys.executable, "-m", "gateway.cli", *words, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=False, timeout=LIMIT_S)
        self.outputs[words[0]] = done.returncode, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        """Stop the agent, then run one that crashes, and end the sensors."""
        self._agent.terminate()
        self.outputs["run"] = self._agent.wait(LIMIT_S), ""
        crashing = self._start(str(Path(__file__).with_name("crashing_agent.py")))
        try:
            self.outputs["crash"] = crashing.wait(LIMIT_S), ""
        finally:
            crashing.kill()
            self.close()

    def close(self) -> None:
        for process in (self._agent, self._sensors):
            process.kill()
            process.wait()
        assert self._sensors.stdin is not None
        assert self._sensors.stdout is not None
        self._sensors.stdin.close()
        self._sensors.stdout.close()
        self._log.close()
