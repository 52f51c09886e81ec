"""Limits of the contract. Sizes are checked before parsing, by both sides."""

from __future__ import annotations

RECORD_MAX_BYTES = 4096
"""One encoded record (architecture decision: a fact fits on a page)."""
EVIDENCE_MAX_BYTES = 512
"""Raw device bytes carried by one record."""
BATCH_MAX_RECORDS = 100
BATCH_MAX_BYTES = 32 * 1024
"""Sum of the encoded records of one batch; the envelope adds less than 1 KiB."""
ENVELOPE_MAX_BYTES = 48 * 1024
"""Anything larger is refused unparsed; below the broker's 128 KiB, above the largest honest batch."""
CONTROL_MAX_BYTES = 120 * 1024
"""Greeting, acknowledgement, challenge; below the broker limit of 128 KiB."""
SEAL_AFTER_S = 5.0
WINDOW_BATCHES = 64
WINDOW_BYTES = 1024 * 1024
NO_ACK_FAULT_S = 300.0
HEARTBEAT_S = 30.0
POSITION_EVERY_S = 300.0
"""A van tells its place no more often: where it stops, not how it drives."""
KEEP_ACKED_S = 14 * 24 * 3600
CLOCK_STEP_MS = 1000
BIRTH_MAX_STREAMS = 400
"""Streams one birth may list; with the fields of a span this stays well below CONTROL_MAX_BYTES."""
ACKS_PER_MESSAGE = 256
TIME_LIMIT_MS = 2**53
"""Above every time and count (C-112): what JSON and a double carry exactly, and SQLite stores."""
ORDER_KEYS_MAX = 4
"""Order keys that may be valid at a time: one in use, one to come, and room for an emergency."""
COUNTER_STEP_MAX = 2**20
"""So far a counter may be above the highest that a terminal has seen. Chosen: centuries of orders, and no stolen key uses the numbers up."""
ORDER_MAX_BYTES = 8 * 1024
DESIRED_MAX_BYTES = CONTROL_MAX_BYTES
BUNDLE_MAX_COMPONENTS = 64
LOG_MAX_BYTES = 4 * 1024 * 1024
"""A signed excerpt of an agent's log, compressed; unpacked at most LOG_TEXT_MAX_BYTES."""
LOG_TEXT_MAX_BYTES = 64 * 1024 * 1024
