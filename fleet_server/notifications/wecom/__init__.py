"""The robot of a WeCom (企业微信) group.

Sources: WeCom developer centre, "Group robot configuration" (developer.work.weixin.qq.com/document/path/91770), "Global error codes" (path/90313),
"Frequency limits" (path/90454: limits by the minute shut out for 60 seconds).

- 20 messages a minute for each robot. Markdown has at most 4,096 bytes in UTF-8, text 2,048.
- The key in the address is all there is: no signature, no keyword. Answers are HTTP 200 with `errcode`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.sending import Poster, SendFailed, check_url, robot_answer
from fleet_server.notifications.setup import Config, Kind, Setup, UrlSecret, at_once
from fleet_server.notifications.words import Line, Words, fit

LIMITS = Limits(per_minute=15, burst=3, max_bytes=4_000, block_ms=60_000)
"""`max_bytes` is of the markdown alone."""
LINES_MAX = 30

_TOO_FAST = frozenset({45009, 45033})
_PERMANENT = {
    40008: "the kind of message is not taken",
    40058: "the message is too long or not well formed",
    44004: "the message is empty",
    93000: "the robot's address is not valid, or the robot was removed",
}
_COLOURS = {"P1": "warning", "P2": "warning", "P3": "comment", "P4": "comment", None: "info"}
"""The three that WeCom's markdown has: orange, grey, green."""


class WeComSender:
    limits = LIMITS

    def __init__(self, setup: Setup) -> None:
        config = msgspec.json.decode(setup.config, type=Config)
        self._secret = msgspec.json.decode(setup.secret, type=UrlSecret)
        check_url(self._secret.url, plain_allowed=False)
        self._words = Words(config.lang, setup.zone, setup.name)
        self._poster = Poster(config.ca_path, own_machine=config.own_machine)
        self.destination = self._secret.url

    not_before_ms = staticmethod(at_once)

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        del now_ms
        content = markdown(digest, self._words).decode()
        body = msgspec.json.encode({"msgtype": "markdown", "markdown": {"content": content}})
        code = robot_answer(await self._poster.post(self._secret.url, body, {"Content-Type": "application/json"}), "errcode")
        if code in _TOO_FAST:
            raise SendFailed(f"errcode {code}: too fast", wait_ms=LIMITS.block_ms, blocks=True)
        if code != 0:
            raise SendFailed(f"errcode {code}: {_PERMANENT.get(code, 'not taken')}", permanent=code in _PERMANENT)

    async def close(self) -> None:
        await self._poster.close()


def markdown(digest: Digest, words: Words) -> bytes:
    text = words.text(digest)

    def build(lines: Sequence[Line], rest: str) -> bytes:
        shown = [f'> <font color="{_COLOURS[line.severity]}">{line.tag}</font> {line.text}' for line in lines]
        return "\n".join([f"**{text.title}**", *shown, *([f"> {rest}"] if rest else [])]).encode()

    return build(*fit(text, words, most=LINES_MAX, size_limit=LIMITS.max_bytes, build=build))


KIND = Kind("wecom", Config, UrlSecret, WeComSender)
