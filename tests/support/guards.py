"""What no test may do, enforced for all of them: leave the machine, or leave a task behind that nobody awaits."""

from __future__ import annotations

import asyncio
import asyncio.runners
import ipaddress
import socket
import sys
from typing import Any

LOCAL_NAMES = frozenset({"", "localhost", "ip6-localhost", "ip6-loopback", "localhost.localdomain"})
WATCHED = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind", "socket.getaddrinfo"})

_state = {"armed": False}
_left_behind: list[str] = []


class LeftTheMachine(AssertionError):
    """A test tried to reach, or be reached from, something other than this machine."""


def only_loopback() -> None:
    """From now on, sockets of this process speak to this machine only. An audit hook sees every socket, asyncio's included."""
    if not _state["armed"]:
        _state["armed"] = True
        sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in WATCHED:
        return
    if event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        sock, address = arguments[0], arguments[1]
        if sock.family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return
        host = address[0] if isinstance(address, tuple) else address
    if not _is_local(host):
        raise LeftTheMachine(f"{event} with {host!r}: tests use 127.0.0.1 and ::1 only")


def _is_local(host: object) -> bool:
    if host is None:
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name.lower() in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:
        return False


def watch_tasks() -> None:
    """From now on, tasks still pending when a loop closes are remembered for `take_left_behind`; asyncio would cancel them in silence."""
    runners: Any = asyncio.runners
    cancel_all = runners._cancel_all_tasks

    def remember_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        _left_behind.extend(repr(task) for task in asyncio.all_tasks(loop))
        cancel_all(loop)

    runners._cancel_all_tasks = remember_and_cancel


def take_left_behind() -> list[str]:
    """The tasks remembered since the last call."""
    taken = _left_behind.copy()
    _left_behind.clear()
    return taken
