"""Orders and desired states: committed bytes, what a reader refuses, and what needs two people."""

from __future__ import annotations

import json

import cbor2
import cwt
import msgspec
import pytest

from protocols.contract import artifacts, certs, messages, orders, topics, wire
from protocols.contract import envelope as cose
from protocols.contract.limits import DESIRED_MAX_BYTES, ORDER_MAX_BYTES
from tests.protocols.contract import make_order_vectors as vectors
from tests.support.contract import FLEET, NOW_MS, ORDERS, ROOT, SERVER, SERVER_CERT, STRANGER, TERMINAL, order_key_cert

COMMITTED = json.loads(vectors.FILE.read_text("utf-8"))
KEYS = {ORDERS.kid: ORDERS.verifier}
SIGNED = {
    "order_key_certificate": ("root", certs.ORDER_KEY_CONTEXT, ""),
    "challenge": ("server", messages.CHALLENGE_CONTEXT, TERMINAL),
    "birth": ("record", messages.BIRTH_CONTEXT, TERMINAL),
    "order_self_test": ("orders", orders.ORDER_CONTEXT, TERMINAL),
    "order_restart": ("orders", orders.ORDER_CONTEXT, TERMINAL),
    "order_pull_logs": ("orders", orders.ORDER_CONTEXT, TERMINAL),
    "order_cancel": ("orders", orders.ORDER_CONTEXT, TERMINAL),
    "desired": ("orders", orders.DESIRED_CONTEXT, TERMINAL),
    "log_excerpt": ("record", orders.LOG_CONTEXT, TERMINAL),
}


def test_the_code_still_makes_the_committed_bytes() -> None:
    assert vectors.make() == COMMITTED
    assert set(SIGNED) == set(COMMITTED["hex"])


@pytest.mark.parametrize("name", SIGNED)
def test_cwt_verifies_the_vector(name: str) -> None:
    signer, context, terminal = SIGNED[name]
    public = bytes.fromhex(COMMITTED["keys"][signer]["public"])
    key = cwt.COSEKey.new({1: 1, 2: cose.key_id(public), 3: -8, -1: 6, -2: public})
    payload = cwt.COSE().decode(bytes.fromhex(COMMITTED["hex"][name]), key, external_aad=cbor2.dumps([context, FLEET, terminal]))
    assert cbor2.dumps(cbor2.loads(payload), canonical=True) == payload


@pytest.mark.parametrize(
    "body",
    [
        orders.SelfTest(slot="receipt-printer", test="print"),
        orders.Restart(what="application"),
        orders.PullLogs(from_ms=1, to_ms=2),
        orders.Cancel(order=b"\x01" * 16),
    ],
    ids=lambda body: type(body).__name__,
)
def test_an_order_comes_back_as_it_was_given(body: orders.OrderBody) -> None:
    raw = orders.seal_order(vectors.order(body, approved_by="wu"), ORDERS, FLEET, TERMINAL)
    order = orders.open_order(raw, KEYS, FLEET, TERMINAL)
    assert orders.body_of(order) == body
    assert orders.approved(order)
    assert (order.by, order.approved_by, order.counter) == ("lin", "wu", 7)


def test_a_desired_state_comes_back_as_it_was_given() -> None:
    raw = orders.seal_desired(vectors.desired(), ORDERS, FLEET, TERMINAL)
    assert orders.open_desired(raw, KEYS, FLEET, TERMINAL) == msgspec.structs.replace(vectors.desired(), terminal=TERMINAL)


@pytest.mark.spec("O-202", "O-218")
@pytest.mark.parametrize("terminal", ["k", TERMINAL, "a" * 23, "a" * 24, "z-9" * 10 + "zz"])
def test_whoever_gets_a_neighbour_s_message_can_tell(terminal: str) -> None:
    raw = orders.seal_order(vectors.order(orders.Restart(what="agent")), ORDERS, FLEET, terminal)
    assert orders.addressee(raw, KEYS, FLEET, orders.ORDER_CONTEXT) == terminal
    whole = orders.seal_desired(vectors.desired(), ORDERS, FLEET, terminal)
    assert orders.addressee(whole, KEYS, FLEET, orders.DESIRED_CONTEXT) == terminal
    # Nothing but a signature that holds counts: not the name that stands there, another purpose, fleet, key, or a changed byte.
    assert orders.addressee(raw, KEYS, FLEET, orders.DESIRED_CONTEXT) is None
    assert orders.addressee(raw, KEYS, "other-fleet", orders.ORDER_CONTEXT) is None
    assert orders.addressee(raw, {}, FLEET, orders.ORDER_CONTEXT) is None
    assert orders.addressee(raw[:-1] + bytes((raw[-1] ^ 1,)), KEYS, FLEET, orders.ORDER_CONTEXT) is None
    assert orders.addressee(raw[:-1], KEYS, FLEET, orders.ORDER_CONTEXT) is None


def test_an_order_that_names_another_than_it_is_signed_for_is_unreadable() -> None:
    order = msgspec.structs.replace(vectors.order(orders.Restart(what="agent")), terminal="kf-0002")
    raw = wire.seal(order, ORDERS, orders.ORDER_CONTEXT, FLEET, TERMINAL)
    with pytest.raises(wire.WireError, match="another terminal"):
        orders.open_order(raw, KEYS, FLEET, TERMINAL)
    unnamed = wire.seal(vectors.order(orders.Restart(what="agent")), ORDERS, orders.ORDER_CONTEXT, FLEET, TERMINAL)
    assert orders.open_order(unnamed, KEYS, FLEET, TERMINAL).terminal == ""


@pytest.mark.spec("O-101")
def test_keys_of_greetings_and_of_orders_cannot_stand_for_each_other() -> None:
    with pytest.raises(cose.EnvelopeError):
        certs.open_order_key_cert(SERVER_CERT, ROOT.verifier, FLEET)
    with pytest.raises(cose.EnvelopeError):
        certs.open_server_key_cert(order_key_cert(), ROOT.verifier, FLEET)
    assert certs.open_order_key_cert(order_key_cert(), ROOT.verifier, FLEET).kid == ORDERS.kid
    with pytest.raises(cose.EnvelopeError):
        certs.open_order_key_cert(order_key_cert(signer=STRANGER), ROOT.verifier, FLEET)


@pytest.mark.parametrize(
    ("signer", "context", "fleet", "terminal", "reason"),
    [
        (STRANGER, orders.ORDER_CONTEXT, FLEET, TERMINAL, "unknownKey"),
        (SERVER, orders.ORDER_CONTEXT, FLEET, TERMINAL, "unknownKey"),
        (ORDERS, orders.DESIRED_CONTEXT, FLEET, TERMINAL, "signature"),
        (ORDERS, messages.ACK_CONTEXT, FLEET, TERMINAL, "signature"),
        (ORDERS, orders.ORDER_CONTEXT, "other-fleet", TERMINAL, "signature"),
        (ORDERS, orders.ORDER_CONTEXT, FLEET, "kf-0002", "signature"),
    ],
)
def test_an_order_opens_only_under_its_key_purpose_fleet_and_terminal(
    signer: cose.Signer, context: str, fleet: str, terminal: str, reason: str
) -> None:
    order = vectors.order(orders.Restart(what="agent"))
    raw = wire.seal(order, signer, context, fleet, terminal)
    with pytest.raises(cose.EnvelopeError) as refused:
        orders.open_order(raw, KEYS, FLEET, TERMINAL)
    assert refused.value.reason == reason
    rightful = orders.open_order(orders.seal_order(order, ORDERS, FLEET, TERMINAL), KEYS, FLEET, TERMINAL)
    assert rightful == msgspec.structs.replace(order, terminal=TERMINAL)


def test_size_is_checked_before_anything_is_read() -> None:
    fat = orders.Desired(
        counter=1, issued_ms=1, by="lin", configuration=orders.Configuration(version=1, intervals={"x": "y" * DESIRED_MAX_BYTES})
    )
    with pytest.raises(cose.EnvelopeError, match="limit"):
        orders.open_desired(orders.seal_desired(fat, ORDERS, FLEET, TERMINAL), KEYS, FLEET, TERMINAL)
    long = vectors.order(orders.Restart(what="agent"))
    raw = wire.seal(
        msgspec.structs.replace(long, body={"x": "y" * ORDER_MAX_BYTES}), ORDERS, orders.ORDER_CONTEXT, FLEET, TERMINAL
    )
    with pytest.raises(cose.EnvelopeError, match="limit"):
        orders.open_order(raw, KEYS, FLEET, TERMINAL)


def test_an_unknown_kind_can_be_told_from_a_body_that_does_not_fit() -> None:
    known = vectors.order(orders.SelfTest(slot="scanner"))
    assert orders.body_of(msgspec.structs.replace(known, kind="dance")) is None
    for wrong in ({}, {"slot": "../etc"}, {"slot": "scanner", "test": "burn"}, {"slot": 3}):
        with pytest.raises(wire.WireError):
            orders.body_of(msgspec.structs.replace(known, body=wrong))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".hidden", "a/.b", "a b", "a\\b", "a/" * 7 + "b", "x" * 300]
)
def test_target_paths_that_lead_elsewhere_are_unreadable(path: str) -> None:
    wanted = {"component": "agent", "target": path, "version": "1.0", "release": 1, "length": 1, "sha256": b"\x00" * 32}
    with pytest.raises(wire.WireError):
        wire.convert(wanted, orders.Wanted)
    assert wire.convert(wanted | {"target": "firmware/epson-tm-t88/fw-4.2+1.bin"}, orders.Wanted).version == "1.0"


@pytest.mark.parametrize(
    ("wanted", "two"),
    [
        (orders.SelfTest(slot="scanner", test="print"), False),
        (orders.PullLogs(from_ms=1, to_ms=2), False),
        (orders.Cancel(order=b"\x01" * 16), False),
        (orders.Restart(what="application"), False),
        (orders.Restart(what="application", when="now"), True),
        (orders.Restart(what="agent"), False),
        (orders.Restart(what="host"), True),
        (orders.Desired(counter=1, issued_ms=1, by="lin"), False),
        (orders.Desired(counter=1, issued_ms=1, by="lin", lock=orders.Lock(zh="停", since_ms=1)), False),
        (orders.Desired(counter=1, issued_ms=1, by="lin", configuration=orders.Configuration(version=1)), True),
        (vectors.desired(), True),
    ],
)
def test_what_needs_two_people(wanted: orders.OrderBody | orders.Desired, two: bool) -> None:
    assert orders.needs_two(wanted) is two


def test_approving_one_s_own_order_is_no_approval() -> None:
    body = orders.Restart(what="host")
    assert orders.approved(vectors.order(body, approved_by="wu"))
    assert not orders.approved(vectors.order(body, approved_by="lin"))
    assert not orders.approved(vectors.order(body))


@pytest.mark.spec("C-603")
def test_fields_that_came_later_are_left_off_while_they_say_nothing() -> None:
    challenge = messages.Challenge(
        connection=b"\x31" * 8, nonce=b"\x30" * 16, version=1, server_ms=NOW_MS, certificate=SERVER_CERT
    )
    assert set(cbor2.loads(wire.dump(challenge))) == {"c", "n", "v", "t", "k"}
    with_keys = wire.dump(msgspec.structs.replace(challenge, order_keys=(order_key_cert(),)))
    assert wire.read(with_keys, messages.Challenge).order_keys == (order_key_cert(),)
    old = json.loads((vectors.FILE.parent / "contract-1.json").read_text("utf-8"))["hex"]["birth"]
    assert wire.read(cose.parse(bytes.fromhex(old), 9999).payload, messages.Birth).desired_counter == 0
    new = cose.parse(bytes.fromhex(COMMITTED["hex"]["birth"]), 9999).payload
    assert wire.read(new, messages.Birth).desired_counter == 8


def test_a_terminal_s_director_role_signs_for_its_own_paths_only() -> None:
    assert artifacts.director_path("kf-0001", "firmware/receipt-printer") == "kf-0001/firmware/receipt-printer"
    assert artifacts.director_role("kf-0001") == "terminal-kf-0001"
    for hostile in ("../kf-0001", "kf-0001/*", "*", "KF", ""):
        with pytest.raises(topics.TopicError):
            artifacts.director_paths(hostile)


@pytest.mark.parametrize(
    "custom",
    [
        artifacts.ImageCustom(component="firmware", version="4.2", release=3, hardware=("epson-tm-t88",)),
        artifacts.PackedCustom(to="a" * 64, base="b" * 64),
        artifacts.DirectorCustom(bundle="c" * 32, size=2, component="agent", target="agent/a.tar", version="0.2.0", release=2),
    ],
    ids=lambda custom: type(custom).__name__,
)
def test_custom_metadata_survives_json_beside_what_others_write(
    custom: artifacts.ImageCustom | artifacts.PackedCustom | artifacts.DirectorCustom,
) -> None:
    travelled = json.loads(json.dumps(artifacts.to_custom(custom) | {"somebody-else": 1}))
    assert artifacts.of_custom(travelled, type(custom)) == custom
    hostile: tuple[object, ...] = (None, {}, [], {artifacts.CUSTOM_KEY: {}}, {artifacts.CUSTOM_KEY: []})
    for wrong in hostile:
        with pytest.raises(wire.WireError):
            artifacts.of_custom(wrong, type(custom))
