"""Names, grades and sources of device models, read once from the profile data."""

from __future__ import annotations

from functools import lru_cache

import firmware_profiles
from protocols.codecs.common import Explanation
from protocols.codecs.explain import MEANINGS, explain
from protocols.profile.schema import Profile, parse_all
from protocols.profile.status import explain_status


@lru_cache(maxsize=1)
def shipped() -> dict[str, Profile]:
    """Every shipped profile by its id."""
    return {profile.id: profile for profile in parse_all(firmware_profiles.read_all()).values()}


def model_name(profile_id: str | None) -> str | None:
    """The model as a person knows it; the bare id of a profile this version does not have."""
    if profile_id is None:
        return None
    profile = shipped().get(profile_id)
    return profile.display_name if profile else profile_id


def explanations(profile_id: str | None, codec: str, query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits, by the codec and by the profile's own status tables."""
    profile = shipped().get(profile_id or "")
    own = explain_status(profile.status, query, reply) if profile else ()
    return (*explain(codec, query, reply), *(hit for hit in own if hit.offset + hit.length <= len(reply)))


def meaning(key: str, lang: str) -> str | None:
    """Words for an explanation's key; None for a condition, which the fault's own sentence tells."""
    words = MEANINGS.get(key)
    return None if words is None else words[0 if lang == "zh" else 1]
