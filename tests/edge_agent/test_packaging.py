"""What is laid on a terminal with systemd fits together: units, users, directories, the commands that are started, and the script that installs."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgspec
import pytest

import edge_agent
from edge_agent import cli, launcher
from edge_agent import config as agent_config
from edge_agent.config import Config, UpdaterTable
from edge_agent.updater import cli as updater_cli
from edge_agent.updater import settings as updater_settings
from edge_agent.updater.settings import LimitsTable, Settings

PACKAGING = Path(edge_agent.__file__).parent / "packaging"
UNITS = sorted(path.name for path in PACKAGING.iterdir() if path.suffix in {".service", ".path"})
SERVICES = [name for name in UNITS if name.endswith(".service")]
COMMANDS = ("ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost")
LAUNCHER = "/usr/local/lib/kiosk-fleet/launcher.py"
ROOT = Path("/opt/kiosk-fleet")
OUR_USERS = {"kiosk-fleet", "kiosk-updater"}


class _EveryValue(OrderedDict[str, Any]):
    """systemd takes a key that stands twice as a list; configparser would keep the last."""

    def __setitem__(self, key: str, value: Any) -> None:
        if isinstance(value, list) and key in self:
            self[key].extend(value)
        else:
            super().__setitem__(key, value)


class Unit:
    def __init__(self, name: str) -> None:
        self._parser = configparser.RawConfigParser(
            dict_type=_EveryValue, strict=False, delimiters=("=",), comment_prefixes=("#", ";"), empty_lines_in_values=False
        )
        self._parser.optionxform = str  # type: ignore[assignment,method-assign]
        self._parser.read_string((PACKAGING / name).read_text("utf-8"), name)

    def lines(self, section: str, key: str) -> list[str]:
        """Each value of a key, in order."""
        return self._parser.get(section, key, fallback="").splitlines()

    def words(self, section: str, key: str) -> list[str]:
        return [word for line in self.lines(section, key) for word in line.split()]

    def one(self, section: str, key: str) -> str:
        (value,) = self.lines(section, key)
        return value

    def commands(self) -> list[tuple[str, list[str]]]:
        """Key and words of everything that is started, without systemd's prefixes (systemd.service(5), table 2)."""
        return [(key, shlex.split(line.lstrip("@-:+!"))) for key in COMMANDS for line in self.lines("Service", key)]


def columns(name: str) -> list[list[str]]:
    """The lines of a sysusers.d or tmpfiles.d file, as words."""
    lines = (PACKAGING / name).read_text("utf-8").splitlines()
    return [shlex.split(line) for line in lines if line.strip() and not line.startswith("#")]


def declared() -> tuple[set[str], set[str]]:
    """Users and groups that exist once systemd-sysusers has run: a user line makes a group of the same name (sysusers.d(5))."""
    made = columns("kiosk-fleet.sysusers.conf")
    users = {one[1] for one in made if one[0] == "u"}
    return users, users | {one[1] for one in made if one[0] == "g"}


def directories() -> dict[str, tuple[str, str, str]]:
    """Path to mode, user and group."""
    return {one[1]: (one[2], one[3], one[4]) for one in columns("kiosk-fleet.tmpfiles.conf") if one[0] == "d"}


class Ran(Exception):
    """A command line was accepted, and would have been run."""


# -------------------------------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize("name", SERVICES)
def test_each_command_of_a_unit_is_one_that_its_program_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very words go through the programs' own parsers."""
    commands = Unit(name).commands()
    assert commands
    for key, words in commands:
        program = words[0]
        if program == "/usr/bin/python3":
            assert words[1:3] == ["-I", LAUNCHER], f"{key}: isolated, and root's own copy"
            assert_launcher_takes(words[3:], monkeypatch)
        elif program.endswith("/bin/edge-agent"):
            assert_agent_takes(Path(program), words[1:], monkeypatch)
        else:
            assert words == ["/usr/bin/systemctl", "restart", "edge-agent.service"], f"{key}: {words}"


def assert_launcher_takes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(launcher, "become_owner", lambda root: asked.append(("owner", root)))

    def count(root: Path, seat: str) -> str:
        asked.append(("count", root, seat))
        return "a version"

    monkeypatch.setattr(launcher, "count", count)
    monkeypatch.setattr(launcher, "ended", lambda root, seat, reason: asked.append(("ended", root, seat)))
    assert launcher.main(words) == 0
    seat = "updater" if "updater" in words else "agent"
    assert asked == [("owner", ROOT), (words[0], ROOT, seat)]


def assert_agent_takes(program: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def ran(asked: Any) -> int:
        raise Ran(asked.config)

    seat = "updater" if words[0] == "updater" else "agent"
    assert program == ROOT / launcher.LINKS[seat] / "bin" / "edge-agent", "what the launcher's link names"
    monkeypatch.setattr(updater_cli if seat == "updater" else cli, "_run", ran)
    with pytest.raises(Ran) as caught:
        cli.main(words)
    assert caught.value.args == ((updater_settings if seat == "updater" else agent_config).DEFAULT_PATH,)


@pytest.mark.parametrize(("unit", "seat"), [("edge-agent.service", "agent"), ("edge-agent-updater.service", "updater")])
def test_each_start_and_each_end_is_counted_for_the_seat_that_runs(unit: str, seat: str) -> None:
    """By root, since the agent may not write there; the launcher gives root up by itself."""
    made = Unit(unit)
    for key, command in (("ExecStartPre", "count"), ("ExecStopPost", "ended")):
        line = made.one("Service", key)
        assert line.startswith("+")
        words = shlex.split(line)
        assert words[3] == command
        assert ("--seat" in words and words[words.index("--seat") + 1]) == (seat if seat == "updater" else False)
    assert made.one("Service", "Type") == "notify"
    assert made.one("Service", "Restart") == "always"
    assert made.one("Unit", "StartLimitIntervalSec") == "0", "systemd must not give up before the launcher goes back"


def test_a_switch_restarts_the_agent() -> None:
    path = Unit("edge-agent-switch.path")
    assert path.one("Path", "PathChanged") == f"{Settings().root}/{launcher.SWITCH}"
    assert path.one("Path", "Unit") in SERVICES
    ((_, words),) = Unit(path.one("Path", "Unit")).commands()
    assert words[-1] in SERVICES


# ------------------------------------------------------------------------------------------------------------- users and directories


def test_users_and_groups_are_made_before_they_are_used() -> None:
    users, groups = declared()
    assert users == OUR_USERS
    for name in SERVICES:
        unit = Unit(name)
        assert set(unit.words("Service", "User")) <= users, name
        assert {*unit.words("Service", "Group"), *unit.words("Service", "SupplementaryGroups")} <= groups, name
    for path, (_, user, group) in directories().items():
        assert user in users | {"root"}, path
        assert group in groups | {"root"}, path
    rules = re.findall(r'GROUP="([^"]*)"', (PACKAGING / "90-kiosk-fleet.rules").read_text("utf-8"))
    assert rules and set(rules) <= groups
    assert cli.AGENT_USER in users
    homes = {one[1]: one[-1] for one in columns("kiosk-fleet.sysusers.conf") if one[0] == "u"}
    assert homes["kiosk-updater"] == Settings().state_dir
    assert Path(agent_config_defaults().state_dir).is_relative_to(homes["kiosk-fleet"])


def agent_config_defaults() -> Config:
    return agent_config.parse(b'schema = 1\n[server]\nurl = "https://fleet.example.org"\n', "agent.toml")


def writable(unit: Unit) -> set[Path]:
    """What a unit may write under ProtectSystem=strict."""
    assert unit.one("Service", "ProtectSystem") == "strict"
    return {
        *(Path(word.lstrip("-+")) for word in unit.words("Service", "ReadWritePaths")),
        *(Path("/var/lib") / word for word in unit.words("Service", "StateDirectory")),
        *(Path("/run") / word for word in unit.words("Service", "RuntimeDirectory")),
    }


def test_the_agent_may_write_where_its_configuration_says_and_nowhere_else() -> None:
    config, updater = agent_config_defaults(), Settings()
    of_the_socket = str(Path(config.local_api.socket_path).parent)
    needed = {Path(each) for each in (config.identity_dir, config.state_dir, of_the_socket, updater.requests_dir)}
    may = writable(Unit("edge-agent.service"))
    assert needed <= may
    assert may - needed == {Path(config.state_dir).parent}
    for path in (updater.root, updater.state_dir, updater.updates_dir, updater.pinned_dir, LAUNCHER):
        assert not [each for each in may if Path(path).is_relative_to(each)], f"the agent must not write {path}"


def test_the_updater_may_write_where_its_settings_say_and_sees_no_key_of_the_agent() -> None:
    updater, unit = Settings(), Unit("edge-agent-updater.service")
    of_a_further_copy = Path("/boot/kiosk-fleet")  # optional: `second_counters` as the shipped updater.toml proposes it
    assert writable(unit) == {Path(updater.root), Path(updater.state_dir), Path(updater.updates_dir), of_a_further_copy}
    hidden = [Path(word.lstrip("-")) for word in unit.words("Service", "InaccessiblePaths")]
    config = agent_config_defaults()
    for path in (config.identity_dir, config.state_dir):
        assert [each for each in hidden if Path(path).is_relative_to(each)], path


def test_the_directories_that_are_made_are_those_of_the_settings() -> None:
    updater, made = Settings(), directories()
    agent, keeper = "kiosk-fleet", "kiosk-updater"
    assert made == {
        updater.root: ("0755", keeper, keeper),
        updater.state_dir: ("0700", keeper, keeper),
        str(Path(updater.requests_dir).parent): ("0755", "root", "root"),
        updater.requests_dir: ("2750", agent, keeper),
        updater.updates_dir: ("2750", keeper, agent),
        updater.pinned_dir: ("0755", "root", "root"),
    }


def test_the_configurations_that_are_shipped_say_the_defaults() -> None:
    shipped = tomllib.loads((PACKAGING / "updater.toml").read_text("utf-8"))
    settings = msgspec.convert(shipped, Settings)
    assert settings == Settings()
    assert set(shipped["limits"]) <= {field.name for field in msgspec.structs.fields(LimitsTable)}
    raw = (PACKAGING / "agent.toml").read_text("utf-8")
    config, defaults = agent_config.parse(raw.encode("utf-8"), "agent.toml"), agent_config_defaults()
    assert (config.identity_dir, config.state_dir) == (defaults.identity_dir, defaults.state_dir)
    assert config.local_api.socket_path == defaults.local_api.socket_path
    # What is commented out must be right as well when an installer takes the marks away.
    with_all = re.sub(r"^# (\[\[?[a-z_]+\]\]?|[a-z_]+ = )", r"\1", raw, flags=re.MULTILINE)
    full = agent_config.parse(with_all.encode("utf-8"), "agent.toml")
    assert full.updater == UpdaterTable(requests_dir=Settings().requests_dir, updates_dir=Settings().updates_dir)
    assert full.hooks.restart_host and full.local_api.http_port


# --------------------------------------------------------------------------------------------------------------------- installation


def test_the_script_can_be_read_and_lays_out_every_file_that_is_shipped() -> None:
    script = PACKAGING / "install.sh"
    done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text("utf-8")
    for path in PACKAGING.iterdir():
        if path != script and path.is_file():
            assert path.name in text, f"{path.name} is shipped and not installed"
    named = re.findall(r"\$here/([A-Za-z0-9./_-]+)", text)
    assert len(named) >= 4
    assert all((PACKAGING / each).is_file() for each in named)
    for units in re.findall(r"^for unit in (.*); do$", text, re.MULTILINE):
        assert sorted(units.split()) == UNITS
    for units in re.findall(r"systemctl enable --now ([a-z. -]+)", text):
        for unit in units.split():
            name = unit if "." in unit else f"{unit}.service"
            assert Unit(name).one("Install", "WantedBy"), f"{name} cannot be enabled"


@pytest.mark.parametrize(
    ("uid", "words", "runs"),
    [
        (0, "updater pin --replace", "release"),
        (0, "install-layout --image x", "release"),
        (0, "token kiosk", "release"),
        (0, "updater status", "kiosk-updater updater"),
        (0, "updater", "kiosk-updater updater"),
        (0, "enrol --code x", "kiosk-fleet current"),
        (0, "doctor", "kiosk-fleet current"),
        (0, "--help updater pin", "kiosk-fleet current"),
        (0, "", "kiosk-fleet current"),
        (1000, "doctor", "current"),
        (1000, "updater pin", "current"),
    ],
)
def test_root_runs_as_root_only_what_root_alone_may_write(tmp_path: Path, uid: int, words: str, runs: str) -> None:
    """The script itself, with its three places and the programs it calls under a folder."""
    programs = {"opt/current": "current", "opt/updater": "updater", "lib/release": "release"}
    for place, name in programs.items():
        write_program(tmp_path / place / "bin" / "edge-agent", f'echo "{name} $*"')
    write_program(tmp_path / "bin" / "id", f"echo {uid}")
    write_program(tmp_path / "bin" / "setsid", 'shift; exec "$@"')
    write_program(tmp_path / "bin" / "runuser", 'user=$2; shift 3; echo "$user $("$@")"')
    text = (PACKAGING / "edge-agent.sh").read_text("utf-8")
    for place, here in (("/opt/kiosk-fleet", "opt"), ("/usr/local/lib/kiosk-fleet", "lib"), ("PATH=", "bin:")):
        assert place in text
        text = text.replace(place, f"PATH={tmp_path}/bin:" if here == "bin:" else f"{tmp_path}/{here}")
    done = subprocess.run(
        ["sh", "-c", text, "edge-agent", *words.split()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [*runs.split(), *words.split()]


def write_program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n", "utf-8")
    path.chmod(0o755)


def test_nothing_that_the_updater_may_write_is_installed_as_a_command() -> None:
    text = (PACKAGING / "install.sh").read_text("utf-8")
    assert not re.findall(r"^\s*ln .*/opt/kiosk-fleet", text, re.MULTILINE)
    assert re.search(r'^install -m 0755 "\$here/edge-agent.sh" /usr/local/bin/edge-agent$', text, re.MULTILINE)


def test_root_gives_the_agents_user_no_directory_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Path, bool]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("pwd.getpwnam", lambda _name: type("User", (), {"pw_uid": 4711, "pw_gid": 4711}))
    monkeypatch.setattr(os, "chown", lambda path, _uid, _gid, *, follow_symlinks=True: given.append((path, follow_symlinks)))
    for name in ("initgroups", "setgid", "setuid"):
        monkeypatch.setattr(os, name, lambda *_: None)
    config = msgspec.structs.replace(agent_config_defaults(), identity_dir=str(tmp_path / "i"), state_dir=str(tmp_path / "s"))
    cli._become_agent_user(config)
    assert given == [(tmp_path / "i", False), (tmp_path / "s", False)]


def test_the_script_s_own_commands_are_those_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its call of install-layout, with values in place of the variables."""
    text = (PACKAGING / "install.sh").read_text("utf-8")
    (line,) = [line for line in text.splitlines() if '/bin/edge-agent" install-layout' in line]
    words = shlex.split(line.replace("$image", "/tmp/release.tar").replace("$version", "1.4.0"))[1:]
    seen: list[tuple[Path, str, Path]] = []

    def lay_out(asked: Any) -> int:
        seen.append((asked.image, asked.version, asked.root))
        return 0

    monkeypatch.setattr(updater_cli, "_install_layout", lay_out)
    assert cli.main(words) == 0
    assert seen == [(Path("/tmp/release.tar"), "1.4.0", ROOT)]
    assert Settings().root == str(ROOT)


def run_systemd(program: str, *arguments: str) -> str:
    """What one of systemd's programs says. The host's own files are left alone: every call has its own root or only reads."""
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program} on this machine")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    return (done.stdout + done.stderr).strip()


def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    """Only the versions themselves are missing where nothing is installed."""
    said = run_systemd("systemd-analyze", "verify", "--man=no", *(str(PACKAGING / name) for name in UNITS))
    wrong = [line for line in said.splitlines() if not re.search(r"Command \S+ is not executable: No such file", line)]
    assert wrong == []


def test_systemd_makes_the_users_and_the_directories(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("files of other users can be made by root only")
    for folder, name in (("sysusers.d", "kiosk-fleet.sysusers.conf"), ("tmpfiles.d", "kiosk-fleet.tmpfiles.conf")):
        (tmp_path / "usr/lib" / folder).mkdir(parents=True)
        shutil.copy(PACKAGING / name, tmp_path / "usr/lib" / folder / "kiosk-fleet.conf")
    (tmp_path / "etc").mkdir()
    run_systemd("systemd-sysusers", f"--root={tmp_path}", "kiosk-fleet.conf")
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text("utf-8").splitlines()}
    groups = {line.split(":")[0]: line.split(":")[2] for line in (tmp_path / "etc/group").read_text("utf-8").splitlines()}
    assert set(users) == OUR_USERS
    assert set(groups) == declared()[1]
    assert all(fields[-1].endswith("/nologin") for fields in users.values()), "nobody logs in as them"
    assert run_systemd("systemd-tmpfiles", f"--root={tmp_path}", "--create", "kiosk-fleet.conf") == ""
    for path, (mode, user, group) in directories().items():
        found = (tmp_path / path.lstrip("/")).stat()
        owner = (0 if user == "root" else int(users[user][2]), 0 if group == "root" else int(groups[group]))
        assert (f"{found.st_mode & 0o7777:04o}", (found.st_uid, found.st_gid)) == (mode, owner), path
