"""What a channel may reach: the inner network, and nothing that only the server reaches."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from fleet_server.notifications import addresses
from fleet_server.notifications.addresses import HOME, NOWHERE, AddressRefused, check_all, refusal
from fleet_server.notifications.kinds import KINDS
from fleet_server.notifications.sending import SendFailed
from fleet_server.notifications.setup import Setup
from tests.fleet_server.notifications.bench import ZONE
from tests.fleet_server.notifications.samples import AT_MS, digest
from tests.support.fakes.http import Answer, serve
from tests.support.fakes.receiver import Receiver

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


@pytest.mark.parametrize(
    "text", ["10.1.2.3", "172.16.0.9", "192.168.1.1", "100.64.0.7", "203.0.113.5", "fd12::1", "2001:db8:1::1"]
)
def test_an_inner_network_is_what_channels_are_for(text: str) -> None:
    assert refusal(text, own_machine=False) is None


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "127.9.9.9", "0.0.0.0", "0.0.0.1", "::1", "::", "::ffff:127.0.0.1", "64:ff9b::7f00:1"]
)
def test_the_servers_own_machine_is_reached_only_by_who_has_a_shell_there(text: str) -> None:
    assert refusal(text, own_machine=False) == HOME
    assert refusal(text, own_machine=True) is None


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "169.254.1.1",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
    ],
)
@pytest.mark.parametrize("own_machine", [False, True])
def test_what_is_nobodys_ticket_system_is_refused_to_everybody(text: str, own_machine: bool) -> None:
    assert refusal(text, own_machine=own_machine) == NOWHERE


def test_one_bad_address_of_a_name_is_enough() -> None:
    check_all(["10.0.0.1", "10.0.0.2"], own_machine=False)
    with pytest.raises(AddressRefused):
        check_all(["10.0.0.1", "127.0.0.1"], own_machine=False)


def opened(kind: str, secret: dict[str, Any], **config: Any) -> Any:
    return KINDS[kind].open(Setup("duty", json.dumps(config).encode(), json.dumps(secret).encode(), ZONE, "jinhua"))


async def told(sender: Any) -> str:
    """How it was refused."""
    try:
        with pytest.raises(SendFailed) as refused:
            await sender.send(digest(), now_ms=AT_MS)
    finally:
        await sender.close()
    assert refused.value.permanent
    return str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_is_posted_to_the_loopback(host: str) -> None:
    receiver = Receiver(SECRET)
    with serve(receiver, now_ms=lambda: AT_MS) as served:
        assert await told(opened("webhook", {"url": f"http://{host}:{served.port}/", "secret": SECRET})) == HOME
    assert served.requests == []


def test_odd_spellings_are_read_as_the_system_reads_them() -> None:
    """In a process of its own: the guard of these tests refuses to look such names up."""
    code = (
        "import asyncio, sys\n"
        "from fleet_server.notifications.addresses import refusal, resolve\n"
        "for host in sys.argv[1:]:\n"
        "    print(*{refusal(text, own_machine=False) for text in asyncio.run(resolve(host, 80))}, sep='|')\n"
    )
    hosts = ["127.1", "2130706433", "0x7f.1", "0", "0251.0376.0251.0376"]
    done = subprocess.run([sys.executable, "-c", code, *hosts], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == [HOME, HOME, HOME, HOME, NOWHERE]


async def test_a_name_that_leads_elsewhere_the_second_time_gets_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server in the wrong hands: the check sees a good address, the connection goes to the loopback."""

    async def good(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    monkeypatch.setattr(addresses, "resolve", good)
    receiver = Receiver(SECRET)
    with serve(receiver, now_ms=lambda: AT_MS) as served:
        assert await told(opened("webhook", {"url": served.url("/").replace("127.0.0.1", "localhost"), "secret": SECRET})) == HOME
    assert served.requests == []


async def test_an_answer_cannot_send_the_server_elsewhere() -> None:
    """Redirects are not followed: the second address would be the receiver's choice."""
    receiver = Receiver(SECRET)
    with serve(receiver, now_ms=lambda: AT_MS) as served:
        receiver.answers = [Answer(status=302, headers={"Location": served.url("/other")})]
        assert await told(opened("webhook", {"url": served.url("/"), "secret": SECRET}, own_machine=True)) == "HTTP 302"
    assert [request.url.path for request in served.requests] == ["/"]


async def test_behind_a_proxy_a_numeric_address_is_refused_all_the_same(
    monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    why = await told(opened("webhook", {"url": "http://169.254.169.254/latest/meta-data/", "secret": SECRET}))
    assert why == NOWHERE


async def test_a_proxy_on_this_machine_is_the_administrators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    receiver = Receiver(SECRET)
    with serve(receiver, now_ms=lambda: AT_MS) as served:
        monkeypatch.setenv("HTTP_PROXY", served.url(""))
        sender = opened("webhook", {"url": "http://tickets.example/", "secret": SECRET})
        await sender.send(digest(), now_ms=AT_MS)
        await sender.close()
    assert len(receiver.received) == 1


async def test_mail_reaches_a_relay_of_this_machine_and_no_other_port_of_it() -> None:
    config = {"host": "127.0.0.1", "security": "none", "sender": "fleet@example.org", "to": ["duty@example.org"]}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        assert await told(opened("mail", {}, port=listener.getsockname()[1], **config)) == HOME
        with pytest.raises(BlockingIOError):
            listener.accept()
    sender = opened("mail", {}, port=25, **config)
    with pytest.raises(SendFailed) as failed:
        await asyncio.wait_for(sender.send(digest(), now_ms=AT_MS), 10)
    assert str(failed.value) != HOME
