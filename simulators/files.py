"""Files that a person names on the command line: profiles and captures."""

from __future__ import annotations

from pathlib import Path

import firmware_profiles
from protocols.profile.schema import Profile, ProfileError, parse_all, parse_profile
from simulators.capture import Capture, CaptureError, parse
from simulators.errors import SimulatorError, unknown


def load_capture(path: Path) -> Capture:
    """Read a capture file; SimulatorError with the line that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as err:
        raise CaptureError(f"Cannot read {path}: {err.strerror}.") from None
    except UnicodeDecodeError:
        raise CaptureError(f"Cannot read {path}: it is not UTF-8.") from None
    return parse(text)


def load_profile(word: str) -> tuple[dict[str, Profile], Profile]:
    """All profiles and the one that `word` names: an id, or the path of a TOML file. SimulatorError with the exact place of a mistake."""
    try:
        profiles = parse_all(firmware_profiles.read_all())
    except ProfileError as err:
        raise SimulatorError(f"The shipped profiles cannot be read: {err}.") from None
    path = Path(word)
    if path.suffix != ".toml":
        if word not in profiles:
            raise unknown("profile", word, list(profiles))
        return profiles, profiles[word]
    try:
        profile = parse_profile(path.read_bytes(), path.stem)
    except OSError as err:
        raise SimulatorError(f"Cannot read {path}: {err.strerror}.") from None
    except ProfileError as err:
        raise SimulatorError(f"{path}: {err}.") from None
    return {**profiles, profile.id: profile}, profile
