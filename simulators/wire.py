"""What may pass on the wire of each family while a device is only watched: questions about its state, and the answers to them.

Written from the manuals, like the device models, and not from `protocols.codecs`: the conformance suite holds the agent to it, and a recording keeps
nothing else. A question that moves, prints, reads a card or starts a scan is not in here, whatever family it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from protocols.profile.places import SerialMatch
from protocols.profile.schema import Family, Profile
from simulators.models.checksums import crc16_ccitt, crc16_modbus, sum8, xor8

Answered = Literal["always", "maybe", "never"]
FILLER = b"*"
"""What stands in a kept frame for a text that is not told."""


@dataclass(frozen=True)
class Frame:
    """One form of bytes. `valid` checks what a pattern cannot say; `scrub` returns the same frame without what a capture does not tell."""

    name: str
    pattern: re.Pattern[bytes]
    valid: Callable[[bytes], bool] = lambda _: True
    scrub: Callable[[bytes], bytes] | None = lambda raw: raw
    """None: the frame belongs to the family and is never kept (a key, a code)."""

    def length_at(self, data: bytes, at: int) -> int:
        """Bytes of the frame that starts at `at`; 0 if none does."""
        found = self.pattern.match(data, at)
        return len(found[0]) if found and found[0] and self.valid(found[0]) else 0


@dataclass(frozen=True)
class Question:
    """What the host may send. `answered`: whether a device of the family must answer it, may, or says nothing."""

    frame: Frame
    reply: Frame | None = None
    answered: Answered = "always"

    @property
    def name(self) -> str:
        return self.frame.name


@dataclass(frozen=True)
class Request:
    """A control transfer that reads: its numbers, and the answer with what a capture does not tell taken out."""

    name: str
    request_type: int
    request: int
    scrub: Callable[[bytes], bytes] = lambda raw: raw


@dataclass(frozen=True)
class Wire:
    """A family's questions, and what its devices say without being asked."""

    questions: Sequence[Question] = ()
    notices: Sequence[Frame] = ()
    requests: Sequence[Request] = ()
    acknowledges: bool = False
    """The host sends back what the device sent."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one direction: a frame with its name, or bytes that are none (name empty)."""

    name: str
    raw: bytes = field(repr=False)
    kept: bytes | None = field(default=None, repr=False)
    """What a capture may tell of it; None: only its length."""
    question: Question | None = None


def wire_of(profile: Profile) -> Wire:
    """The wire of a profile's family, with the profile's own status questions."""
    build = _BY_FAMILY.get(profile.family)
    wire = Wire() if build is None else build(profile)
    return Wire((*_own_questions(profile), *wire.questions), wire.notices, wire.requests, wire.acknowledges)


def is_described(family: Family) -> bool:
    """Whether this module knows the family. What it does not know counts as forbidden, and as not to be kept."""
    return family in _BY_FAMILY


def asked(wire: Wire, data: bytes, *, heard: bytes = b"") -> list[Piece]:
    """What the host wrote, taken apart. `heard`: what the device said just before, for families that acknowledge by sending back."""
    return list(_split(data, lambda at: _question_at(wire, data, at, heard)))


def told(wire: Wire, data: bytes, waiting: list[Question]) -> list[Piece]:
    """What the device said, taken apart. An answer takes its question out of `waiting`; without a question there is no answer."""
    return list(_split(data, lambda at: _answer_at(wire, data, at, waiting)))


def _question_at(wire: Wire, data: bytes, at: int, heard: bytes) -> Piece | None:
    for question in wire.questions:
        size = question.frame.length_at(data, at)
        if size:
            raw = data[at : at + size]
            return Piece(question.name, raw, raw, question)
    if wire.acknowledges and len(data) > at and data[at:] in heard:
        return Piece("acknowledgement", data[at:], None)
    return None


def _answer_at(wire: Wire, data: bytes, at: int, waiting: list[Question]) -> Piece | None:
    for question in waiting:
        size = question.reply.length_at(data, at) if question.reply else 0
        if size and question.reply:
            waiting.remove(question)
            return _told(question.reply, data[at : at + size], question)
    for notice in wire.notices:
        size = notice.length_at(data, at)
        if size:
            return _told(notice, data[at : at + size], None)
    return None


def _told(frame: Frame, raw: bytes, question: Question | None) -> Piece:
    return Piece(frame.name, raw, None if frame.scrub is None else frame.scrub(raw), question)


def _split(data: bytes, piece_at: Callable[[int], Piece | None]) -> Iterator[Piece]:
    at = strange = 0
    while at < len(data):
        piece = piece_at(at)
        if piece is None:
            at += 1
            continue
        if at > strange:
            yield Piece("", data[strange:at])
        yield piece
        at += len(piece.raw)
        strange = at
    if at > strange:
        yield Piece("", data[strange:at])


# ------------------------------------------------------------------------------------------------------------------------- helpers


def _frame(name: str, pattern: bytes, valid: Callable[[bytes], bool] | None = None, scrub: object = "keep") -> Frame:
    compiled = re.compile(pattern, re.DOTALL)
    if scrub == "keep":
        return Frame(name, compiled, valid or (lambda _: True))
    assert scrub is None or callable(scrub)
    return Frame(name, compiled, valid or (lambda _: True), scrub)


def _byte(mask: int, value: int) -> bytes:
    """A character class of the bytes that, masked, have this value."""
    return b"[" + b"".join(b"\\x%02x" % byte for byte in range(256) if byte & mask == value) + b"]"


def _filled(pattern: bytes) -> Callable[[bytes], bytes]:
    """Everything in the groups of `pattern` becomes filler of the same length."""
    compiled = re.compile(pattern, re.DOTALL)

    def scrub(raw: bytes) -> bytes:
        out = bytearray(raw)
        for found in compiled.finditer(raw):
            for group in range(1, compiled.groups + 1):
                start, end = found.span(group)
                out[start:end] = FILLER * (end - start)
        return bytes(out)

    return scrub


def _own_questions(profile: Profile) -> Iterator[Question]:
    """Questions that the profile itself brings: its status tables, its version question, its probes."""
    for status in profile.status:
        query = bytes.fromhex(status.query)
        yield Question(_frame("profile's status", re.escape(query)), _frame("status", b".{%d}" % status.reply_bytes))
    for rule in profile.match:
        if isinstance(rule, SerialMatch) and rule.probe is not None:
            frame = _frame("probe", re.escape(bytes.fromhex(rule.probe.send)))
            if not any(question.frame.length_at(bytes.fromhex(rule.probe.send), 0) for question in _family_questions(profile)):
                yield Question(frame, None, "maybe")


def _family_questions(profile: Profile) -> Sequence[Question]:
    build = _BY_FAMILY.get(profile.family)
    return () if build is None else build(profile).questions


# ----------------------------------------------------------------------------------------------------------------- printers, ESC/POS


def _escpos(_: Profile) -> Wire:
    """Epson, ESC/POS Application Programming Guide; Citizen CT-S310 command reference, "transmission status identification"."""
    queued = _frame("queued status", _byte(0x90, 0x00))
    block = _frame("identity", rb"[\x5f\x37\x53][\x20-\x7e]{0,80}\x00")
    serial = _frame("serial number", rb"\x5f[\x20-\x7e]{0,80}\x00", scrub=_filled(rb"\x5f(.*)\x00"))
    return Wire(
        questions=(
            Question(_frame("status", rb"\x10\x04[\x01-\x04]"), _frame("status", _byte(0x93, 0x12))),
            Question(_frame("automatic status on", rb"\x1d\x61."), None, "never"),
            Question(_frame("paper", rb"\x1d\x72[\x01\x02]"), queued, "maybe"),
            Question(_frame("paper (ESC v)", rb"\x1b\x76"), queued, "maybe"),
            Question(_frame("model id", rb"\x1d\x49[\x01-\x03]"), queued, "maybe"),
            Question(_frame("serial number", rb"\x1d\x49\x44"), serial, "maybe"),
            Question(_frame("identity", rb"\x1d\x49[\x41-\x43\x45]"), block, "maybe"),
        ),
        notices=(
            _frame("automatic status", _byte(0x93, 0x10) + _byte(0x90, 0x00) + b"{3}"),
            _frame("flow control", rb"[\x11\x13]"),
        ),
        requests=_PRINTER_CLASS,
    )


_PRINTER_CLASS = (
    Request("device id", 0xA1, 0x00, _filled(rb"(?i)(?:SERN|SN|SERIALNUMBER|SERIAL):([^;]*);")),
    Request("port status", 0xA1, 0x01),
)
"""USB device class definition for printing devices 1.1, section 4.2."""


def _pjl(_: Profile) -> Wire:
    """HP, Printer Job Language Technical Reference Manual, chapters 7 and 8. What a display says may be the name of somebody's job."""
    job = rb"\x1b%-12345X@PJL ?\r\n"
    end = rb"\x1b%-12345X"
    text = _filled(rb'DISPLAY="([^"\r\n]*)"')
    return Wire(
        questions=(
            Question(
                _frame("status", job + rb"@PJL INFO STATUS\r\n" + end),
                _frame("status", rb"@PJL INFO STATUS\r?\n[^\x0c]{1,600}\x0c", scrub=text),
            ),
            Question(
                _frame("page count", job + rb"@PJL INFO PAGECOUNT\r\n" + end),
                _frame("page count", rb"@PJL INFO PAGECOUNT\r?\n[^\x0c]{1,80}\x0c"),
                "maybe",
            ),
            Question(
                _frame("model", job + rb"@PJL INFO ID\r\n" + end),
                _frame("model", rb"@PJL INFO ID\r?\n[^\x0c]{1,120}\x0c"),
                "maybe",
            ),
            Question(
                _frame("echo", job + rb"@PJL ECHO [A-Za-z0-9-]{1,32}\r\n" + end),
                _frame("echo", rb"@PJL ECHO [A-Za-z0-9-]{1,32}\r?\n\x0c"),
            ),
            Question(
                _frame("push on", job + rb"@PJL USTATUS DEVICE=VERBOSE\r\n(@PJL USTATUS TIMED=\d+\r\n)?" + end), None, "never"
            ),
            Question(_frame("push off", job + rb"@PJL USTATUSOFF\r\n" + end), None, "never"),
        ),
        notices=(_frame("pushed status", rb"@PJL USTATUS (DEVICE|TIMED)\r?\n[^\x0c]{1,600}\x0c", scrub=text),),
        requests=_PRINTER_CLASS,
    )


def _usb_printer(_: Profile) -> Wire:
    return Wire(requests=_PRINTER_CLASS)


# -------------------------------------------------------------------------------------------------------------------- resident-ID readers


def _sdt(_: Profile) -> Wire:
    """GA/T 467 and the makers' interface descriptions: AA AA AA 96 69, length, body, XOR of length and body. 11 FF status, 12 FF module number."""
    head = rb"\xaa\xaa\xaa\x96\x69"

    def sound(raw: bytes) -> bool:
        return xor8(raw[5:]) == 0

    def without_number(raw: bytes) -> bytes:
        body = raw[5:10] + bytes(len(raw) - 11)
        return raw[:5] + body + bytes((xor8(body),))

    status = _frame("status", head + rb"\x00\x04\x00\x00..", sound)
    number = _frame("module number", head + rb"(?:\x00\x14\x00\x00\x90.{16}.|\x00\x04\x00\x00..)", sound, without_number)
    return Wire(
        questions=(
            Question(_frame("status", head + rb"\x00\x03\x11\xff\xed"), status),
            Question(_frame("module number", head + rb"\x00\x03\x12\xff\xee"), number, "maybe"),
        )
    )


# ------------------------------------------------------------------------------------------------------------------------------- scanners


def _scanner_serial(profile: Profile) -> Wire:
    """Newland unified command set (7E 01 … 3B 03) and the older engines' register frames (7E 00, CRC-CCITT)."""
    dialect = profile.scanner.dialect if profile.scanner else "none"
    # Of a unit's description only the word Firmware and the number behind it stay: its serial number stands in the same text.
    info = re.compile(rb"(?i)firmware[^:;=\r\n]*[:;=]\s*[\w.]+|\r\n")

    def only_firmware(raw: bytes) -> bytes:
        out = bytearray(raw[:13] + FILLER * (len(raw) - 16) + raw[-3:])
        for found in info.finditer(raw, 13, len(raw) - 3):
            out[found.start() : found.end()] = found[0]
        return bytes(out)

    def register_sound(raw: bytes) -> bool:
        return crc16_ccitt(raw[2:-2]) == raw[-2:]

    answer = rb"\x02\x010000[@#][A-Z0-9]{6}[^\x02\x03]{0,1200}[\x06\x15\x05]\x3b\x03"
    asks: list[Question] = []
    if dialect == "unified":
        asks += [
            Question(
                _frame("information", rb"\x7e\x010000[@#](?:QRY[A-Z0-9]{3}|[A-Z0-9]{6}\*)\x3b\x03"),
                _frame("information", answer, scrub=only_firmware),
            )
        ]
    elif dialect == "zone":
        reply = _CountedFrame("register", re.compile(rb"\x02\x00\x00.", re.DOTALL), register_sound, count_at=3, more=6)
        asks += [Question(_frame("register", rb"\x7e\x00\x07\x01....{2}", register_sound), reply)]
    return Wire(questions=asks, notices=(_frame("code", rb"[^\x02][^\r\n]{0,7168}[\r\n]+", scrub=None),))


@dataclass(frozen=True)
class _CountedFrame(Frame):
    """A frame that carries its length: `count_at` is the place of the count, `more` the bytes around what it counts."""

    count_at: int = 0
    more: int = 0

    def length_at(self, data: bytes, at: int) -> int:
        if self.pattern.match(data, at) is None or len(data) <= at + self.count_at:
            return 0
        size = data[at + self.count_at] + self.more
        raw = data[at : at + size]
        return size if len(raw) == size and self.valid(raw) else 0


# ------------------------------------------------------------------------------------------------------------------- pads, sensors on a bus


def _callpad(profile: Profile) -> Wire:
    """FT1.2 long frame (IEC 60870-5-1) and its relatives, as the profile's own table says. Only the poll is a question."""
    assert profile.callpad is not None
    options = profile.callpad
    start, separator, end = (re.escape(bytes.fromhex(text)) for text in (options.start, options.separator, options.end))
    check = b"" if options.checksum == "none" else b"."
    size = {"double": b"\\x%02x\\x%02x", "single": b"\\x%02x", "fixed": b""}[options.length]

    def length(body: int) -> bytes:
        return size % ((body,) * size.count(b"%"))

    def sound(raw: bytes) -> bool:
        """The check value stands before the end, over what is behind the separator (or behind the start)."""
        from_ = len(bytes.fromhex(options.start))
        if not options.sum_from_length:
            from_ += {"double": 2, "single": 1, "fixed": 0}[options.length] + len(bytes.fromhex(options.separator))
        tail = len(bytes.fromhex(options.end))
        counted, value = raw[from_ : len(raw) - tail - 1], raw[len(raw) - tail - 1]
        return {"sum8": sum8, "xor8": xor8}[options.checksum](counted) == value if check else True

    body = 2 if options.length != "fixed" else options.fixed_bytes
    empty = b"." * max(0, body - 2)
    poll = start + length(body) + separator + b"." + b"\\x%02x" % options.poll_function + empty + check + end
    told_frames = [
        _frame("key or rating", start + length(2 + more) + separator + b".." + b"." * more + check + end, sound, None)
        for more in (range(1, 9) if options.length != "fixed" else [options.fixed_bytes - 2])
    ]
    asks = Question(_frame("poll", poll, sound), _frame("poll", poll, sound))
    return Wire(questions=(asks,), notices=(_frame("poll", poll, sound), *told_frames), acknowledges=options.echo_ack)


def _modbus(_: Profile) -> Wire:
    """Modbus over Serial Line V1.02 and Modbus Application Protocol V1.1b3: functions 1-4 read, everything else is not for watching."""

    def sound(raw: bytes) -> bool:
        return crc16_modbus(raw[:-2]) == raw[-2:]

    read = _frame("read", rb".[\x01-\x04].{4}..", sound)
    refused = re.compile(rb".[\x81-\x84][\x01-\x0b]..", re.DOTALL)

    class Reply(Frame):
        def length_at(self, data: bytes, at: int) -> int:
            if refused.match(data, at) and sound(data[at : at + 5]):
                return 5
            size = 5 + data[at + 2] if len(data) > at + 2 and 1 <= data[at + 1] <= 4 else 0
            return size if size and len(data) >= at + size and sound(data[at : at + size]) else 0

    return Wire(questions=(Question(read, Reply("answer", read.pattern)),))


# ----------------------------------------------------------------------------------------------------------------- nothing is ever sent


def _silent(_: Profile) -> Wire:
    """Keyboards and devices that are known by their presence alone."""
    return Wire()


_BY_FAMILY: dict[str, Callable[[Profile], Wire]] = {
    "escpos": _escpos,
    "pjl": _pjl,
    "usb-printer": _usb_printer,
    "sdt": _sdt,
    "scanner-serial": _scanner_serial,
    "scanner-keyboard": _silent,
    "keys": _silent,
    "presence": _silent,
    "callpad": _callpad,
    "modbus": _modbus,
}
