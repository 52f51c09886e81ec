"""Greeting, window and acknowledgement as the terminal sees them, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.outbox import Outbox
from edge_agent.uplink import Conversation, Publish
from edge_agent.uplink.conversation import RESEND_S, UNSOLICITED, Phase, kind_of_topic
from protocols.contract import certs, messages, topics, wire
from protocols.contract import envelope as cose
from protocols.contract.limits import CONTROL_MAX_BYTES, NO_ACK_FAULT_S, WINDOW_BATCHES, WINDOW_BYTES
from tests.support.contract import (
    BOOT_ID,
    FLEET,
    NOW_MS,
    RECORD,
    ROOT,
    SERVER,
    SERVER_CERT,
    STRANGER,
    TERMINAL,
    MemoryKey,
    StepClock,
    notice,
)

NONCE = b"\x77" * 16


class Server:
    """The other side, answering by hand."""

    def __init__(self, key: MemoryKey = SERVER, certificate: bytes = SERVER_CERT) -> None:
        self.key, self.certificate = key, certificate

    def challenge(self, hello: Publish, nonce: bytes = NONCE, connection: bytes | None = None) -> bytes:
        asked = wire.read(hello.payload, messages.Hello).connection
        message = messages.Challenge(
            connection=asked if connection is None else connection,
            nonce=nonce,
            version=1,
            server_ms=NOW_MS,
            certificate=self.certificate,
        )
        return wire.seal(message, self.key, messages.CHALLENGE_CONTEXT, FLEET, TERMINAL)

    def head(self, *heads: messages.StreamHead, nonce: bytes = NONCE) -> bytes:
        return wire.seal(messages.Head(nonce=nonce, heads=heads), self.key, messages.HEAD_CONTEXT, FLEET, TERMINAL)

    def ack(self, *entries: messages.AckEntry, nonce: bytes = NONCE) -> bytes:
        return wire.seal(messages.Ack(nonce=nonce, entries=entries), self.key, messages.ACK_CONTEXT, FLEET, TERMINAL)


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path / "outbox.db", RECORD, FLEET, TERMINAL, StepClock(), durable=False)
    outbox.start_stream(BOOT_ID)
    yield outbox
    outbox.close(clean=False)


@pytest.fixture
def talk(box: Outbox) -> Conversation:
    fault = messages.OpenFault(b"12345678", "PRN.JAM", "P2", 1, "receipt-printer", mandatory=True)  # type: ignore[arg-type]
    return Conversation(box, StepClock(), ROOT.verifier, "0.1.0", BOOT_ID, lambda: (fault,))


def fill(box: Outbox, count: int) -> None:
    for n in range(count):
        box.capture(notice(n))
        box.seal()


def greet(talk: Conversation, server: Server, now_s: float = 0.0) -> list[Publish]:
    """Up to and including the head; returns the first batches."""
    (hello,) = talk.connected(now_s)
    (birth,) = talk.received("challenge", server.challenge(hello), now_s)
    assert birth.kind == "birth"
    return talk.received("head", server.head(), now_s)


def up_to(item: Publish, mode: messages.AckMode = messages.AckMode.UP_TO) -> messages.AckEntry:
    from protocols.contract import batch as batches

    opened = cose.verify(cose.parse(item.payload, 1 << 16), RECORD.verifier, batches.BATCH_CONTEXT, FLEET, TERMINAL)
    header = batches.read_batch(opened).header
    return messages.AckEntry(header.stream, header.no, opened.digest, mode)


@pytest.mark.spec("C-402", "C-404", "C-405", "C-410")
def test_hello_challenge_birth(talk: Conversation, box: Outbox) -> None:
    fill(box, 2)
    (hello,) = talk.connected(0.0)
    (birth,) = talk.received("challenge", Server().challenge(hello), 0.0)
    opened = cose.verify(cose.parse(birth.payload, CONTROL_MAX_BYTES), RECORD.verifier, messages.BIRTH_CONTEXT, FLEET, TERMINAL)
    said = wire.read(opened.payload, messages.Birth)
    assert (said.nonce, said.stream, said.more) == (NONCE, box.stream, False)
    assert [(span.stream, span.first, span.prev, span.last) for span in said.held] == [(box.stream, 1, b"", 2)]
    assert [fault.code for fault in said.faults] == ["PRN.JAM"]


@pytest.mark.spec("C-402")
def test_hello_is_repeated_while_nobody_answers(talk: Conversation) -> None:
    (first,) = talk.connected(0.0)
    now_s, hellos = 0.0, 0
    for _ in range(8):
        now_s += talk.wake_in_s(now_s)
        hellos += len(talk.tick(now_s))
    assert hellos == 8
    assert talk.tick(now_s) == []
    assert talk.received("challenge", Server().challenge(first), now_s) == [], "the challenge of an earlier hello is ignored"


@pytest.mark.spec("C-403", "C-404")
def test_a_challenge_for_a_forgotten_connection_is_answered_and_a_foreign_one_is_not(talk: Conversation) -> None:
    (hello,) = talk.connected(0.0)
    assert talk.received("challenge", Server().challenge(hello, connection=b"other..."), 0.0) == []
    (birth,) = talk.received("challenge", Server().challenge(hello, connection=UNSOLICITED), 0.0)
    assert birth.kind == "birth"


@pytest.mark.spec("C-503", "C-504")
@pytest.mark.parametrize(
    "impostor",
    [
        Server(key=STRANGER),
        Server(key=STRANGER, certificate=b""),
        Server(key=STRANGER, certificate=b"\xd2\x84" + bytes(40)),
        Server(
            key=STRANGER,
            certificate=certs.seal_server_key_cert(
                certs.ServerKeyCert(kid=STRANGER.kid, public_key=STRANGER.public, issued_ms=0), STRANGER, FLEET
            ),
        ),
        Server(
            key=STRANGER,
            certificate=certs.seal_server_key_cert(
                certs.ServerKeyCert(kid=STRANGER.kid, public_key=STRANGER.public, issued_ms=0), ROOT, "another-fleet"
            ),
        ),
    ],
    ids=["key of a stranger", "no certificate", "garbage certificate", "certified by itself", "certified for another fleet"],
)
def test_an_impostor_gets_no_birth_and_the_server_does(impostor: Server, talk: Conversation) -> None:
    (hello,) = talk.connected(0.0)
    assert talk.received("challenge", impostor.challenge(hello), 0.0) == []
    assert talk.counters.not_authentic == 1
    assert talk.received("challenge", Server().challenge(hello), 0.0)[0].kind == "birth"


@pytest.mark.spec("C-503")
def test_forged_acknowledgements_release_nothing_and_the_real_one_does(talk: Conversation, box: Outbox) -> None:
    fill(box, 1)
    (batch,) = greet(talk, Server())
    entry = up_to(batch)
    other = messages.AckEntry(entry.stream, entry.no, b"x" * 32, entry.mode)
    for forged in (
        Server(key=STRANGER).ack(entry),
        Server().ack(entry, nonce=b"old nonce......."),
        Server().ack(other),
        b"",
        b"\xd2\x84",
    ):
        talk.received("ack", forged, 1.0)
        assert box.depth() == 1
    talk.received("ack", Server().ack(entry), 1.0)
    assert box.depth() == 0


@pytest.mark.spec("C-501")
def test_the_window_holds_64_batches_and_moves_on(talk: Conversation, box: Outbox) -> None:
    fill(box, WINDOW_BATCHES + 6)
    first = greet(talk, Server())
    assert len(first) == WINDOW_BATCHES
    assert talk.tick(1.0) == []
    more = talk.received("ack", Server().ack(up_to(first[9])), 1.0)
    assert len(more) == 6
    assert [up_to(item).no for item in first + more] == list(range(1, WINDOW_BATCHES + 7))


@pytest.mark.spec("C-501")
def test_the_window_holds_one_mebibyte(talk: Conversation, box: Outbox) -> None:
    from protocols.contract import records

    big = records.Device(
        slot="receipt-printer", family="escpos", device="online",  # type: ignore[arg-type]
        evidence=records.Evidence(codec="escpos", query=bytes(512), reply=bytes(512)),
    )  # fmt: skip
    for _ in range(40):
        box.capture_many([big] * 27)
        box.seal()
    first = greet(talk, Server())
    size = sum(len(item.payload) for item in first)
    assert WINDOW_BYTES - 40_000 < size <= WINDOW_BYTES


def test_going_back_sends_again_but_not_for_each_of_a_window(talk: Conversation, box: Outbox) -> None:
    fill(box, 5)
    first = greet(talk, Server())
    back = messages.AckEntry(box.stream, 0, b"", messages.AckMode.BACK)
    again = talk.received("ack", Server().ack(back), 1.0)
    assert again == first
    assert talk.received("ack", Server().ack(back), 1.1) == []
    assert talk.tick(1.0 + 0.6) == first


def test_silence_sends_again_then_greets_again(talk: Conversation, box: Outbox) -> None:
    fill(box, 3)
    first = greet(talk, Server())
    assert talk.tick(RESEND_S - 1) == []
    assert talk.tick(RESEND_S + 1) == first
    assert talk.tick(61.0)[0].kind == "hello"
    assert talk.phase is Phase.GREETING


@pytest.mark.spec("C-505")
def test_five_minutes_without_acknowledgement_are_a_fault(talk: Conversation, box: Outbox) -> None:
    fill(box, 1)
    greet(talk, Server())
    assert not talk.no_ack(NO_ACK_FAULT_S - 1)
    for now_s in range(0, int(NO_ACK_FAULT_S), 7):
        talk.tick(float(now_s))
    assert talk.no_ack(NO_ACK_FAULT_S + 1), "greeting again does not hide it"


@pytest.mark.spec("C-505")
def test_an_idle_terminal_is_not_without_acknowledgement(talk: Conversation, box: Outbox) -> None:
    greet(talk, Server())
    assert not talk.no_ack(NO_ACK_FAULT_S * 10)
    fill(box, 1)
    talk.tick(NO_ACK_FAULT_S * 10)
    assert not talk.no_ack(NO_ACK_FAULT_S * 10 + 1)


def test_a_missed_challenge_is_noticed_by_a_foreign_nonce(talk: Conversation, box: Outbox) -> None:
    fill(box, 1)
    (batch,) = greet(talk, Server())
    (hello,) = talk.received("ack", Server().ack(up_to(batch), nonce=b"a newer one....."), 40.0)
    assert hello.kind == "hello"


def test_the_server_says_it_is_up_and_is_greeted(talk: Conversation) -> None:
    greet(talk, Server())
    assert talk.received("state", b"anything", 5.0)[0].kind == "hello"


@pytest.mark.parametrize("kind", ["challenge", "head", "ack"])
@pytest.mark.parametrize("noise", [b"", b"\x00", b"\xd2\x84", bytes(5_000), b"\xff" * 200_000], ids=lambda n: str(len(n)))
def test_noise_is_ignored(kind: str, noise: bytes, talk: Conversation) -> None:
    talk.connected(0.0)
    assert talk.received(kind, noise, 0.0) == []
    assert talk.counters.not_authentic == 1


def test_topics_of_others_are_not_for_us() -> None:
    assert kind_of_topic(topics.down(TERMINAL, "ack"), TERMINAL) == "ack"
    assert kind_of_topic(topics.SERVER_STATE, TERMINAL) == "state"
    for topic in (topics.down("kf-0002", "ack"), topics.up(TERMINAL, "batch"), topics.down(TERMINAL, "gossip"), "x"):
        assert kind_of_topic(topic, TERMINAL) is None
