"""The envelope: our page of code against the library `cwt`, the COSE working group's vector, and everything a stranger may send."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable

import cbor2
import cwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from tests.support.contract import FLEET, RECORD, STRANGER, TERMINAL, MemoryKey

CONTEXT = "kf-batch/1"
PAYLOAD = cbor2.dumps({"a": 1}, canonical=True)


def sealed(payload: bytes = PAYLOAD, key: MemoryKey = RECORD) -> bytes:
    return cose.seal(payload, key, CONTEXT, FLEET, TERMINAL)[0]


def opened(raw: bytes, context: str = CONTEXT, fleet: str = FLEET, terminal: str = TERMINAL) -> cose.Opened:
    return cose.verify(cose.parse(raw, ENVELOPE_MAX_BYTES), RECORD.verifier, context, fleet, terminal)


@pytest.mark.spec("C-101", "C-102", "C-103")
def test_cwt_opens_what_we_seal() -> None:
    key = cwt.COSEKey.new({1: 1, 2: RECORD.kid, 3: -8, -1: 6, -2: RECORD.public})
    protected, unprotected, payload = cwt.COSE().decode_with_headers(
        sealed(), key, external_aad=cose.external_data(CONTEXT, FLEET, TERMINAL)
    )
    assert payload == PAYLOAD
    assert unprotected == {}
    assert dict(protected) == {1: -8, 4: RECORD.kid}


@pytest.mark.spec("C-102", "C-103")
def test_we_open_what_cwt_seals() -> None:
    key = cwt.COSEKey.from_jwk(
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": _b64(RECORD.public), "d": _b64(RECORD.private.private_bytes_raw())}
    )
    raw = cwt.COSE.new().encode_and_sign(
        PAYLOAD, key, protected={1: -8, 4: RECORD.kid}, unprotected={}, external_aad=cose.external_data(CONTEXT, FLEET, TERMINAL)
    )
    assert opened(raw).payload == PAYLOAD
    assert raw == sealed()


def test_the_working_groups_eddsa_vector() -> None:
    """cose-wg/Examples, eddsa-examples/eddsa-sig-01: the Sig_structure and signature that the working group publishes."""
    key = MemoryKey(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    to_sign = cose.sig_structure(bytes.fromhex("a201270300"), b"", b"This is the content.")
    assert to_sign.hex() == "846a5369676e61747572653145a2012703004054546869732069732074686520636f6e74656e742e"
    assert key.sign(to_sign).hex() == (
        "7142fd2ff96d56db85bee905a76ba1d0b7321a95c8c4d3607c5781932b7afb87"
        "11497dfa751bf40b58b3bcc32300b1487f3db34085eef013bf08f4a44d6fef0d"
    )


@pytest.mark.spec("C-104", "C-106")
def test_key_id_and_digest_are_what_the_specification_says() -> None:
    raw, digest = cose.seal(PAYLOAD, RECORD, CONTEXT, FLEET, TERMINAL)
    assert RECORD.kid == hashlib.sha256(RECORD.public).digest()[:16]
    protected = cbor2.dumps({1: -8, 4: RECORD.kid}, canonical=True)
    aad = cbor2.dumps([CONTEXT, FLEET, TERMINAL])
    assert digest == hashlib.sha256(cbor2.dumps(["Signature1", protected, aad, PAYLOAD])).digest()
    assert opened(raw).digest == digest


@pytest.mark.spec("C-105")
@pytest.mark.parametrize("moved", [{"context": "kf-loss/1"}, {"fleet": "other"}, {"terminal": "kf-0002"}], ids=str)
def test_a_message_opens_only_where_it_belongs(moved: dict[str, str]) -> None:
    with pytest.raises(cose.EnvelopeError) as refused:
        opened(sealed(), **moved)
    assert refused.value.reason == "signature"


@pytest.mark.spec("C-107")
def test_size_comes_before_everything_else() -> None:
    with pytest.raises(cose.EnvelopeError) as refused:
        cose.parse(b"\xff" * 101, 100)
    assert refused.value.reason == "oversized"


def _variant(protected: object, unprotected: object, payload: object = PAYLOAD, tag: int = 18) -> bytes:
    """A COSE_Sign1 of our making, correctly signed over the given protected header."""
    header = protected if isinstance(protected, bytes) else cbor2.dumps(protected, canonical=True)
    body = payload if isinstance(payload, bytes) else b""
    signature = RECORD.sign(cose.sig_structure(header, cose.external_data(CONTEXT, FLEET, TERMINAL), body))
    return cbor2.dumps(cbor2.CBORTag(tag, [header, unprotected, payload, signature]))


REFUSED: dict[str, Callable[[], bytes]] = {
    "untagged": lambda: sealed()[1:],
    "other tag": lambda: _variant({1: -8, 4: RECORD.kid}, {}, tag=17),
    "key id unprotected": lambda: _variant({1: -8}, {4: RECORD.kid}),
    "unprotected not empty": lambda: _variant({1: -8, 4: RECORD.kid}, {99: 1}),
    "algorithm unprotected": lambda: _variant({4: RECORD.kid}, {1: -8}),
    "other algorithm": lambda: _variant({1: -7, 4: RECORD.kid}, {}),
    "no algorithm": lambda: _variant({4: RECORD.kid}, {}),
    "short key id": lambda: _variant({1: -8, 4: RECORD.kid[:8]}, {}),
    "critical header": lambda: _variant({1: -8, 2: [4], 4: RECORD.kid}, {}),
    "empty protected header": lambda: _variant(b"", {}),
    "detached payload": lambda: _variant({1: -8, 4: RECORD.kid}, {}, payload=None),
    "trailing byte": lambda: sealed() + b"\x00",
    "second envelope behind": lambda: sealed() * 2,
    "long length form": lambda: sealed().replace(b"\x58\x40", b"\x59\x00\x40"),
    "indefinite payload": lambda: sealed().replace(
        bytes([0x40 | len(PAYLOAD)]) + PAYLOAD, b"\x5f" + cbor2.dumps(PAYLOAD) + b"\xff"
    ),
    "short signature": lambda: sealed()[:-65] + b"\x3f" + sealed()[-63:],
    "empty": lambda: b"",
    "only the tag": lambda: b"\xd2\x84",
}


@pytest.mark.spec("C-102", "C-103")
@pytest.mark.parametrize("name", REFUSED)
def test_anything_but_the_exact_form_is_refused(name: str) -> None:
    raw = REFUSED[name]()
    assert raw != sealed()
    with pytest.raises(cose.EnvelopeError):
        opened(raw)


@pytest.mark.spec("C-102")
def test_every_truncation_is_refused() -> None:
    raw = sealed()
    for length in range(len(raw)):
        with pytest.raises(cose.EnvelopeError):
            opened(raw[:length])


@pytest.mark.spec("C-102", "C-103", "C-108")
def test_every_flipped_bit_is_refused() -> None:
    raw = sealed()
    for at in range(len(raw)):
        for bit in range(8):
            bent = raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]
            with pytest.raises(cose.EnvelopeError):
                opened(bent)


@given(st.binary(max_size=300))
def test_noise_raises_nothing_but_our_error(noise: bytes) -> None:
    for raw in (noise, b"\xd2\x84" + noise):
        with pytest.raises(cose.EnvelopeError):
            opened(raw)


@given(st.binary(max_size=2_000))
def test_what_is_sealed_opens(payload: bytes) -> None:
    assert opened(sealed(payload)).payload == payload


def test_another_key_does_not_open() -> None:
    with pytest.raises(cose.EnvelopeError):
        opened(sealed(key=STRANGER))


@pytest.mark.spec("C-109")
def test_bytes_behind_the_payload_are_refused() -> None:
    with pytest.raises(wire.WireError, match="behind the payload"):
        wire.load(PAYLOAD + b"\x00")


@given(st.binary(max_size=200))
def test_payload_noise_raises_nothing_but_our_error(noise: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.load(noise)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
