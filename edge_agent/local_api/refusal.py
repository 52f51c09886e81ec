"""The one error of the local API: a status, a stable word, a sentence. The sentence is written here in advance, so it cannot repeat what was sent."""

from __future__ import annotations

import msgspec


class ApiRefused(Exception):
    """A request that is not done. `word` is for programs, `sentence` for the developer of the kiosk application."""

    def __init__(self, status: int, word: str, sentence: str) -> None:
        super().__init__(word)
        self.status = status
        self.word = word
        self.sentence = sentence

    def body(self) -> bytes:
        return msgspec.json.encode({"error": self.word, "message": self.sentence})
