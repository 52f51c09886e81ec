"""The fault catalogue: complete, unique, worded in both languages."""

from __future__ import annotations

import re

import pytest

from protocols.canon.faults import FAULTS, UnknownFaultCode, fault
from protocols.canon.words import Severity
from protocols.contract.records import ClockQuality, Fault, encode_record


@pytest.mark.parametrize(
    ("code", "zh", "en", "hint_zh"),
    [
        ("LSR.PAPER_OUT", "A4 打印机缺纸", "A4 printer out of paper", "补纸并登记数量"),
        ("LSR.TONER_LOW", "A4 打印机碳粉不足", "A4 printer toner low", "准备更换硒鼓"),
        ("PRN.PAPER_NEAR_END", "凭条纸将用尽", "Receipt paper nearly out", "下次巡检更换"),
        ("PRN.JAM", "凭条打印机卡纸", "Receipt printer jammed", "开盖取纸，检查切刀"),
        ("PRN.COVER_OPEN", "凭条打印机盖未关", "Receipt printer cover open", "合盖"),
        ("PRN.CUTTER", "切刀故障", "Cutter fault", "断电复位，仍故障则报修"),
        ("IDR.OPEN_FAIL", "身份证阅读器无应答", "ID reader does not answer", "检查 USB 线与供电"),
        ("IDR.READ_FAIL_RATE", "读证失败率偏高", "ID reading fails too often", "清洁感应区，远离金属"),
        ("SCN.UNPLUGGED", "扫码器未连接", "Scanner unplugged", "检查插头"),
        ("CAL.NO_REPLY", "叫号器无应答", "Call pad does not answer", "检查总线供电与地址"),
        ("ENV.DOOR_OPEN", "机柜门打开", "Cabinet door open", "确认是否有人检修"),
        ("NET.OFFLINE", "终端离线", "Terminal offline", "先看同点位其他终端"),
        ("APP.NOT_RUNNING", "业务程序未运行", "Kiosk application not running", "通知点位管理员重启业务程序"),
        ("SEC.CLONE", "疑似身份被复制", "Terminal identity may be cloned", "停用并重新接入"),
    ],
)
def test_sentences_the_console_shows(code: str, zh: str, en: str, hint_zh: str) -> None:
    kind = FAULTS[code]
    assert (kind.zh, kind.en, kind.hint_zh) == (zh, en, hint_zh)


def test_every_entry_is_complete() -> None:
    for code, kind in FAULTS.items():
        assert kind.code == code
        assert re.fullmatch(r"[A-Z]{3,4}\.[A-Z][A-Z0-9_]+", code)
        assert kind.zh
        assert kind.en
        assert kind.hint_zh
        assert kind.hint_en
        assert re.search(r"[一-鿿]", kind.zh)
        assert re.search(r"[一-鿿]", kind.hint_zh)
        assert not re.search(r"[一-鿿]", kind.en + kind.hint_en)
        assert kind.debounce_s >= 0
        assert kind.clear_s >= 0
        assert kind.debounce_count >= 1


def test_no_two_codes_share_a_sentence_within_a_family() -> None:
    for words in ("zh", "en"):
        seen = [(kind.family, getattr(kind, words)) for kind in FAULTS.values()]
        assert len(seen) == len(set(seen))


def test_severities() -> None:
    assert fault("ENV.SMOKE").severity is Severity.P1
    assert fault("PRN.PAPER_OUT").severity is Severity.P2
    assert fault("NET.LATENCY_HIGH").severity is Severity.P3
    assert fault("LSR.TONER_LOW").severity is Severity.P4


def test_decisive_sensor_bits_are_not_delayed() -> None:
    for code in ("PRN.PAPER_OUT", "PRN.COVER_OPEN", "PRN.JAM", "LSR.PAPER_OUT", "IDR.SELF_TEST"):
        assert fault(code).debounce_s == 0
        assert fault(code).debounce_count == 1


def test_what_only_the_server_can_conclude() -> None:
    assert {code for code, kind in FAULTS.items() if kind.by_server} >= {
        "NET.OFFLINE",
        "SEC.CLONE",
        "SEC.SIGNATURE",
        "USE.IDLE_14D",
    }
    assert not fault("NET.NO_ACK").by_server


def test_unknown_code() -> None:
    with pytest.raises(UnknownFaultCode, match=r"PRN\.NOPE"):
        fault("PRN.NOPE")


def test_every_code_fits_a_fault_record() -> None:
    for code, kind in FAULTS.items():
        body = Fault(id=bytes(8), code=code, change="open", severity=kind.severity, since_ms=0)
        encode_record(body, wall_ms=0, quality=ClockQuality.SYNCED, boot_ms=0)
