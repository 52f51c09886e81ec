"""Renders the test slip with python-escpos and prints the module that holds its bytes: `python -m scripts.render_slip > protocols/codecs/slip.py`.

A kiosk does not carry that library: loading it takes 16 MiB and most of a second (it brings Pillow, PyYAML, qrcode and python-barcode), for a page
that is the same on every terminal. A test renders it again and compares.
"""

from __future__ import annotations

from typing import Any

KANJI_ON, KANJI_OFF = b"\x1c&", b"\x1c."
"""FS & and FS .: two-byte characters on and off; firmware for China reads them as GBK."""


def render(*, gbk: bool) -> bytes:
    """The slip: heading in double size, digits and letters to judge the head by, feed and partial cut."""
    from escpos.printer import Dummy

    paper: Any = Dummy()
    paper.hw("INIT")
    paper.set(align="center", bold=True, double_width=True, double_height=True)
    paper.textln("KIOSK FLEET")
    paper.set(align="center", bold=False, normal_textsize=True)
    if gbk:
        _gbk(paper, "打印测试 请交工作人员")
    else:
        paper.textln("TEST PRINT")
    paper.set(align="left")
    for line in ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"):
        paper.textln(line)
    if gbk:
        _gbk(paper, "一二三四五六七八九十")
    paper.textln("#" * 32)
    paper.ln(4)
    paper.cut(mode="PART", feed=False)
    return bytes(paper.output)


def _gbk(paper: Any, text: str) -> None:
    """python-escpos knows code pages of one byte only, so these lines pass through it raw."""
    paper._raw(KANJI_ON + text.encode("gbk") + b"\n" + KANJI_OFF)


def module_text() -> str:
    """The module's source."""
    return (
        '"""The test slip, as python-escpos renders it: fixed text, nothing of anybody. Made by `python -m scripts.render_slip`."""\n\n'
        "from __future__ import annotations\n\n"
        f"PLAIN = bytes.fromhex(\n{_lines(render(gbk=False))})\n"
        '"""Digits and letters."""\n\n'
        f"GBK = bytes.fromhex(\n{_lines(render(gbk=True))})\n"
        '"""The same with two lines of Chinese (GBK, between FS & and FS .)."""\n'
    )


def _lines(data: bytes) -> str:
    return "".join(f'    "{data[at : at + 40].hex()}"\n' for at in range(0, len(data), 40))


if __name__ == "__main__":
    print(module_text(), end="")
