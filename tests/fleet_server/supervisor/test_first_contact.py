"""From a one-time code to a signed challenge: every process of the server has its part in it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import urllib.request
from pathlib import Path

import aiomqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server.settings import BrokerKind
from protocols.contract import envelope, messages, topics, wire
from protocols.contract.certs import open_server_key_cert
from tests.support.processes import Processes
from tests.support.server import RunningServer
from tests.support.trust import Keys

pytestmark = pytest.mark.broker

ASK_AGAIN_S = 1.0


def enrol(server: RunningServer, keys: Keys) -> dict[str, object]:
    body = json.dumps(keys.enrol_request(server.add_terminal(keys.terminal))).encode()
    context = ssl.create_default_context(cafile=str(server.authority.ca_file))
    with urllib.request.urlopen(f"{server.enrolment_url}/api/v1/enrol", body, context=context, timeout=20) as answer:
        enrolled: dict[str, object] = json.loads(answer.read())
        return enrolled


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
async def test_a_new_terminal_is_challenged_by_the_key_its_root_certified(
    tmp_path: Path, processes: Processes, kind: BrokerKind
) -> None:
    server = RunningServer(tmp_path, processes, broker=kind).start()
    keys = Keys("kiosk-1")
    answer = enrol(server, keys)
    certificate, key = keys.write_tls(tmp_path / "identity", str(answer["certificate"]))
    context = ssl.create_default_context(cadata=str(answer["ca"]))
    context.load_cert_chain(certificate, key)
    assert answer["mqtt"] == {"host": "127.0.0.1", "port": server.settings.broker.port}

    connection = os.urandom(8)
    async with aiomqtt.Client(
        "127.0.0.1", server.settings.broker.port, identifier="anything", tls_context=context, timeout=20
    ) as client:
        await client.subscribe(topics.down("kiosk-1", "+"), qos=1)

        async def ask() -> None:
            # The ingest may still be connecting; an agent asks again as well.
            while True:
                await client.publish(topics.up("kiosk-1", "hello"), wire.dump(messages.Hello(connection=connection)), qos=1)
                await asyncio.sleep(ASK_AGAIN_S)

        asking = asyncio.create_task(ask())
        async with asyncio.timeout(30):
            message = await anext(client.messages)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert str(message.topic) == topics.down("kiosk-1", "challenge")
    assert isinstance(message.payload, bytes)
    root = server.authority.root_public_key
    assert isinstance(root, Ed25519PublicKey)
    sealed = envelope.parse(message.payload, 65536)
    challenge = wire.read(sealed.payload, messages.Challenge)
    cert = open_server_key_cert(challenge.certificate, root, "testfleet")
    envelope.verify(
        sealed, Ed25519PublicKey.from_public_bytes(cert.public_key), messages.CHALLENGE_CONTEXT, "testfleet", "kiosk-1"
    )
    assert challenge.connection == connection
    assert server.stop() == 0
