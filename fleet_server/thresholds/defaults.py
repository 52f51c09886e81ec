"""Owns the built-in thresholds and within which bounds a person may change them. Pure data.

Values are the project's choices between published ones: kiosk platforms count a terminal as gone after 30 s to 40 min, a partner's after 4 h;
tenders of government halls ask for 30 min response and 4 h repair; the idle rule follows from 0.46 cases a day, at which seven empty days are
ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

Unit = Literal["s", "min", "h", "day", "workday", "month", "share", "count"]
TERMINAL_CLASSES: Final = ("government", "social")
_NONE: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """One threshold: its value, and per terminal class where that differs. `low` and `high` bound what may be set."""

    name: str
    value: float
    unit: Unit
    low: float
    high: float
    zh: str
    en: str
    by_class: Mapping[str, float] = field(default_factory=lambda: _NONE)


def _time(name: str, value: float, unit: Unit, zh: str, en: str, *, social: float | None = None) -> Default:
    most = {"s": 7 * 86_400, "min": 7 * 1_440, "h": 24 * 60, "day": 3_650, "workday": 250, "month": 120}[unit]
    by_class = _NONE if social is None else MappingProxyType({"social": social})
    return Default(name=name, value=value, unit=unit, low=1, high=most, zh=zh, en=en, by_class=by_class)


def _share(name: str, value: float, zh: str, en: str) -> Default:
    return Default(name=name, value=value, unit="share", low=0, high=1, zh=zh, en=en)


def _count(name: str, value: float, zh: str, en: str) -> Default:
    return Default(name=name, value=value, unit="count", low=1, high=100_000, zh=zh, en=en)


_ALL: Final = (
    _time("presence.suspect_s", 90, "s", "失联待确认", "Contact in doubt after", social=2 * 3600),
    _time("presence.offline_s", 300, "s", "判为离线", "Offline after", social=4 * 3600),
    _time("presence.alarm_s", 600, "s", "服务时段离线报警（一般）", "Offline alarm in opening hours, minor", social=4 * 3600 + 600),
    _time("presence.alarm_major_s", 1_800, "s", "服务时段离线报警（严重）", "Offline alarm in opening hours, major", social=6 * 3600),
    _time("presence.alarm_critical_s", 4 * 3600, "s", "服务时段离线报警（督办）", "Offline alarm in opening hours, critical", social=24 * 3600),
    _time("idle.notice_days", 14, "day", "连续零办件提示", "Notice of a machine without cases after"),
    _time("idle.relocate_months", 2, "month", "连续零办件建议迁移", "Relocation proposed after months without cases"),
    _time("idle.withdraw_months", 3, "month", "连续零办件决定撤回", "Withdrawal decided after months without cases"),
    _share("availability.month_min", 0.98, "月可用率下限", "Availability of a month, at least"),
    _share("intact.month_min", 0.97, "月完好率下限", "Intact rate of a month, at least"),
    _share("online.month_min", 0.98, "月在线率下限", "Online rate of a month, at least"),
    _share("fault_rate.month_max", 0.05, "月故障率上限", "Share of terminals with a fault in a month, at most"),
    _share("use_rate.day_min", 0.60, "日使用率下限", "Share of terminals used on a day, at least"),
    _share("reviews.good_min", 0.90, "好评率下限", "Good-review rate, at least"),
    _time("response.p1_respond_min", 15, "min", "紧急：响应", "P1: respond within"),
    _time("response.p1_onsite_min", 120, "min", "紧急：到场", "P1: on site within"),
    _time("response.p1_fix_min", 240, "min", "紧急：修复", "P1: fixed within"),
    _time("response.p2_respond_min", 30, "min", "严重：响应", "P2: respond within"),
    _time("response.p2_onsite_min", 240, "min", "严重：到场", "P2: on site within"),
    _time("response.p2_fix_min", 480, "min", "严重：修复", "P2: fixed within"),
    _time("response.p3_respond_min", 120, "min", "一般：响应", "P3: respond within"),
    _time("response.p3_onsite_workdays", 1, "workday", "一般：到场", "P3: on site within"),
    _time("response.p3_fix_workdays", 2, "workday", "一般：修复", "P3: fixed within"),
    _time("response.p4_respond_workdays", 1, "workday", "提示：响应", "P4: respond within"),
    _time("response.p4_fix_workdays", 5, "workday", "提示：修复", "P4: fixed within"),
    _count("alarm.site_terminals", 5, "同一点位合并为一条报警的台数", "Terminals of one site that make one alarm, more than"),
    _time("spare.offer_h", 24, "h", "提供备用机", "Loan device offered after"),
    _time("consumable.warn_days", 3, "day", "耗材余量预警", "Consumable warning at days left"),
    _time("reviews.contact_workdays", 1, "workday", "差评：联系", "Bad review: contact within"),
    _time("reviews.rectify_workdays", 5, "workday", "差评：整改", "Bad review: rectified within"),
    _time("reviews.extend_workdays", 10, "workday", "差评：延期（一次）", "Bad review: extended once by"),
    _time("reviews.remind_first_days", 3, "day", "未评价：首次提醒", "Unrated case: first reminder after"),
    _time("reviews.remind_second_days", 15, "day", "未评价：再次提醒", "Unrated case: second reminder after"),
    _time("reviews.remind_last_days", 45, "day", "未评价：末次提醒", "Unrated case: last reminder after"),
    _time("reviews.unrated_days", 60, "day", "未评价办结", "Closed as unrated, never as good, after"),
    _time("queue.wait_warn_min", 30, "min", "排队等待预警", "Warning at a wait of"),
    _count("queue.waiting_warn", 10, "单窗口等待人数预警", "Warning when more wait at a window than"),
    _count("queue.calls_max", 3, "叫号次数，其后过号", "Calls before a number is passed"),
    _share("hotline.yellow_share", 0.75, "热线工单黄灯（时限占比）", "Hotline ticket turns yellow at this share of its time"),
    _share("hotline.red_share", 1.0, "热线工单红灯（时限占比）", "Hotline ticket turns red at this share of its time"),
)  # fmt: skip

DEFAULTS: Final[Mapping[str, Default]] = MappingProxyType({one.name: one for one in _ALL})
"""By name, in the order in which a page lists them."""
