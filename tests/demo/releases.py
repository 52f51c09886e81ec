"""The demo's release desk: people's keys, the ceremony that founds the update repositories, and release packs.

Each step is the command that an operator or a release engineer would type (`docs/updates.md`). Only the passwords are known beforehand: in the demo
they lie in a file beside the keys, where in a city they are in people's heads and the keys in safes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from fleet_server.accounts.passwords import new_password
from tests.demo.processes import ROOT
from tests.demo.setup import Places

ROOT_KEYS: Final = ("root-1.pem", "root-2.pem", "root-3.pem")
RELEASE_KEY: Final = "release.pem"
PASSWORD_FILE: Final = "passwords.txt"
ARCHITECTURE: Final = os.uname().machine


class ReleaseDeskError(Exception):
    """A command failed; the message is what it said."""


def hold_ceremony(places: Places) -> bool:
    """Found both repositories, unless that was done. True if it was done now."""
    keys = places.offline_keys
    if (keys / RELEASE_KEY).exists():
        return False
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    password_file = keys / PASSWORD_FILE
    password_file.touch(mode=0o600)
    password_file.write_text(new_password() + "\n", encoding="utf-8")
    for number, name in enumerate(ROOT_KEYS, start=1):
        _fleet_server(places, "tuf", "key", "new", keys / name, "--label", f"safe {number}")
    # Last, since it stands for the whole: a ceremony that was cut off begins anew.
    release = keys / f"new-{RELEASE_KEY}"
    for leftover in (release, release.with_name(release.name + ".pub")):
        leftover.unlink(missing_ok=True)
    _fleet_server(places, "tuf", "key", "new", release, "--label", "release engineer")
    _fleet_server(places, "tuf", "init")
    _fleet_server(places, "tuf", "ceremony", "--root", *(keys / name for name in ROOT_KEYS), "--release", release)
    release.with_name(release.name + ".pub").rename(keys / f"{RELEASE_KEY}.pub")
    release.rename(keys / RELEASE_KEY)
    return True


def sign(places: Places, image: Path, version: str, pack: Path) -> None:
    """A release pack of an agent's image, as the next release after what the server knows now."""
    keys = places.offline_keys
    state = keys / "agent.state.json"
    _fleet_server(places, "release", "state", "agent", "--output", state)
    _fleet_server(
        places,
        *("release", "sign", image, "--state", state, "--key", keys / RELEASE_KEY),
        *("--version", version, "--arch", ARCHITECTURE, "--output", pack),
    )


def _fleet_server(places: Places, *words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fleet_server.cli", "--data", str(places.server.absolute()), *map(str, words)],
        env={**os.environ, "KF_KEY_PASSWORD_FILE": str(places.offline_keys / PASSWORD_FILE), "LANG": "C.UTF-8"},
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ReleaseDeskError(f"fleet-server {' '.join(map(str, words[:3]))}: {(done.stderr or done.stdout).strip()}")
