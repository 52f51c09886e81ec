"""`fleet-server` commands, called in this process where nothing else is running."""

from __future__ import annotations

import io
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server import cli, db
from fleet_server.accounts.passwords import Passwords
from fleet_server.authority.authority import Authority
from fleet_server.backup import BackupError, back_up, restore
from fleet_server.settings import Layout, Settings, load, to_environment
from protocols.contract.certs import open_server_key_cert


class Data:
    """One data directory and the command line on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self.layout, self._capsys = root, Layout(root), capsys

    def __call__(self, *words: str | Path, status: int = 0) -> str:
        """Run a command; returns what it said."""
        got = cli.main(["--data", str(self.root), *map(str, words)])
        said = self._capsys.readouterr()
        assert got == status, said
        return said.out + said.err

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.layout.database)) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Data:
    data = Data(tmp_path / "data", capsys)
    data("init")
    return data


def test_init_makes_everything_once_and_shows_one_password(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Data(tmp_path / "data", capsys)
    said = data("init")
    assert "made the first account: name operator, password " in said
    password = said.split("password ")[1].split(" ")[0]
    (stored,) = data.rows("SELECT password_hash, must_change FROM staff")
    assert isinstance(stored[0], str)
    assert Passwords().fits(stored[0], password)
    assert stored[1] == 1
    root = Authority(data.layout.authority).root_public_key
    assert data("init") == ""
    assert Authority(data.layout.authority).root_public_key == root
    assert data.rows("SELECT count(*) FROM server_key WHERE retired_ms IS NULL") == [(1,)]


def test_another_fleets_data_is_refused(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KF_FLEET", "other")
    assert "belongs to fleet fleet, not other" in data("init", status=1)


def test_adding_a_terminal_shows_what_the_installer_needs(data: Data) -> None:
    said = data(
        "add-terminal", "kiosk-1", "--name-zh", "一号", "--slot", "receipt-printer:escpos", "--slot", "scanner:scanner:optional"
    )
    lines = dict(line.rsplit("  ", 1) for line in said.splitlines() if "  " in line)
    shown = {key.strip(): value.strip() for key, value in lines.items()}
    assert shown["CA fingerprint"] == Authority(data.layout.authority).ca_fingerprint
    assert shown["fleet root"] == Authority(data.layout.authority).root_fingerprint
    assert len(shown["one-time code"].replace("-", "")) == 32
    assert shown["enrolment address"] == "https://127.0.0.1:8443"
    ((inventory,),) = data.rows("SELECT inventory FROM terminal")
    assert isinstance(inventory, str)
    assert json.loads(inventory) == [
        {"slot": "receipt-printer", "family": "escpos", "mandatory": True},
        {"slot": "scanner", "family": "scanner", "mandatory": False},
    ]
    assert shown["one-time code"] not in data("new-code", "kiosk-1")
    assert data.rows("SELECT count(*) FROM enrolment_code") == [(2,)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("add-terminal", "Kiosk 1"), "terminal ids are 1 to 32 of a-z, 0-9 and -"),
        (("add-terminal", "kiosk-1", "--type", "toaster"), "'toaster' is none of kiosk"),
        (("add-terminal", "kiosk-1", "--site", "nowhere"), "there is no site 'nowhere'"),
        (("add-terminal", "kiosk-1", "--slot", "printer"), "'printer' is not SLOT:FAMILY"),
        (("new-code", "kiosk-9"), "terminal 'kiosk-9'"),
        (("revoke", "kiosk-9"), "terminal 'kiosk-9'"),
        (("set-password", "nobody", "--generate"), "there is no account 'nobody'"),
        (("import-sites", "/nowhere.json"), "cannot be read as sites"),
        (("restore", "/nowhere.tar"), "is there already"),
    ],
)
def test_refusals_are_one_sentence(data: Data, words: tuple[str, ...], sentence: str) -> None:
    said = data(*words, status=1)
    assert said.startswith("fleet-server: ")
    assert sentence in said
    assert said.count("\n") == 1


def test_commands_without_a_server_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "`fleet-server init` makes one" in Data(tmp_path / "empty", capsys)("revoke", "kiosk-1", status=1)


def test_sites_come_from_json_and_csv(data: Data, tmp_path: Path) -> None:
    tree = {
        "areas": [{"code": "330700", "name_zh": "金华市", "name_en": "Jinhua", "sort": 1}],
        "sites": [{"code": "s1", "area": "330700", "name_zh": "大厅", "kind": "hall", "hours": {"mon": [["09:00", "17:00"]]}}],
    }
    (tmp_path / "city.json").write_text(json.dumps(tree, ensure_ascii=False), "utf-8")
    (tmp_path / "areas.csv").write_text("code,parent,name_zh,sort\n330702,330700,婺城区,2\n", "utf-8-sig")
    (tmp_path / "sites.csv").write_text("code,area,name_zh,kind,lat\ns2,330702,医院,hospital,29.1\n", "utf-8")
    said = data("import-sites", tmp_path / "city.json", tmp_path / "areas.csv", tmp_path / "sites.csv")
    assert said == "2 areas and 2 sites imported\n"
    assert data.rows("SELECT code, parent FROM area ORDER BY code") == [("330700", None), ("330702", "330700")]
    assert data.rows("SELECT code, kind, lat FROM site ORDER BY code") == [("s1", "hall", None), ("s2", "hospital", 29.1)]
    data("add-terminal", "kiosk-1", "--site", "s2")
    (tmp_path / "bad.csv").write_text("area,name_zh\nx,y\n")
    assert "row 1 has no code" in data("import-sites", tmp_path / "bad.csv", status=1)


def test_revoking_and_rotating(data: Data) -> None:
    data("add-terminal", "kiosk-1")
    assert data("revoke", "kiosk-1") == "kiosk-1 is revoked\n"
    assert data("revoke", "kiosk-1") == "kiosk-1 was revoked before\n"
    before = Authority(data.layout.authority).server_signer().kid
    data("rotate-server-key")
    authority = Authority(data.layout.authority)
    assert authority.server_signer().kid != before
    assert data.rows(f"SELECT retired_ms IS NULL FROM server_key WHERE kid = x'{before.hex()}'") == [(0,)]


def test_a_password_is_asked_for_and_signs_out(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(db.open_raw(data.layout.database)) as connection:
        connection.execute("INSERT INTO login (token_hash, staff) VALUES (x'00', 'operator')")
        connection.execute("UPDATE staff SET failed = 5, locked_until_ms = 9999999999999")
    monkeypatch.setattr("sys.stdin", io.StringIO("too short\n"))
    assert "at least 12 characters" in data("set-password", "operator", status=1)
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert "correct horse" not in data("set-password", "operator")
    ((hashed, failed, locked),) = data.rows("SELECT password_hash, failed, locked_until_ms FROM staff")
    assert isinstance(hashed, str)
    assert Passwords().fits(hashed, "correct horse battery")
    assert (failed, locked) == (0, None)
    assert data.rows("SELECT count(*) FROM login") == [(0,)]
    data("set-password", "viewer", "--role", "viewer", "--generate")
    assert data.rows("SELECT role, must_change FROM staff WHERE name = 'viewer'") == [("viewer", 1)]


# Backup and restore -----------------------------------------------------------------------------------------------------------------------


def test_a_restored_server_is_the_one_that_was_backed_up(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data("add-terminal", "kiosk-1")
    archive = tmp_path / "backup.tar"
    with closing(db.open_raw(data.layout.database)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO area (code) VALUES ('not committed')")
        data("backup", archive)
        writer.execute("ROLLBACK")
    assert archive.stat().st_mode & 0o077 == 0
    data("add-terminal", "kiosk-2")
    assert "is there already" in data("backup", archive, status=1)

    other = Data(tmp_path / "other", capsys)
    other("restore", archive)
    assert other.rows("SELECT id FROM terminal") == [("kiosk-1",)]
    assert other.rows("SELECT count(*) FROM area") == [(0,)]
    restored, original = Authority(other.layout.authority), Authority(data.layout.authority)
    assert restored.server_signer().kid == original.server_signer().kid
    open_server_key_cert(restored.server_key_certificate, original.root_public_key, original.fleet)
    restored.certify_record_key("kiosk-1", b"k" * 32, 1, now_ms=1)
    assert [file for file in other.root.rglob("*.key") if file.stat().st_mode & 0o077] == []
    other("init")

    data("restore", archive, "--replace")
    assert data.rows("SELECT id FROM terminal") == [("kiosk-1",)]
    with closing(sqlite3.connect(data.root / "before-restore" / "fleet.sqlite")) as aside:
        assert aside.execute("SELECT count(*) FROM terminal").fetchone() == (2,)


def test_a_backup_holds_logs_and_signatures_and_no_order_key(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kid = str(data.rows("SELECT hex(kid) FROM order_key WHERE retired_ms IS NULL")[0][0]).lower()
    key = (data.layout.dispatch / f"{kid}.key").read_bytes()
    (data.layout.logs / "aa.cose").write_bytes(b"an excerpt")
    data.layout.audit_heads.write_text('{"head": "eA=="}\n')
    archive = tmp_path / "backup.tar"
    data("backup", archive)
    assert key not in archive.read_bytes()
    with tarfile.open(archive) as tar:
        assert not [name for name in tar.getnames() if "dispatch" in name or kid in name]
    data.layout.audit_heads.write_text('{"head": "eA=="}\n{"head": "eQ=="}\n')

    other = Data(tmp_path / "other", capsys)
    other("restore", archive)
    assert (other.layout.logs / "aa.cose").read_bytes() == b"an excerpt"
    assert other.layout.audit_heads.read_text() == '{"head": "eA=="}\n'
    assert other.rows("SELECT actor FROM audit WHERE action = 'backup.restore'") == [("server",)]
    assert "made order key" in other("init")
    keys = {str(row[0]).lower(): row[1] for row in other.rows("SELECT hex(kid), withdrawn_ms IS NOT NULL FROM order_key")}
    assert keys.pop(kid) == 1
    assert list(keys.values()) == [0]

    data("restore", archive, "--replace")
    assert data.layout.audit_heads.read_text() == '{"head": "eA=="}\n'
    assert "made order key" not in data("init")
    assert (data.root / "before-restore" / "audit-heads.ndjson").read_text().count("head") == 2


def test_nothing_is_restored_under_a_running_server(data: Data, tmp_path: Path) -> None:
    from fleet_server.supervisor import only_one

    archive = tmp_path / "backup.tar"
    data("backup", archive)
    with only_one(Settings(data_dir=data.root)):
        assert "a server already runs on" in data("restore", archive, "--replace", status=1)
        assert "a server already runs on" in data("migrate", status=1)


def _repack(archive: Path, target: Path, change: str) -> None:
    with tarfile.open(archive) as old, tarfile.open(target, "w") as new:
        for member in old:
            content = old.extractfile(member)
            assert content is not None
            raw = content.read()
            if change == "flipped byte" and member.name == "fleet.sqlite":
                raw = raw[:5000] + bytes((raw[5000] ^ 1,)) + raw[5001:]
            if change == "missing key" and member.name == "authority/ca.key":
                continue
            if change == "climbing name" and member.name == "authority/ca.pem":
                member.name = "../ca.pem"
            if change == "other format" and member.name == "manifest.json":
                raw = raw.replace(b'"format": 1', b'"format": 9')
            member.size = len(raw)
            new.addfile(member, io.BytesIO(raw))


@pytest.mark.parametrize("change", ["flipped byte", "missing key", "climbing name", "other format", "cut off", "not an archive"])
def test_a_damaged_backup_changes_nothing(data: Data, tmp_path: Path, change: str) -> None:
    archive, damaged = tmp_path / "backup.tar", tmp_path / "damaged.tar"
    back_up(data.layout, archive, now_ms=1)
    if change == "cut off":
        damaged.write_bytes(archive.read_bytes()[:100_000])
    elif change == "not an archive":
        damaged.write_bytes(b"\x00" * 5000)
    else:
        _repack(archive, damaged, change)
    target = Layout(tmp_path / "target")
    with pytest.raises(BackupError):
        restore(damaged, target, now_ms=2)
    assert not target.database.exists()
    assert not target.authority.exists()
    assert not (tmp_path / "ca.pem").exists()
    assert not list(target.root.glob(".restore-*"))


# Settings ---------------------------------------------------------------------------------------------------------------------------------


def test_settings_come_from_file_and_environment_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        'fleet = "jinhua"\nnames = ["a.example"]\n[web]\nport = 9000\n[broker]\nkind = "embedded"\n'
    )
    settings = load(
        {
            "KF_DATA_DIR": str(tmp_path),
            "KF_WEB_PORT": "9001",
            "KF_WEB_TLS": "true",
            "KF_SOAK": "1",
            "KF_NAMES": "b.example, 192.0.2.1",
        }
    )
    assert (settings.fleet, settings.web.port, settings.web.tls, settings.broker.kind) == ("jinhua", 9001, True, "embedded")
    assert settings.names == ("b.example", "192.0.2.1")
    assert load(to_environment(settings)) == settings


@pytest.mark.parametrize(
    ("text", "environment", "sentence"),
    [
        ("colour = 1", {}, "Object contains unknown field `colour`"),
        ("[web]\nprot = 1", {}, "Object contains unknown field `prot` - at `$.web`"),
        ('[web]\nport = "80"', {}, "Expected `int`, got `str` - at `$.web.port`"),
        ("[web]\nport = 70000", {}, "<= 65535 - at `$.web.port`"),
        ("fleet = 'Ü'", {}, "at `$.fleet`"),
        ("fleet = ", {}, "not TOML"),
        ("", {"KF_WEB_PRT": "1"}, "KF_WEB_PRT is no setting of web"),
        ("", {"KF_BROKER_KIND": "kafka"}, "environment: Invalid enum value 'kafka'"),
        ("", {"KF_CONFIG": "/nowhere.toml"}, "/nowhere.toml: No such file"),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, environment: dict[str, str], sentence: str) -> None:
    from fleet_server.errors import SettingsError

    (tmp_path / "fleet.toml").write_text(text)
    with pytest.raises(SettingsError) as refusal:
        load({"KF_DATA_DIR": str(tmp_path), **environment})
    assert sentence in str(refusal.value)
