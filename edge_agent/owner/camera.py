"""Camera of XFS4IoT (CWA 17852, part 14): whether a camera is there. No picture is ever taken, so there is no command and nothing to claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import Port


class Camera:
    """Presence only."""

    @property
    def commands(self) -> frozenset[str]:
        return frozenset()

    def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
        return {"camera": {"cameras": {"room": False, "person": True, "exitSlot": False}, "maxPictures": None, "camData": None}}

    async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
        raise CommandFailed("unsupportedCommand", plain=True)
