"""Resident-ID readers: find, select and read a card, and what stands on it. For the holder of a claim; monitoring has `protocols.codecs.sdt`.

Order is mandatory: a card is selected after it was found, and read after it was selected (module vendors' documents, "SDT" framing). After a good
read a card must leave the field before it is found again: "none" says nothing then.

Texts are UTF-16LE in fixed fields padded with blanks: the citizen's card after GA/T 490; permits for residents of Hong Kong, Macau and Taiwan (type
mark J) and permanent residence cards of foreigners (I, and Y since 2023) after the layouts that reader vendors publish. The photo stays as the
card has it: only licensed libraries unpack its format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from protocols.codecs.common import xor8
from protocols.codecs.sdt import PREAMBLE, SdtReader, Sw3Class, classify_sw3
from protocols.errors import FrameError, ProtocolError

TEXT_BYTES = 256
PHOTO_MAX_BYTES = 1024
FINGERPRINT_BYTES = (0, 512, 1024)
MARK_AT, MARK_BYTES = 248, 2


class Step(StrEnum):
    FIND = "find"
    SELECT = "select"
    READ = "read"


TIMEOUT_S: Mapping[Step, float] = {Step.FIND: 1.0, Step.SELECT: 1.0, Step.READ: 3.0}
"""Vendor document. The longest answer takes 0.2 s at 115200 baud and 2.4 s at 9600."""
FIND_EVERY_S = 0.3
"""Readers are asked every 200 to 500 ms for a card."""
_WIRE = {Step.FIND: b"\x20\x01", Step.SELECT: b"\x20\x02", Step.READ: b"\x30\x01"}
_READ_WITH_FINGERPRINT = b"\x30\x10"


class OutOfOrder(ProtocolError):
    """A step before its turn: reading what was not selected, selecting what was not found."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its data, which is a person's."""

    sw3: int
    data: bytes = field(repr=False)

    @property
    def verdict(self) -> Sw3Class:
        return classify_sw3(self.sw3)


class ContentReader(SdtReader):
    """Finds answers as `SdtReader` does, and keeps the data of each in `data`, apart from the event, until the next."""

    def __init__(self) -> None:
        super().__init__()
        self._data = b""

    def take_reply(self) -> Reply | None:
        """The next answer with its data; raises ProtocolError. Nothing of it stays here."""
        answer = self.next_event()
        if answer is None:
            return None
        data, self._data = self._data, b""
        return Reply(answer.sw3, data)

    def reset(self) -> None:
        super().reset()
        self._data = b""

    def _take(self, count: int) -> bytes:
        frame = super()._take(count)
        at = frame.find(PREAMBLE[1:]) + len(PREAMBLE) - 1 + 5
        self._data = frame[at:-1]
        return frame


class CardSession:
    """One card, step by step. `ask` gives the bytes of a step, `take` its answer; a step before its turn raises OutOfOrder."""

    def __init__(self, *, fingerprint: bool = False) -> None:
        self._fingerprint = fingerprint
        self.next_step = Step.FIND

    def ask(self, step: Step) -> bytes:
        if step is not self.next_step and step is not Step.FIND:
            raise OutOfOrder(f"{step} before its turn: {self.next_step} is due")
        command = _READ_WITH_FINGERPRINT if step is Step.READ and self._fingerprint else _WIRE[step]
        body = b"\x00\x03" + command
        return PREAMBLE + body + bytes((xor8(body),))

    def take(self, step: Step, sw3: int) -> bool:
        """What the answer to `step` was; whether that step worked. Any failure begins with finding again."""
        worked = sw3 == (0x9F if step is Step.FIND else 0x90)
        following = {Step.FIND: Step.SELECT, Step.SELECT: Step.READ, Step.READ: Step.FIND}
        self.next_step = following[step] if worked else Step.FIND
        return worked


class Form(StrEnum):
    """Kinds of card, by the mark behind the text."""

    CITIZEN = "citizen"
    PERMIT = "permit"
    FOREIGNER = "foreigner"
    FOREIGNER_2023 = "foreigner2023"


_FORM_OF_MARK = {"J": Form.PERMIT, "I": Form.FOREIGNER, "Y": Form.FOREIGNER_2023}

_Fields = tuple[tuple[str, int, int], ...]
_CITIZEN: _Fields = (
    ("name", 0, 30), ("sex", 30, 2), ("nation", 32, 4), ("birth", 36, 16), ("address", 52, 70), ("number", 122, 36), ("authority", 158, 30),
    ("validFrom", 188, 16), ("validTo", 204, 16),
)  # fmt: skip
_LAYOUTS: Mapping[Form, _Fields] = {
    Form.CITIZEN: _CITIZEN,
    Form.PERMIT: (
        *(one for one in _CITIZEN if one[0] != "nation"), ("passNumber", 220, 18), ("issueCount", 238, 4),
    ),
    Form.FOREIGNER: (
        ("englishName", 0, 120), ("sex", 120, 2), ("number", 122, 30), ("nationality", 152, 6), ("name", 158, 30), ("validFrom", 188, 16),
        ("validTo", 204, 16), ("birth", 220, 16), ("version", 236, 4), ("authority", 240, 8),
    ),
    Form.FOREIGNER_2023: (
        ("name", 0, 30), ("sex", 30, 2), ("replacements", 32, 4), ("birth", 36, 16), ("englishName", 52, 70), ("number", 122, 36),
    ),
}  # fmt: skip
"""Name, offset and bytes of each field. Of the newest card only the fields that a published layout names are taken."""


@dataclass(frozen=True, slots=True)
class CardContent:
    """What one card says. Belongs to a person: nothing of it is in the repr."""

    form: Form = field(repr=False)
    fields: Mapping[str, str] = field(repr=False)
    photo: bytes = field(repr=False)
    fingerprint: bytes | None = field(repr=False, default=None)
    """None: was not asked for. Empty: the card has none."""


def decode_card(data: bytes, *, fingerprint: bool = False) -> CardContent:
    """The data of a good READ answer: two or three lengths, then the parts. FrameError, without any of it, where they do not fit together."""
    count = 3 if fingerprint else 2
    lengths = [int.from_bytes(data[at : at + 2], "big") for at in range(0, 2 * count, 2)]
    if len(data) < 2 * count or sum(lengths) + 2 * count != len(data):
        raise FrameError("the parts of a card's content do not add up")
    text_bytes, photo_bytes = lengths[:2]
    if text_bytes != TEXT_BYTES or photo_bytes > PHOTO_MAX_BYTES or (fingerprint and lengths[2] not in FINGERPRINT_BYTES):
        raise FrameError("a part of a card's content has a length that no card has")
    text_at = 2 * count
    text = data[text_at : text_at + TEXT_BYTES]
    photo_at = text_at + TEXT_BYTES
    form = _FORM_OF_MARK.get(_text(text, MARK_AT, MARK_BYTES), Form.CITIZEN)
    return CardContent(
        form=form,
        fields={name: _text(text, at, size) for name, at, size in _LAYOUTS[form]},
        photo=data[photo_at : photo_at + photo_bytes],
        fingerprint=data[photo_at + photo_bytes :] if fingerprint else None,
    )


def _text(block: bytes, at: int, size: int) -> str:
    return block[at : at + size].decode("utf-16-le", "replace").strip(" \x00")
