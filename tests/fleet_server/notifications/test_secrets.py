from __future__ import annotations

from pathlib import Path

import pytest

from fleet_server.notifications.secrets import KEY_NAME, SecretBox, SecretError

CLEAR = b'{"url": "https://oapi.dingtalk.com/robot/send?access_token=PLANTED"}'


def test_what_is_sealed_opens_again_and_shows_nothing(tmp_path: Path) -> None:
    sealed = SecretBox(tmp_path).seal(CLEAR, "dingtalk:duty")
    assert b"PLANTED" not in sealed
    assert SecretBox(tmp_path).open(sealed, "dingtalk:duty") == CLEAR
    assert SecretBox(tmp_path).seal(CLEAR, "dingtalk:duty") != sealed
    assert (tmp_path / KEY_NAME).stat().st_mode & 0o777 == 0o600


def test_it_opens_for_no_other_channel(tmp_path: Path) -> None:
    box = SecretBox(tmp_path)
    sealed = box.seal(CLEAR, "dingtalk:duty")
    with pytest.raises(SecretError, match="webhook:duty"):
        box.open(sealed, "webhook:duty")
    for broken in (sealed[:-1], sealed[:5], b"", bytes([sealed[0] ^ 1]) + sealed[1:]):
        with pytest.raises(SecretError):
            box.open(broken, "dingtalk:duty")


def test_without_its_key_or_with_another_it_does_not_open(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    sealed = SecretBox(first).seal(CLEAR, "mail:x")
    with pytest.raises(SecretError, match="set the channels again"):
        SecretBox(second).open(sealed, "mail:x")
    SecretBox(second).seal(b"another", "mail:x")
    with pytest.raises(SecretError, match="does not open"):
        SecretBox(second).open(sealed, "mail:x")
    with pytest.raises(SecretError, match="no secret"):
        SecretBox(first).open(None, "mail:x")


def test_a_key_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    box = SecretBox(tmp_path)
    sealed = box.seal(CLEAR, "mail:x")
    (tmp_path / KEY_NAME).chmod(0o644)
    with pytest.raises(SecretError, match="chmod 600"):
        box.open(sealed, "mail:x")


def test_a_damaged_key_is_said(tmp_path: Path) -> None:
    box = SecretBox(tmp_path)
    sealed = box.seal(CLEAR, "mail:x")
    (tmp_path / KEY_NAME).write_bytes(b"short")
    with pytest.raises(SecretError, match="not a key"):
        box.open(sealed, "mail:x")
