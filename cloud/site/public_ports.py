"""Writes the configuration of the proxy, HAProxy, which holds all public ports, and of the firewall, nftables.

The proxy passes TLS through, so that no key lies there. It logs the address of each client and limits their connections. The
firewall drops what does not go to a public port, and what a service sends to another machine.
"""

import ipaddress
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from string import Template
from typing import Final

from cloud.errors import ClinicError
from cloud.site.layout import LOOPBACK, PUBLIC_ENROLMENT_PORT, PUBLIC_HUBS_PORT, PUBLIC_PAGE_PORT, PUBLIC_PORTS

_NAMES: Final[Mapping[int, str]] = {PUBLIC_PAGE_PORT: "page", PUBLIC_ENROLMENT_PORT: "enrolment", PUBLIC_HUBS_PORT: "hubs"}
ADDRESS_RATE: Final = 120
"""New connections of one address in a minute: a browser opens six at once, and behind one address there may be a clinic."""
ADDRESS_OPEN: Final = 100
"""Open connections of one address: the hubs of a clinic behind one address, and its browsers."""

_FRONTEND: Final = Template("""
frontend $name
    bind $address
    tcp-request connection track-sc0 src table addresses
    tcp-request connection reject if { sc_conn_rate(0) gt $rate } || { sc_conn_cur(0) gt $open }
    default_backend $name

backend $name
    server $name $target
""")


def make_proxy_config(*, has_ipv6: bool) -> str:
    """Return the text of haproxy.cfg. `has_ipv6`: the machine has IPv6, so that the ports listen there, too."""
    frontends = "".join(
        _FRONTEND.substitute(
            name=_NAMES[public],
            address=f":::{public} v4v6" if has_ipv6 else f":{public}",
            target=f"{LOOPBACK}:{private}",
            rate=ADDRESS_RATE,
            open=ADDRESS_OPEN,
        )
        for public, private in PUBLIC_PORTS.items()
    )
    return _read_template("haproxy.cfg").substitute(frontends=frontends)


def make_firewall(user_ids: Collection[int], ssh_from: Sequence[str]) -> str:
    """Return the rules for nftables.

    Args:
        user_ids: the accounts of the services, which connect to no other machine.
        ssh_from: networks such as 192.0.2.0/24 from which the machine may be administered by SSH.

    Raises:
        ClinicError: not a network.
    """
    ssh = "".join(_allow_ssh(text) for text in ssh_from)
    ports, users = (", ".join(map(str, sorted(values))) for values in (PUBLIC_PORTS, user_ids))
    return _read_template("firewall.nft").substitute(ports=ports, users=users, ssh=ssh)


def _allow_ssh(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ClinicError(f"{text!r} is not a network: give one such as 192.0.2.0/24") from error
    return f"        {'ip' if network.version == 4 else 'ip6'} saddr {network} tcp dport 22 accept\n"


def _read_template(name: str) -> Template:
    return Template((files("cloud.site") / "templates" / name).read_text(encoding="utf-8"))
