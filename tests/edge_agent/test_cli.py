"""The command line as a person uses it: what is printed, what is written, which exit code."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import cli, config, doctor, files, identity
from edge_agent.cli import load_profiles, main
from edge_agent.local_api import Applications
from edge_agent.signing import FileKeyStore
from edge_agent.status import StatusDocument
from edge_agent.transports.base import Sighting
from protocols.contract.envelope import key_id
from tests.edge_agent.small_agent import Home
from tests.edge_agent.small_fleet import SmallFleet
from tests.edge_agent.test_enrol import CODE
from tests.edge_agent.test_supervisor import one_printer, running
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def _stay_who_you_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run as root on a machine that has the service's user."""
    monkeypatch.setattr(cli, "AGENT_USER", "kf-no-such-user")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[SmallFleet]:
    with SmallFleet(tmp_path, {"kiosk-0007": CODE}) as started:
        yield started


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def written(url: str, extra: str = "", local_api: str = "") -> str:
        path = tmp_path / "agent.toml"
        path.write_text(
            f'schema = 1\nidentity_dir = "{tmp_path}/identity"\nstate_dir = "{tmp_path}/state"\n'
            f'[server]\nurl = "{url}"\n[local_api]\nsocket_path = "{tmp_path}/a.sock"\n{local_api}{extra}'
        )
        return str(path)

    return written


class TestEnrol:
    def ask(self, fleet: SmallFleet, path: str, *more: str) -> int:
        return main([
            *("enrol", "--config", path, "--terminal", "kiosk-0007", "--code", CODE),
            *("--ca-fingerprint", fleet.ca.fingerprint.hex()),
            *more,
        ])  # fmt: skip

    def test_done(self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        assert self.ask(fleet, write(fleet.url)) == 0
        assert "This terminal is now kiosk-0007 of testfleet." in capsys.readouterr().out
        assert identity.load(tmp_path / "identity").terminal == "kiosk-0007"

    def test_code_from_standard_input(
        self, fleet: SmallFleet, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import io

        monkeypatch.setattr("sys.stdin", io.StringIO(CODE.lower() + "\n"))
        asked = [
            "enrol",
            "--config",
            write(fleet.url),
            "--terminal",
            "kiosk-0007",
            "--ca-fingerprint",
            fleet.ca.fingerprint.hex(),
        ]
        assert main(asked) == 0

    def test_refusal_is_one_sentence(
        self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        fleet.codes["kiosk-0007"] = "B" * 32
        assert self.ask(fleet, write(fleet.url)) == 1
        assert capsys.readouterr().err == "edge-agent: The one-time code is wrong; after five wrong tries it dies.\n"

    def test_unreachable_server_may_be_tried_again(
        self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"https://127.0.0.1:{taken.getsockname()[1]}"
            assert self.ask(fleet, write(url)) == 75
        assert "does not answer" in capsys.readouterr().err

    def test_server_option_writes_a_first_configuration(self, fleet: SmallFleet, tmp_path: Path) -> None:
        path = tmp_path / "etc" / "agent.toml"
        # The directories of a first configuration are the system's, so only the file is looked at.
        cli._write_first_config(path, fleet.url)
        assert config.load(path).server.url == fleet.url

    def test_another_server_than_the_file_names(
        self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.ask(fleet, write(fleet.url), "--server", "https://other.example.org") == 2
        assert "names another server" in capsys.readouterr().err

    def test_rotate_key(
        self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = write(fleet.url)
        assert self.ask(fleet, path) == 0
        assert main(["rotate-key", "--config", path]) == 0
        assert "Record key 2 is certified." in capsys.readouterr().out
        keys = FileKeyStore(tmp_path / "identity")
        assert key_id(fleet.record_keys["kiosk-0007"]) == keys.next_record_key().kid
        assert (tmp_path / "identity" / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE).exists()


class TestRun:
    def test_wrong_configuration_is_a_clear_refusal(self, tmp_path: Path) -> None:
        (tmp_path / "agent.toml").write_text("schema = 1\n")
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(tmp_path / "agent.toml")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (2, "edge-agent: agent.toml: server: missing\n")

    def test_before_enrolment(self, write: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["run", "--config", write("https://127.0.0.1:1")]) == 1
        assert "run `edge-agent enrol` first" in capsys.readouterr().err


class TestToken:
    def test_shown_once_and_kept_as_a_hash(
        self, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        local_api = (
            f'http_port = 7077\nallowed_origins = ["https://kiosk.example.org"]\n'
            f'application_tokens_file = "{tmp_path}/applications.toml"\n'
        )
        path = write("https://127.0.0.1:1", local_api=local_api)
        assert main(["token", "hall-kiosk", "--config", path]) == 0
        first = capsys.readouterr().out.strip()
        assert main(["token", "wallboard", "--scope", "status", "--config", path]) == 0
        second = capsys.readouterr().out.strip()
        loaded = Applications.load(tmp_path / "applications.toml")
        holder = loaded.holder(second)
        assert holder is not None
        assert holder.scopes == ("status",)
        assert loaded.holder(first) is not None
        assert first not in (tmp_path / "applications.toml").read_text()
        assert main(["token", "hall-kiosk", "--config", path]) == 0
        assert Applications.load(tmp_path / "applications.toml").holder(first) is None, "a new token replaces the old one"
        assert main(["token", 'x"\n', "--config", path]) == 2

    @pytest.mark.spec("D-105")
    def test_devices_are_for_whom_they_are_named(
        self, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """Also in a file that was written by hand, without scopes."""
        file = tmp_path / "applications.toml"
        local_api = f'http_port = 7077\nallowed_origins = ["https://kiosk.example.org"]\napplication_tokens_file = "{file}"\n'
        path = write("https://127.0.0.1:1", local_api=local_api)
        scopes = {}
        for name, more in (("plain", []), ("kiosk", ["--scope", "devices", "--scope", "sessions"])):
            assert main(["token", name, *more, "--config", path]) == 0
            holder = Applications.load(file).holder(capsys.readouterr().out.strip())
            assert holder is not None
            scopes[name] = set(holder.scopes)
        assert scopes == {"plain": {"sessions", "ratings", "refills", "status"}, "kiosk": {"devices", "sessions"}}
        file.write_text(f'[[applications]]\nname = "by-hand"\ntoken_sha256 = "{"0" * 64}"\n')
        file.chmod(0o600)
        assert "devices" not in Applications.load(file).applications[0].scopes

    def test_made_by_root_it_belongs_to_the_agents_user(
        self, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else the agent could not start. Who is not root plays it: only to whom the file is given is looked at then."""
        file = tmp_path / "applications.toml"
        local_api = f'http_port = 7077\nallowed_origins = ["https://kiosk.example.org"]\napplication_tokens_file = "{file}"\n'
        path = write("https://127.0.0.1:1", local_api=local_api)
        identity_dir = tmp_path / "identity"
        identity_dir.mkdir()
        given: list[tuple[int, int]] = []
        fchown = os.fchown

        def remembered(handle: int, uid: int, gid: int) -> None:
            given.append((uid, gid))
            fchown(handle, uid, gid)

        monkeypatch.setattr(os, "fchown", remembered)
        wanted = (54_321, 54_322) if os.geteuid() == 0 else (os.getuid(), os.getgid())
        os.chown(identity_dir, *wanted)
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        for name in ("hall-kiosk", "wallboard"):
            assert main(["token", name, "--config", path]) == 0, capsys.readouterr().err
        assert given == [wanted, wanted]
        found = file.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (*wanted, 0o600)
        assert len(Applications.load(file, owner=wanted[0]).applications) == 2, "the second kept the first"
        other = write("https://127.0.0.1:1", local_api=local_api.replace("applications.toml", "nowhere/applications.toml"))
        capsys.readouterr()
        assert main(["token", "hall-kiosk", "--config", other]) == 2
        assert "nowhere is missing" in capsys.readouterr().err
        assert not (tmp_path / "nowhere").exists(), "root's directory would be closed to the agent's user"

    def test_without_a_file(self, write: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["token", "hall-kiosk", "--config", write("https://127.0.0.1:1")]) == 2
        assert "application_tokens_file" in capsys.readouterr().err


class TestDoctor:
    def test_wrong_configuration(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "agent.toml").write_text("schema = 1\n")
        assert main(["doctor", "--config", str(tmp_path / "agent.toml")]) == doctor.CANNOT_START
        assert capsys.readouterr().out == "BAD   configuration  agent.toml: server: missing\n"

    def test_before_enrolment(self, write: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
        device = '[[devices]]\nslot = "scanner"\nfamily = "scanner"\nport = "/dev/kf-nothing"\n'
        assert main(["doctor", "--config", write("https://127.0.0.1:1", device)]) == doctor.CANNOT_START
        out = capsys.readouterr().out
        assert "the agent does not run" in out
        assert "run `edge-agent enrol` first" in out
        assert "nothing is plugged in at /dev/kf-nothing" in out

    def test_enrolled_but_not_running(
        self, fleet: SmallFleet, write: Callable[..., str], capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        path = write(fleet.url)
        assert TestEnrol().ask(fleet, path) == 0
        (tmp_path / "identity" / "desired.json").chmod(0o644)
        capsys.readouterr()
        assert main(["doctor", "--config", path]) == doctor.TROUBLE
        out = capsys.readouterr().out
        assert "ok    identity" in out
        assert "desired.json can be touched by others" in out

    async def test_running(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        home = Home(tmp_path)
        agent = home.agent(one_printer(), load_profiles(None))
        path = tmp_path / "agent.toml"
        path.write_text(
            f'schema = 1\nidentity_dir = "{home.identity_dir}"\nstate_dir = "{home.state_dir}"\n'
            f'[server]\nurl = "https://127.0.0.1:1"\n[local_api]\nsocket_path = "{home.socket_path}"\n'
        )
        async with running(agent):
            await until(lambda: agent.status().slots[0].device == "online", "the printer is online")
            await until(home.socket_path.exists, "the local API listens")
            code = await asyncio.to_thread(main, ["doctor", "--config", str(path)])
            out = capsys.readouterr().out
            assert code == doctor.TROUBLE, "there is no server"
            assert "kiosk-0007, version" in out
            assert "not connected" in out
            (line,) = [line for line in out.splitlines() if "  receipt-printer " in line]
            assert " at " in line
            assert "snbc-btp" in line or "receipt-printer-serial" in line or "pos-clone" in line
            assert "paper full" in out
            await asyncio.to_thread(main, ["doctor", "--json", "--config", str(path)])
            assert json.loads(capsys.readouterr().out)["terminal"] == "kiosk-0007"
        home.remove()

    def test_somebody_else_at_the_socket(self, tmp_path: Path) -> None:
        import threading

        def liar(listening: socket.socket) -> None:
            peer, _ = listening.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "a.sock"))
            listening.listen()
            thread = threading.Thread(target=liar, args=(listening,))
            thread.start()
            got = doctor.ask_agent(str(tmp_path / "a.sock"))
            thread.join(10)
        assert not isinstance(got, StatusDocument)
        assert "not this version of the agent" in got

    def test_hardware_in_plain_words(self, tmp_path: Path) -> None:
        entries = [
            {"slot": "id-reader", "family": "id-reader"},
            {"slot": "receipt-printer", "family": "receipt-printer", "port": "1-1.9", "mandatory": False},
            {"slot": "scanner", "family": "radio", "port": "1-1.4"},
        ]
        home = Home(tmp_path)
        home.remove()
        made = home.config(devices=entries)
        sightings = [Sighting("usb", "1-1.2", 0x0400, 0xC35A, usb_path="1-1.2"), Sighting("usb", "1-1.3", 1, 2, usb_path="1-1.3")]
        lines = {line.what: line for line in doctor.of_hardware(made, sightings, load_profiles(None))}
        assert (lines["id-reader"].level, "1-1.2" in lines["id-reader"].text) == ("ok", True)
        assert (lines["receipt-printer"].level, lines["receipt-printer"].text) == ("note", "nothing is plugged in at 1-1.9")
        assert (lines["scanner"].level, lines["scanner"].text) == ("bad", "no driver knows the family radio")
        assert "0001:0002" in lines["unknown"].text

    def test_what_is_only_seen_needs_no_permission(self, tmp_path: Path) -> None:
        home = Home(tmp_path)
        home.remove()
        made = home.config(devices=[{"slot": "touch-screen", "family": "touch-screen"}, {"slot": "display", "family": "display"}])
        sightings = [Sighting("input", "/dev/input/event99", role="touch"), Sighting("display", "card0-HDMI-A-1")]
        lines = list(doctor.of_hardware(made, sightings, load_profiles(None)))
        assert [(line.level, line.what) for line in lines] == [("ok", "touch-screen"), ("ok", "display")]
        assert all("observer" in line.text for line in lines)


def test_profiles_of_the_site_come_on_top(tmp_path: Path) -> None:
    import firmware_profiles
    from edge_agent.errors import ConfigError

    shipped = firmware_profiles.read_all()
    name, raw = next(iter(shipped.items()))
    (tmp_path / Path(name).name).with_suffix(".toml").write_bytes(raw)
    assert load_profiles(str(tmp_path)).keys() == load_profiles(None).keys()
    (tmp_path / "wrong.toml").write_text("id = 3\n")
    with pytest.raises(ConfigError, match="wrong"):
        load_profiles(str(tmp_path))


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_atomically(path, b"one")
    with pytest.raises(TypeError):
        files.write_atomically(path, "text")  # type: ignore[arg-type]  # fails in the middle
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert not files.create_once(path, b"two")
    assert path.read_bytes() == b"one"
