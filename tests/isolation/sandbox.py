"""Runs commands where every file they change and every host they look for is seen. A program, to be run in new namespaces:

    unshare --net --mount python sandbox.py REQUEST.json

The commands see the whole file system, but what they write goes into an overlay. The network is loopback alone: a name server
of ours answers that there is no such name, and all other destinations lead into a capture. Native code is seen as well.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
DNS_PORT = 53
NO_SUCH_NAME = 0x8183


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Runs the commands of a request at the same time; returns how each ended and what was seen."""
    root, layers = build_root(Path(request["layers"]), [*request["keep"], sys.prefix, sys.base_prefix])
    set_up_network(root, Path(request["layers"]))
    names: list[str] = []
    hosts: list[str] = []
    threading.Thread(target=serve_names, args=(names,), daemon=True).start()
    threading.Thread(target=capture_hosts, args=(hosts,), daemon=True).start()
    ended = run_commands(root, request["commands"], request["environment"], float(request["seconds"]))
    return {"commands": ended, "files": sorted(changed_files(layers)), "names": sorted(set(names)), "hosts": sorted(set(hosts))}


def build_root(folder: Path, needed: list[str]) -> tuple[Path, dict[Path, Path]]:
    """Mounts overlays over / and the other mounts that hold needed paths; returns the new root and the layer of each mount."""
    run("mount", "-t", "tmpfs", "none", folder)
    root = folder / "root"
    layers: dict[Path, Path] = {}
    for mount in sorted({Path("/"), *map(mount_point, needed)}):
        layer = folder / str(len(layers))
        for name in ("upper", "work"):
            (layer / name).mkdir(parents=True)
        target = root / mount.relative_to("/")
        target.mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={mount},upperdir={layer / 'upper'},workdir={layer / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, target)
        layers[mount] = layer / "upper"
    for name in ("proc", "dev"):
        run("mount", "--rbind", f"/{name}", root / name)
    shared_memory = folder / "shm"
    shared_memory.mkdir()
    run("mount", "--bind", shared_memory, root / "dev" / "shm")
    return root, layers | {Path("/dev/shm"): shared_memory}  # noqa: S108 - a name, nothing is created there


def mount_point(path: str) -> Path:
    return next(folder for folder in (Path(path).resolve(), *Path(path).resolve().parents) if folder.is_mount())


def set_up_network(root: Path, folder: Path) -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "route", "add", "default", "dev", "lo")
    with suppress(subprocess.CalledProcessError):  # a machine without IPv6
        run("ip", "-6", "route", "add", "default", "dev", "lo")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    target = Path(os.path.realpath("/etc/resolv.conf"))
    inside = root / target.relative_to("/")
    inside.parent.mkdir(parents=True, exist_ok=True)
    if not inside.exists():
        inside.touch()
    run("mount", "--bind", folder / "resolv.conf", inside)


def serve_names(names: list[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", DNS_PORT))
        while True:
            query, client = server.recvfrom(4096)
            names.append(asked_name(query))
            server.sendto(query[:2] + struct.pack(">HHHHH", NO_SUCH_NAME, 1, 0, 0, 0) + query[12:], client)


def asked_name(query: bytes) -> str:
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii", "replace"))
        at += 1 + query[at]
    return ".".join(labels)


def capture_hosts(hosts: list[str]) -> None:
    """Notes the destination of every packet that would have left the machine."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as capture:
        while True:
            packet, (_, protocol, *_) = capture.recvfrom(65536)
            if protocol == ETH_P_IP and packet[16] != 127:
                hosts.append(socket.inet_ntop(socket.AF_INET, packet[16:20]))
            elif protocol == ETH_P_IPV6 and packet[24:40] != bytes(15) + b"\x01":
                hosts.append(socket.inet_ntop(socket.AF_INET6, packet[24:40]))


def run_commands(root: Path, commands: dict[str, list[str]], environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """Runs all at the same time; after `seconds`, those that still run get SIGINT."""
    processes = {
        name: subprocess.Popen(
            ["chroot", str(root), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for name, words in commands.items()
    }
    timer = threading.Timer(seconds, lambda: [process.send_signal(signal.SIGINT) for process in processes.values()])
    timer.start()
    outputs = {name: process.communicate()[0].decode(errors="replace")[-2000:] for name, process in processes.items()}
    timer.cancel()
    return {name: {"status": process.returncode, "output": outputs[name]} for name, process in processes.items()}


def changed_files(layers: dict[Path, Path]) -> Iterator[str]:
    """Yields the files that were created, changed or deleted, and the folders that were created."""
    for mount, layer in layers.items():
        for path in layer.rglob("*"):
            seen = mount / path.relative_to(layer)
            if not path.is_dir() or path.is_symlink() or not seen.is_dir():
                yield str(seen)


def run(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))  # noqa: T201 - the answer
