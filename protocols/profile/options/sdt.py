"""Resident-ID readers."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table


class SdtOptions(Table, frozen=True, kw_only=True):
    bauds: Annotated[tuple[Literal[115200, 57600, 38400, 19200, 9600], ...], Meta(min_length=1, max_length=5)] = (
        115200, 57600, 38400, 19200, 9600,
    )  # fmt: skip
