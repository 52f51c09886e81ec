"""Devices that nobody opens: what the system's own word about them means. Pure; a camera's picture is none of the agent's business."""

from __future__ import annotations

from edge_agent.devices.base import Observation, SlotBinding, judged_tails, unseen
from edge_agent.faults import Condition
from edge_agent.transports.base import Sighting
from protocols.canon.faults import FAULTS
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.profile.options.presence import PresenceOptions

TAILS = ("HEAD_MISSING", "LOW_SPEED")


def seen(bound: SlotBinding, sighting: Sighting, *, held: bool) -> Observation:
    """The device is there. `held`: another program has its port open. Conditions that its kind has no code for are left out."""
    options = bound.profile.presence or PresenceOptions()
    tails = []
    if sighting.bus == "video" and sighting.heads < options.heads:
        tails.append("HEAD_MISSING")
    if options.least_mbps is not None and sighting.mbps is not None and sighting.mbps < options.least_mbps:
        tails.append("LOW_SPEED")
    conditions = tuple(Condition(bound.code(tail)) for tail in tails if bound.code(tail) in FAULTS)
    device = DeviceState.IN_USE if held else DeviceState.HARDWARE_ERROR if "HEAD_MISSING" in tails else DeviceState.ONLINE
    there = unseen(bound.slot, bound.profile.kind, device)
    return Observation(
        slot=there.slot,
        device=there.device,
        paper=there.paper,
        toner=there.toner,
        cover=there.cover,
        action=SuggestedAction.MAINTENANCE if conditions else SuggestedAction.NONE,
        conditions=conditions,
        judged=judged_tails(bound, *TAILS),
    )
