"""Fake group robots, written from the platforms' documentation and not from our senders: limits, signatures, keywords, sizes, error codes.

DingTalk: open.dingtalk.com, custom robots; WeCom: developer.work.weixin.qq.com/document/path/91770; Feishu: open.feishu.cn, custom bot usage guide.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from tests.support.fakes.http import Answer, Request

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS


@dataclass
class Shown:
    """What people in the group see: title and text, when."""

    at_ms: int
    title: str
    text: str


@dataclass
class Robot(ABC):
    """Common to all three. `codes` is every answer given."""

    token: str = "token-0123456789"
    secret: str | None = None
    keywords: tuple[str, ...] = ()
    shown: list[Shown] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    _accepted_ms: list[int] = field(default_factory=list)
    _shut_until_ms: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        with self._lock:
            code, words = self._judge(request)
            self.codes.append(code)
        return Answer(body=json.dumps(self._told(code, words)).encode())

    @abstractmethod
    def url_path(self) -> str:
        """Path and query of its address."""

    @abstractmethod
    def _judge(self, request: Request) -> tuple[int, str]:
        """Code and words of the answer."""

    def _told(self, code: int, words: str) -> dict[str, Any]:
        return {"errcode": code, "errmsg": words}

    def _too_many(self, now_ms: int, *, limit: int, window_ms: int, shut_ms: int) -> bool:
        if now_ms < self._shut_until_ms:
            return True
        if sum(at_ms > now_ms - window_ms for at_ms in self._accepted_ms) >= limit:
            self._shut_until_ms = now_ms + shut_ms
            return True
        return False

    def _show(self, at_ms: int, title: str, text: str) -> tuple[int, str]:
        self._accepted_ms.append(at_ms)
        # The same text again is taken and not shown.
        if not any((old.title, old.text) == (title, text) for old in self.shown):
            self.shown.append(Shown(at_ms, title, text))
        return 0, "ok"


def hmac_base64(key: bytes, data: bytes) -> str:
    return base64.b64encode(hmac.new(key, data, hashlib.sha256).digest()).decode()


def tree_of(body: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(body)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


class DingTalk(Robot):
    """`/robot/send?access_token=…`: 20 a minute, then shut for 10 minutes; 20,000 bytes; signature or keyword."""

    path = "/robot/send"

    def url_path(self) -> str:
        return f"{self.path}?access_token={self.token}"

    def _judge(self, request: Request) -> tuple[int, str]:
        if request.url.path != self.path or request.query("access_token") != self.token:
            return 300001, "token is not exist"
        if not request.headers.get("content-type", "").startswith("application/json"):
            return 43004, "invalid contenttype"
        if self._too_many(request.at_ms, limit=20, window_ms=MINUTE_MS, shut_ms=10 * MINUTE_MS):
            return 130101, "send too fast, exceed 20 times per minute"
        if len(request.body) > 20_000:
            return 460101, "message too long, exceed 20000 bytes"
        tree = tree_of(request.body)
        found = tree.get("markdown")
        if tree.get("msgtype") != "markdown" or not isinstance(found, dict) or not found.get("title") or not found.get("text"):
            return 40035, "invalid parameter"
        if self.secret is not None:
            stamp = request.query("timestamp")
            if not stamp.isdigit() or abs(int(stamp) - request.at_ms) > HOUR_MS:
                return 310000, "invalid timestamp"
            if request.query("sign") != hmac_base64(self.secret.encode(), f"{stamp}\n{self.secret}".encode()):
                return 310000, "sign not match"
        if self.keywords and not any(word in found["text"] for word in self.keywords):
            return 310000, "keywords not in content"
        return self._show(request.at_ms, found["title"], found["text"])


class WeCom(Robot):
    """`/cgi-bin/webhook/send?key=…`: 20 a minute, shut for the rest of 60 seconds; markdown of 4,096 bytes."""

    path = "/cgi-bin/webhook/send"

    def url_path(self) -> str:
        return f"{self.path}?key={self.token}"

    def _judge(self, request: Request) -> tuple[int, str]:
        if request.url.path != self.path or request.query("key") != self.token:
            return 93000, "invalid webhook url, hint: [1], from ip: 127.0.0.1"
        if self._too_many(request.at_ms, limit=20, window_ms=MINUTE_MS, shut_ms=MINUTE_MS):
            return 45009, "api freq out of limit"
        tree = tree_of(request.body)
        found = tree.get("markdown")
        if tree.get("msgtype") != "markdown" or not isinstance(found, dict):
            return 40008, "invalid message type"
        content = found.get("content")
        if not isinstance(content, str) or not content:
            return 44004, "empty content"
        if len(content.encode()) > 4096:
            return 40058, "markdown.content exceed max length 4096"
        title, _, text = content.partition("\n")
        return self._show(request.at_ms, title, text)


class Feishu(Robot):
    """`/open-apis/bot/v2/hook/<token>`: 100 a minute, 5 a second; 20 KB; signature with the text as key, or keyword."""

    path = "/open-apis/bot/v2/hook/"

    def url_path(self) -> str:
        return self.path + self.token

    def _told(self, code: int, words: str) -> dict[str, Any]:
        told: dict[str, Any] = {"code": code, "msg": words, "data": {}}
        return {**told, "StatusCode": 0, "StatusMessage": "success"} if code == 0 else told

    def _judge(self, request: Request) -> tuple[int, str]:
        if request.url.path != self.url_path():
            return 19001, "param invalid: incoming webhook access token invalid"
        for limit, window_ms in ((100, MINUTE_MS), (5, 1000)):
            if self._too_many(request.at_ms, limit=limit, window_ms=window_ms, shut_ms=0):
                return 11232, "frequency limited"
        tree = tree_of(request.body)
        if len(request.body) > 20 * 1024 or tree.get("msg_type") not in {"text", "post"}:
            return 9499, "Bad Request"
        if self.secret is not None:
            stamp = str(tree.get("timestamp", ""))
            fresh = stamp.isdigit() and abs(int(stamp) * 1000 - request.at_ms) <= HOUR_MS
            if not fresh or tree.get("sign") != hmac_base64(f"{stamp}\n{self.secret}".encode(), b""):
                return 19021, "sign match fail or timestamp is not within one hour from current time"
        try:
            post = tree["content"]["post"]["zh_cn"]
            title = str(post["title"])
            text = "\n".join(piece["text"] for row in post["content"] for piece in row if piece["tag"] == "text")
        except (KeyError, TypeError):
            return 9499, "Bad Request"
        if self.keywords and not any(word in title + text for word in self.keywords):
            return 19024, "Key Words Not Found"
        return self._show(request.at_ms, title, text)
