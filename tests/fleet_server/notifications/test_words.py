"""How digests read."""

from __future__ import annotations

import pytest

from fleet_server.notifications.digest import Digest, PlatformEvent, decode, encode
from fleet_server.notifications.words import Language, Words, fit, plain
from protocols.canon.faults import FAULTS
from tests.fleet_server.notifications.bench import NOON_MS, ZONE
from tests.fleet_server.notifications.samples import AT_MS, digest, event, many, mixed

LANGUAGES: tuple[Language, ...] = ("zh", "en")


def read(found: Digest, language: Language = "zh") -> list[str]:
    text = Words(language, ZONE, "duty").text(found)
    return [text.title, *(f"[{line.tag}] {line.text}" for line in text.lines)]


def test_a_digest_in_chinese() -> None:
    assert read(mixed()) == [
        "终端监控 2026-05-29 12:07:05 平台 · 新增 9 · 未认领 1 · 恢复 1",
        "[平台] 平台已恢复接收终端数据：中断 11:00 至 12:00，历时 1 小时 0 分。",
        (
            f"[P1 紧急] KF-0001 市民中心 24 小时自助区 3 号机：{FAULTS['ENV.SMOKE'].zh}仍无人认领（第 2 次提醒），部分事项受影响，11:00 起。"
            f"建议：{FAULTS['ENV.SMOKE'].hint_zh}。"
        ),
        "[P2 严重] KF-0317 市民中心 24 小时自助区 3 号机：A4 打印机缺纸，不能办事，12:00 起。建议：补纸并登记数量。",
        "[P2 严重] 金东行政服务中心：8 台终端同时有新故障：终端离线 8 台，疑似断网或断电（KF-100、KF-101、KF-102 等），12:00 起。",
        "[恢复] KF-0002 市民中心 24 小时自助区 3 号机：凭条打印机卡纸已恢复，05-28 10:00 至 12:05，历时 1 天 2 小时。",
    ]


def test_a_digest_in_english() -> None:
    assert read(mixed(), "en") == [
        "Kiosk fleet 2026-05-29 12:07:05 platform · 9 new · 1 unclaimed · 1 recovered",
        "[platform] The platform hears its terminals again: out from 11:00 to 12:00, 1 h 0 min.",
        (
            f"[P1 critical] KF-0001 Civic Centre Lobby 3: {FAULTS['ENV.SMOKE'].en}, still taken by nobody (reminder 2), some items affected,"
            f" since 11:00. Hint: {FAULTS['ENV.SMOKE'].hint_en}."
        ),
        "[P2 major] KF-0317 Civic Centre Lobby 3: A4 printer out of paper, no service, since 12:00. Hint: Refill paper and record the amount.",
        (
            "[P2 major] Jindong Hall: 8 terminals have new faults together: Terminal offline × 8, perhaps network or power"
            " (KF-100, KF-101, KF-102 …), since 12:00."
        ),
        "[recovered] KF-0002 Civic Centre Lobby 3: Receipt printer jammed, recovered; 05-28 10:00 to 12:05, 1 d 2 h.",
    ]


@pytest.mark.parametrize("cause", ["broker", "ingest", "silence"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_blindness_says_since_when_and_why(language: Language, cause: str) -> None:
    found = Digest(id="m", at_ms=AT_MS, platform=PlatformEvent(kind="blind", cause=cause, since_ms=NOON_MS))
    title, line = read(found, language)
    assert "12:00" in line
    assert "12:07:05" in title


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["opened", "worsened", "unclaimed", "recovered"])
@pytest.mark.parametrize("count", [1, 8])
def test_every_kind_names_a_machine_and_a_time_in_both_languages(language: Language, kind: str, count: int) -> None:
    """Robots drop what reads like what they sent before."""
    events = [event(f"kf-{number}", kind=kind, until_ms=NOON_MS if kind == "recovered" else None) for number in range(count)]
    for line in read(digest(*events), language)[1:]:
        assert "KF-0" in line
        assert "12:00" in line
        assert "{" not in line


def test_every_fault_of_the_catalogue_reads_in_both_languages() -> None:
    for code, kind in FAULTS.items():
        assert kind.zh in read(digest(event(fault=code)))[1]
        assert kind.en in read(digest(event(fault=code)), "en")[1]


def test_a_fault_that_this_version_does_not_know_reads_as_its_code() -> None:
    assert "NEW.CODE，不能办事" in read(digest(event(fault="NEW.CODE")))[1]


def test_names_neither_format_nor_mention() -> None:
    hostile = "**3** [x](http://e) <@all> `x` <at user_id='all'> #\n- **P1** line | ~x~"
    line = read(digest(event(name_zh=hostile, site_zh=hostile, terminal="kf-<@all>")))[1]
    assert not set("*_`[]()<>#@|~\n") & set(line.removeprefix("[P2 严重]"))


def test_a_name_is_not_endless() -> None:
    assert len(plain("长" * 500)) < 60


def test_as_many_lines_as_fit_and_a_word_about_the_rest() -> None:
    words = Words("zh", ZONE, "duty")
    text = words.text(many(100))

    def size_of(count: int) -> int:
        return len("\n".join([*(line.text for line in text.lines[:count]), words.left(100 - count)]).encode())

    for limit in (size_of(0), size_of(7), size_of(7) + 1, size_of(8) - 1, size_of(60)):
        lines, rest = fit(
            text,
            words,
            most=80,
            size_limit=limit,
            build=lambda lines, rest: "\n".join([*(one.text for one in lines), rest]).encode(),
        )
        assert size_of(len(lines)) <= limit < size_of(len(lines) + 1)
        assert rest == f"其余 {100 - len(lines)} 条见控制台"
    lines, _ = fit(text, words, most=80, size_limit=1 << 20, build=lambda lines, rest: b"")
    assert len(lines) == 80
    lines, rest = fit(text, words, most=200, size_limit=1 << 20, build=lambda lines, rest: b"")
    assert (len(lines), rest) == (100, "")


def test_what_is_stored_reads_back() -> None:
    assert decode(encode(mixed())) == mixed()
