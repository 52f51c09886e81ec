"""Feeds a decoder in every cut and compares what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from protocols.codecs.common import StreamDecoder
from protocols.errors import ProtocolError


def h(text: str) -> bytes:
    """Hex with blanks."""
    return bytes.fromhex(text.replace(" ", ""))


def drain(decoder: StreamDecoder[Any]) -> list[Any]:
    """Events and ProtocolErrors in order. Anything else escapes; a decoder that never ends fails."""
    found: list[Any] = []
    for _ in range(100_000):
        try:
            event = decoder.next_event()
        except ProtocolError as err:
            found.append(err)
            continue
        if event is None:
            return found
        found.append(event)
    raise AssertionError("the decoder does not come to an end")


def feed(decoder: StreamDecoder[Any], pieces: Iterable[bytes]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        decoder.feed(piece)
        found += drain(decoder)
    return found


def every_cut(make: Callable[[], StreamDecoder[Any]], data: bytes) -> list[Any]:
    """What comes out of `data` fed whole; asserts that bytes, pairs and odd pieces give the same, down to the kind of each error."""
    whole = feed(make(), [data])
    for size in (1, 2, 3, 7):
        cut = feed(make(), [data[at : at + size] for at in range(0, len(data), size)])
        assert [_shape(item) for item in cut] == [_shape(item) for item in whole], f"pieces of {size} bytes differ"
    return whole


def only(found: list[Any]) -> Any:
    assert len(found) == 1, found
    return found[0]


def _shape(item: Any) -> Any:
    return type(item) if isinstance(item, ProtocolError) else item
