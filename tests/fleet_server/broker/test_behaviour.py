"""What we rely on, asked of every broker that the server can run: who gets in, who may speak where, and what gets lost."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import warnings
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.authority.authority import Authority
from fleet_server.broker import mqtt
from fleet_server.broker.access import MESSAGE_MAX_BYTES
from protocols.contract import topics
from tests.fleet_server.broker.conftest import Bench, now_ms
from tests.support.trust import Keys, issue_client

pytestmark = pytest.mark.broker

WITHIN_S = 15.0


async def within(work: Awaitable[Any], timeout_s: float = WITHIN_S) -> Any:
    async with asyncio.timeout(timeout_s):
        return await work


async def next_message(client: aiomqtt.Client) -> tuple[str, bytes]:
    message = await within(anext(client.messages))
    assert isinstance(message.payload, bytes)
    return str(message.topic), message.payload


async def heard(client: aiomqtt.Client, last: bytes) -> set[tuple[str, bytes]]:
    """Everything up to the message `last`. A broker may deliver once for each subscription that matches."""
    seen = set()
    while True:
        seen.add(message := await next_message(client))
        if message[1] == last:
            return seen


async def refused(bench: Bench, context: ssl.SSLContext, name: str = "kiosk-1") -> bool:
    """Whether no session comes about. With TLS 1.3 a client learns of its refusal only when it reads."""
    try:
        return await mqtt.greet("127.0.0.1", bench.port, context, name, timeout_s=WITHIN_S) != mqtt.ACCEPTED
    except OSError:
        return True


async def reaches(ingest: aiomqtt.Client, sender: aiomqtt.Client, terminal: str) -> None:
    """A marker from `sender` is the next thing the ingest sees: nothing that was sent before it came through."""
    await within(sender.publish(topics.up(terminal, "hb"), b"marker", qos=1))
    assert await next_message(ingest) == (topics.up(terminal, "hb"), b"marker")


# Who gets in ------------------------------------------------------------------------------------------------------------------------------


async def test_only_certificates_of_this_fleet_for_clients_get_in(bench: Bench, tmp_path: Path) -> None:
    await bench.ready()
    assert await refused(bench, bench.context()), "no certificate at all"

    keys = Keys("kiosk-1")
    now = datetime.datetime.now(datetime.UTC)
    name = keys.csr().subject
    own = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(keys.tls.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(keys.tls, SHA256())
    )
    files = keys.write_tls(tmp_path / "self-signed", own.public_bytes(Encoding.PEM))
    assert await refused(bench, bench.context(*files)), "self-signed with the right name"

    other = Authority.create(tmp_path / "other", "testfleet", (), now_ms=now_ms())
    certificate, key, _ = issue_client(other, "kiosk-1", tmp_path / "foreign", now_ms=now_ms())
    assert await refused(bench, bench.context(certificate, key)), "another fleet's authority"

    assert await refused(bench, bench.context(*bench.authority.server_files)), "a server's certificate used by a client"

    certificate, key, _ = issue_client(bench.authority, "kiosk-1", tmp_path / "expired", now_ms=now_ms() - 91 * 86400 * 1000)
    assert await refused(bench, bench.context(certificate, key)), "a certificate that ran out yesterday"

    assert not await refused(bench, bench.context(*bench.certificate("kiosk-1"))), "and the rightful one gets in"


async def test_old_tls_is_refused(bench: Bench) -> None:
    await bench.ready()
    context = bench.context(*bench.certificate("kiosk-1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    assert await refused(bench, context)


async def test_a_revoked_terminal_loses_its_session_and_stays_out(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-2") as bystander:
        await ingest.subscribe("kf/1/#", qos=1)
        with suppress(aiomqtt.MqttError):
            async with bench.client("kiosk-1") as victim:
                await within(victim.publish(topics.up("kiosk-1", "hb"), b"alive", qos=1))
                assert await next_message(ingest) == (topics.up("kiosk-1", "hb"), b"alive")
                bench.revoke("kiosk-1")
                await within(bench.warden.look())
                with pytest.raises(aiomqtt.MqttError):
                    await next_message(victim)
        assert await refused(bench, bench.context(*bench.certificate("kiosk-1")))
        await reaches(ingest, bystander, "kiosk-2")


async def test_rubbish_at_the_door_does_not_disturb_the_others(bench: Bench) -> None:
    await bench.ready()
    for rubbish in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\x7f", b"\x00" * 5000):
        with socket.create_connection(("127.0.0.1", bench.port), 5) as plain:
            plain.sendall(rubbish)
    context = bench.context(*bench.certificate("kiosk-1"))
    for rubbish in (
        b"\x10\x00",
        b"\x10\xff\xff\xff\xff\x01",
        b"\x30\x02ab",
        b"\x10\x0c\x00\x04MQTT\x09\x02\x00\x3c\x00\x00",
        b"\xff" * 4000,
    ):
        reader, writer = await within(asyncio.open_connection("127.0.0.1", bench.port, ssl=context))
        writer.write(rubbish)
        with suppress(OSError):
            await within(reader.read(100))
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    async with bench.ingest() as ingest, bench.client("kiosk-1") as terminal:
        await ingest.subscribe("kf/1/#", qos=1)
        await reaches(ingest, terminal, "kiosk-1")


async def test_protocol_versions(bench: Bench) -> None:
    """3.1.1 everywhere, because that is all we use; 5 is welcome where the broker speaks it."""
    await bench.ready()
    async with bench.client("kiosk-1", protocol=aiomqtt.ProtocolVersion.V311):
        pass
    five = bench.client("kiosk-1", protocol=aiomqtt.ProtocolVersion.V5)
    if bench.kind == "mosquitto":
        async with five:
            pass
    else:
        with pytest.raises(aiomqtt.MqttError):
            await within(five.__aenter__())


# Who may speak where ----------------------------------------------------------------------------------------------------------------------


async def test_what_a_terminal_says_reaches_the_ingest(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-1") as terminal:
        await ingest.subscribe("kf/1/+/+/up/#", qos=1)
        for kind in sorted(topics.UP_KINDS):
            await within(terminal.publish(topics.up("kiosk-1", kind), kind.encode(), qos=1))
            assert await next_message(ingest) == (topics.up("kiosk-1", kind), kind.encode())


FOREIGN = {
    "another terminal": topics.up("kiosk-2", "batch"),
    "another terminal under our shard": topics.up("kiosk-1", "batch").replace("kiosk-1", "kiosk-2"),
    "our own way down": topics.down("kiosk-1", "ack"),
    "another's way down": topics.down("kiosk-2", "ack"),
    "the server's state": topics.SERVER_STATE,
    "a kind that is none": topics.up("kiosk-1", "batch").replace("batch", "firmware"),
    "below a kind": topics.up("kiosk-1", "batch") + "/more",
    "outside": "other/topic",
}


async def test_what_a_terminal_says_elsewhere_reaches_nobody(bench: Bench) -> None:
    """Also under a stolen client id. A broker may hang up after it, so the marker goes over a connection of its own."""
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-2") as bystander:
        await ingest.subscribe("kf/1/#", qos=1)
        await subscribe_to_everything(bystander, "kiosk-2")
        for where, topic in FOREIGN.items():
            with suppress(aiomqtt.MqttError):
                async with bench.client("kiosk-1", identifier="kiosk-2") as terminal:
                    await terminal.publish(topic, where.encode(), qos=1, timeout=2)
        async with bench.client("kiosk-1") as terminal:
            await reaches(ingest, terminal, "kiosk-1")
        await within(ingest.publish(topics.down("kiosk-2", "ack"), b"marker", qos=1))
        # The ingest hears itself through `kf/1/#`; the bystander must have heard nothing but the marker.
        assert await heard(bystander, b"marker") == {(topics.down("kiosk-2", "ack"), b"marker")}


async def test_a_terminal_hears_what_is_addressed_to_it_and_nothing_else(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-1") as one, bench.client("kiosk-2") as two:
        await subscribe_to_everything(one, "kiosk-1")
        await subscribe_to_everything(two, "kiosk-2")
        await within(one.publish(topics.up("kiosk-1", "batch"), b"up", qos=1))
        await within(ingest.publish(topics.down("kiosk-1", "ack"), b"for one", qos=1))
        await within(ingest.publish(topics.down("kiosk-2", "ack"), b"for two", qos=1))
        assert await heard(one, b"for one") == {(topics.down("kiosk-1", "ack"), b"for one")}
        assert await heard(two, b"for two") == {(topics.down("kiosk-2", "ack"), b"for two")}


async def subscribe_to_everything(client: aiomqtt.Client, terminal: str) -> None:
    """Brokers differ in whether they grant a filter that is too wide; what counts is what is delivered."""
    for wanted in (
        "#",
        "kf/1/+/+/down/+",
        "kf/1/+/+/up/+",
        topics.down("kiosk-1", "ack"),
        topics.SERVER_STATE,
        topics.down(terminal, "+"),
    ):
        await within(client.subscribe(wanted, qos=1))


async def test_the_servers_state_is_told_to_everybody(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-1") as terminal:
        await within(terminal.subscribe(topics.SERVER_STATE, qos=1))
        await within(ingest.publish(topics.SERVER_STATE, b"up", qos=1))
        assert await next_message(terminal) == (topics.SERVER_STATE, b"up")


async def test_nothing_is_retained(bench: Bench) -> None:
    """A terminal may make up shards: messages that stay there would fill the broker's memory."""
    await bench.ready()
    for shard in ("00", "zz"):
        with suppress(aiomqtt.MqttError):
            async with bench.client("kiosk-1") as terminal:
                await within(terminal.publish(f"kf/1/{shard}/kiosk-1/up/hb", b"kept", qos=1, retain=True))
    await _break_off(bench, mqtt.Connect(10, topics.up("kiosk-1", "will"), b"kept", 0x28))
    async with bench.ingest() as ingest, bench.client("kiosk-2") as other:
        await ingest.subscribe("kf/1/#", qos=1)
        await reaches(ingest, other, "kiosk-2")


# Sessions ---------------------------------------------------------------------------------------------------------------------------------


async def test_the_newer_connection_of_a_terminal_ends_the_older(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest:
        await ingest.subscribe("kf/1/#", qos=1)
        with suppress(aiomqtt.MqttError):
            async with bench.client("kiosk-1") as older, bench.client("kiosk-1") as newer:
                with pytest.raises(aiomqtt.MqttError):
                    await next_message(older)
                await within(newer.subscribe(topics.down("kiosk-1", "+"), qos=1))
                await within(ingest.publish(topics.down("kiosk-1", "ack"), b"x", qos=1))
                assert (await next_message(newer))[1] == b"x"


async def test_a_client_id_of_another_ends_nobodys_session(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-2") as victim:
        await ingest.subscribe("kf/1/#", qos=1)
        async with bench.client("kiosk-1", identifier="kiosk-2"):
            await reaches(ingest, victim, "kiosk-2")


async def test_a_will_is_delivered_when_a_connection_breaks_and_not_when_it_ends(bench: Bench) -> None:
    await bench.ready()
    topic = topics.up("kiosk-1", "will")
    async with bench.ingest() as ingest, bench.client("kiosk-2") as other:
        await ingest.subscribe("kf/1/#", qos=1)
        async with bench.client("kiosk-1", will=aiomqtt.Will(topic, b"gone", qos=1)):
            pass
        await reaches(ingest, other, "kiosk-2")
        await _break_off(bench, mqtt.Connect(10, topic, b"gone", 0x08))
        assert await next_message(ingest) == (topic, b"gone")


async def test_a_will_where_the_terminal_may_not_publish_goes_nowhere(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-2") as other:
        await ingest.subscribe("kf/1/#", qos=1)
        await _break_off(bench, mqtt.Connect(10, topics.up("kiosk-2", "will"), b"forged", 0x08))
        await reaches(ingest, other, "kiosk-2")


async def _break_off(bench: Bench, connect: mqtt.Connect) -> None:
    """Connect as kiosk-1 and vanish without a goodbye."""
    context = bench.context(*bench.certificate("kiosk-1"))
    reader, writer = await within(asyncio.open_connection("127.0.0.1", bench.port, ssl=context))
    writer.write(mqtt.encode_connect(connect, "kiosk-1"))
    with suppress(asyncio.IncompleteReadError):
        await within(reader.readexactly(4))
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


# Load -------------------------------------------------------------------------------------------------------------------------------------


async def test_everything_arrives_in_order(bench: Bench) -> None:
    await bench.ready()
    count = 300
    async with bench.ingest() as ingest, bench.client("kiosk-1") as terminal:
        await ingest.subscribe("kf/1/#", qos=1)
        await within(
            asyncio.gather(*(terminal.publish(topics.up("kiosk-1", "batch"), b"%d" % n, qos=1) for n in range(count))), 30
        )
        assert [int((await next_message(ingest))[1]) for _ in range(count)] == list(range(count))


async def test_messages_up_to_the_limit_pass_and_larger_ones_do_not(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-2") as other:
        await ingest.subscribe("kf/1/#", qos=1)
        async with bench.client("kiosk-1") as terminal:
            await within(terminal.publish(topics.up("kiosk-1", "batch"), b"x" * (MESSAGE_MAX_BYTES - 1000), qos=1))
            assert len((await next_message(ingest))[1]) == MESSAGE_MAX_BYTES - 1000
        with suppress(aiomqtt.MqttError):
            async with bench.client("kiosk-1") as terminal:
                await terminal.publish(topics.up("kiosk-1", "batch"), b"x" * (MESSAGE_MAX_BYTES + 1000), qos=1, timeout=2)
        await reaches(ingest, other, "kiosk-2")


@pytest.mark.slow
async def test_four_hundred_terminals_connect_at_once(bench: Bench) -> None:
    await bench.ready()
    names = [f"kiosk-{n:04d}" for n in range(400)]
    async with bench.ingest() as ingest:
        await ingest.subscribe("kf/1/#", qos=1)
        context = bench.context(*bench.certificate("kiosk-1"))
        contexts = {}
        for name in names:
            certificate, key, _ = issue_client(bench.authority, name, bench.folder / "many" / name, now_ms=now_ms())
            contexts[name] = bench.context(certificate, key)

        async def one(name: str) -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=contexts[name])
            writer.write(mqtt.encode_connect(mqtt.Connect(60), name))
            assert await reader.readexactly(4) == mqtt.connack(mqtt.ACCEPTED)
            return writer

        writers = await within(asyncio.gather(*(one(name) for name in names)), 60)
        assert not await refused(bench, context), "and one more still gets in"
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def test_a_killed_broker_comes_back_empty_and_serves(bench: Bench) -> None:
    await bench.ready()
    async with bench.ingest() as ingest:
        await ingest.subscribe("kf/1/#", qos=1)
        bench.child.kill()
        with pytest.raises(aiomqtt.MqttError):
            await next_message(ingest)
    bench.start()
    await bench.ready()
    async with bench.ingest() as ingest, bench.client("kiosk-1") as terminal:
        await ingest.subscribe("kf/1/#", qos=1)
        await reaches(ingest, terminal, "kiosk-1")
