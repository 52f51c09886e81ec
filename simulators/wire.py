"""What may pass on the wire of each family while a device is only watched: questions about its state, and the answers to them.

Written from the manuals, like the device models, and not from `protocols.codecs`: the conformance suite holds the agent to it, and a recording keeps
nothing else. A question that moves, prints, reads a card or starts a scan is not in here, whatever family it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
    scrub: Callable[[bytes], bytes | None] | None = lambda raw: raw
    """None: the frame belongs to the family and is never kept (a key, a code). It may also decide so for one frame."""

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
    continues: bool = False
    """A handshake byte: the question before it still waits for its answer."""

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
    carriers: frozenset[tuple[int, int]] = frozenset()
    """Control transfers (request type, request) that carry questions to the device, or end one."""
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
    return replace(wire, questions=(*_own_questions(profile), *wire.questions))


def is_described(family: Family) -> bool:
    """Whether this module knows the family. What it does not know counts as forbidden, and as not to be kept."""
    return family in _BY_FAMILY


def asked(wire: Wire, data: bytes, *, heard: bytes = b"") -> list[Piece]:
    """What the host wrote, taken apart. `heard`: what the device said just before, for families that acknowledge by sending back."""
    return list(_split(data, lambda at: _question_at(wire, data, at, heard)))


def still_waiting(waiting: Sequence[Question], pieces: Sequence[Piece]) -> list[Question]:
    """Who may be answered next, after these pieces were sent: a question takes the place of those before it, a handshake byte does not."""
    new = [piece.question for piece in pieces if piece.question is not None and piece.question.reply is not None]
    keeps = bool(pieces) and all(piece.question is not None and piece.question.continues for piece in pieces)
    return [*waiting, *new] if keeps else new


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
    kept = None if frame.scrub is None else frame.scrub(raw)
    return Piece(frame.name, raw, kept, question)


def _unless_text(raw: bytes) -> bytes | None:
    """A notice without a check value that reads like letters may be letters: an automatic status of `PLAN` cannot be told from the word."""
    return None if all(0x20 <= byte <= 0x7E for byte in raw) else raw


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


@dataclass(frozen=True)
class _CountedFrame(Frame):
    """A frame that carries its length: `count_at` is the place of the count (`count_bytes` long), `more` the bytes around what it counts."""

    count_at: int = 0
    count_bytes: int = 1
    more: int = 0

    def length_at(self, data: bytes, at: int) -> int:
        start = at + self.count_at
        if self.pattern.match(data, at) is None or len(data) < start + self.count_bytes:
            return 0
        size = int.from_bytes(data[start : start + self.count_bytes], "big") + self.more
        raw = data[at : at + size]
        return size if len(raw) == size and self.valid(raw) else 0


@dataclass(frozen=True)
class _Either(Frame):
    """The first of several forms that fits."""

    forms: tuple[Frame, ...] = ()

    def length_at(self, data: bytes, at: int) -> int:
        return next((size for form in self.forms if (size := form.length_at(data, at))), 0)


@dataclass(frozen=True)
class _HexReply(Frame):
    """An answer that a profile describes by an expression over its hex digits, as short as it can be."""

    expression: str = ""

    def length_at(self, data: bytes, at: int) -> int:
        return next(
            (size for size in range(1, min(64, len(data) - at) + 1) if re.match(self.expression, data[at : at + size].hex())), 0
        )


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


def _escpos(profile: Profile) -> Wire:
    """Epson, ESC/POS Application Programming Guide; Citizen CT-S310 command reference, "transmission status identification"."""
    if profile.escpos is not None and profile.escpos.dialect == "star":
        return _star()
    queued = _frame("queued status", _byte(0x90, 0x00))
    block = _frame("identity", rb"[\x5f\x37\x53][\x20-\x7e]{0,80}\x00")
    serial = _frame("serial number", rb"\x5f[\x20-\x7e]{0,80}\x00", scrub=_filled(rb"\x5f(.*)\x00"))
    return Wire(
        questions=(
            *(
                Question(_frame(f"status {n}", rb"\x10\x04" + b"\\x%02x" % n), _frame("status", _byte(0x93, 0x12)))
                for n in (1, 2, 3, 4)
            ),
            Question(_frame("automatic status on", rb"\x1d\x61."), None, "never"),
            Question(_frame("paper", rb"\x1d\x72[\x01\x02]"), queued, "maybe"),
            Question(_frame("paper (ESC v)", rb"\x1b\x76"), queued, "maybe"),
            Question(_frame("model id", rb"\x1d\x49[\x01-\x03]"), queued, "maybe"),
            Question(_frame("serial number", rb"\x1d\x49\x44"), serial, "maybe"),
            Question(_frame("counter", rb"\x1d\x67\x32\x00.."), _frame("counter", rb"\x5f[0-9]{1,10}\x00"), "maybe"),
            Question(_frame("identity", rb"\x1d\x49[\x41-\x43\x45]"), block, "maybe"),
        ),
        notices=(
            _frame("automatic status", _byte(0x93, 0x10) + _byte(0x90, 0x00) + b"{3}", scrub=_unless_text),
            _frame("flow control", rb"[\x11\x13]"),
        ),
        requests=_PRINTER_CLASS,
    )


def _star() -> Wire:
    """Star Micronics, STAR line mode command specifications: ESC ACK SOH, ESC RS a; header 1 tells how many bytes the status has."""

    def sized(raw: bytes) -> bool:
        return ((raw[0] >> 1) & 0x07 | (raw[0] >> 2) & 0x08) == len(raw)

    rest = _byte(0x11, 0x00)
    statuses = [
        _frame("status", _byte(0x91, 0x01) + rest + b"{%d}" % (size - 1), sized, _unless_text)
        for size in (7, 8, 9, 10, 11, 12, 13, 14, 15)
    ]
    return Wire(
        questions=(
            Question(_frame("status", rb"\x1b\x06\x01"), _Either("status", re.compile(b""), forms=tuple(statuses))),
            Question(_frame("automatic status on", rb"\x1b\x1e\x61[\x00\x01]"), None, "never"),
        ),
        notices=(*statuses, _frame("flow control", rb"[\x11\x13]")),
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
    elif dialect == "honeywell":
        # Honeywell, area-imager user's guides, serial programming commands: SYN M CR, tag, "?" or REVINF, "."; answers end with ACK, NAK or ENQ.
        revision = _frame("revision", rb"[^\x05\x06\x15]{0,1000}[\x05\x06\x15][.!]?", scrub=_only_firmware_text)
        asks += [Question(_frame("revision", rb"\x16\x4d\x0d(?:REVINF|[A-Z0-9]{6}\?)\."), revision)]
    return Wire(questions=asks, notices=(_frame("code", rb"[^\x02][^\r\n]{0,7168}[\r\n]+", scrub=None),))


def _only_firmware_text(raw: bytes) -> bytes:
    """Of a unit's description only the word Firmware (Software) with its number stays."""
    out = bytearray(FILLER * len(raw))
    for found in re.finditer(rb"(?i)(?:firm|soft)ware[^:;=\r\n]*[:;=]\s*[\w.]+|[\r\n]|Product Name:|[\x05\x06\x15][.!]?\Z", raw):
        out[found.start() : found.end()] = found[0]
    return bytes(out)


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
    # Whether the adapter hears itself: bytes that begin no frame, so that no unit obeys them.
    echo = Question(_frame("echo test", rb"\x55{4}"), _frame("echo", rb"\x55{4}"), "maybe")
    return Wire(questions=(asks, echo), notices=(_frame("poll", poll, sound), *told_frames), acknowledges=options.echo_ack)


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


# --------------------------------------------------------------------------------------------------------------- cards, motorised and chip


def _bcc(raw: bytes) -> bool:
    return xor8(raw) == 0


_HANDSHAKE = Question(_frame("handshake", rb"[\x04\x05\x06\x15]"), None, "never", continues=True)
_MARKS = _frame("handshake", rb"[\x04\x05\x06\x15]")


def _card_f2(_: Profile) -> Wire:
    """CREATOR CRT-591-M001 communication protocol 1.0: status (1, 0 and 1, 1) and version (A4, 0). All other commands move or read a card."""
    command = rb"(?:10|11|\xa40)"
    reply = _CountedFrame(
        "status", re.compile(rb"\xf2.{3}[\x50\x4e\x45]" + command, re.DOTALL), _bcc, count_at=2, count_bytes=2, more=6
    )
    ask = Question(_frame("status", rb"\xf2.\x00\x03\x43" + command + rb"\x03.", _bcc), reply)
    return Wire(questions=(ask, _HANDSHAKE), notices=(_MARKS,))


def _card_stx(_: Profile) -> Wire:
    """CREATOR CRT-310 of the old protocol: 02, length, command, 03, XOR; 1, 0 asks for the state, 1, / for the sensors."""
    reply = _CountedFrame("status", re.compile(rb"\x02..(?:1|N1)", re.DOTALL), _bcc, count_at=1, count_bytes=2, more=5)
    ask = Question(_frame("status", rb"\x02\x00\x02(?:10|1/)\x03.", _bcc), reply)
    return Wire(questions=(ask, _HANDSHAKE), notices=(_MARKS,))


def _card_d1801(_: Profile) -> Wire:
    """D1801 boards and CRT-541: RF and PB ask for the state, GV for the version, AP (addressed) for both. DC, CP and others move cards."""
    reply = _frame("status", rb"\x02(?:(?:SF|PB|GV)[\x20-\x7e]{3}|[0-9]{2}[\x20-\x7e]{2})\x03.", _bcc)
    ask = Question(_frame("status", rb"\x02(?:[0-9]{2}AP|RF|PB|GV)\x03.", _bcc), reply)
    return Wire(questions=(ask, _HANDSHAKE), notices=(_frame("handshake", rb"[\x06\x15][0-9]{2}"), _MARKS))


def _ccid(_: Profile) -> Wire:
    """USB device class for smart-card readers (CCID) 1.1: GetSlotStatus, and Abort of what a slot still works on. No power, no exchange."""
    status = _frame("slot status", rb"\x81\x00{4}.{5}")
    return Wire(
        questions=(
            Question(_frame("slot status", rb"\x65\x00{4}..\x00{3}"), status),
            Question(_frame("abort", rb"\x72\x00{4}..\x00{3}"), status, "maybe"),
        ),
        notices=(_frame("slot change", rb"\x50[\x00-\x0f]"), _frame("hardware error", rb"\x51[\x00-\x07]..", scrub=None), status),
        carriers=frozenset({(0x21, 0x01)}),
    )


# -------------------------------------------------------------------------------------------------------------------- UPS, position, ratings


def _megatec(_: Profile) -> Wire:
    """Megatec Systems, UPS communication protocol 1.1: Q1, F and I ask. T (test), S (shutdown), C and Q (beeper) are commands."""
    identity = _frame("identity", rb"#[\x20-\x7e]{15} [\x20-\x7e]{10} [\x20-\x7e]{10}\r\x00*")
    return Wire(
        questions=(
            Question(_frame("status", rb"Q1\r\x00*"), _frame("status", rb"\([0-9. -]{37,40}[01]{8}\r\x00*")),
            Question(_frame("rating", rb"F\r\x00*"), _frame("rating", rb"#[0-9. -]{15,24}\r\x00*"), "maybe"),
            Question(_frame("identity", rb"I\r\x00*"), identity, "maybe"),
        ),
        notices=(_frame("refusal", rb"[(#]?(?:N|NAK|I|F)\r\x00*"), _frame("filler", rb"\x00+")),
        carriers=frozenset({(0x21, 0x09)}),
    )


def _nmea(_: Profile) -> Wire:
    """NMEA 0183: a receiver talks, nobody asks. Where a van is stays out of a capture: coordinates become zeros."""

    def sound(raw: bytes) -> bool:
        return b"%02X" % xor8(raw[1:-5]) == raw[-4:-2].upper()

    def nowhere(raw: bytes) -> bytes:
        body = re.sub(
            rb"(?<=,)(\d{4,5}\.\d+)(?=,[NSEW])",
            lambda found: bytes(0x30 if digit != 0x2E else digit for digit in found[1]),
            raw[1:-5],
        )
        return b"$" + body + b"*%02X\r\n" % xor8(body)

    sentence = _frame("sentence", rb"\$[A-Z]{2}[A-Z]{3},[\x20-\x29\x2b-\x7e]{0,90}\*[0-9A-Fa-f]{2}\r\n", sound, nowhere)
    return Wire(notices=(sentence, _frame("maker's sentence", rb"\$P[A-Z0-9]{3,8},[\x20-\x7e]{0,90}\r\n", scrub=None)))


def _rating(profile: Profile) -> Wire:
    """What a citizen pressed is a frame of the family and never kept. A pad is asked only where its maker documents a heartbeat."""
    assert profile.rating is not None
    options = profile.rating
    if options.framing == "byte":
        answer = _frame("rating", rb".", scrub=None)
    else:
        start, end = re.escape(bytes.fromhex(options.start)), re.escape(bytes.fromhex(options.end))
        answer = _frame("rating", start + rb".{1,18}?" + end, scrub=None)
    if options.heartbeat is None:
        return Wire(notices=(answer,))
    reply = _HexReply("heartbeat", re.compile(b""), expression=options.heartbeat.reply)
    return Wire(
        questions=(Question(_frame("heartbeat", re.escape(bytes.fromhex(options.heartbeat.send))), reply),), notices=(answer,)
    )


# ------------------------------------------------------------------------------------------------------------------------------ services


def _ipp(_: Profile) -> Wire:
    """RFC 8011: Get-Printer-Attributes (000B) and nothing else. Of the answer only the length is kept: names of jobs and people may be in it."""
    return Wire(
        questions=(
            Question(
                _frame("Get-Printer-Attributes", rb"[\x01\x02].\x00\x0b.+"),
                _frame("attributes", rb"[\x01\x02].{3}.+", scrub=None),
            ),
        )
    )


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
    "card-f2": _card_f2,
    "card-stx": _card_stx,
    "card-d1801": _card_d1801,
    "ccid": _ccid,
    "pcsc": _silent,
    "ipp": _ipp,
    "megatec": _megatec,
    "nmea": _nmea,
    "rating-serial": _rating,
    "modbus": _modbus,
}
