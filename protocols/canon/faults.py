"""The closed catalogue of fault codes `FAMILY.CODE`: severity, debounce and words. Who raises and clears them lives elsewhere.

Family letters and most codes follow the classes that operators of government kiosks already use (thermal-printer libraries,
terminal platforms, window systems); `_CODES` is the whole list. A code is never renamed or reused: reports reach years back.
Debounce is 0 where one reply decides (a paper sensor is already debounced inside the printer); rates and thresholds wait.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from protocols.canon.words import Severity
from protocols.errors import ProtocolError

P1, P2, P3, P4 = Severity.P1, Severity.P2, Severity.P3, Severity.P4


class UnknownFaultCode(ProtocolError):
    """A code that the catalogue does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One kind of fault. It opens after `debounce_s` of unbroken evidence and at least `debounce_count` bad readings."""

    code: str
    severity: Severity
    debounce_s: float
    debounce_count: int
    clear_s: float
    """Seconds without evidence before it is taken back."""
    by_server: bool
    """Concluded by the server (silence, clones, figures), never by a terminal."""
    zh: str
    en: str
    hint_zh: str
    hint_en: str

    @property
    def family(self) -> str:
        return self.code.partition(".")[0]


def fault(code: str) -> FaultKind:
    """The catalogue entry of `code`; raises UnknownFaultCode."""
    try:
        return FAULTS[code]
    except KeyError:
        raise UnknownFaultCode(f"fault code {code!r} is not in the catalogue") from None


@dataclass(frozen=True, slots=True)
class _Timing:
    debounce_s: float = 0.0
    count: int = 1
    clear_s: float = 0.0
    by_server: bool = False


AT_ONCE = _Timing()
"""A decisive sensor bit or an electrical event."""
STEADY = _Timing(debounce_s=10, clear_s=30)
"""Sensors that flutter near their threshold (near-end lever, toner estimate)."""
MISSES = _Timing(count=3)
"""Silence: three unanswered polls, whatever the poll interval."""
SAMPLES = _Timing(count=3, clear_s=2)
"""Contacts that chatter: three equal samples."""
BRIEF = _Timing(debounce_s=3, clear_s=0)
"""Unplugged: a USB re-enumeration takes 1-3 s and is no fault."""
RATE = _Timing(debounce_s=0, clear_s=600)
"""Ratios over a window, computed by whoever raises them."""
LOAD = _Timing(debounce_s=300, clear_s=300)
MINUTE = _Timing(debounce_s=60, clear_s=60)
SERVER = _Timing(by_server=True)

_Row = tuple[str, Severity, _Timing, str, str, str, str]

_PRINTER_ROWS: tuple[tuple[str, Severity, _Timing, str, str, str, str], ...] = (
    ("OPEN_FAIL", P2, MISSES, "无法打开", "cannot be opened", "检查数据线与供电", "Check data cable and power"),
    ("UNPLUGGED", P2, BRIEF, "未连接", "unplugged", "检查插头与供电", "Check plug and power"),
    ("OFFLINE", P2, MISSES, "脱机或无应答", "offline or silent", "检查电源与联机键", "Check power and the online key"),
    ("PAPER_OUT", P2, AT_ONCE, "缺纸", "out of paper", "补纸并登记数量", "Refill paper and record the amount"),
    ("PAPER_NEAR_END", P4, STEADY, "纸将用尽", "paper nearly out", "下次巡检更换", "Replace on the next round"),
    ("JAM", P2, AT_ONCE, "卡纸", "jammed", "开盖取纸", "Open the cover and take the paper out"),
    ("COVER_OPEN", P2, AT_ONCE, "盖未关", "cover open", "合盖", "Close the cover"),
    (
        "PRINT_ERROR",
        P2,
        AT_ONCE,
        "打印出错",
        "printing error",
        "断电重启，仍故障则报修",
        "Switch off and on; if it stays, report it",
    ),
    (
        "HARDWARE",
        P2,
        AT_ONCE,
        "硬件故障",
        "hardware error",
        "断电重启，仍故障则报修",
        "Switch off and on; if it stays, report it",
    ),
    ("OUTPUT_NOT_TAKEN", P3, MINUTE, "出口有纸未取走", "output not taken", "清理出纸口", "Clear the paper exit"),
)


def _printer(family: str, zh: str, en: str) -> Iterator[_Row]:
    for code, severity, timing, tail_zh, tail_en, hint_zh, hint_en in _PRINTER_ROWS:
        yield f"{family}.{code}", severity, timing, zh + tail_zh, f"{en} {tail_en}", hint_zh, hint_en


def _reader(family: str, zh: str, en: str, severity: Severity) -> Iterator[_Row]:
    plug_zh, plug_en = "检查 USB 线与供电", "Check USB cable and power"
    yield f"{family}.OPEN_FAIL", severity, MISSES, f"{zh}无应答", f"{en} does not answer", plug_zh, plug_en
    yield f"{family}.UNPLUGGED", severity, BRIEF, f"{zh}未连接", f"{en} unplugged", "检查插头", "Check the plug"
    yield (
        f"{family}.AUTH_FAIL_RATE",
        severity,
        RATE,
        f"{zh}认证失败率偏高",
        f"{en}: authentication fails too often",
        "核对授权模块，仍偏高则报修",
        "Check the security module; if it stays, report it",
    )
    yield (
        f"{family}.READ_FAIL_RATE",
        severity,
        RATE,
        f"{zh}读取失败率偏高",
        f"{en}: reading fails too often",
        "清洁感应区，远离金属",
        "Clean the reading area, keep metal away",
    )
    yield (
        f"{family}.PSAM_MISSING",
        severity,
        AT_ONCE,
        f"{zh}安全模块缺失",
        f"{en}: security module missing",
        "检查安全模块是否插好",
        "Check that the security module sits well",
    )
    yield (
        f"{family}.CARD_STUCK",
        severity,
        AT_ONCE,
        f"{zh}卡滞留",
        f"{en}: card stuck",
        "取出卡片并交还",
        "Take the card out and hand it back",
    )
    yield (
        f"{family}.SELF_TEST",
        severity,
        AT_ONCE,
        f"{zh}自检失败",
        f"{en} failed its self-test",
        "断电重启，仍故障则更换",
        "Switch off and on; if it stays, replace it",
    )
    yield (
        f"{family}.NOT_AUTHORISED",
        severity,
        AT_ONCE,
        f"{zh}安全模块未授权",
        f"{en}: security module not authorised",
        "联系厂商办理授权",
        "Ask the vendor for authorisation",
    )
    yield (
        f"{family}.LINK_NOISE",
        P3,
        RATE,
        f"{zh}通讯误码偏高",
        f"{en}: too many transfer errors",
        "检查数据线与接口速率",
        "Check cable and line speed",
    )


def _viewer(family: str, zh: str, en: str) -> Iterator[_Row]:
    yield f"{family}.OPEN_FAIL", P3, MISSES, f"{zh}无应答", f"{en} does not answer", "检查数据线与供电", "Check cable and power"
    yield f"{family}.UNPLUGGED", P3, BRIEF, f"{zh}未连接", f"{en} unplugged", "检查插头", "Check the plug"


def _camera(family: str, zh: str, en: str) -> Iterator[_Row]:
    yield from _viewer(family, zh, en)
    yield f"{family}.NO_FRAME", P3, MINUTE, f"{zh}无画面", f"{en} delivers no picture", "重新插拔", "Unplug and plug again"
    yield (
        f"{family}.BLACK_FRAME",
        P3,
        MINUTE,
        f"{zh}画面全黑",
        f"{en} picture is black",
        "检查镜头遮挡",
        "Check what covers the lens",
    )
    yield (
        f"{family}.HEAD_MISSING",
        P3,
        BRIEF,
        f"{zh}缺一路镜头",
        f"{en}: one of its heads is missing",
        "检查内部数据线，重新插拔",
        "Check the inner cable, unplug and plug again",
    )
    yield (
        f"{family}.LOW_SPEED",
        P4,
        BRIEF,
        f"{zh}降速运行",
        f"{en} runs at a lower USB speed",
        "换接口或数据线，勿经低速集线器",
        "Use another port or cable, no slow hub",
    )


def _bus(family: str, zh: str, en: str) -> Iterator[_Row]:
    yield (
        f"{family}.NO_REPLY",
        P3,
        MISSES,
        f"{zh}无应答",
        f"{en} does not answer",
        "检查总线供电与地址",
        "Check bus power and address",
    )
    yield (
        f"{family}.BUS_DOWN",
        P1,
        MISSES,
        f"{zh}整条总线无应答",
        f"{en}: the whole bus is silent",
        "检查控制盒与总线供电",
        "Check control box and bus power",
    )
    yield (
        f"{family}.BUS_CRC",
        P3,
        RATE,
        f"{zh}总线误码偏高",
        f"{en}: too many bus errors",
        "检查接线极性与终端电阻",
        "Check polarity and termination",
    )
    yield (
        f"{family}.BUS_GARBLED",
        P1,
        MISSES,
        f"{zh}总线只有乱码",
        f"{en}: nothing but garbage on the bus",
        "核对 A/B 线是否接反、波特率",
        "Check for swapped A and B wires, and the line speed",
    )
    yield (
        f"{family}.BUS_ECHO",
        P4,
        AT_ONCE,
        f"{zh}总线转换器有回显",
        f"{en}: the bus adapter hears itself",
        "关闭转换器回显，或在档案中声明",
        "Switch the adapter's echo off, or declare it in the profile",
    )
    yield (
        f"{family}.ADDRESS_CONFLICT",
        P3,
        RATE,
        f"{zh}地址冲突",
        f"{en}: two units share an address",
        "逐台核对地址",
        "Check the addresses one by one",
    )
    yield (
        f"{family}.UNBOUND_WINDOW",
        P3,
        AT_ONCE,
        f"{zh}未绑定窗口",
        f"{en} bound to no window",
        "在现场核对窗口绑定",
        "Check the window binding on site",
    )
    yield (
        f"{family}.WRONG_AREA",
        P3,
        AT_ONCE,
        f"{zh}所属区域不符",
        f"{en} belongs to another area",
        "在现场核对窗口绑定",
        "Check the window binding on site",
    )
    yield (
        f"{family}.TIMEOUT_RATE",
        P3,
        RATE,
        f"{zh}超时率偏高",
        f"{en}: too many timeouts",
        "检查总线与供电",
        "Check bus and power",
    )


def _keys(family: str, zh: str, en: str) -> Iterator[_Row]:
    yield f"{family}.UNPLUGGED", P3, BRIEF, f"{zh}未连接", f"{en} unplugged", "检查插头", "Check the plug"
    yield f"{family}.STUCK_KEY", P3, AT_ONCE, f"{zh}按键卡住", f"{en}: a key is stuck", "清理按键", "Clean the keys"
    yield f"{family}.REPEAT_STORM", P3, AT_ONCE, f"{zh}按键连发", f"{en}: a key repeats without end", "清理按键", "Clean the keys"


_CODES: tuple[_Row, ...] = (
    # network
    (
        "NET.OFFLINE",
        P2,
        SERVER,
        "终端离线",
        "Terminal offline",
        "先看同点位其他终端",
        "Look at the other terminals of the site first",
    ),
    ("NET.LINK_FLAP", P2, RATE, "网络频繁断连", "Network link flaps", "检查网线与交换机端口", "Check cable and switch port"),
    ("NET.DNS_FAIL", P2, MINUTE, "域名解析失败", "Name lookup fails", "检查网络设置", "Check the network settings"),
    ("NET.LATENCY_HIGH", P3, LOAD, "网络时延偏高", "Network latency high", "联系网络运维", "Ask the network operator"),
    ("NET.TLS_FAIL", P2, MINUTE, "安全连接失败", "Secure connection fails", "检查证书与时间", "Check certificate and time"),
    ("NET.VPN_DOWN", P2, MINUTE, "专线中断", "Private line down", "联系网络运维", "Ask the network operator"),
    ("NET.UNPLUGGED", P2, BRIEF, "调制解调器未连接", "Modem unplugged", "检查插头与供电", "Check plug and power"),
    ("NET.NO_ACK", P2, AT_ONCE, "平台未确认数据", "Server does not acknowledge", "检查平台接收服务", "Check the server's ingest"),
    # power
    ("PWR.MAINS_LOST", P2, SAMPLES, "市电中断", "Mains lost", "检查现场供电", "Check the mains on site"),
    ("PWR.ON_BATTERY", P2, SAMPLES, "电池供电中", "Running on battery", "检查现场供电", "Check the mains on site"),
    ("PWR.BATTERY_LOW", P2, AT_ONCE, "电池电量低", "Battery low", "尽快恢复市电", "Restore the mains soon"),
    ("PWR.BATTERY_REPLACE", P2, MINUTE, "电池需更换", "Battery worn", "更换电池", "Replace the battery"),
    (
        "PWR.OFFLINE",
        P2,
        MISSES,
        "UPS 无应答",
        "UPS does not answer",
        "检查数据线与 UPS 电源",
        "Check the data cable and the UPS's switch",
    ),
    ("PWR.UNPLUGGED", P2, BRIEF, "UPS 未连接", "UPS unplugged", "检查数据线", "Check the data cable"),
    ("PWR.OPEN_FAIL", P2, MISSES, "UPS 无法通信", "UPS cannot be spoken to", "核对型号与协议", "Check model and protocol"),
    ("PWR.LINK_NOISE", P3, RATE, "UPS 应答残缺", "UPS answers are garbled", "检查数据线与速率", "Check cable and line speed"),
    ("PWR.UPS_FAILED", P2, SAMPLES, "UPS 故障", "UPS failed", "更换 UPS", "Replace the UPS"),
    ("PWR.OVERLOAD", P2, SAMPLES, "UPS 过载", "UPS overloaded", "减少负载", "Take load off it"),
    ("PWR.BYPASS", P3, MINUTE, "UPS 处于旁路", "UPS on bypass", "检查 UPS", "Inspect the UPS"),
    (
        "PWR.UNEXPECTED_REBOOT",
        P2,
        _Timing(clear_s=600),
        "主机意外重启",
        "Host restarted unexpectedly",
        "检查供电",
        "Check the power supply",
    ),
    # host
    ("HOST.CPU_HIGH", P3, LOAD, "处理器占用过高", "Processor load high", "检查业务程序", "Check the kiosk application"),
    ("HOST.MEM_HIGH", P3, LOAD, "内存占用过高", "Memory nearly full", "检查业务程序", "Check the kiosk application"),
    ("HOST.DISK_FULL", P2, AT_ONCE, "磁盘将满", "Disk nearly full", "清理磁盘", "Free disk space"),
    ("HOST.DISK_SMART", P3, AT_ONCE, "磁盘预警", "Disk predicts failure", "备份并更换磁盘", "Back up and replace the disk"),
    ("HOST.TEMP_HIGH", P3, MINUTE, "主机温度过高", "Host too hot", "检查风扇与通风", "Check fan and air flow"),
    ("HOST.CLOCK_SKEW", P2, MINUTE, "时钟偏差过大", "Clock is off", "检查校时服务", "Check time synchronisation"),
    (
        "HOST.USB_UNSTABLE",
        P3,
        _Timing(clear_s=600),
        "USB 设备反复掉线",
        "A USB device drops out again and again",
        "检查线缆、集线器与供电",
        "Check cable, hub and supply",
    ),
    (
        "HOST.USB_HUB_LOST",
        P2,
        _Timing(debounce_s=10),
        "USB 集线器下的设备同时掉线",
        "All devices of a USB hub are gone at once",
        "检查集线器供电与过流",
        "Check the hub's supply, look for over-current",
    ),
    ("HOST.OS_CRASH", P3, _Timing(clear_s=600), "系统崩溃", "Operating system crashed", "查看系统日志", "Read the system log"),
    # kiosk application
    (
        "APP.NOT_RUNNING",
        P2,
        _Timing(debounce_s=10),
        "业务程序未运行",
        "Kiosk application not running",
        "通知点位管理员重启业务程序",
        "Ask the site manager to restart the application",
    ),
    (
        "APP.CRASH_LOOP",
        P2,
        _Timing(count=3, clear_s=600),
        "业务程序反复崩溃",
        "Kiosk application crashes again and again",
        "联系软件厂商",
        "Ask the software vendor",
    ),
    (
        "APP.HANG",
        P2,
        MINUTE,
        "业务程序无响应",
        "Kiosk application hangs",
        "通知点位管理员重启业务程序",
        "Ask the site manager to restart the application",
    ),
    (
        "APP.VERSION_MISMATCH",
        P3,
        AT_ONCE,
        "软件版本不符",
        "Software version differs",
        "核对软件版本",
        "Check the software version",
    ),
    (
        "APP.FIRMWARE_FAILED",
        P2,
        AT_ONCE,
        "外设固件更新失败",
        "Firmware update of a device failed",
        "现场检查该设备，重新下发或更换",
        "Look at the device on site; order the update again or replace it",
    ),
    ("APP.LICENCE", P2, AT_ONCE, "软件授权失效", "Software licence invalid", "联系软件厂商", "Ask the software vendor"),
    ("APP.SESSION_STUCK", P3, AT_ONCE, "业务会话未结束", "A session does not end", "查看终端画面", "Look at the terminal"),
    # receipt printer
    *_printer("PRN", "凭条打印机", "Receipt printer"),
    ("PRN.HEAD_UP", P2, AT_ONCE, "凭条打印机打印头抬起", "Receipt printer head is up", "压下打印头", "Press the head down"),
    (
        "PRN.HEAD_HOT",
        P3,
        _Timing(debounce_s=5, clear_s=10),
        "凭条打印机打印头过热",
        "Receipt printer head too hot",
        "等待冷却，检查通风",
        "Let it cool, check the air flow",
    ),
    (
        "PRN.CUTTER",
        P2,
        AT_ONCE,
        "切刀故障",
        "Cutter fault",
        "断电复位，仍故障则报修",
        "Switch off and on; if it stays, report it",
    ),
    (
        "PRN.BLACK_MARK",
        P3,
        AT_ONCE,
        "凭条打印机找不到黑标",
        "Receipt printer finds no black mark",
        "检查纸张与安装方向",
        "Check paper and its direction",
    ),
    # laser printer
    *_printer("LSR", "A4 打印机", "A4 printer"),
    ("LSR.TONER_LOW", P4, STEADY, "A4 打印机碳粉不足", "A4 printer toner low", "准备更换硒鼓", "Have a cartridge ready"),
    ("LSR.TONER_EMPTY", P2, AT_ONCE, "A4 打印机碳粉用尽", "A4 printer toner empty", "更换硒鼓", "Replace the cartridge"),
    # readers
    *_reader("IDR", "身份证阅读器", "ID reader", P2),
    *_reader("CRD", "读卡/发卡机", "Card unit", P2),
    (
        "CRD.STACKER_EMPTY",
        P2,
        AT_ONCE,
        "发卡箱缺卡",
        "Card stacker is empty",
        "补卡并登记数量",
        "Refill cards and record the amount",
    ),
    ("CRD.STACKER_LOW", P4, STEADY, "发卡箱卡片将用尽", "Card stacker nearly empty", "下次巡检补卡", "Refill on the next round"),
    (
        "CRD.BIN_FULL",
        P2,
        AT_ONCE,
        "废卡箱已满",
        "Bin of captured cards is full",
        "取出废卡并登记",
        "Empty the bin and record the cards",
    ),
    (
        "CRD.MECHANISM",
        P2,
        AT_ONCE,
        "读卡/发卡机机构故障",
        "Card mechanism fault (motor, sensor, shutter)",
        "断电复位并清洁传感器，仍故障则报修",
        "Switch off and on, clean the sensors; if it stays, report it",
    ),
    (
        "CRD.CARD_LEFT",
        P3,
        AT_ONCE,
        "卡口有卡未取走",
        "A card was left in the mouth",
        "取下卡片并交还失主",
        "Take the card and hand it back",
    ),
    (
        "CRD.POWER",
        P2,
        AT_ONCE,
        "读卡/发卡机供电异常",
        "Card unit's supply out of range",
        "检查电源与接线",
        "Check supply and wiring",
    ),
    (
        "CRD.NOT_READY",
        P2,
        _Timing(debounce_s=10),
        "读卡/发卡机掉电后未初始化",
        "Card unit not ready (it lost power or was not initialised)",
        "由业务程序复位；反复出现则检查供电",
        "The application has to reset it; if it comes back, check the supply",
    ),
    *_reader("FPR", "指纹仪", "Fingerprint reader", P3),
    # cameras, scanner, signature pad
    *_camera("CAM", "摄像头", "Camera"),
    *_camera("DOC", "高拍仪", "Document camera"),
    *_viewer("SCN", "扫码器", "Scanner"),
    (
        "SCN.LINK_NOISE",
        P3,
        RATE,
        "扫码器数据乱码偏多",
        "Scanner: too many unreadable codes",
        "检查数据线与接口速率",
        "Check cable and line speed",
    ),
    (
        "SCN.MODE_CHANGED",
        P3,
        AT_ONCE,
        "扫码器接口模式被更改",
        "Scanner was switched to another mode",
        "扫描设置码恢复模式",
        "Scan the setup code to restore the mode",
    ),
    (
        "SCN.NO_SUFFIX",
        P3,
        _Timing(count=3),
        "扫码器缺少结束符",
        "Scanner sends no terminator",
        "扫描设置码恢复结束符",
        "Scan the setup code to restore the suffix",
    ),
    ("SCN.STUCK", P3, AT_ONCE, "扫码器持续触发", "Scanner triggers without end", "检查触发键与窗口", "Check trigger and window"),
    *_viewer("SIG", "签批屏", "Signature pad"),
    # screens and sound
    (
        "TCH.NO_RESPONSE",
        P2,
        MINUTE,
        "触摸屏无响应",
        "Touch screen does not respond",
        "清洁屏幕并重启",
        "Clean the screen and restart",
    ),
    ("TCH.DRIFT", P2, MINUTE, "触摸屏漂移", "Touch screen drifts", "重新校准", "Calibrate again"),
    ("TCH.UNPLUGGED", P2, BRIEF, "触摸屏未连接", "Touch screen unplugged", "检查插头", "Check the plug"),
    ("DSP.NO_SIGNAL", P2, MINUTE, "显示屏无信号", "Display has no signal", "检查视频线与电源", "Check video cable and power"),
    ("DSP.BURN_IN", P4, AT_ONCE, "显示屏烧屏", "Display burn-in", "下次巡检更换", "Replace on the next round"),
    ("AUD.NO_MIC", P3, MINUTE, "麦克风不可用", "No microphone", "检查插头", "Check the plug"),
    ("AUD.NO_SPEAKER", P3, MINUTE, "扬声器不可用", "No loudspeaker", "检查插头", "Check the plug"),
    # buttons
    ("BTN.UNPLUGGED", P3, BRIEF, "按钮未连接", "Button unplugged", "检查插头", "Check the plug"),
    ("BTN.STUCK_KEY", P3, AT_ONCE, "按钮卡住", "Button is stuck", "清理按钮", "Clean the button"),
    (
        "BTN.EMERGENCY",
        P1,
        _Timing(clear_s=60),
        "紧急按钮被按下",
        "Emergency button pressed",
        "立即联系现场，处置后复位按钮",
        "Call the site at once; reset the button afterwards",
    ),
    (
        "BTN.HELP",
        P3,
        _Timing(clear_s=60),
        "有人求助",
        "Somebody asks for help",
        "联系现场或远程帮办",
        "Call the site or assist remotely",
    ),
    # keypads, call pads, evaluators, window screens
    *_keys("KPD", "数字键盘", "Keypad"),
    *_bus("CAL", "叫号器", "Call pad"),
    *_keys("CAL", "叫号器", "Call pad"),
    *_bus("EVA", "评价器", "Evaluator"),
    *_keys("EVA", "评价器", "Evaluator"),
    (
        "EVA.UNKNOWN_KEYS",
        P3,
        RATE,
        "评价器按键码不识别",
        "Evaluator sends keys that its profile does not know",
        "核对型号与按键表",
        "Check the model and its table of keys",
    ),
    *_bus("LED", "窗口屏", "Window screen"),
    # environment
    (
        "ENV.DOOR_OPEN",
        P3,
        SAMPLES,
        "机柜门打开",
        "Cabinet door open",
        "确认是否有人检修",
        "Find out whether somebody is servicing it",
    ),
    ("ENV.TAMPER", P1, SAMPLES, "防拆报警", "Tamper alarm", "立即到场查看", "Go there at once"),
    ("ENV.WATER", P1, SAMPLES, "水浸报警", "Water alarm", "立即到场查看", "Go there at once"),
    ("ENV.SMOKE", P1, SAMPLES, "烟雾报警", "Smoke alarm", "立即到场查看", "Go there at once"),
    ("ENV.TEMP", P3, MINUTE, "环境温度异常", "Temperature out of range", "检查空调与通风", "Check air conditioning and air flow"),
    (
        "ENV.HUMIDITY",
        P3,
        MINUTE,
        "环境湿度异常",
        "Humidity out of range",
        "检查空调与通风",
        "Check air conditioning and air flow",
    ),
    (
        "ENV.NO_REPLY",
        P3,
        MISSES,
        "环境传感器无应答",
        "Environment sensor does not answer",
        "检查总线供电与地址",
        "Check bus power and address",
    ),
    (
        "ENV.BUS_CRC",
        P3,
        RATE,
        "环境传感器总线误码偏高",
        "Environment sensor: too many bus errors",
        "检查接线极性与终端电阻",
        "Check polarity and termination",
    ),
    (
        "ENV.WRONG_MODULE",
        P3,
        AT_ONCE,
        "环境传感器型号不符",
        "Environment sensor is another model",
        "核对模块型号",
        "Check the module's model",
    ),
    ("ENV.FROZEN", P3, AT_ONCE, "环境传感器读数异常", "Environment sensor value is frozen", "更换传感器", "Replace the sensor"),
    # back-end services, seen by the server over many terminals
    ("SVC.ITEM_FAIL_RATE", P2, SERVER, "事项失败率偏高", "Item fails too often", "联系业务系统", "Ask the owner of the service"),
    (
        "SVC.AUTH_SERVICE",
        P2,
        SERVER,
        "认证服务异常",
        "Authentication service fails",
        "联系业务系统",
        "Ask the owner of the service",
    ),
    ("SVC.CERT_SERVICE", P2, SERVER, "证照服务异常", "Certificate service fails", "联系业务系统", "Ask the owner of the service"),
    ("SVC.PAY_SERVICE", P2, SERVER, "支付服务异常", "Payment service fails", "联系业务系统", "Ask the owner of the service"),
    (
        "SVC.RATING_PUSH_FAIL",
        P2,
        SERVER,
        "评价上报失败",
        "Ratings cannot be forwarded",
        "联系好差评平台",
        "Ask the rating platform",
    ),
    # security
    ("SEC.CERT_EXPIRING", P2, SERVER, "证书即将到期", "Certificate about to expire", "检查证书续期", "Check the renewal"),
    ("SEC.CERT_INVALID", P1, SERVER, "证书无效", "Certificate invalid", "重新接入终端", "Enrol the terminal again"),
    (
        "SEC.CONFIG_TAMPER",
        P1,
        AT_ONCE,
        "配置被篡改",
        "Configuration was tampered with",
        "停用并核查",
        "Take out of service and inspect",
    ),
    ("SEC.USB_STORAGE", P2, AT_ONCE, "插入 USB 存储设备", "USB storage plugged in", "现场核查", "Inspect on site"),
    ("SEC.LOGIN_FAIL", P2, RATE, "登录失败次数过多", "Too many failed sign-ins", "核查登录来源", "Check where they come from"),
    ("SEC.UNKNOWN_DEVICE", P2, BRIEF, "接入未识别设备", "Unrecognised device plugged in", "现场核查", "Inspect on site"),
    (
        "SEC.CLONE",
        P1,
        SERVER,
        "疑似身份被复制",
        "Terminal identity may be cloned",
        "停用并重新接入",
        "Take out of service and enrol again",
    ),
    ("SEC.SIGNATURE", P1, SERVER, "数据签名不符", "Signature does not hold", "停用并核查", "Take out of service and inspect"),
    # use and van
    ("USE.IDLE_14D", P4, SERVER, "连续 14 天无办件", "No case for 14 days", "核查点位需求", "Check whether the place needs it"),
    ("USE.ZERO_MONTH", P4, SERVER, "当月零办件", "No case this month", "核查点位需求", "Check whether the place needs it"),
    ("USE.ABNORMAL_PEAK", P4, SERVER, "办件量异常", "Unusual number of cases", "核查办件记录", "Check the case records"),
    # position receiver
    (
        "GPS.NO_REPLY",
        P3,
        MISSES,
        "定位模块无数据",
        "Position receiver sends nothing",
        "检查供电与速率",
        "Check power and line speed",
    ),
    ("GPS.UNPLUGGED", P3, BRIEF, "定位模块未连接", "Position receiver unplugged", "检查插头", "Check the plug"),
    ("GPS.LINK_NOISE", P3, RATE, "定位数据误码偏高", "Position data garbled", "检查线缆与速率", "Check cable and line speed"),
    ("GPS.POOR_FIX", P4, MINUTE, "定位精度差", "Position not exact", "检查天线位置", "Check where the antenna is"),
    (
        "GPS.CLOCK_WRONG",
        P3,
        MINUTE,
        "定位模块日期错误",
        "Position receiver tells a wrong date",
        "更新或更换模块",
        "Update or replace the receiver",
    ),
    (
        "VAN.GPS_LOST",
        P3,
        _Timing(debounce_s=900, clear_s=30),
        "车辆定位丢失",
        "Van position lost",
        "检查天线",
        "Check the antenna",
    ),
    ("VAN.OFF_ROUTE", P3, SERVER, "车辆偏离路线", "Van off its route", "联系车长", "Call the van leader"),
    ("VAN.STOP_MISSED", P3, SERVER, "车辆未到停靠点", "Van missed a stop", "联系车长", "Call the van leader"),
    ("VAN.BACKLOG", P3, LOAD, "车载数据积压", "Van data backlog", "检查车载网络", "Check the van's network"),
)

_CONSOLE_WORDS: Mapping[str, tuple[str, str, str, str]] = MappingProxyType({
    "PRN.PAPER_NEAR_END": ("凭条纸将用尽", "Receipt paper nearly out", "下次巡检更换", "Replace on the next round"),
    "IDR.READ_FAIL_RATE": (
        "读证失败率偏高", "ID reading fails too often", "清洁感应区，远离金属", "Clean the reading area, keep metal away",
    ),
    "PRN.JAM": ("凭条打印机卡纸", "Receipt printer jammed", "开盖取纸，检查切刀", "Open, take the paper out, check the cutter"),
})  # fmt: skip
"""Where the sentence built from family and tail would read badly."""


def _build() -> Mapping[str, FaultKind]:
    built: dict[str, FaultKind] = {}
    for code, severity, timing, *words in _CODES:
        if code in built:
            raise UnknownFaultCode(f"fault code {code} is listed twice")
        zh, en, hint_zh, hint_en = _CONSOLE_WORDS.get(code, tuple(words))
        built[code] = FaultKind(
            code=code,
            severity=severity,
            debounce_s=timing.debounce_s,
            debounce_count=timing.count,
            clear_s=timing.clear_s,
            by_server=timing.by_server,
            zh=zh,
            en=en,
            hint_zh=hint_zh,
            hint_en=hint_en,
        )
    return MappingProxyType(built)


FAULTS: Mapping[str, FaultKind] = _build()
"""Every fault code this system can raise."""
