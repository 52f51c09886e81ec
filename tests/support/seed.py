"""A realistic fleet in a server database: for tests of pages, and to look at pages while they are made.

Open faults, device states and boots enter as signed batches through the real ledger and projection, so every piece of evidence verifies. The past
(presence, cleared faults, days of usage) is written straight into its tables.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fleet_server.accounts.passwords import Passwords
from fleet_server.db import migrate, open_raw
from fleet_server.evidence.ledger import Ledger
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project
from protocols.canon.faults import FAULTS
from protocols.canon.words import CoverState, DeviceState, PaperState, Severity, TonerState
from protocols.contract import batch as batches
from protocols.contract import records, topics
from protocols.contract.records import ClockQuality, Evidence
from tests.support.contract import MemoryKey, record_cert

FLEET = "test-fleet"
ZONE = ZoneInfo("Asia/Shanghai")
NOW_MS = int(datetime(2026, 11, 18, 10, 42, 7, tzinfo=ZONE).timestamp() * 1000)
"""A Wednesday morning in opening hours."""
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
OPERATOR, VIEWER = "operator", "viewer"
PASSWORD = "river-stone-4711"

# Positions of the county seats, roughly; the last site of Pan'an has none, to be listed beside the map.
SEATS = {
    "wucheng": ("330702", 119.5716, 29.0863),
    "jindong": ("330703", 119.72, 29.11),
    "lanxi": ("330781", 119.4605, 29.2089),
    "dongyang": ("330783", 120.242, 29.2896),
    "yiwu": ("330782", 120.0751, 29.3063),
    "yongkang": ("330784", 120.0473, 28.8883),
    "pujiang": ("330726", 119.8923, 29.4525),
    "wuyi": ("330723", 119.8164, 28.8926),
    "panan": ("330727", 120.4803, 29.0539),
}
DISTRICTS = (
    ("wucheng", "婺城区", "Wucheng"),
    ("jindong", "金东区", "Jindong"),
    ("lanxi", "兰溪市", "Lanxi"),
    ("dongyang", "东阳市", "Dongyang"),
    ("yiwu", "义乌市", "Yiwu"),
    ("yongkang", "永康市", "Yongkang"),
    ("pujiang", "浦江县", "Pujiang"),
    ("wuyi", "武义县", "Wuyi"),
    ("panan", "磐安县", "Pan'an"),
)
SITES = (
    ("hall", "行政服务中心", "Service Centre", "hall"),
    ("zone24", "市民中心 24 小时自助区", "Civic 24 h Zone", "zone24"),
    ("bank", "农商银行营业部", "Rural Bank", "bank"),
    ("hospital", "人民医院", "People's Hospital", "hospital"),
    ("community", "城西社区", "Westside Community", "community"),
    ("mall", "万达广场", "Wanda Plaza", "mall"),
)
WEEK = {day: [["09:00", "12:00"], ["13:30", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")}
OPEN_HOURS = {
    "hall": json.dumps(WEEK),
    "bank": json.dumps({day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}),
    "hospital": json.dumps({"always": True}),
    "community": json.dumps(WEEK),
    "mall": json.dumps({day: [["10:00", "22:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")} | {"holiday": [["10:00", "22:00"]]}),
    "zone24": json.dumps({"always": True}),
}  # fmt: skip
KIOSK = (
    ("id-reader", "id_reader", True),
    ("laser-printer", "laser_printer", True),
    ("receipt-printer", "receipt_printer", True),
    ("scanner", "scanner", True),
    ("keypad", "keypad", False),
    ("evaluator", "evaluator", False),
)
CALL_PADS = (("receipt-printer", "receipt_printer", True), *((f"call-pad-{n}", "call_pad", True) for n in range(1, 7)))
DESK = (
    ("id-reader", "id_reader", True),
    ("laser-printer", "laser_printer", True),
    ("scanner", "scanner", True),
    ("evaluator", "evaluator", False),
    ("climate", "climate", False),
    ("door", "door", True),
)
PROFILES = {
    "id_reader": "sdt-usb",
    "laser_printer": "lenovo-lj2650dn",
    "receipt_printer": "snbc-btp",
    "scanner": "newland-em20-serial",
    "keypad": "numeric-keypad",
    "evaluator": "evaluator-keys",
    "call_pad": "call-pad-ft12",
    "climate": "xy-md02",
    "door": "di-module-8",
}
ITEMS = (
    "medical.card-query",
    "social.pension-proof",
    "house.record-query",
    "traffic.licence-renew",
    "tax.proof-print",
    "birth.copy-print",
)
PJL_QUERY = b"\x1b%-12345X@PJL INFO STATUS\r\n\x1b%-12345X"


def pjl(code: int, word: str, online: str = "TRUE") -> bytes:
    return f'@PJL INFO STATUS\r\nCODE={code}\r\nDISPLAY="{word}"\r\nONLINE={online}\r\n\f'.encode()


EVIDENCE = {
    "LSR.PAPER_OUT": Evidence(codec="pjl", query=PJL_QUERY, reply=pjl(41038, "LOAD PAPER", "FALSE")),
    "LSR.TONER_LOW": Evidence(codec="pjl", query=PJL_QUERY, reply=pjl(10006, "TONER LOW")),
    "LSR.JAM": Evidence(codec="pjl", query=PJL_QUERY, reply=pjl(40022, "PAPER JAM", "FALSE")),
    "PRN.PAPER_OUT": Evidence(
        codec="escpos", query=bytes.fromhex("100401100402100403100404"), reply=bytes.fromhex("1632127e")
    ),
    "PRN.PAPER_NEAR_END": Evidence(
        codec="escpos", query=bytes.fromhex("100401100402100403100404"), reply=bytes.fromhex("1612121e")
    ),
    "PRN.COVER_OPEN": Evidence(
        codec="escpos", query=bytes.fromhex("100401100402100403100404"), reply=bytes.fromhex("1e161212")
    ),
    "IDR.NOT_AUTHORISED": Evidence(codec="sdt", query=bytes.fromhex("aaaaaa96690003112032"), reply=bytes.fromhex("aaaaaa9669000400006662")),
    # Two answers in one reply: the card's serial number was blanked by the agent.
    "IDR.READ_FAIL_RATE": Evidence(
        codec="sdt", query=bytes.fromhex("aaaaaa96690003300132"), reply=bytes.fromhex("aaaaaa96690008000041") + bytes(8), masked=((10, 18),)
    ),
}  # fmt: skip


@dataclass
class Machine:
    """One terminal of the seed."""

    id: str
    code: str
    type: str
    site: str
    kind: str
    inventory: tuple[tuple[str, str, bool], ...]
    name_zh: str
    name_en: str
    faults: list[tuple[str, str | None, int]] = field(default_factory=list)
    """(code, slot, since minutes ago)."""
    fate: str = "online"
    key: MemoryKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = MemoryKey(hashlib.sha256(self.id.encode()).digest())


@dataclass(frozen=True)
class Seeded:
    path: Path
    machines: tuple[Machine, ...]
    now_ms: int

    def by_code(self, code: str) -> Machine:
        return next(machine for machine in self.machines if machine.code == code)


PLANNED: dict[int, tuple[str, list[tuple[str, str | None, int]]]] = {
    16: ("online", [("LSR.PAPER_OUT", "laser-printer", 252)]),
    37: ("online", [("LSR.JAM", "laser-printer", 37), ("PRN.PAPER_NEAR_END", "receipt-printer", 400)]),
    58: ("online", [("IDR.NOT_AUTHORISED", "id-reader", 12)]),
    71: ("online", [("PRN.PAPER_NEAR_END", "receipt-printer", 95)]),
    90: ("online", [("EVA.UNPLUGGED", "evaluator", 1500)]),
    102: ("online", [("SCN.UNPLUGGED", "scanner", 66)]),
    131: ("online", [("IDR.READ_FAIL_RATE", "id-reader", 181)]),
    151: ("offline", []),
    152: ("offline", [("PRN.COVER_OPEN", "receipt-printer", 700)]),
    163: ("suspect", []),
    180: ("maintenance", [("PRN.COVER_OPEN", "receipt-printer", 48)]),
    181: ("maintenance", []),
    201: ("notEnrolled", []),
    202: ("notEnrolled", []),
}


def make_machines(count: int) -> list[Machine]:
    machines = []
    for n in range(1, count + 1):
        district, _, _ = DISTRICTS[n % len(DISTRICTS)]
        code, _, _, kind = SITES[(n // len(DISTRICTS)) % len(SITES)]
        kinds = {0: ("callPadSet", CALL_PADS, "叫号器组", "Call pads"), 5: ("desk", DESK, "无人受理台", "Desk")}
        type_, inventory, word_zh, word_en = kinds.get(n % 13, ("kiosk", KIOSK, "综合自助机", "Kiosk"))
        number = n // (len(DISTRICTS) * len(SITES)) + 1
        fate, faults = PLANNED.get(n, ("online", []))
        slots = {slot for slot, _, _ in inventory}
        machines.append(
            Machine(
                id=f"kf-{n:04d}",
                code=f"KF-{n:04d}",
                type=type_,
                site=f"{district}-{code}",
                kind=kind,
                inventory=inventory,
                name_zh=f"{word_zh} {number} 号",
                name_en=f"{word_en} {number}",
                faults=[fault for fault in faults if fault[1] is None or fault[1] in slots],
                fate=fate,
            )
        )
    return machines


def seed(path: Path, *, count: int = 400, now_ms: int = NOW_MS, days: int = 30, accounts: bool = True) -> Seeded:
    """Create the database at `path` and fill it."""
    migrate(path)
    machines = make_machines(count)
    rng = random.Random(count)
    with closing(open_raw(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        _sites(connection)
        _register(connection, machines, now_ms)
        _past(connection, machines, now_ms, days, rng)
        if accounts:
            _accounts(connection, now_ms)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        _signed(connection, machines, now_ms, rng)
        _platform_rows(connection, machines, now_ms)
        connection.execute("COMMIT")
    return Seeded(path, tuple(machines), now_ms)


def _sites(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES ('jinhua', NULL, '金华市', 'Jinhua', 0)")
    for n, (code, zh, en) in enumerate(DISTRICTS):
        adcode, lon, lat = SEATS[code]
        connection.execute(
            "INSERT INTO area (code, parent, name_zh, name_en, sort, adcode) VALUES (?, 'jinhua', ?, ?, ?, ?)",
            (code, zh, en, n, adcode),
        )
        for m, (site, site_zh, site_en, kind) in enumerate(SITES):
            nowhere = (code, site) == ("panan", "mall")
            connection.execute(
                "INSERT INTO site (code, area, name_zh, name_en, kind, hours, timezone, network, lon, lat)"
                " VALUES (?, ?, ?, ?, ?, ?, 'Asia/Shanghai', ?, ?, ?)",
                (
                    f"{code}-{site}",
                    code,
                    zh[:2] + site_zh,
                    f"{en} {site_en}",
                    kind,
                    OPEN_HOURS[kind],
                    "govExtranet" if kind == "hall" else "internet",
                    None if nowhere else round(lon + math.cos(m) * 0.006 * m, 5),
                    None if nowhere else round(lat + math.sin(m) * 0.006 * m, 5),
                ),
            )


def _register(connection: sqlite3.Connection, machines: Sequence[Machine], now_ms: int) -> None:
    for machine in machines:
        enrolled = None if machine.fate == "notEnrolled" else now_ms - 200 * DAY
        maintenance = machine.fate == "maintenance"
        inventory = [{"slot": slot, "family": family, "mandatory": mandatory} for slot, family, mandatory in machine.inventory]
        connection.execute(
            "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, created_ms, enrolled_ms, maintenance_until_ms,"
            " maintenance_reason, maintenance_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                machine.id,
                machine.code,
                machine.type,
                machine.name_zh,
                machine.name_en,
                machine.site,
                "social" if machine.kind == "bank" else "government",
                json.dumps(inventory),
                now_ms - (2 * HOUR if enrolled is None else 201 * DAY),
                enrolled,
                now_ms + 2 * HOUR if maintenance else None,
                "更换打印头" if maintenance else None,
                "operator" if maintenance else None,
            ),
        )
        if enrolled is None:
            connection.execute("INSERT INTO terminal_live (terminal) VALUES (?)", (machine.id,))
            continue
        connection.execute(
            "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, ?, ?)",
            (machine.key.kid, machine.id, machine.key.public, record_cert(machine.key, machine.id), enrolled),
        )
        silent_ms = {"offline": 73 * MINUTE, "suspect": 140_000}.get(machine.fate, (int(machine.id[3:]) * 7919) % 29_000)
        connection.execute(
            "INSERT INTO terminal_live (terminal, last_seen_ms, seen_by, connected, last_report_ms, agent_version, os, boot_no, boot_id,"
            " outbox_depth, clock_offset_ms, clock_quality, cert_not_after_ms, birth_ms)"
            " VALUES (?, ?, 'heartbeat', ?, ?, ?, 'Debian 12', 3, ?, ?, ?, 'synced', ?, ?)",
            (
                machine.id,
                now_ms - silent_ms,
                int(machine.fate != "offline"),
                now_ms - silent_ms - 7 * MINUTE,
                "0.0.9" if int(machine.id[3:]) % 17 == 0 else "0.1.0",
                bytes(16),
                12 if machine.fate == "offline" else 0,
                (int(machine.id[3:]) * 31) % 240 - 90,
                now_ms + 60 * DAY,
                now_ms - 5 * HOUR,
            ),
        )


def _past(connection: sqlite3.Connection, machines: Sequence[Machine], now_ms: int, days: int, rng: random.Random) -> None:
    today = datetime.fromtimestamp(now_ms / 1000, ZONE).date()
    midnight = int(datetime(today.year, today.month, today.day, tzinfo=ZONE).timestamp() * 1000)
    presence: list[tuple[object, ...]] = []
    faults: list[tuple[object, ...]] = []
    usage: list[tuple[object, ...]] = []
    sessions: list[tuple[object, ...]] = []
    for machine in machines:
        if machine.fate == "notEnrolled":
            continue
        presence += _presence(machine, now_ms, days, rng)
        faults += _cleared_faults(machine, now_ms, days, rng)
        busy = 0.0 if int(machine.id[3:]) % 29 == 0 else rng.uniform(0.3, 2.2)
        for back in range(1, days + 1):
            day = today - timedelta(days=back)
            n = 0 if day.weekday() >= 5 and machine.kind in {"hall", "community"} else _poisson(busy, rng)
            failed = sum(rng.random() < 0.03 for _ in range(n))
            usage.append((machine.id, day.isoformat(), n, n - failed, failed, 0, n * 95_000, 28_800, 0, 0, 28_800, now_ms))
        for k in range(_poisson(busy * 0.3, rng)):
            at = midnight + 9 * HOUR + rng.randrange(0, max(1, now_ms - midnight - 9 * HOUR))
            sessions.append(_session(machine, at, f"{machine.id}/{k}", rng))
        for k in range(2 if busy else 0):
            at = midnight - rng.randrange(1, days) * DAY + rng.randrange(9, 17) * HOUR
            sessions.append(_session(machine, at, f"{machine.id}/old/{k}", rng))
    connection.executemany("INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, ?, ?, ?)", presence)
    connection.executemany(
        "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, cleared_ms, cleared_by, disputed, late, source,"
        " claimed_by, false_alarm) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'terminal', 0, ?, 'terminal', ?, 0)",
        faults,
    )
    connection.executemany(
        "INSERT INTO terminal_day (terminal, day, sessions, success, failed, abandoned, duration_ms_sum, usable_s, partial_s, unusable_s,"
        " observed_s, computed_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        usage,
    )
    connection.executemany(
        "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
        " VALUES (?, ?, ?, 'touch', ?, 'none', ?, ?, ?, 0, 0, 0)",
        sessions,
    )


def _session(machine: Machine, at_ms: int, name: str, rng: random.Random) -> tuple[object, ...]:
    day = datetime.fromtimestamp(at_ms / 1000, ZONE).date().isoformat()
    outcome = "success" if rng.random() < 0.97 else "failed"
    sid = hashlib.sha256(name.encode()).digest()[:16]
    return (machine.id, sid, rng.choice(ITEMS), outcome, at_ms, rng.randrange(30_000, 240_000), day)


def _presence(machine: Machine, now_ms: int, days: int, rng: random.Random) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    at = now_ms - min(days, 10) * DAY
    while rng.random() < 0.45 and at < now_ms - DAY:
        lost = at + rng.randrange(DAY // 2, 3 * DAY)
        if lost > now_ms - 6 * HOUR:
            break
        back = lost + rng.randrange(4 * MINUTE, 5 * HOUR)
        rows += [(machine.id, at, lost, "online", "birth"), (machine.id, lost, back, "offline", "silence")]
        at = back
    if machine.fate in {"offline", "suspect"}:
        lost = now_ms - (73 * MINUTE if machine.fate == "offline" else 140_000)
        rows += [(machine.id, at, lost, "online", "birth"), (machine.id, lost, None, machine.fate, "silence")]
    else:
        rows.append((machine.id, at, None, "online", "birth"))
    return rows


def _cleared_faults(machine: Machine, now_ms: int, days: int, rng: random.Random) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    slots = {slot: mandatory for slot, _, mandatory in machine.inventory}
    choices = [
        ("PRN.PAPER_OUT", "receipt-printer"),
        ("LSR.PAPER_OUT", "laser-printer"),
        ("IDR.OPEN_FAIL", "id-reader"),
        ("LSR.TONER_LOW", "laser-printer"),
    ]
    for n in range(_poisson(1.2, rng)):
        code, slot = rng.choice(choices)
        if slot not in slots:
            continue
        since = now_ms - rng.randrange(2 * HOUR, days * DAY)
        cleared = min(now_ms - 10 * MINUTE, since + rng.randrange(8 * MINUTE, 7 * HOUR))
        rows.append(
            (
                f"{machine.id}:{n:016x}", machine.id, slot, code, FAULTS[code].severity.value, int(slots[slot]), since, since, cleared,
                int(rng.random() < 0.1), "operator" if rng.random() < 0.5 else None,
            )
        )  # fmt: skip
    return rows


class _Facts:
    """The ledger's projection without presence, which the seed writes itself."""

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        raise AssertionError(f"the seed has no forks: {batch_ids}")

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        raise AssertionError(f"the seed raises no alarms: {terminal} {code} {now_ms}")


def _signed(connection: sqlite3.Connection, machines: Sequence[Machine], now_ms: int, rng: random.Random) -> None:
    ledger = Ledger(connection, FLEET, _Facts())
    ledger.refresh()
    for machine in machines:
        if machine.fate == "notEnrolled":
            continue
        started = now_ms - 9 * DAY - rng.randrange(0, DAY)
        stream = hashlib.sha256(f"{machine.id}/stream".encode()).digest()[:16]
        first: list[tuple[int, records.Body]] = [
            (started, records.Boot(agent="0.1.0", os="Debian 12", arch="x86_64", python="3.11.2", previous="clean"))
        ]
        for n, (place, family, _) in enumerate(machine.inventory):
            first.append((started + 500 + n, _device(machine, place, family, None)))
        digest = _store(ledger, machine, stream, 1, batches.NO_PREV, first, started + 4000, started + 4080)
        levels = _summaries(machine, now_ms, rng)
        number = 1
        if levels:
            number = 2
            digest = _store(ledger, machine, stream, 2, digest, levels, now_ms - 20 * MINUTE, now_ms - 20 * MINUTE + 60)
        mandatory_of = {place: mandatory for place, _, mandatory in machine.inventory}
        for n, (code, slot, minutes) in enumerate(sorted(machine.faults, key=lambda fault: -fault[2]), start=number + 1):
            at = now_ms - minutes * MINUTE
            kind = FAULTS[code]
            evidence = EVIDENCE.get(code)
            family = next((family for name, family, _ in machine.inventory if name == slot), "host")
            bodies: list[tuple[int, records.Body]] = []
            if slot is not None:
                bodies.append((at, _device(machine, slot, family, code)))
            bodies.append((
                at + 3,
                records.Fault(
                    id=hashlib.sha256(f"{machine.id}/{code}".encode()).digest()[:8], code=code, change="open",
                    severity=Severity(kind.severity), slot=slot, mandatory=mandatory_of.get(slot or "", False), since_ms=at,
                    profile=PROFILES.get(family), evidence=evidence,
                ),
            ))  # fmt: skip
            digest = _store(ledger, machine, stream, n, digest, bodies, at + 41, at + 96)


def _summaries(machine: Machine, now_ms: int, rng: random.Random) -> list[tuple[int, records.Body]]:
    if all(slot != "laser-printer" for slot, _, _ in machine.inventory):
        return []
    from_ms, to_ms = now_ms - 35 * MINUTE, now_ms - 20 * MINUTE
    level = records.Consumable
    slots = tuple(
        records.SlotCount(slot=slot, total=40, ok=39, failed=1, lifetime=21_733 if slot == "laser-printer" else None)
        for slot, _, _ in machine.inventory
    )
    host = records.Host(
        from_ms=from_ms, to_ms=to_ms, cpu_pct=7, mem_free_mib=2210, disk_free_mib=41_300, temp_c=47, uptime_s=9 * 86_400,
        agent_rss_kib=34_100, outbox_batches=0,
    )  # fmt: skip
    common: dict[str, Any] = {"slot": "laser-printer", "event": "level"}
    toner = level(**common, item="toner", remaining=rng.randrange(8, 90), capacity=100, unit="percent", source="sensor")
    paper = level(**common, item="paper", remaining=rng.randrange(30, 400), capacity=500, unit="sheet", source="counter")
    return [
        (to_ms, toner),
        (to_ms, paper),
        (to_ms, records.Counters(from_ms=from_ms, to_ms=to_ms, slots=slots)),
        (to_ms, host),
    ]


def _store(
    ledger: Ledger,
    machine: Machine,
    stream: bytes,
    no: int,
    prev: bytes,
    bodies: Sequence[tuple[int, records.Body]],
    sealed_ms: int,
    received_ms: int,
) -> bytes:
    header = batches.BatchHeader(
        stream=stream, no=no, prev=prev, parent=None, batch_class="event", boot_no=3, boot_id=stream, sealed_ms=sealed_ms
    )
    origin = bodies[0][0]
    encoded = [
        records.encode_record(body, wall_ms=at, quality=ClockQuality.SYNCED, boot_ms=max(0, at - origin) + no * DAY)
        for at, body in bodies
    ]
    raw, digest = batches.seal_batch(header, encoded, machine.key, FLEET, machine.id)
    outcome = ledger.receive(machine.id, "batch", topics.up(machine.id, "batch"), raw, None, received_ms)
    assert outcome.stored == len(bodies), (machine.id, no, outcome)
    return digest


def _device(machine: Machine, slot: str, family: str, code: str | None) -> records.Device:
    paper = PaperState.NOT_SUPPORTED
    toner = TonerState.NOT_SUPPORTED
    cover = CoverState.NOT_SUPPORTED
    state = DeviceState.ONLINE
    if family in {"laser_printer", "receipt_printer"}:
        paper, cover = PaperState.FULL, CoverState.CLOSED
    if family == "laser_printer":
        toner = TonerState.FULL
    tail = (code or "").partition(".")[2]
    if tail == "PAPER_OUT":
        paper = PaperState.OUT
    elif tail == "PAPER_NEAR_END":
        paper = PaperState.LOW
    elif tail == "JAM":
        paper, state = PaperState.JAMMED, DeviceState.HARDWARE_ERROR
    elif tail == "COVER_OPEN":
        cover, state = CoverState.OPEN, DeviceState.USER_ERROR
    elif tail == "UNPLUGGED":
        state = DeviceState.NO_DEVICE
    elif tail in {"NOT_AUTHORISED", "OPEN_FAIL"}:
        state = DeviceState.HARDWARE_ERROR
    port = f"1-1.{1 + sum(map(ord, slot)) % 6}"
    return records.Device(
        slot=slot, family=family.replace("_", "-"), device=state, paper=paper, toner=toner, cover=cover, profile=PROFILES.get(family),
        port=port, vid=0x17EF if family == "laser_printer" else 0x1504, pid=0x0010, firmware="FV1.040" if family == "receipt_printer" else None,
        evidence=EVIDENCE.get(code or ""),
    )  # fmt: skip


def _platform_rows(connection: sqlite3.Connection, machines: Sequence[Machine], now_ms: int) -> None:
    # Fresh signs of life again: the ledger's batches lie in the past.
    for machine in machines:
        if machine.fate == "offline":
            connection.execute(
                "INSERT INTO fault (id, terminal, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
                " VALUES (?, ?, 'NET.OFFLINE', 'P2', 1, ?, ?, 0, 0, 'platform', 0)",
                (f"{machine.id}:{'f' * 16}", machine.id, now_ms - 68 * MINUTE, now_ms - 73 * MINUTE),
            )
    claimed = next((machine for machine in machines if machine.faults), None)
    if claimed is not None:
        connection.execute(
            "UPDATE fault SET claimed_by = 'operator', claimed_ms = ? WHERE terminal = ? AND cleared_ms IS NULL",
            (now_ms - HOUR, claimed.id),
        )
    connection.execute(
        "INSERT INTO quarantine_count (terminal, reason, count, last_ms) VALUES ('kf-0007', 'signature', 3, ?)", (now_ms - HOUR,)
    )
    connection.execute(
        "INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, ?, 'broker')",
        (now_ms - 3 * DAY, now_ms - 3 * DAY + 4 * MINUTE),
    )


def _accounts(connection: sqlite3.Connection, now_ms: int) -> None:
    hashed = quick_passwords().hash(PASSWORD)
    for name, role in ((OPERATOR, "operator"), (VIEWER, "viewer")):
        connection.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms, lang) VALUES (?, '', ?, ?, 0, 0, ?, 'zh')",
            (name, hashed, role, now_ms - DAY),
        )


def quick_passwords() -> Passwords:
    """Real argon2id, as cheap as it goes."""
    from argon2 import PasswordHasher

    return Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def _poisson(mean: float, rng: random.Random) -> int:
    n, left = 0, rng.expovariate(1.0)
    while left < mean:
        n += 1
        left += rng.expovariate(1.0)
    return n


def today_of(now_ms: int) -> date:
    return datetime.fromtimestamp(now_ms / 1000, ZONE).date()
