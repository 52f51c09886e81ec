"""A webhook receiver that checks as a careful one does, with the reference library of Standard Webhooks, and can be told to be slow or down."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.support.fakes.http import Answer, Request


@dataclass
class Receiver:
    """`received` holds every message whose signature holds, repeats included; `answers` are given first, then 204."""

    secret: str
    answers: list[Answer] = field(default_factory=list)
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refused: int = 0
    before_answer: Callable[[], None] | None = None
    """Called with the message received and the answer not yet given."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        with self._lock:
            try:
                tree = Webhook(self.secret).verify(request.body, request.headers)
            except WebhookVerificationError:
                self.refused += 1
                return Answer(status=401)
            self.received.append((request.headers["webhook-id"], tree))
            answer = self.answers.pop(0) if self.answers else Answer(status=204, body=b"")
        if self.before_answer is not None:
            self.before_answer()
        return answer

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
