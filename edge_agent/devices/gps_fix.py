"""From sentences to a fix that may be believed. Pure: the fields come from pynmeagps, times are passed in.

A receiver without a fix sends empty or last-known coordinates, and a decoder makes 0.0, 0.0 of empty ones: nothing is taken from a sentence that
does not itself say that it is valid.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, Literal

from pynmeagps import NMEAReader
from pynmeagps.exceptions import NMEAMessageError, NMEAParseError, NMEAStreamError, NMEATypeError

from protocols.codecs.nmea import Sentence

_NMEA_ERRORS = (NMEAMessageError, NMEAParseError, NMEAStreamError, NMEATypeError)
Grade = Literal["poor", "gps", "dgps", "rtk"]
_GRADES: dict[str, Grade] = {"1": "gps", "2": "dgps", "4": "rtk", "5": "rtk"}
"""GGA's quality. 0 is no fix; 3 is military; 6 to 8 are guessed, typed in or simulated, and are not where the van is."""
_RMC_MODES = frozenset({"", "A", "D", "P", "R", "F"})
"""Modes of an RMC that measure; E guesses, M is typed in, S is simulated, N is none."""
SATELLITES_MAX = 99


@dataclass(frozen=True, slots=True)
class Fix:
    """A measured position: degrees north and east (WGS-84)."""

    latitude: float = field(repr=False)
    longitude: float = field(repr=False)
    grade: Grade
    satellites: int
    hdop_tenths: int | None
    date: dt.date | None


@dataclass(slots=True)
class FixTracker:
    """What the receiver said since the last look. `feed` every sentence, then `take`: only the newest of each kind is looked into."""

    poor_above_hdop_tenths: int = 50
    sentences: int = 0
    """Sound ones, of any kind."""
    last_rmc: Sentence | None = None
    last_gga: Sentence | None = None
    _has_gga: bool = False
    """It sends GGA at all, so their quality decides."""

    def feed(self, sentence: Sentence) -> None:
        self.sentences += 1
        if sentence.kind == "RMC":
            self.last_rmc = sentence
        elif sentence.kind == "GGA":
            self.last_gga, self._has_gga = sentence, True

    def take(self) -> Fix | None:
        """The fix since the last `take`, if there is one, and begin anew. An RMC that says no outweighs a GGA that says yes."""
        rmc = None if self.last_rmc is None else _fields(self.last_rmc)
        gga = None if self.last_gga is None else _fields(self.last_gga)
        heard_rmc = self.last_rmc is not None
        self.last_rmc = self.last_gga = None
        self.sentences = 0
        is_valid = getattr(rmc, "status", "") == "A" and str(getattr(rmc, "posMode", "") or "") in _RMC_MODES
        date = _date(rmc) if is_valid else None
        if heard_rmc and not is_valid:
            return None
        if gga is not None:
            return _fix_of(gga, self.poor_above_hdop_tenths, date)
        place = _place(rmc) if is_valid and not self._has_gga else None
        return None if place is None else Fix(*place, "gps", 0, None, date)


def date_is_wrong(date: dt.date, wall_ms: int, *, wall_is_sure: bool) -> bool:
    """Whether a receiver with a fix tells an impossible date: its week number has rolled over (1,024 weeks, 19.6 years), or it never knew better.

    Against a synchronised clock a day's difference is enough; without one only what is surely impossible counts.
    """
    if date.year < EARLIEST.year or date.year > EARLIEST.year + 40:
        return True
    return wall_is_sure and abs((date - dt.datetime.fromtimestamp(wall_ms / 1000, dt.UTC).date()).days) > 1


EARLIEST = dt.date(2025, 1, 1)
"""No van with this agent drove before."""


def _fields(sentence: Sentence) -> Any:
    """None where the library cannot make sense of a sentence whose checksum is right."""
    try:
        return NMEAReader.parse(sentence.raw.strip(b"\r\n") + b"\r\n")
    except (*_NMEA_ERRORS, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def _place(fields: Any) -> tuple[float, float] | None:
    latitude, longitude = getattr(fields, "lat", None), getattr(fields, "lon", None)
    if not isinstance(latitude, float) or not isinstance(longitude, float):
        return None
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180) or (latitude == 0 and longitude == 0):
        return None
    return latitude, longitude


def _fix_of(fields: Any, poor_above_hdop_tenths: int, date: dt.date | None) -> Fix | None:
    grade, place = _GRADES.get(str(getattr(fields, "quality", ""))), _place(fields)
    if grade is None or place is None:
        return None
    satellites, hdop = getattr(fields, "numSV", 0), getattr(fields, "HDOP", None)
    hdop_tenths = round(hdop * 10) if isinstance(hdop, float) and 0 < hdop < 1000 else None
    if hdop_tenths is not None and hdop_tenths > poor_above_hdop_tenths:
        grade = "poor"
    count = satellites if isinstance(satellites, int) else 0
    return Fix(*place, grade, max(0, min(SATELLITES_MAX, count)), hdop_tenths, date)


def _date(fields: Any) -> dt.date | None:
    date = getattr(fields, "date", None)
    return date if isinstance(date, dt.date) else None
