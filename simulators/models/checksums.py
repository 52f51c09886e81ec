"""Check values of the simulated devices, written apart from the codecs so that the two cannot share a mistake."""

from __future__ import annotations


def xor8(data: bytes) -> int:
    """XOR of all bytes (SDT readers, GA/T 467)."""
    check = 0
    for byte in data:
        check ^= byte
    return check


def sum8(data: bytes) -> int:
    """Sum modulo 256 (FT1.2 long frame, IEC 60870-5-1)."""
    return sum(data) & 0xFF


def crc16_modbus(data: bytes) -> bytes:
    """CRC-16 of Modbus RTU (polynomial 8005 reflected, start FFFF) as it travels: low byte first."""
    register = 0xFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            low = register & 1
            register >>= 1
            if low:
                register ^= 0xA001
    return bytes((register & 0xFF, register >> 8))


def crc16_ccitt(data: bytes) -> bytes:
    """CRC-CCITT (polynomial 1021, start 0000), high byte first, as Newland engines use it."""
    register = 0
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            high = register & 0x8000
            register = (register << 1) & 0xFFFF
            if high:
                register ^= 0x1021
    return bytes((register >> 8, register & 0xFF))
