"""Owns how log lines look: time is the journal's business, fields follow the message as `key=value`."""

from __future__ import annotations

import logging
import sys

_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", None, None).__dict__) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """`WARNING edge_agent.monitor: a port is refused slot=scanner`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{key}={value}" for key, value in record.__dict__.items() if key not in _STANDARD)
        line = super().format(record)
        return f"{line} {fields}" if fields else line


def to_stderr(level: str) -> None:
    """Everything of `level` and above goes to stderr. MQTT libraries speak only when something is wrong: they would log whole messages."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("mqtt").setLevel(logging.WARNING)
