"""The custom robot of a DingTalk group.

Sources: DingTalk Open Platform, "Custom robot access" (open.dingtalk.com/document/orgapp/custom-robot-access), "Security settings" and "Send group
messages" (custom-robots-send-group-messages, its table of error codes); codes 130101, 300001 and 460101 as the service words them.

- 20 messages a minute for each robot; who sends more is refused for 10 minutes.
- The request has at most 20,000 bytes. Answers are HTTP 200 with `errcode`.
- Signature: base64 of HMAC-SHA256, key the secret, over `timestamp` in ms, a line feed and the secret; both go into the query, and the timestamp may
  be wrong by an hour at most. Or one of ten keywords has to be in the text.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec

from fleet_server.notifications.bucket import Limits
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.sending import Poster, SendFailed, check_url, robot_answer
from fleet_server.notifications.setup import Kind, RobotConfig, Setup, UrlSecret, at_once
from fleet_server.notifications.words import Line, Words, fit

LIMITS = Limits(per_minute=15, burst=3, max_bytes=18_000, block_ms=600_000)
LINES_MAX = 30
"""Chosen: what one still reads on a phone."""

_TOO_FAST = frozenset({130101, 410100})
_PERMANENT = {
    300001: "the access token does not exist",
    300005: "the access token does not exist",
    310000: "the robot's security settings refuse it: keyword, signature, clock or address",
    400013: "the group was dissolved",
    400101: "the access token does not exist",
    400102: "the robot is stopped",
    400105: "the robot does not take this kind of message",
    400106: "the robot is not in the group",
    430101: "the platform refuses a link in it",
    430102: "the platform refuses a text in it",
    430103: "the platform refuses a picture in it",
    430104: "the platform refuses its content",
    460101: "the message is too long",
}


class DingTalkSender:
    limits = LIMITS

    def __init__(self, setup: Setup) -> None:
        self._config = msgspec.json.decode(setup.config, type=RobotConfig)
        self._secret = msgspec.json.decode(setup.secret, type=UrlSecret)
        check_url(self._secret.url, plain_allowed=False)
        self._words = Words(self._config.lang, setup.zone, setup.name)
        self._poster = Poster(self._config.ca_path, own_machine=self._config.own_machine)
        self.destination = self._secret.url

    not_before_ms = staticmethod(at_once)

    async def send(self, digest: Digest, *, now_ms: int) -> None:
        body = request_body(digest, self._words, self._config.keyword)
        url = self._secret.url if self._secret.secret is None else signed_url(self._secret.url, self._secret.secret, now_ms)
        code = robot_answer(await self._poster.post(url, body, {"Content-Type": "application/json; charset=utf-8"}), "errcode")
        if code in _TOO_FAST:
            raise SendFailed(f"errcode {code}: too fast", wait_ms=LIMITS.block_ms, blocks=True)
        if code != 0:
            raise SendFailed(f"errcode {code}: {_PERMANENT.get(code, 'not taken')}", permanent=code in _PERMANENT)

    async def close(self) -> None:
        await self._poster.close()


def signed_url(url: str, secret: str, now_ms: int) -> str:
    signature = base64.b64encode(hmac.new(secret.encode(), f"{now_ms}\n{secret}".encode(), hashlib.sha256).digest()).decode()
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'timestamp': now_ms, 'sign': signature})}"


def request_body(digest: Digest, words: Words, keyword: str | None) -> bytes:
    text = words.text(digest)
    title = text.title if keyword is None or keyword in text.title else f"{keyword} {text.title}"

    def build(lines: Sequence[Line], rest: str) -> bytes:
        shown = [f"- **{line.tag}** {line.text}" for line in lines] + ([f"- {rest}"] if rest else [])
        return msgspec.json.encode(
            {"msgtype": "markdown", "markdown": {"title": title, "text": "\n".join([f"#### {title}", *shown])}}
        )

    return build(*fit(text, words, most=LINES_MAX, size_limit=LIMITS.max_bytes, build=build))


KIND = Kind("dingtalk", RobotConfig, UrlSecret, DingTalkSender)
