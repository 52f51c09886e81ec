from __future__ import annotations

from pathlib import Path

import pytest

from fleet_server.broker import mosquitto
from fleet_server.broker.access import may_publish, may_read
from fleet_server.errors import SettingsError
from fleet_server.settings import Broker, Settings
from protocols.contract import topics
from tests.support.trust import make_authority


def test_without_mosquitto_the_server_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosquitto, "SEARCH_PATH", "/nowhere")
    with pytest.raises(SettingsError, match=r"sudo apt-get install mosquitto.*broker\.kind to embedded"):
        mosquitto.find(Settings())


@pytest.mark.parametrize("said", ["mosquitto version 1.6.9", "something else", "mosquitto version new"])
def test_an_old_or_wrong_program_is_refused(tmp_path: Path, said: str) -> None:
    program = tmp_path / "mosquitto"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    with pytest.raises(SettingsError, match=r"is not mosquitto 2\.0 or newer"):
        mosquitto.find(Settings(broker=Broker(mosquitto=program)))


def test_the_version_is_read(tmp_path: Path) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho 'mosquitto version 2.1.2'\necho\necho 'usage'\n")
    program.chmod(0o755)
    assert mosquitto.find(Settings(broker=Broker(mosquitto=program))) == program


def test_files_of_the_broker_are_closed_to_others_and_hold_no_client_id_rule(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    settings.layout.make()
    command = mosquitto.Mosquitto(Path("mosquitto"), settings, make_authority(tmp_path)).command()
    assert command == ["mosquitto", "-c", str(tmp_path / "broker" / "mosquitto.conf")]
    assert [file for file in (tmp_path / "broker").iterdir() if file.stat().st_mode & 0o077] == []
    assert "%c" not in (tmp_path / "broker" / "acl").read_text()


@pytest.mark.parametrize(
    ("name", "topic", "allowed"),
    [
        ("kiosk-1", topics.up("kiosk-1", "batch"), True),
        ("kiosk-1", topics.up("kiosk-2", "batch"), False),
        ("kiosk-1", topics.up("kiosk-1", "batch").replace("kf/1", "kf/2"), False),
        ("kiosk-1", topics.down("kiosk-1", "ack"), False),
        ("server.ingest", topics.down("kiosk-1", "ack"), True),
        ("server.ingest", topics.SERVER_STATE, True),
        ("server.ingest", "$SYS/x", False),
        ("server.probe", topics.up("kiosk-1", "hb"), False),
    ],
)
def test_who_may_publish(name: str, topic: str, allowed: bool) -> None:
    assert may_publish(name, topic) is allowed


@pytest.mark.parametrize(
    ("name", "topic", "allowed"),
    [
        ("kiosk-1", topics.down("kiosk-1", "ack"), True),
        ("kiosk-1", topics.down("kiosk-1", "+"), True),
        ("kiosk-1", topics.SERVER_STATE, True),
        ("kiosk-1", topics.down("kiosk-2", "ack"), False),
        ("kiosk-1", topics.up("kiosk-1", "batch"), False),
        ("kiosk-1", "#", False),
        ("kiosk-1", "kf/1/+/+/down/ack", False),
        ("server.ingest", "kf/1/+/+/up/#", True),
    ],
)
def test_who_may_read(name: str, topic: str, allowed: bool) -> None:
    assert may_read(name, topic) is allowed
