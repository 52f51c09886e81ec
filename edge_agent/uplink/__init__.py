"""The road to the server: greeting, sending, acknowledgement. Only this package speaks MQTT."""

from edge_agent.uplink.client import Uplink, UplinkSettings
from edge_agent.uplink.conversation import Conversation, Publish

__all__ = ["Conversation", "Publish", "Uplink", "UplinkSettings"]
