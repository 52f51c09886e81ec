"""Why a unit could not be flashed, as the word of the record and a sentence for the log."""

from __future__ import annotations

from edge_agent.errors import AgentError
from protocols.contract.records import UpdateReason


class FlashFailed(AgentError):
    """`final`: trying again cannot help."""

    def __init__(self, reason: UpdateReason, sentence: str, *, final: bool = False) -> None:
        super().__init__(sentence)
        self.reason: UpdateReason = reason
        self.final = final
