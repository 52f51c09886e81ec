"""What the console's evidence drawer underlines, and the words beside it. Works offline from the stored bytes, for any codec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from protocols.codecs import callpad, escpos, modbus, pjl, scanner, sdt, usb_printer
from protocols.codecs.common import Explanation

_EXPLAINERS: Mapping[str, Callable[[bytes, bytes], tuple[Explanation, ...]]] = MappingProxyType({
    escpos.CODEC: escpos.explain,
    usb_printer.CODEC: usb_printer.explain,
    pjl.CODEC: pjl.explain,
    sdt.CODEC: sdt.explain,
    scanner.CODEC: scanner.explain,
    callpad.CODEC: callpad.explain,
    modbus.CODEC: modbus.explain,
})  # fmt: skip


def explain(codec: str, query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits of `reply`; empty for a codec that is not known here or bytes that say nothing by themselves."""
    explainer = _EXPLAINERS.get(codec)
    if explainer is None:
        return ()
    return tuple(hit for hit in explainer(query, reply) if hit.offset >= 0 and hit.offset + hit.length <= len(reply))


MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType({
    "escpos.offline": ("脱机", "offline"),
    "escpos.waiting": ("等待恢复联机", "waiting to come online"),
    "escpos.feed": ("走纸键按下", "feed button"),
    "escpos.cover": ("盖未关", "cover open"),
    "escpos.paper_stop": ("因缺纸停止打印", "stopped for lack of paper"),
    "escpos.error": ("出错", "error"),
    "escpos.mechanical": ("机械错误", "mechanical error"),
    "escpos.cutter": ("切刀故障", "cutter error"),
    "escpos.unrecoverable": ("不可恢复错误", "unrecoverable error"),
    "escpos.head_hot": ("可自动恢复错误（打印头过热）", "error that ends by itself (head too hot)"),
    "escpos.paper_end": ("缺纸", "paper end"),
    "escpos.paper_near_end": ("纸将用尽", "paper near end"),
    "usb_printer.paper_empty": ("缺纸", "paper empty"),
    "usb_printer.error": ("“无错误”位为 0", "\"no error\" bit is 0"),
    "usb_printer.not_selected": ("未联机", "not selected"),
    "pjl.ready": ("就绪", "ready"),
    "pjl.warming": ("预热中", "warming up"),
    "pjl.printing": ("打印中", "printing"),
    "pjl.sleep": ("节能状态", "power save"),
    "pjl.info": ("提示", "information"),
    "pjl.toner_low": ("碳粉不足", "toner low"),
    "pjl.no_cartridge": ("缺硒鼓", "cartridge missing"),
    "pjl.cover": ("盖未关", "cover open"),
    "pjl.jam": ("卡纸", "paper jam"),
    "pjl.fuser": ("定影器故障", "fuser error"),
    "pjl.tray_empty": ("一个纸盒已空", "one tray is empty"),
    "pjl.language_error": ("作业语言错误", "job language error"),
    "pjl.auto_continue": ("自动继续的错误", "error that continues by itself"),
    "pjl.attention": ("需要注意，仍可打印", "attention, still printing"),
    "pjl.stopped": ("已停止，需要人工处理", "stopped, needs a person"),
    "pjl.load_paper": ("请装纸", "load paper"),
    "pjl.paper_handling": ("选配纸盒故障", "paper handling option"),
    "pjl.hardware": ("硬件故障", "hardware error"),
    "pjl.unknown": ("未知代码", "unknown code"),
    "pjl.not_online": ("未联机", "not online"),
    "sdt.sw3_90": ("成功", "success"),
    "sdt.sw3_9f": ("找到卡", "card found"),
    "sdt.sw3_91": ("卡上无此项", "item not on card"),
    "sdt.sw3_80": ("未找到卡", "no card"),
    "sdt.sw3_81": ("选卡失败", "card not selected"),
    "sdt.sw3_10": ("请求校验和错误", "request checksum wrong"),
    "sdt.sw3_11": ("请求长度错误", "request length wrong"),
    "sdt.sw3_21": ("命令错误", "bad command"),
    "sdt.sw3_23": ("无权执行", "not permitted"),
    "sdt.sw3_24": ("未定义错误", "unspecified error"),
    "sdt.sw3_31": ("卡认证安全模块失败", "card rejected the module"),
    "sdt.sw3_32": ("安全模块认证卡失败", "module rejected the card"),
    "sdt.sw3_33": ("数据校验失败", "data verification failed"),
    "sdt.sw3_40": ("无法识别的卡类型", "unknown card type"),
    "sdt.sw3_41": ("读卡失败", "card read failed"),
    "sdt.sw3_47": ("取随机数失败", "no random number"),
    "sdt.sw3_60": ("安全模块自检失败", "module self-test failed"),
    "sdt.sw3_66": ("安全模块未授权", "module not authorised"),
    "sdt.sw3_unknown": ("未知状态字", "unknown status word"),
    "scanner.ok": ("正常", "ok"),
    "scanner.badData": ("参数错误", "bad data"),
    "scanner.unknownCommand": ("命令不支持", "unknown command"),
    "scanner.zone_ok": ("正常", "ok"),
    "scanner.zone_crcError": ("校验错误", "CRC error"),
    "scanner.zone_invalid": ("命令无效", "invalid command"),
    "scanner.zone_unknown": ("未知应答", "unknown answer"),
    "callpad.address": ("地址", "address"),
    "callpad.function": ("功能码", "function"),
    "callpad.checksum": ("校验和错误", "checksum wrong"),
    "callpad.frame": ("帧格式错误", "malformed frame"),
    "modbus.data": ("数据", "data"),
    "modbus.crc": ("校验码错误", "CRC wrong"),
    "modbus.exception_function": ("不支持的功能码", "function not supported"),
    "modbus.exception_address": ("寄存器地址不存在", "no such register"),
    "modbus.exception_value": ("数值非法", "value not allowed"),
    "modbus.exception_device": ("模块故障", "module failure"),
    "modbus.exception_acknowledge": ("处理中", "accepted, still working"),
    "modbus.exception_busy": ("模块忙", "module busy"),
    "modbus.exception_path": ("网关路径不可用", "gateway path not available"),
    "modbus.exception_target": ("网关目标无应答", "gateway target silent"),
    "modbus.exception_unknown": ("未知异常码", "unknown exception"),
})  # fmt: skip
"""Meaning key to (Chinese, English). Every key a codec can produce is here."""
