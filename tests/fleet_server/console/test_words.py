"""Both languages say everything: no missing sentence, no placeholder that only one of them has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

from fleet_server.console import format as fmt
from fleet_server.console import i18n
from fleet_server.console.format import Ratio
from fleet_server.console.i18n import Catalogue, MissingText
from fleet_server.console.looks import LOOK
from fleet_server.console.model import USUAL
from fleet_server.console.render import CLIENT_WORDS, TEMPLATES, Voice
from fleet_server.console.words import limit_words, state_help
from protocols.canon.words import CoverState, DeviceState, Ownership, Severity, TerminalType

CONSOLE = TEMPLATES.parent
CATALOGUES = i18n.load_all()
KEYS = {language: {key for key in catalogue if not key.endswith(".one")} for language, catalogue in CATALOGUES.items()}
# `t("…")`, `voice.t('…')`, `voice.rich("…")`; a key that is glued from a prefix ends with a dot and `~` or `{`.
CALL = re.compile(r"""\b(?:t|rich|say)\(\s*f?["']([A-Za-z0-9_.-]+)(["'{])""")


def sources() -> list[Path]:
    return [*sorted(CONSOLE.rglob("*.html")), *sorted(CONSOLE.rglob("*.py")), *sorted((CONSOLE.parent / "live").glob("*.py"))]


def calls() -> list[tuple[str, str]]:
    return [(path.name, match.group(1)) for path in sources() for match in CALL.finditer(path.read_text("utf-8"))]


def test_the_search_for_keys_finds_them() -> None:
    found = {key for _, key in calls()}
    assert {"overview.trouble", "nav.terminals", "needs.title", "state."} <= found


def test_both_catalogues_have_the_same_keys() -> None:
    assert KEYS["zh"] == KEYS["en"]


def test_placeholders_agree() -> None:
    def names(catalogue: Catalogue, key: str, n: object) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(catalogue.raw(key, n)) if name}

    zh, en = CATALOGUES["zh"], CATALOGUES["en"]
    differ = [
        key
        for key in sorted(KEYS["zh"])
        if names(en, key, None) != names(zh, key, None) or not names(en, key, 1) <= names(zh, key, None) | {"n"}
    ]
    assert differ == []


def test_every_sentence_that_is_asked_for_exists() -> None:
    missing = []
    for name, key in calls():
        exact = key in KEYS["zh"]
        prefix = key.endswith(".") and any(known.startswith(key) for known in KEYS["zh"])
        if not exact and not prefix:
            missing.append((name, key))
    assert missing == []


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("severity", [item.value for item in Severity]),
        ("type", [item.value for item in TerminalType]),
        ("device", [item.value for item in DeviceState]),
        ("owner", [item.value for item in Ownership]),
        ("cover", [CoverState.OPEN.value, CoverState.TAMPERED.value]),
        ("presence", ["online", "suspect", "offline", "unknown", "stopped"]),
        ("gap", ["ingest", "broker", "silence"]),
        (
            "consumable",
            ["paper", "roll", "toner", "drum", "ribbon", "cards", "booklets", "labels", "sheet", "mm", "percent", "piece"],
        ),
        ("network", ["govExtranet", "internet"]),
        ("kind", ["hall", "zone24", "mall", "hospital", "station", "bank", "park", "community", "van"]),
    ],
)
@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_every_word_of_a_closed_list_has_a_name(language: i18n.Language, prefix: str, words: list[str]) -> None:
    assert [word for word in words if not CATALOGUES[language].has(f"{prefix}.{word}")] == []


def test_no_sentence_is_in_the_wrong_language() -> None:
    chinese = re.compile(r"[\u4e00-\u9fff]")
    assert [key for key in KEYS["en"] if chinese.search(CATALOGUES["en"].raw(key))] == []
    same_everywhere = {"product", "devices.usbId"}
    bare = [key for key in KEYS["zh"] - same_everywhere if not chinese.search(CATALOGUES["zh"].raw(key))]
    assert [key for key in bare if re.search(r"[A-Za-z]{2,}", re.sub(r"\{\w+\}", "", CATALOGUES["zh"].raw(key)))] == [
        "system.size"
    ]


def test_a_missing_key_is_an_error_not_a_word() -> None:
    with pytest.raises(MissingText):
        CATALOGUES["zh"]("no.such.key")
    with pytest.raises(KeyError):
        CATALOGUES["zh"]("overview.trouble", unusable=1)


def test_client_sentences_exist() -> None:
    for catalogue in CATALOGUES.values():
        for key in CLIENT_WORDS.values():
            assert catalogue.raw(key)


def test_one_is_not_many_in_english() -> None:
    assert CATALOGUES["en"]("overview.all", n=1) == "The one terminal in opening hours can serve."
    assert CATALOGUES["en"]("overview.all", n=2) == "All 2 terminals in opening hours can serve."
    assert CATALOGUES["zh"]("overview.all", n=1) == "全部 1 台在服务时段内的终端均可办事。"


@pytest.mark.parametrize(
    ("length_ms", "zh", "en"),
    [
        (-5, "0 秒", "0 s"),
        (12_999, "12 秒", "12 s"),
        (59_999, "59 秒", "59 s"),
        (60_000, "1 分钟", "1 min"),
        (37 * 60_000, "37 分钟", "37 min"),
        (4 * 3_600_000 + 12 * 60_000, "4 小时 12 分", "4 h 12 min"),
        (76 * 3_600_000, "3 天 4 小时", "3 d 4 h"),
    ],
)
def test_durations(length_ms: int, zh: str, en: str) -> None:
    assert fmt.duration(CATALOGUES["zh"], length_ms) == zh
    assert fmt.duration(CATALOGUES["en"], length_ms) == en


@pytest.mark.parametrize(
    ("length_ms", "zh", "en"),
    [
        (90_000, "90 秒", "90 s"),
        (150_000, "150 秒", "150 s"),
        (300_000, "5 分钟", "5 min"),
        (5_400_000, "90 分钟", "90 min"),
        (4 * 3_600_000, "4 小时", "4 h"),
        (4 * 3_600_000 + 600_000, "250 分钟", "250 min"),
    ],
)
def test_a_threshold_is_told_as_it_was_set(length_ms: int, zh: str, en: str) -> None:
    for language, words in (("zh", zh), ("en", en)):
        assert limit_words(Voice(CATALOGUES[language], 0, "UTC"), length_ms) == words  # type: ignore[index]


def test_what_a_state_means_names_the_thresholds_that_hold() -> None:
    voice = Voice(CATALOGUES["zh"], 0, "UTC")
    partner = replace(USUAL, presence=replace(USUAL.presence, suspect_ms=7_200_000, offline_ms=14_400_000))
    assert state_help(voice, "suspect", USUAL) == "连接中断或 90 秒没有消息，5 分钟内待确认。"
    assert state_help(voice, "offline", partner) == "服务时段内 4 小时没有消息，或已预告停机。"
    for look in LOOK.values():
        assert "{" not in state_help(voice, look, USUAL)


def test_times_are_the_sites_own() -> None:
    assert fmt.stamp(0, "Asia/Shanghai") == "1970-01-01 08:00:00"
    assert fmt.stamp_ms(123, "UTC") == "1970-01-01 00:00:00.123"
    assert fmt.clock(0, "Asia/Shanghai", 60_000) == "08:00:00"
    assert fmt.clock(0, "Asia/Shanghai", 3 * 86_400_000) == "01-01 08:00"
    assert fmt.clock(0, "Asia/Shanghai", 400 * 86_400_000) == "1970-01-01"


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(0, 0, None), (0, 5, "0.0 %"), (376, 378, "99.4 %"), (9_999, 10_000, "99.9 %"), (5, 5, "100 %")]
)
def test_only_all_is_a_hundred_percent(part: int, whole: int, shown: str | None) -> None:
    assert Ratio(part, whole).percent == shown


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("KF-0317", "KF-0317"),
        ("=1+1", "'=1+1"),
        ("+86", "'+86"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("  =1+1", "'  =1+1"),
        ("\t=1", "'\t=1"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_no_cell_is_a_formula(text: str, cell: str) -> None:
    assert fmt.csv_cell(text) == cell


def test_values_in_a_sentence_are_escaped_and_markup_is_kept() -> None:
    voice = Voice(CATALOGUES["zh"], 0, "Asia/Shanghai")
    told = voice.rich(
        "overview.longest", duration=voice.since(0), terminal=voice.link("/x?a=1&b", "<K>"), name="<script>", problem="{n}"
    )
    assert "&lt;script&gt;" in told
    assert '<a href="/x?a=1&amp;b">&lt;K&gt;</a>' in told
    assert "{n}" in told
    assert '<time class="tick"' in told
