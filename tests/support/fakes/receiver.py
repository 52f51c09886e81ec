"""A webhook receiver that checks as a careful one does, with the reference library of Standard Webhooks, and can be told to be slow or down."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook

from tests.support.fakes.http import Answer, Request

TOLERANCE_MS = 300_000


@dataclass
class Receiver:
    """`received` holds every message whose signature holds, repeats included; `answers` are given first, then 204."""

    secret: str
    answers: list[Answer] = field(default_factory=list)
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    before_answer: Callable[[], object] | None = None
    """Called with the message received and the answer not yet given."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        with self._lock:
            if not self._is_genuine(request):
                self.refused += 1
                return Answer(status=401)
            self.received.append((request.headers["webhook-id"], json.loads(request.body)))
            answer = self.answers.pop(0) if self.answers else Answer(status=204, body=b"")
        if self.before_answer is not None:
            self.before_answer()
        return answer

    def _is_genuine(self, request: Request) -> bool:
        number, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        if not stamp.isdigit() or abs(int(stamp) * 1000 - request.at_ms) > TOLERANCE_MS:
            return False
        expected = Webhook(self.secret).sign(number, datetime.fromtimestamp(int(stamp), UTC), request.body.decode())
        return expected in request.headers.get("webhook-signature", "").split(" ")

    def ids(self) -> list[str]:
        with self._lock:
            return [number for number, _ in self.received]

    def events(self, kind: str) -> list[str]:
        """Subjects of every event of this kind, in order, repeats of one message counted once."""
        with self._lock:
            once = {number: json.dumps(tree) for number, tree in self.received}
        return [
            event["subject"] for text in once.values() for event in json.loads(text)["data"]["events"] if event["kind"] == kind
        ]
