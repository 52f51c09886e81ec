"""Owns which network addresses a channel may reach. Private ones are what an inner network consists of; refused is what nobody's ticket system is.

An operator of the console can set an address, and the server posts to it from where it stands. So a channel must not reach what only this machine
reaches: its own loopback, where administration interfaces trust whoever is there, link-local addresses, where clouds hand out credentials, and
what is no single host. Whoever has a shell on the server reaches its loopback anyway and may say so for a channel (`own_machine`). Operators read of
it in docs/server.md, Notifications.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Final

from fleet_server.errors import FleetServerError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba Cloud, instance metadata
        "168.63.129.16",  # Azure, platform channel
        "192.0.0.192",  # Oracle Cloud, instance metadata
        "fd00:ec2::254",  # Amazon EC2, instance metadata over IPv6
        "fd20:ce::254",  # Google Compute Engine, metadata over IPv6
    )
)
"""What clouds put outside the link-local range; 169.254.169.254 is inside."""
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_THIS_NETWORK: Final = ipaddress.IPv4Network("0.0.0.0/8")
"""Linux takes 0.0.0.0 for the loopback."""

HOME: Final = "the address leads to the server's own machine"
NOWHERE: Final = "the address leads to no host that may be told: link-local, multicast or a cloud's metadata"


class AddressRefused(FleetServerError):
    """A channel must not reach this; whoever sets the channel must name another address."""


def refusal(text: str, *, own_machine: bool) -> str | None:
    """Why the numeric address `text` must not be reached; None if it may. Pure."""
    address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    if address.is_loopback or address.is_unspecified or (address.version == 4 and address in _THIS_NETWORK):
        return None if own_machine else HOME
    if address.is_link_local or address.is_multicast or address.is_reserved or address in METADATA:
        return NOWHERE
    return None


def check_all(addresses: Iterable[str], *, own_machine: bool) -> None:
    """Raises AddressRefused if one of a name's addresses is refused: which of them is taken is chance."""
    for text in addresses:
        why = refusal(text, own_machine=own_machine)
        if why is not None:
            raise AddressRefused(why)


def is_own_machine(host: str) -> bool:
    """Whether `host` says so itself: a number or `localhost`. Looks nothing up."""
    try:
        return host == "localhost" or refusal(host, own_machine=False) == HOME
    except ValueError:
        return False


async def resolve(host: str, port: int) -> list[str]:
    """Numeric addresses of `host`, none if it is not known (here, now). Spellings like 0x7f.1 are resolved as connecting would."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


class Guard:
    """For one request: checks every connection that the HTTP library makes for it, before and after the name is resolved by the library.

    Use `trace` as the request's `trace` extension. A connection to another host than the request's is one to a proxy of the environment, which an
    administrator chose; what lies behind it the proxy decides.
    """

    def __init__(self, host: str, *, own_machine: bool) -> None:
        self._host, self._own_machine = host.strip("[]"), own_machine
        self._direct = False

    async def trace(self, event: str, info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._direct = str(info["host"]).strip("[]") == self._host
            if self._direct:
                check_all(await resolve(self._host, info["port"]), own_machine=self._own_machine)
        elif event == "connection.connect_tcp.complete" and self._direct:
            # A name may resolve differently the second time; what counts is who is at the other end. Nothing has been sent yet.
            stream = info["return_value"]
            peer = stream.get_extra_info("server_addr")
            try:
                check_all([str(peer[0])], own_machine=self._own_machine)
            except AddressRefused:
                await stream.aclose()
                raise


def _plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address.sixtofour is not None:
            return address.sixtofour
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
