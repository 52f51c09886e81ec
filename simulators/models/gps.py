"""Position receiver that sends NMEA 0183 once a second, while it is carried along a route.

Sentences are written from the receivers' manuals (u-blox, SiRF): checksum, degrees and minutes, knots, two-digit years. Coordinates are of squares
that anybody may drive to.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from simulators.models.base import Model, UsbIdentity
from simulators.models.checksums import xor8

USB_UBLOX7 = UsbIdentity(0x1546, 0x01A7, (), product="u-blox 7 - GPS/GNSS Receiver")
USB_UBLOX8 = UsbIdentity(0x1546, 0x01A8, (), product="u-blox GNSS receiver")
USB_UBLOX = (USB_UBLOX7, USB_UBLOX8)
PL2303 = UsbIdentity(0x067B, 0x2303, (), product="USB-Serial Controller")

PERIOD_S = 1.0
COLD_START_S = 32.0
TUNNEL_S = 90.0
UNHEARD_S = 3.0
ROLLOVER = dt.timedelta(weeks=1024)
ENDLESS_BYTES = 400
EARTH_M_PER_DEGREE = 111_195.0


@dataclass(frozen=True)
class Stop:
    """A place on the route (WGS-84 degrees) and how long the van stands there."""

    latitude: float
    longitude: float
    dwell_s: float = 600.0


ROUTE: tuple[Stop, ...] = (
    Stop(29.0790, 119.6474, 1200),
    Stop(29.2087, 119.4605, 3600),
    Stop(29.3058, 120.0750, 3600),
    Stop(29.2895, 120.2416, 3600),
)
"""A day of the city whose outline comes with the console: the depot and three squares."""


class GpsReceiver(Model):
    """One receiver. `talker`: GN combined, GP, BD and others. `epoch_s`: wall time at the clock's zero, None for this machine's."""

    kind: ClassVar[str] = "gps"
    own_faults: ClassVar[Mapping[str, str]] = {
        "no-fix": "the antenna is cut: sentences without a position, for as long as it lasts",
        "last-known": "no fix, and the receiver repeats the last position it had, marked as void",
        "poor-fix": "few satellites low over the horizon: dilution of precision above 8",
        "rollover": "the week counter has rolled over: a date 1,024 weeks ago, with a fix",
        "clock-1980": "the receiver believes that it is January 1980, with a fix",
        "ubx-noise": "somebody switched binary messages on as well",
        "half-lines": "every other sentence loses its end",
        "endless-line": "a sentence that never ends",
        "bad-checksum": "every sentence has a wrong checksum",
        "wrong-speed": "somebody stored another line speed in the receiver",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "tunnel": "drive through a tunnel: no fix for 90 s",
        "cold-start": "forget where and when it is: no fix for half a minute",
    }

    def __init__(
        self,
        *,
        baud: int | None = 9600,
        talker: str = "GN",
        route: Sequence[Stop] = ROUTE,
        speed_m_s: float = 12.0,
        epoch_s: float | None = None,
        latency_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(latency_s=latency_s, baud=baud, seed=seed)
        self.talker = talker
        self.route = tuple(route)
        self.speed_m_s = speed_m_s
        self._usual_baud = baud
        self._epoch_s = time.time() - time.monotonic() if epoch_s is None else epoch_s
        self._next_s: float | None = None
        self._blind_until_s = 0.0
        self._left_s: float | None = None
        self._turn = 0

    # ------------------------------------------------------------------ host side

    def on_power_cycle(self, now: float) -> None:
        self._blind_until_s = now + COLD_START_S
        self._next_s = now + PERIOD_S

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "wrong-speed" and self._usual_baud is not None:
            self.baud = 115200 if active else self._usual_baud

    def on_action(self, name: str, now: float, *args: str) -> None:
        self._blind_until_s = now + (TUNNEL_S if name == "tunnel" else COLD_START_S)

    def advance(self, now: float) -> None:
        """What nobody listened to is lost: an adapter keeps no more than a moment."""
        if self._next_s is None or self._next_s < now - UNHEARD_S:
            self._next_s = math.floor(now) + PERIOD_S
        super().advance(now)

    def mechanism_due(self) -> float | None:
        return self._next_s

    def run_mechanism(self, now: float) -> None:
        self._next_s = now + PERIOD_S
        oldest = self.output_due(None)
        if oldest is not None and oldest < now - UNHEARD_S:
            self.drop_output()
        self._speak(now)

    # ------------------------------------------------------------------ inside

    def place_at(self, now: float) -> tuple[float, float, float]:
        """Latitude, longitude and speed in m/s: the route in a circle, standing at each stop."""
        if self._left_s is None:
            self._left_s = now
        legs = list(zip(self.route, (*self.route[1:], self.route[0]), strict=True))
        drives = [_distance_m(here, there) / self.speed_m_s for here, there in legs]
        moment = (now - self._left_s) % (sum(stop.dwell_s for stop in self.route) + sum(drives) or 1.0)
        for (here, there), drive_s in zip(legs, drives, strict=True):
            if moment < here.dwell_s:
                return here.latitude, here.longitude, 0.0
            moment -= here.dwell_s
            if moment < drive_s:
                part = moment / drive_s
                latitude = here.latitude + part * (there.latitude - here.latitude)
                return latitude, here.longitude + part * (there.longitude - here.longitude), self.speed_m_s
            moment -= drive_s
        return self.route[0].latitude, self.route[0].longitude, 0.0

    def _speak(self, now: float) -> None:
        self._turn += 1
        moment = dt.datetime.fromtimestamp(self._epoch_s + now, dt.UTC)
        if self.has("rollover"):
            moment -= ROLLOVER
        elif self.has("clock-1980"):
            moment = moment.replace(year=1980, month=1, day=6)
        if self.has("endless-line"):
            self.emit(b"$GNTXT," + b"7" * ENDLESS_BYTES, now)
            return
        for sentence in self._sentences(moment, now):
            raw = self._framed(sentence)
            if self.has("half-lines") and self._turn % 2 and sentence[2:5] in ("RMC", "GGA"):
                raw = raw[: len(raw) // 2]
            self.emit(raw, now)
        if self.has("ubx-noise"):
            self.emit(_ubx(0x01, 0x07, self._random.randbytes(92)), now)

    def _sentences(self, moment: dt.datetime, now: float) -> list[str]:
        clock = f"{moment:%H%M%S}.00"
        latitude, longitude, speed_m_s = self.place_at(now)
        where = (
            f"{_degrees(latitude, 2)},{'N' if latitude >= 0 else 'S'},{_degrees(longitude, 3)},{'E' if longitude >= 0 else 'W'}"
        )
        blind = self.has("no-fix") or self.has("last-known") or now < self._blind_until_s
        if blind:
            known = where if self.has("last-known") else ",,,"
            told = clock if self.has("last-known") else ""
            return [
                f"{self.talker}RMC,{told},V,{known},,,,,,N",
                f"{self.talker}GGA,{told},{known},0,00,99.99,,,,,,",
                f"{self.talker}GSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99",
            ]
        satellites, hdop = (4, 8.5) if self.has("poor-fix") else (12, 0.8)
        knots = speed_m_s / 0.514444
        return [
            f"{self.talker}RMC,{clock},A,{where},{knots:.2f},056.7,{moment:%d%m%y},,,A",
            f"{self.talker}GGA,{clock},{where},1,{satellites:02d},{hdop:.2f},62.0,M,-12.0,M,,",
            f"{self.talker}GSA,A,3,02,05,12,15,18,21,24,25,,,,,1.60,{hdop:.2f},1.40",
        ]

    def _framed(self, sentence: str) -> bytes:
        body = sentence.encode("ascii")
        check = xor8(body)
        if self.has("bad-checksum"):
            check ^= 0x11
        return b"$%s*%02X\r\n" % (body, check)


def _degrees(value: float, width: int) -> str:
    """ddmm.mmmm or dddmm.mmmm."""
    tenthousandths = round(abs(value) * 60 * 10_000)
    degrees, minutes = divmod(tenthousandths, 60 * 10_000)
    return f"{degrees:0{width}d}{minutes / 10_000:07.4f}"


def _distance_m(here: Stop, there: Stop) -> float:
    north = (there.latitude - here.latitude) * EARTH_M_PER_DEGREE
    east = (there.longitude - here.longitude) * EARTH_M_PER_DEGREE * math.cos(math.radians(here.latitude))
    return math.hypot(north, east)


def _ubx(message_class: int, number: int, payload: bytes) -> bytes:
    body = bytes((message_class, number)) + len(payload).to_bytes(2, "little") + payload
    first = second = 0
    for byte in body:
        first = (first + byte) % 256
        second = (second + first) % 256
    return b"\xb5\x62" + body + bytes((first, second))
