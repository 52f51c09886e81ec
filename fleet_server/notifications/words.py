"""How a digest reads: lines of plain text in Chinese or English. Pure. Each line names a machine and a time, so no two digests read the same.

Names come from the registry, faults from the catalogue; nothing that a person typed into the console gets here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fleet_server.faults.severity import Impact
from fleet_server.notifications.digest import EXAMPLES, Digest, Event, EventKind, PlatformEvent, SiteGroup, group
from fleet_server.sites.calendar import local_time
from protocols.canon.faults import FAULTS

Language = Literal["zh", "en"]

FAULTS_MAX = 4
"""Kinds of fault named in the line of a site."""
NAME_MAX = 48
"""Characters of a name; registries hold whole addresses in them."""

_ZH: Mapping[str, str] = {
    "P1": "紧急",
    "P2": "严重",
    "P3": "一般",
    "P4": "提示",
    "noService": "，不能办事",
    "some": "，部分事项受影响",
    "none": "",
    "stop": "。",
    "fullStop": "。",
    "and": "、",
    "brand": "终端监控",
    "test": "测试消息",
    "opened": "新增 {n}",
    "worsened": "加重 {n}",
    "unclaimed": "未认领 {n}",
    "recovered": "恢复 {n}",
    "platform": "平台",
    "line.opened": "{where}：{fault}{impact}，{since} 起",
    "line.worsened": "{where}：{fault}已加重{impact}，{since} 起",
    "line.unclaimed": "{where}：{fault}仍无人认领（第 {level} 次提醒）{impact}，{since} 起",
    "line.recovered": "{where}：{fault}已恢复，{since} 至 {until}，历时 {length}",
    "group.opened": "{site}：{n} 台终端同时有新故障：{faults}（{examples}），{since} 起",
    "group.worsened": "{site}：{n} 台终端故障加重：{faults}（{examples}），{since} 起",
    "group.unclaimed": "{site}：{n} 台终端的故障仍无人认领：{faults}（{examples}），{since} 起",
    "group.recovered": "{site}：{n} 台终端已恢复：{faults}（{examples}），{until} 止",
    "group.count": "{fault} {n} 台",
    "group.more": "{names} 等",
    "together": "，疑似断网或断电",
    "hint": "建议：{hint}",
    "blind": "平台侧中断：{since} 起未收到终端数据（{cause}），终端状态未知，期间不逐台通知",
    "sighted": "平台已恢复接收终端数据：中断 {since} 至 {until}，历时 {length}",
    "cause.broker": "消息代理未应答",
    "cause.ingest": "接收服务未运行",
    "cause.silence": "多个点位的终端同时失联",
    "recovery": "恢复",
    "left": "其余 {n} 条见控制台",
    "testLine": "渠道“{channel}”可以收到通知，发送时间 {at}",
    "minutes": "{n} 分钟",
    "hours": "{h} 小时 {m} 分",
    "days": "{d} 天 {h} 小时",
}
_EN: Mapping[str, str] = {
    "P1": "critical",
    "P2": "major",
    "P3": "minor",
    "P4": "notice",
    "noService": ", no service",
    "some": ", some items affected",
    "none": "",
    "stop": ".",
    "fullStop": ". ",
    "and": ", ",
    "brand": "Kiosk fleet",
    "test": "test message",
    "opened": "{n} new",
    "worsened": "{n} worse",
    "unclaimed": "{n} unclaimed",
    "recovered": "{n} recovered",
    "platform": "platform",
    "line.opened": "{where}: {fault}{impact}, since {since}",
    "line.worsened": "{where}: {fault} has become worse{impact}, since {since}",
    "line.unclaimed": "{where}: {fault}, still taken by nobody (reminder {level}){impact}, since {since}",
    "line.recovered": "{where}: {fault}, recovered; {since} to {until}, {length}",
    "group.opened": "{site}: {n} terminals have new faults together: {faults} ({examples}), since {since}",
    "group.worsened": "{site}: faults of {n} terminals have become worse: {faults} ({examples}), since {since}",
    "group.unclaimed": "{site}: faults of {n} terminals still taken by nobody: {faults} ({examples}), since {since}",
    "group.recovered": "{site}: {n} terminals recovered: {faults} ({examples}), by {until}",
    "group.count": "{fault} × {n}",
    "group.more": "{names} …",
    "together": ", perhaps network or power",
    "hint": "Hint: {hint}",
    "blind": "The platform hears nobody since {since} ({cause}): states are unknown, terminals are not reported one by one",
    "sighted": "The platform hears its terminals again: out from {since} to {until}, {length}",
    "cause.broker": "the message broker does not answer",
    "cause.ingest": "the ingest does not run",
    "cause.silence": "terminals of several sites fell silent together",
    "recovery": "recovered",
    "left": "{n} more in the console",
    "testLine": 'Channel "{channel}" receives notifications, sent {at}',
    "minutes": "{n} min",
    "hours": "{h} h {m} min",
    "days": "{d} d {h} h",
}
_WORDS: Mapping[Language, Mapping[str, str]] = {"zh": _ZH, "en": _EN}
# Marks that robots read as formatting or as a mention; full width they are only characters.
_PLAIN = str.maketrans("*_`[]()<>#@|~\\", "＊＿｀［］（）＜＞＃＠｜～＼")


@dataclass(frozen=True, slots=True)
class Line:
    """`severity` is None for what is over. `tag` is its word."""

    severity: str | None
    tag: str
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """A digest in one language."""

    title: str
    lines: Sequence[Line]


class Words:
    """`zone` is the time zone in which times are told, `channel` the name that a test message says."""

    def __init__(self, language: Language, zone: str, channel: str) -> None:
        self._words, self._language, self._zone, self._channel = _WORDS[language], language, zone, channel

    def text(self, digest: Digest) -> Text:
        lines = [] if digest.platform is None else [self._platform(digest.platform, digest.at_ms)]
        lines += [
            self._group(line, digest.at_ms) if isinstance(line, SiteGroup) else self._event(line, digest.at_ms)
            for line in group(digest.events)
        ]
        if digest.test:
            lines.append(Line(None, self("test"), self("testLine", channel=plain(self._channel), at=self._stamp(digest.at_ms))))
        return Text(self._title(digest), lines)

    def left(self, count: int) -> str:
        """Said below lines that had no room."""
        return self("left", n=count)

    def __call__(self, key: str, **values: object) -> str:
        return self._words[key].format(**values)

    def _title(self, digest: Digest) -> str:
        kinds: Sequence[EventKind] = ("opened", "worsened", "unclaimed", "recovered")
        parts = [self("platform")] if digest.platform is not None else []
        parts += [self(kind, n=digest.count(kind)) for kind in kinds if digest.count(kind)]
        parts += [self("test")] if digest.test else []
        return f"{self('brand')} {self._stamp(digest.at_ms)} {' · '.join(parts)}"

    def _platform(self, event: PlatformEvent, now_ms: int) -> Line:
        since = self._clock(event.since_ms, now_ms)
        if event.kind == "blind":
            return Line("P1", self("platform"), self("blind", since=since, cause=self("cause." + event.cause)) + self("stop"))
        until_ms = now_ms if event.until_ms is None else event.until_ms
        length = self._length(until_ms - event.since_ms)
        text = self("sighted", since=since, until=self._clock(until_ms, now_ms), length=length)
        return Line(None, self("platform"), text + self("stop"))

    def _event(self, event: Event, now_ms: int) -> Line:
        until_ms = now_ms if event.until_ms is None else event.until_ms
        text = self(
            "line." + event.kind,
            where=self._where(event),
            fault=self._fault(event.fault),
            impact=self(event.impact if event.impact in set(Impact) else "none"),
            since=self._clock(event.since_ms, now_ms),
            until=self._clock(until_ms, now_ms),
            length=self._length(until_ms - event.since_ms),
            level=event.level,
        )
        if event.kind == "recovered":
            return Line(None, self("recovery"), text + self("stop"))
        hint = self._hint(event.fault)
        tail = self("fullStop") + self("hint", hint=hint) if hint else ""
        return Line(event.severity, self._tag(event.severity), text + tail + self("stop"))

    def _group(self, found: SiteGroup, now_ms: int) -> Line:
        first, names = found.first, found.terminals
        examples = self("and").join(plain(name) for name in names[:EXAMPLES])
        counts = Counter(event.fault for event in found.events)
        faults = self("and").join(self("group.count", fault=self._fault(code), n=n) for code, n in counts.most_common(FAULTS_MAX))
        if len(counts) > FAULTS_MAX:
            faults = self("group.more", names=faults)
        if first.kind != "recovered" and counts["NET.OFFLINE"] > len(found.events) // 2:
            faults += self("together")
        text = self(
            "group." + first.kind,
            site=self._site(first),
            n=len({event.terminal for event in found.events}),
            faults=faults,
            examples=self("group.more", names=examples),
            since=self._clock(min(event.since_ms for event in found.events), now_ms),
            until=self._clock(max(event.until_ms or now_ms for event in found.events), now_ms),
        )
        over = first.kind == "recovered"
        return Line(
            None if over else found.severity, self("recovery") if over else self._tag(found.severity), text + self("stop")
        )

    def _tag(self, severity: str) -> str:
        return f"{severity} {self(severity)}"

    def _where(self, event: Event) -> str:
        name = (event.name_zh or event.name_en) if self._language == "zh" else (event.name_en or event.name_zh)
        site = self._site(event) if event.site else ""
        return " ".join(filter(None, (plain(event.label), site if site not in name else "", plain(name))))

    def _site(self, event: Event) -> str:
        name = (event.site_zh or event.site_en) if self._language == "zh" else (event.site_en or event.site_zh)
        return plain(name or event.site)

    def _fault(self, code: str) -> str:
        kind = FAULTS.get(code)
        if kind is None:
            return plain(code)
        return kind.zh if self._language == "zh" else kind.en

    def _hint(self, code: str) -> str:
        kind = FAULTS.get(code)
        if kind is None:
            return ""
        return kind.hint_zh if self._language == "zh" else kind.hint_en

    def _stamp(self, at_ms: int) -> str:
        return local_time(at_ms, self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def _clock(self, at_ms: int, now_ms: int) -> str:
        then, now = local_time(at_ms, self._zone), local_time(now_ms, self._zone)
        if then.date() == now.date():
            return then.strftime("%H:%M")
        return then.strftime("%m-%d %H:%M" if then.year == now.year else "%Y-%m-%d %H:%M")

    def _length(self, length_ms: int) -> str:
        minutes = max(0, length_ms) // 60_000
        if minutes < 60:
            return self("minutes", n=minutes)
        hours = minutes // 60
        return self("hours", h=hours, m=minutes % 60) if hours < 24 else self("days", d=hours // 24, h=hours % 24)


def plain(text: str) -> str:
    """A name on one line that formats and mentions nothing."""
    return " ".join(text.split()).translate(_PLAIN)[:NAME_MAX]


def fit(
    text: Text, words: Words, *, most: int, size_limit: int, build: Callable[[Sequence[Line], str], bytes]
) -> tuple[Sequence[Line], str]:
    """As many lines as fit, and the sentence about the rest. `build` makes what the platform measures; the worst lines come first."""
    low, high = 0, min(most, len(text.lines))
    if len(build(text.lines[:high], _rest(words, len(text.lines) - high))) <= size_limit:
        return text.lines[:high], _rest(words, len(text.lines) - high)
    while low + 1 < high:
        middle = (low + high) // 2
        if len(build(text.lines[:middle], _rest(words, len(text.lines) - middle))) <= size_limit:
            low = middle
        else:
            high = middle
    return text.lines[:low], _rest(words, len(text.lines) - low)


def _rest(words: Words, count: int) -> str:
    return words.left(count) if count else ""
