"""Owns the built-in thresholds and within which bounds a person may change them. Pure data.

Values are the project's choices between published ones: kiosk platforms count a terminal as gone after 30 s to 40 min, a partner's after 4 h;
tenders of government halls ask for 30 min response and 4 h repair; the idle rule follows from 0.46 cases a day, at which seven empty days are
ordinary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Final, Literal

Unit = Literal["s", "min", "h", "day", "workday", "month", "share", "count"]
Use = Literal["rule", "target", "record"]
"""What a threshold does here: decides something, is what figures are measured against, or is written down for rules that people apply."""
TERMINAL_CLASSES: Final = ("government", "social")
_NONE: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Default:
    """One threshold: its value, and per terminal class where that differs. `low` and `high` bound what may be set.

    Names are stored with every setting and are never changed.
    """

    name: str
    value: float
    unit: Unit
    low: float
    high: float
    zh: str
    en: str
    by_class: Mapping[str, float] = field(default_factory=lambda: _NONE)
    use: Use = "record"
    per_class: bool = True
    """Whether a class of terminals may have a value of its own; what holds for the platform as a whole has only one."""

    @property
    def group(self) -> str:
        """The part of the name that says what it is about."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Order:
    """`smaller` must stay below `larger`, in the same class; `or_equal` allows both to be the same."""

    smaller: str
    larger: str
    or_equal: bool = False


_MOST: Final[Mapping[str, float]] = {"s": 7 * 86_400, "min": 7 * 1_440, "h": 24 * 60, "day": 3_650, "workday": 250, "month": 120}


def _time(
    name: str,
    value: float,
    unit: Unit,
    zh: str,
    en: str,
    *,
    social: float | None = None,
    low: float = 1,
    high: float | None = None,
    use: Use = "record",
    per_class: bool = True,
) -> Default:
    by_class = _NONE if social is None else MappingProxyType({"social": social})
    most = _MOST[unit] if high is None else high
    return Default(
        name=name, value=value, unit=unit, low=low, high=most, zh=zh, en=en, by_class=by_class, use=use, per_class=per_class
    )


def _share(name: str, value: float, zh: str, en: str, *, low: float = 0, use: Use = "record", per_class: bool = True) -> Default:
    return Default(name=name, value=value, unit="share", low=low, high=1, zh=zh, en=en, use=use, per_class=per_class)


def _count(
    name: str,
    value: float,
    zh: str,
    en: str,
    *,
    low: float = 1,
    high: float = 100_000,
    use: Use = "record",
    per_class: bool = True,
) -> Default:
    return Default(name=name, value=value, unit="count", low=low, high=high, zh=zh, en=en, use=use, per_class=per_class)


# Rules of the platform as a whole.
_whole_time = partial(_time, use="rule", per_class=False)
_whole_share = partial(_share, use="rule", per_class=False)
_whole_count = partial(_count, use="rule", per_class=False)

_ALL: Final = (
    _time("presence.suspect_s", 90, "s", "失联待确认", "Contact in doubt after", social=2 * 3600, low=45, use="rule"),
    _time("presence.offline_s", 300, "s", "判为离线", "Offline after", social=4 * 3600, low=60, use="rule"),
    _time("presence.alarm_s", 600, "s", "服务时段离线报警（一般）", "Offline alarm in opening hours, minor", social=15_000, low=60, use="rule"),
    _time("presence.alarm_major_s", 1_800, "s", "服务时段离线报警（严重）", "Offline alarm in opening hours, major", social=6 * 3600),
    _time("presence.alarm_critical_s", 4 * 3600, "s", "服务时段离线报警（督办）", "Offline alarm in opening hours, critical", social=24 * 3600),
    _whole_time("presence.reconnect_s", 90, "s", "平台中断后等待重连", "Time to reconnect after the platform was away", low=30, high=3_600),
    _whole_time("platform.blind_s", 60, "s", "平台侧中断判定", "Platform counts as blind after", low=10, high=3_600),
    _whole_share("platform.mass_share", 0.30, "同时失联占在线终端比例（超过）", "Share of online terminals silent together, more than", low=0.05),
    _whole_count("platform.mass_terminals", 3, "同时失联台数（起）", "Terminals silent together, at least", low=2),
    _whole_count("platform.mass_sites", 2, "同时失联点位数（起）", "Sites silent together, at least", low=2),
    _whole_time("platform.together_s", 60, "s", "视为同时的时间范围", "Counted as together within", low=5, high=3_600),
    _whole_count("alarm.site_terminals", 5, "同一点位合并报警的台数（起）", "Terminals of a site that make one alarm", low=2, high=1_000),
    _whole_count("recurring.times", 3, "反复故障：24 小时内次数（起）", "Recurring fault: times within 24 h, from", low=2, high=100),
    _time("idle.notice_days", 14, "day", "连续零办件提示", "Notice of a machine without cases after", high=365, use="rule"),
    _time("idle.relocate_months", 2, "month", "连续零办件建议迁移", "Relocation proposed after months without cases", use="rule"),
    _time("idle.withdraw_months", 3, "month", "连续零办件决定撤回", "Withdrawal decided after months without cases", use="rule"),
    _time("consumable.warn_days", 3, "day", "耗材余量预警", "Consumable warning at days left", high=90, use="rule"),
    _time("certificate.warn_days", 14, "day", "证书到期预警", "Certificate warning at days left", high=60, use="rule"),
    _whole_time("enrolment.code_h", 24, "h", "一次性接入码有效期", "One-time enrolment code is valid for", high=168),
    _whole_count("enrolment.tries", 5, "一次性接入码可试次数", "Tries of a one-time enrolment code", high=20),
    _share("availability.month_min", 0.98, "月可用率下限", "Availability of a month, at least", use="target"),
    _share("intact.month_min", 0.97, "月完好率下限", "Intact rate of a month, at least", use="target"),
    _share("online.month_min", 0.98, "月在线率下限", "Online rate of a month, at least", use="target"),
    _share("fault_rate.month_max", 0.05, "月故障率上限", "Share of terminals with a fault in a month, at most", use="target"),
    _share("use_rate.day_min", 0.60, "日使用率下限", "Share of terminals used on a day, at least"),
    _share("reviews.good_min", 0.90, "好评率下限", "Good-review rate, at least", use="target"),
    _whole_time("account.idle_min", 30, "min", "无操作自动退出", "Signed out when idle for", low=5, high=480),
    _whole_time("account.session_h", 12, "h", "单次登录最长", "Longest session", high=24),
    _whole_count("account.failed_max", 5, "连续登录失败锁定次数", "Failed sign-ins that lock an account", low=3, high=20),
    _whole_time("account.locked_min", 10, "min", "锁定时长", "Account stays locked for", high=1_440),
    _whole_count("account.sessions_max", 10, "每个账户同时登录数", "Open sessions per account", high=50),
    _whole_count("account.password_min", 12, "密码最短长度", "Shortest password", low=8, high=64),
    _whole_time("notification.gather_s", 10, "s", "新故障合并等待", "News is gathered for", high=600),
    _whole_time("notification.settle_s", 60, "s", "恢复确认时长", "A recovery is told when it has lasted", high=3_600),
    _whole_time("notification.late_s", 60, "s", "补传故障等待恢复", "A fault delivered late waits for its end", high=3_600),
    _whole_time("notification.late_behind_s", 600, "s", "补传未完时等待恢复", "The same while the backlog is still coming", high=7_200),
    _whole_time("notification.stale_min", 15, "min", "过期消息不再发送", "A message to people is dropped after", low=11, high=240),
    _whole_time("notification.keep_days", 90, "day", "已发消息保留", "Messages are kept for", high=730),
    _whole_count("order.batch_two", 20, "指令超过多少台须第二人批准", "Orders to more terminals than this need a second person", high=1_000),
    _whole_time("order.logs_keep_days", 30, "day", "调取的日志保留", "Pulled logs are kept for", high=365),
    _whole_time("audit.keep_days", 190, "day", "审计日志保留", "The audit log is kept for", low=190),
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
    _time("spare.offer_h", 24, "h", "提供备用机", "Loan device offered after"),
    _time("reviews.contact_workdays", 1, "workday", "差评：联系", "Bad review: contact within", per_class=False),
    _time("reviews.rectify_workdays", 5, "workday", "差评：整改", "Bad review: rectified within", per_class=False),
    _time("reviews.extend_workdays", 10, "workday", "差评：延期（一次）", "Bad review: extended once by", per_class=False),
    _time("reviews.remind_first_days", 3, "day", "未评价：首次提醒", "Unrated case: first reminder after", per_class=False),
    _time("reviews.remind_second_days", 15, "day", "未评价：再次提醒", "Unrated case: second reminder after", per_class=False),
    _time("reviews.remind_last_days", 45, "day", "未评价：末次提醒", "Unrated case: last reminder after", per_class=False),
    _time("reviews.unrated_days", 60, "day", "未评价办结", "Closed as unrated, never as good, after", per_class=False),
    _time("queue.wait_warn_min", 30, "min", "排队等待预警", "Warning at a wait of", per_class=False),
    _count("queue.waiting_warn", 10, "单窗口等待人数预警", "Warning when more wait at a window than", per_class=False),
    _count("queue.calls_max", 3, "叫号次数，其后过号", "Calls before a number is passed", per_class=False),
    _share("hotline.yellow_share", 0.75, "热线工单黄灯（时限占比）", "Hotline ticket turns yellow at this share of its time", per_class=False),
    _share("hotline.red_share", 1.0, "热线工单红灯（时限占比）", "Hotline ticket turns red at this share of its time", per_class=False),
)  # fmt: skip

ORDERS: Final = (
    Order("presence.suspect_s", "presence.offline_s"),
    Order("presence.offline_s", "presence.alarm_s", or_equal=True),
    Order("presence.alarm_s", "presence.alarm_major_s"),
    Order("presence.alarm_major_s", "presence.alarm_critical_s"),
    Order("idle.relocate_months", "idle.withdraw_months"),
    Order("account.idle_min", "account.session_h", or_equal=True),
    Order("notification.late_s", "notification.late_behind_s", or_equal=True),
    Order("response.p1_respond_min", "response.p1_onsite_min"),
    Order("response.p1_onsite_min", "response.p1_fix_min"),
    Order("response.p2_respond_min", "response.p2_onsite_min"),
    Order("response.p2_onsite_min", "response.p2_fix_min"),
    Order("response.p3_onsite_workdays", "response.p3_fix_workdays", or_equal=True),
    Order("response.p4_respond_workdays", "response.p4_fix_workdays", or_equal=True),
    Order("reviews.contact_workdays", "reviews.rectify_workdays", or_equal=True),
    Order("reviews.remind_first_days", "reviews.remind_second_days"),
    Order("reviews.remind_second_days", "reviews.remind_last_days"),
    Order("reviews.remind_last_days", "reviews.unrated_days"),
    Order("hotline.yellow_share", "hotline.red_share", or_equal=True),
)
"""What must stay below what, whoever sets which of the two."""

DEFAULTS: Final[Mapping[str, Default]] = MappingProxyType({one.name: one for one in _ALL})
"""By name, in the order in which a page lists them."""
