"""Run in a network namespace of its own: which ports of this machine another one reaches, before and after the firewall.

    another machine, 192.0.2.2 ─── 192.0.2.1, this machine

Prints JSON. Arguments: the rules, and rules that treat this account as a service.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE, THERE = "192.0.2.1", "192.0.2.2"
PORTS = (22, 443, 8443, 8883, 8600, 8601, 8602, 8603, 8604)
CONNECT_S = 0.2
"""A dropped packet is never answered; an answer takes far less than a millisecond."""
CONNECT = f"""
import json, socket, sys
def reaches(port):
    try:
        socket.create_connection(("{HERE}", port), timeout={CONNECT_S}).close()
    except OSError:
        return False
    return True
print(json.dumps([port for port in {PORTS} if reaches(port)]))
"""
LISTEN = f"""
import socket
with socket.create_server(("{THERE}", 443)) as listener:
    print("ready", flush=True)
    while True:
        listener.accept()[0].close()
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def serve(port: int) -> None:
    listener = socket.create_server(("0.0.0.0", port))  # noqa: S104  also a port that should be bound to loopback

    def accept() -> None:
        while True:
            listener.accept()[0].close()

    threading.Thread(target=accept, daemon=True).start()


def connect_machines(there: "subprocess.Popen[str]") -> None:
    own = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{there.pid}/ns/net").readlink() == own:
        time.sleep(0.005)
    run("ip", "link", "add", "here", "type", "veth", "peer", "name", "there")
    run("ip", "link", "set", "there", "netns", str(there.pid))
    for inside, name, address in (((), "here", HERE), (("nsenter", "-t", str(there.pid), "-n"), "there", THERE)):
        run(*inside, "ip", "addr", "add", f"{address}/24", "dev", name)
        run(*inside, "ip", "link", "set", "lo", "up")
        run(*inside, "ip", "link", "set", name, "up")


def main(rules: str, rules_of_a_service: str) -> None:
    there = subprocess.Popen(["unshare", "--net", "sleep", "600"], text=True)
    outside = ("nsenter", "-t", str(there.pid), "-n", sys.executable, "-c")
    try:
        connect_machines(there)
        for port in PORTS:
            serve(port)
        listener = subprocess.Popen([*outside, LISTEN], stdout=subprocess.PIPE, text=True)
        assert listener.stdout is not None
        listener.stdout.readline()
        found = {"before": json.loads(run(*outside, CONNECT)), "out_before": reaches(THERE, 443)}
        run("nft", "-f", rules)
        found |= {"after": json.loads(run(*outside, CONNECT)), "out_of_others": reaches(THERE, 443)}
        found["loopback"] = [port for port in PORTS if reaches("127.0.0.1", port)]
        run("nft", "-f", rules_of_a_service)
        found |= {"out_of_a_service": reaches(THERE, 443), "loopback_of_a_service": reaches("127.0.0.1", 8604)}
        found["tables"] = run("nft", "list", "tables").split("\n").count("table inet pulsegate")
        listener.kill()
        listener.wait()
        sys.stdout.write(json.dumps(found))
    finally:
        there.kill()
        there.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
