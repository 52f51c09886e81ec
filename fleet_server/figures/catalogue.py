"""The figures by name: words and formula, as pages and reports show them beside the number. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Definition:
    name: str
    zh: str
    en: str
    formula_zh: str
    formula_en: str

    def title(self, lang: str) -> str:
        return self.zh if lang == "zh" else self.en

    def formula(self, lang: str) -> str:
        return self.formula_zh if lang == "zh" else self.formula_en


_ALL: Final = (
    Definition(
        "cases", "办件量", "Cases", "统计期内办结的办件数（成功、失败、放弃合计）",
        "cases finished in the period: successful, failed and abandoned together",
    ),
    Definition("cases_success", "成功办件量", "Successful cases", "结果为成功的办件数", "cases that ended in success"),
    Definition("success_rate", "办件成功率", "Success rate", "成功办件量 ÷ 办件量", "successful cases ÷ cases"),
    Definition(
        "active_share", "有办件终端占比", "Share of terminals with cases", "统计期内至少有 1 件成功办件的终端数 ÷ 在用终端数",
        "terminals with at least one successful case ÷ terminals in service",
    ),
    Definition(
        "zero_terminals", "零办件终端", "Terminals without cases", "在用终端数 − 有成功办件的终端数",
        "terminals in service less those with a successful case",
    ),
    Definition(
        "cases_per_terminal", "单台平均办件量", "Cases per terminal", "办件量 ÷ 台日数 × 统计期已过天数（按台日加权）",
        "cases ÷ machine-days × days elapsed (weighted by machine-days)",
    ),
    Definition("cases_per_terminal_day", "单台日均办件量", "Cases per terminal and day", "办件量 ÷ 台日数", "cases ÷ machine-days"),
    Definition(
        "cases_per_terminal_year", "单台平均年办件量（年化）", "Cases per terminal and year (annualised)", "办件量 ÷ 台日数 × 365",
        "cases ÷ machine-days × 365",
    ),
    Definition(
        "offhours_share", "错时延时办件占比", "Off-hours share",
        "节假日、周末、午间、班前、班后开始的办件数 ÷ 办件量（按点位当日公布的服务时段）",
        "cases begun on holidays, weekends, at noon, before or after hours ÷ cases (by the site's own hours of that day)",
    ),
    Definition(
        "online_rate", "在线率", "Online rate", "服务时段内平台判定在线秒数 ÷ 平台可见秒数（平台盲区不计入）",
        "seconds held for reachable ÷ seconds watched, inside opening hours; the platform's blind time is in neither",
    ),
    Definition(
        "availability", "可用率", "Availability", "服务时段内可办事秒数 ÷ 状态已知秒数（离线、锁定计为不可用，平台盲区不计入）",
        "seconds it could serve ÷ seconds known, inside opening hours; silence and locks count against it, blind time is in neither",
    ),
    Definition(
        "intact_rate", "完好率", "Intact rate", "每日 09:00、15:00 检查时必备外设全部正常且耗材未用尽的次数 ÷ 状态已知的检查次数",
        "checks at 09:00 and 15:00 that found every mandatory peripheral normal and supplied ÷ checks whose answer is known",
    ),
    Definition(
        "faults", "故障数", "Faults", "统计期内存在的故障（不含提示级与误报）", "faults that touch the period, without notices and false alarms",
    ),
    Definition(
        "fault_rate", "故障率", "Fault rate", "统计期内有故障的终端数 ÷ 在用终端数", "terminals with a fault ÷ terminals in service",
    ),
    Definition(
        "mttr", "平均修复时长（小时）", "Mean time to repair (h)", "统计期内恢复的故障的总时长 ÷ 恢复的故障数",
        "time from first observation to recovery ÷ faults that ended in the period",
    ),
    Definition(
        "good_rate", "好评率", "Good-review rate", "（非常满意 + 满意 + 基本满意）÷ 收到的评价数",
        "very satisfied, satisfied and basically satisfied ÷ reviews given",
    ),
    Definition(
        "rating_answered_share", "参评率", "Review response", "收到的评价数 ÷ 邀请评价次数", "reviews given ÷ times asked",
    ),
    Definition("queue_calls", "叫号次数", "Numbers called", "叫号器“下一位”按键次数", "times the key for the next number was pressed"),
    Definition("cases_by_outcome", "按结果", "Cases by outcome", "各结果的办件数", "cases of each outcome"),
    Definition("cases_by_class", "按时段", "Cases by class of time", "按开始时刻归类的办件数", "cases by the class of the time they began in"),
    Definition("cases_by_terminal", "按终端", "Cases by terminal", "各终端的办件数", "cases of each terminal"),
    Definition("cases_by_item", "按事项", "Cases by item", "各事项的办件数", "cases of each item"),
    Definition("success_by_item", "事项成功率", "Success rate by item", "该事项成功办件 ÷ 该事项办件", "successful cases ÷ cases of the item"),
    Definition("cases_by_hour", "按小时", "Cases by hour", "按开始时刻（当地时间）的办件数", "cases by the local hour they began in"),
    Definition(
        "cases_by_hour_work", "工作日按小时", "Working days by hour", "工作日（含调休上班）按开始时刻的办件数",
        "cases of working days, make-up days included, by the local hour they began in",
    ),
    Definition(
        "cases_by_hour_rest", "休息日按小时", "Days off by hour", "周末与节假日按开始时刻的办件数",
        "cases of weekends and holidays by the local hour they began in",
    ),
    Definition(
        "mttr_by_code", "各故障码平均修复时长（小时）", "Mean time to repair by code (h)", "该故障码已恢复故障的总时长 ÷ 恢复的故障数",
        "time from first observation to recovery ÷ faults of the code that ended in the period",
    ),
    Definition("faults_by_code", "按故障码", "Faults by code", "各故障码的故障数", "faults of each code"),
    Definition("ratings_by_level", "评价等级", "Reviews by level", "各等级的评价数", "reviews of each level"),
    Definition("queue_by_action", "叫号按键", "Call-pad keys", "各按键的次数", "presses of each key"),
)  # fmt: skip

CATALOGUE: Final[Mapping[str, Definition]] = MappingProxyType({one.name: one for one in _ALL})
POPULATION: Final[Mapping[str, str]] = MappingProxyType(
    {
        "zh": "统计口径：统计期内至少有一天在用的终端（期末前接入，期初前未注销），时间按点位当地时间（默认北京时间）。",
        "en": "Population: terminals in service on at least one day of the period (enrolled before its end, not revoked before its start); "
        "local time of each site, by default Beijing time.",
    }
)
