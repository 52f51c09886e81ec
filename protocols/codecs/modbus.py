"""Modbus RTU reading (functions 1-4) for climate and door modules. Writes nothing: there is no encoder for a write.

Frame: ADDR FUNC DATA CRC, CRC-16 polynomial A001 reflected, start FFFF, low byte first (MODBUS over Serial Line V1.02, section 2.5.1).
Silence, a bad check value and a refusal are three different answers here: dead or wrong address, wiring or speed, wrong profile.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protocols.codecs.common import Explanation, StreamDecoder
from protocols.errors import ChecksumError, DeviceRefused, EncodeError, FrameError, LineError, ProtocolError, UnexpectedReply

CODEC = "modbus"
READ_COILS, READ_INPUTS, READ_HOLDING, READ_INPUT_REGISTERS = 1, 2, 3, 4
EXCEPTIONS = {1: "function", 2: "address", 3: "value", 4: "device", 5: "acknowledge", 6: "busy", 10: "path", 11: "target"}
TURNAROUND_S = 0.05
"""Pause between an answer and the next question; inexpensive modules miss earlier ones."""
ANSWER_TIMEOUT_S = 0.5


class Silence(LineError):
    """Nothing came: no power, wrong address, cut wire."""


class Truncated(FrameError):
    """The beginning of an answer came and no more."""


class StreamingText(UnexpectedReply):
    """Printable text instead of an answer: the module was switched to the mode that sends readings by itself."""


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """One question. `start` is the address on the wire, counted from 0."""

    address: int
    function: int
    start: int
    count: int

    def __post_init__(self) -> None:
        most = 2000 if self.function in (READ_COILS, READ_INPUTS) else 125
        if not 1 <= self.address <= 247:
            raise EncodeError(f"address {self.address} is not 1-247")
        if self.function not in (1, 2, 3, 4):
            raise EncodeError(f"function {self.function} does not read")
        if not 0 <= self.start <= 0xFFFF or not 1 <= self.count <= most or self.start + self.count > 0x10000:
            raise EncodeError(f"{self.count} values at {self.start} cannot be read")

    @property
    def of_bits(self) -> bool:
        return self.function in (READ_COILS, READ_INPUTS)

    @property
    def data_bytes(self) -> int:
        return (self.count + 7) // 8 if self.of_bits else 2 * self.count


def encode_read(request: ReadRequest) -> bytes:
    body = bytes((request.address, request.function)) + request.start.to_bytes(2, "big") + request.count.to_bytes(2, "big")
    return body + crc16(body).to_bytes(2, "little")


def crc16(data: bytes | bytearray) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


@dataclass(frozen=True, slots=True)
class Registers:
    """Unsigned 16-bit values in order; `reply` is the frame."""

    values: tuple[int, ...]
    reply: bytes


@dataclass(frozen=True, slots=True)
class Bits:
    """Coils or discrete inputs in order; `reply` is the frame."""

    values: tuple[bool, ...]
    reply: bytes


class ReplyReader(StreamDecoder[Registers | Bits]):
    """Reads the answer to one question. Noise and the echo of our own question before it are skipped.

    Raises DeviceRefused for an exception answer, ChecksumError for a spoiled one; after the timeout `give_up()` tells what was missing.
    """

    def __init__(self, request: ReadRequest) -> None:
        super().__init__()
        self._request = request
        self._echo = encode_read(request)

    def give_up(self) -> ProtocolError:
        """The error that describes why no answer came in time; call when `next_event` returned None and time is up.

        Evidence is what began as an answer. What did not is blanked: a port has no name, and what is plugged in there by mistake may be a scanner.
        """
        heard = bytes(self._buffer)
        seen = heard[:64]
        who = f"an answer of address {self._request.address}"
        lengths = [(at, self._candidate(at)) for at in range(len(self._buffer))]
        cut = [at for at, length in lengths if length is not None and (at == 0 or at + 1 < len(self._buffer))]
        complete = [at for at, length in lengths if length is not None and at + length <= len(self._buffer)]
        noise = self.noise_bytes + len(self._buffer)
        self.reset()
        if complete:
            return ChecksumError(f"{who} has a wrong CRC", evidence=heard[complete[0] :][: self._longest][:64])
        if cut:
            return Truncated(f"{who} was cut", evidence=heard[cut[0] :][: self._longest][:64])
        if len(seen) >= 8 and _is_text(seen):
            return StreamingText(
                f"text on the bus instead of {who}", evidence=seen if _FIGURES.fullmatch(seen) else bytes(len(seen))
            )
        if noise:
            return ChecksumError(f"{noise} bytes came, none of them {who}", evidence=bytes(len(seen)))
        return Silence(f"no answer of address {self._request.address}")

    def _parse(self) -> Registers | Bits | None:
        spoiled: int | None = None
        for at in range(len(self._buffer)):
            tail = len(self._buffer) - at
            if self._buffer[at : at + len(self._echo)] == self._echo[:tail]:
                if tail < len(self._echo):
                    # What is left may still become our echo.
                    break
                self._discard(at)
                del self._buffer[: len(self._echo)]
                return self._parse()
            length = self._candidate(at)
            if length is not None and tail < length:
                break
            if length is not None and self._sound(at, length):
                self._discard(at)
                return self._read(self._take(length))
            if length is not None and spoiled is None:
                spoiled = at
        else:
            # Nothing that begins in the buffer can still become an answer.
            if spoiled is not None:
                self._raise_spoiled(spoiled)
        return None

    @property
    def _longest(self) -> int:
        return 5 + self._request.data_bytes

    def _candidate(self, at: int) -> int | None:
        """Length of the frame that may begin at `at`, None if none can. An incomplete head counts as possible."""
        head = self._buffer[at : at + 3]
        if not head or head[0] != self._request.address:
            return None
        if len(head) > 1 and head[1] == self._request.function | 0x80:
            return 5
        if len(head) > 1 and head[1] != self._request.function:
            return None
        if len(head) > 2 and head[2] != self._request.data_bytes:
            return None
        return 5 + self._request.data_bytes

    def _sound(self, at: int, length: int) -> bool:
        return crc16(self._buffer[at : at + length - 2]).to_bytes(2, "little") == self._buffer[at + length - 2 : at + length]

    def _raise_spoiled(self, at: int) -> None:
        length = self._candidate(at) or 1
        evidence = bytes(self._buffer[at : at + length][:64])
        self._discard(len(self._buffer))
        raise ChecksumError(f"an answer of address {self._request.address} has a wrong CRC", evidence=evidence)

    def _read(self, reply: bytes) -> Registers | Bits:
        if reply[1] & 0x80:
            word = EXCEPTIONS.get(reply[2], "unknown")
            raise DeviceRefused(
                f"address {reply[0]} refuses function {self._request.function}: {word}",
                code=reply[2],
                evidence=reply,
                retryable=reply[2] in (5, 6, 11),
            )
        data = reply[3:-2]
        if self._request.of_bits:
            return Bits(tuple(bool(data[i // 8] >> i % 8 & 1) for i in range(self._request.count)), reply)
        return Registers(tuple(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2)), reply)


# --- modules ---


def signed16(value: int) -> int:
    return value - 0x10000 if value & 0x8000 else value


@dataclass(frozen=True, slots=True)
class Climate:
    """Tenths of a degree Celsius and tenths of a percent; None where the element delivers an impossible value."""

    temp_tenths: int | None
    humidity_tenths: int | None


TEMP_RANGE_TENTHS = (-400, 850)
"""Of the SHT20 element: -40 to 85 °C where the module is rated; it delivers 0x7FFF or 0x8000 when it is dead."""


def climate_of(registers: Registers) -> Climate:
    """Temperature and humidity of an SHT20 module (XY-MD02 and its clones): input registers 1 and 2, tenths, temperature signed."""
    if len(registers.values) != 2:
        raise UnexpectedReply(f"a climate answer has 2 registers, not {len(registers.values)}", evidence=registers.reply)
    temp, humidity = signed16(registers.values[0]), registers.values[1]
    return Climate(
        temp if TEMP_RANGE_TENTHS[0] <= temp <= TEMP_RANGE_TENTHS[1] else None,
        humidity if 0 <= humidity <= 1000 else None,
    )


def inputs_of(answer: Registers | Bits, count: int) -> tuple[bool, ...]:
    """The first `count` inputs of a contact module; boards that map inputs to registers count any non-zero value as closed."""
    values = tuple(bool(value) for value in answer.values)
    if len(values) < count:
        raise UnexpectedReply(f"{len(values)} inputs answered, {count} wanted", evidence=answer.reply)
    return values[:count]


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The exception code of a refusal, the check value of a spoiled frame, else the data bytes."""
    if len(reply) < 5:
        return ()
    if crc16(reply[:-2]).to_bytes(2, "little") != reply[-2:]:
        return (Explanation(len(reply) - 2, 0xFF, "modbus.crc", 2),)
    if reply[1] & 0x80:
        return (Explanation(2, 0xFF, f"modbus.exception_{EXCEPTIONS.get(reply[2], 'unknown')}"),)
    return (Explanation(3, 0xFF, "modbus.data", len(reply) - 5),)


_FIGURES = re.compile(rb"(?:[A-Za-z]{0,2}[:= ]{0,2}-?[0-9]{1,3}\.[0-9]{1,2}[%A-Za-z ]{0,4}[,;\r\n]{0,2})+[0-9]{0,3}\.?")
"""Measured values, the last one perhaps cut, as a climate module says them by itself."""


def _is_text(data: bytes) -> bool:
    return sum(0x20 <= byte <= 0x7E or byte in (0x0A, 0x0D) for byte in data) >= 0.9 * len(data)
