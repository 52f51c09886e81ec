"""The durable spool: captured records, sealed batches, the chain's head, and a small key-value store for the agent's own memory.

A record is captured when `Outbox.capture` returns. Sealing does not wait for the network. Nothing here knows MQTT.
"""

from edge_agent.outbox.errors import CaptureRefused, OutboxError, OutboxFull
from edge_agent.outbox.recorder import Recorder
from edge_agent.outbox.store import Outbox, OutboxLimits, Outgoing, Released, StreamStart

__all__ = [
    "CaptureRefused",
    "Outbox",
    "OutboxError",
    "OutboxFull",
    "OutboxLimits",
    "Outgoing",
    "Recorder",
    "Released",
    "StreamStart",
]
