"""Keypads, evaluators and buttons that are keyboards."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocols.profile.tables import Table


class NamedKey(Table, frozen=True, kw_only=True):
    code: Annotated[int, Meta(ge=1, le=767)]
    name: Annotated[str, Meta(pattern=r"^[a-z]{2,24}(-[a-z]{1,24}){0,3}(-[0-9])?$")]
    rating: Annotated[int, Meta(ge=1, le=5)] | None = None


class KeysOptions(Table, frozen=True, kw_only=True):
    """Only named keys are ever told apart; a citizen's keypad names none."""

    key: Annotated[tuple[NamedKey, ...], Meta(max_length=32)] = ()
    stuck_after_s: Annotated[float, Meta(ge=1, le=600)] = 10.0

    def __post_init__(self) -> None:
        codes = [key.code for key in self.key]
        if len(codes) != len(set(codes)):
            raise ValueError("a key code is named twice")

    def names(self) -> dict[int, str]:
        return {key.code: key.name for key in self.key}

    def ratings(self) -> dict[str, int]:
        return {key.name: key.rating for key in self.key if key.rating is not None}
