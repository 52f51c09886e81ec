"""What pages show, as values: terminals, faults, places. Built by `fleet.py` from rows, read by rules and templates; nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fleet_server.faults.severity import impact
from fleet_server.presence.rules import BLIND_MS, CROWD, THRESHOLDS, Thresholds
from fleet_server.terminals.state import StateCode
from fleet_server.thresholds.defaults import DEFAULTS
from protocols.canon.faults import FAULTS

SEVERITY_RANK: Final = {"P1": 0, "P2": 1, "P3": 2, "P4": 3}
OFFLINE_CODE: Final = "NET.OFFLINE"
SUPPLY_CODE: Final = "SUPPLY.DAYS_LEFT"
DISPUTE_CODE: Final = "SEC.DISPUTE"
NOTICES: Final = {
    SUPPLY_CODE: ("耗材即将用尽", "Consumable nearly used up"),
    DISPUTE_CODE: ("记录流有争议，待判定", "Stream of records in dispute"),
}
"""What pages conclude themselves: no fault of anybody's, so it cannot be claimed; (zh, en)."""
NOTICE: Final = "notice"


@dataclass(frozen=True, slots=True)
class Slot:
    """One line of a terminal's inventory."""

    name: str
    family: str
    mandatory: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultNow:
    """A fault episode as lists show it."""

    id: str
    terminal: str
    slot: str | None
    code: str
    severity: str
    mandatory: bool
    since_ms: int
    opened_ms: int
    cleared_ms: int | None = None
    source: str = "terminal"
    claimed_by: str | None = None
    muted_until_ms: int | None = None
    muted_reason: str | None = None
    muted_by: str | None = None
    open_batch: int | None = None
    open_idx: int | None = None
    late: bool = False
    false_alarm: bool = False
    profile: str | None = None

    @property
    def proof(self) -> str:
        """Where its evidence is shown."""
        return f"{self.open_batch}/{self.open_idx}" if self.open_batch is not None else f"fault/{self.id}"

    @property
    def claimable(self) -> bool:
        return self.cleared_ms is None and self.source != NOTICE

    @property
    def impact(self) -> str:
        """What it means for the public."""
        return impact(self.code, self.severity, slot=self.slot, mandatory=self.mandatory).value

    @property
    def rank(self) -> tuple[int, int, int]:
        """Worst first: impact, severity, age."""
        return ({"noService": 0, "some": 1, "none": 2}[self.impact], SEVERITY_RANK.get(self.severity, 9), self.since_ms)

    def sentence(self, lang: str) -> str:
        if self.code in NOTICES:
            return NOTICES[self.code][0 if lang == "zh" else 1]
        kind = FAULTS.get(self.code)
        return self.code if kind is None else (kind.zh if lang == "zh" else kind.en)

    def hint(self, lang: str) -> str:
        kind = FAULTS.get(self.code)
        return "" if kind is None else (kind.hint_zh if lang == "zh" else kind.hint_en)

    def muted(self, now_ms: int) -> bool:
        return self.muted_until_ms is not None and now_ms < self.muted_until_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNow:
    """Newest reported state of a slot."""

    slot: str
    family: str
    device: str
    paper: str
    toner: str
    media: str
    cover: str
    owner: str
    at_ms: int
    since_ms: int
    asset: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A site with the names of the areas above it, outermost first."""

    code: str
    name_zh: str
    name_en: str
    kind: str
    timezone: str
    network: str
    hours: str
    areas: tuple[tuple[str, str, str], ...] = ()
    """(code, zh, en)."""

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code

    def area_path(self, lang: str) -> str:
        """The innermost two areas; a city's own name above them says nothing on its own console."""
        return " › ".join((zh if lang == "zh" else en) or zh or code for code, zh, en in self.areas[-2:])

    @property
    def area_codes(self) -> frozenset[str]:
        return frozenset(code for code, _, _ in self.areas)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What somebody set, or the defaults, for one class of terminals."""

    presence: Thresholds
    warn_days: float
    """A consumable that lasts no longer is worth a visit."""
    site_many: int
    """So many terminals of one site with one fault are one cause."""
    blind_ms: int


USUAL: Final = Limits(
    presence=THRESHOLDS["government"],
    warn_days=DEFAULTS["consumable.warn_days"].value,
    site_many=CROWD.site_many,
    blind_ms=BLIND_MS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplyNow:
    """A consumable whose end can be foreseen."""

    slot: str
    item: str
    remaining: int
    unit: str
    per_day: float
    empty_ms: int
    levels: int
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LockNow:
    """Whether a terminal is locked by its own word, and whether it should be."""

    locked: bool
    wanted: bool
    zh: str = ""
    en: str = ""
    by: str = ""
    since_ms: int = 0

    def line(self, lang: str) -> str:
        """What its screen says."""
        return (self.en if lang == "en" else "") or self.zh


NOWHERE: Final = Place(code="", name_zh="", name_en="", kind="", timezone="Asia/Shanghai", network="", hours="{}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalNow:
    """A terminal as lists show it, with its one state."""

    id: str
    code: str
    type: str
    name_zh: str
    name_en: str
    owner_class: str
    place: Place
    inventory: tuple[Slot, ...]
    tags: tuple[str, ...]
    created_ms: int
    enrolled_ms: int | None
    maintenance_until_ms: int | None
    maintenance_reason: str | None
    maintenance_by: str | None
    state: StateCode
    state_since_ms: int | None
    last_seen_ms: int | None = field(compare=False)
    last_report_ms: int | None = field(compare=False)
    connected: bool
    version: str | None
    outbox_depth: int | None = field(compare=False)
    faults: tuple[FaultNow, ...]
    """Open ones, worst first."""
    devices: dict[str, DeviceNow] = field(compare=False)
    lamps: tuple[tuple[str, str], ...]
    """(slot, look) in inventory order."""
    cases_today: int
    cases_30d: int
    last_case_ms: int | None
    haystack: str = field(compare=False)
    supplies: tuple[SupplyNow, ...] = ()
    disputed_ms: int | None = None
    """Since when a stream of it waits for somebody to say whether it was copied."""
    limits: Limits = USUAL
    lock: LockNow | None = None
    """None: neither locked nor asked to be."""

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code

    def name_at_site(self, lang: str) -> str:
        """Site and name, for a line that does not show the site elsewhere; names that begin with their site say it once."""
        site, own = self.place.name(lang), self.name(lang)
        return own if not site or site in own else f"{site} {own}"

    @property
    def label(self) -> str:
        return self.code or self.id

    @property
    def locked(self) -> bool:
        """By its own word."""
        return self.lock is not None and self.lock.locked

    @property
    def lock_wanted(self) -> bool:
        return self.lock is not None and self.lock.wanted

    @property
    def heard_ms(self) -> int | None:
        """Last sign of life: a heartbeat or a stored batch."""
        return max(self.last_seen_ms or 0, self.last_report_ms or 0) or None

    @property
    def worst(self) -> FaultNow | None:
        return self.faults[0] if self.faults else None

    @property
    def bad_lamps(self) -> int:
        return sum(1 for _, look in self.lamps if look in {"bad", "warn"})

    @property
    def usable(self) -> bool:
        return self.state in {StateCode.NORMAL, StateCode.PARTIAL}


LAMP_BY_DEVICE: Final = {
    "online": "ok",
    "deviceBusy": "ok",
    "starting": "ok",
    "inUse": "inUse",
    "noDevice": "missing",
    "unknown": "noData",
}
SILENT_STATES: Final = frozenset({StateCode.OFFLINE, StateCode.UNKNOWN, StateCode.CLOSED, StateCode.NOT_ENROLLED})


def lamp(device: DeviceNow | None, faults: tuple[FaultNow, ...], state: StateCode) -> str:
    """Look of one inventory lamp: the worst open fault of the slot, else what the device last said, else nothing known.

    Of a terminal that is silent only its open faults are still shown: an old "fine" is not "fine".
    """
    if faults:
        return "bad" if any(fault.severity in {"P1", "P2"} for fault in faults) else "warn"
    if device is None or state in SILENT_STATES:
        return "noData"
    return LAMP_BY_DEVICE.get(device.device, "warn")
