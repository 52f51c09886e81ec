"""The custom robot of a Feishu group.

Source: Feishu Open Platform, "Custom bot usage guide" (open.feishu.cn/document/client-docs/bot-v3/add-custom-bot), its limits, security settings and
error codes; 11232 is its answer to too many messages.

- 100 messages a minute and 5 a second for each robot; full and half hours are to be avoided. The request has at most 20 KB.
- Signature: base64 of HMAC-SHA256 over nothing, with `timestamp` in seconds, a line feed and the secret as the KEY; both go into the body, and the
  timestamp may be wrong by an hour at most. Or one of ten keywords has to be in the text.
- Answers carry `code`; older ones `StatusCode`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

import msgspec

from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.sending import Poster, SendFailed, check_url, robot_answer
from fleet_server.notifications.setup import Kind, RobotConfig, Setup, UrlSecret
from fleet_server.notifications.words import Line, Words, fit

LIMITS = Limits(per_minute=60, burst=2, max_bytes=18_000, block_ms=60_000)
LINES_MAX = 30
HALF_HOUR_MS = 1_800_000
BUSY_MS = 45_000
"""So long after a full or half hour the platform is crowded (chosen); what nobody waits for is sent behind it."""
URGENT = frozenset({"P1", "P2"})

_TOO_FAST = frozenset({11232, 99991400})
# 9499 is "bad request", and was "too many requests" before 11232: it is tried again, because what is sent is well formed and short enough.
_PERMANENT = {
    19001: "the robot's address is not valid, or the robot was removed",
    19002: "the kind of message is not taken",
    19021: "the signature does not fit, or the clock is wrong by an hour",
    19022: "the address of this server is not on the robot's list",
    19024: "the robot's keyword is missing",
}


class FeishuSender:
    limits = LIMITS

    def __init__(self, setup: Setup) -> None:
        self._config = msgspec.json.decode(setup.config, type=RobotConfig)
        self._secret = msgspec.json.decode(setup.secret, type=UrlSecret)
        check_url(self._secret.url, plain_allowed=False)
        self._words = Words(self._config.lang, setup.zone, setup.name)
        self._poster = Poster(self._config.ca_path, own_machine=self._config.own_machine)
        self.destination = self._secret.url

    @staticmethod
    def not_before_ms(digest: Digest, now_ms: int) -> int:
        """Off the full and half hour, unless somebody has to act."""
        since_ms = now_ms % HALF_HOUR_MS
        if digest.test or digest.worst in URGENT or since_ms >= BUSY_MS:
            return now_ms
        return now_ms - since_ms + BUSY_MS

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        body = request_body(digest, self._words, keyword=self._config.keyword, secret=self._secret.secret, at_s=now_ms // 1000)
        reply = await self._poster.post(self._secret.url, body, {"Content-Type": "application/json; charset=utf-8"})
        code = robot_answer(reply, "code", "StatusCode")
        if code in _TOO_FAST:
            raise SendFailed(f"code {code}: too fast", wait_ms=LIMITS.block_ms, blocks=True)
        if code != 0:
            raise SendFailed(f"code {code}: {_PERMANENT.get(code, 'not taken')}", permanent=code in _PERMANENT)

    async def close(self) -> None:
        await self._poster.close()


def signature(secret: str, at_s: int) -> str:
    return base64.b64encode(hmac.new(f"{at_s}\n{secret}".encode(), b"", hashlib.sha256).digest()).decode()


def request_body(digest: Digest, words: Words, *, keyword: str | None, secret: str | None, at_s: int) -> bytes:
    text = words.text(digest)
    title = text.title if keyword is None or keyword in text.title else f"{keyword} {text.title}"
    signing = {} if secret is None else {"timestamp": str(at_s), "sign": signature(secret, at_s)}

    def build(lines: Sequence[Line], rest: str) -> bytes:
        rows = [f"[{line.tag}] {line.text}" for line in lines] + ([rest] if rest else [])
        content: list[list[dict[str, Any]]] = [[{"tag": "text", "text": row}] for row in rows]
        post = {"zh_cn": {"title": title, "content": content}}
        return msgspec.json.encode({**signing, "msg_type": "post", "content": {"post": post}})

    return build(*fit(text, words, most=LINES_MAX, size_limit=LIMITS.max_bytes, build=build))


KIND = Kind("feishu", RobotConfig, UrlSecret, FeishuSender)
