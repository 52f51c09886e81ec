"""`fleet-server thresholds`, `set-threshold` and `import-holidays` on one data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet_server.sites.test_holidays import invented_2027
from tests.fleet_server.supervisor.test_cli import Data


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Data:
    made = Data(tmp_path / "data", capsys)
    made("init")
    return made


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def test_thresholds_are_listed_set_and_put_back(data: Data) -> None:
    assert "default" in line_of(data("thresholds"), "idle.notice_days")
    assert "idle.notice_days is 21 day" in data("set-threshold", "idle.notice_days", "21")
    shown = line_of(data("thresholds"), "idle.notice_days")
    assert "21" in shown and "set by cli:" in shown
    assert "(default)" in data("set-threshold", "idle.notice_days", "default")
    assert "14400" in line_of(data("thresholds", "--class", "social"), "presence.offline_s")
    data("set-threshold", "no.such", "1", status=1)
    data("set-threshold", "idle.notice_days", "soon", status=1)


def test_a_years_holidays_are_imported_or_refused_whole(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "2027.json"
    file.write_text(invented_2027(), "utf-8")
    assert "2027: complete, 250 working days" in data("import-holidays", file)
    assert data.rows("SELECT count(*) FROM holiday WHERE day LIKE '2027-%' AND kind = 'work'") == [(6,)]
    part = tmp_path / "part.csv"
    part.write_text("day,kind\n2028-01-01,off\n", "utf-8")
    assert "2028: Labour Day has 0" in data("import-holidays", part, status=1)
    assert data.rows("SELECT count(*) FROM holiday WHERE day LIKE '2028-%'") == [(0,)]
    data("import-holidays", tmp_path / "absent.csv", status=1)


def test_commands_need_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no server" in Data(tmp_path / "none", capsys)("thresholds", status=1)


def test_imported_hours_are_dated(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "sites.json"
    for hours, said in (("09:00", "sites imported\n"), ("08:00", "new opening hours at 1")):
        file.write_text('{"sites": [{"code": "S1", "area": "A", "hours": {"mon": [["' + hours + '", "17:00"]]}}]}', "utf-8")
        assert said in data("import-sites", file)
    assert data.rows("SELECT site, hours FROM site_hours") == [("S1", '{"mon": [["09:00", "17:00"]]}')]
    events = data.rows("SELECT subject, kind, set_by LIKE 'cli:%' FROM setting_event")
    assert events == [("site:S1", "site.import", 1)] * 2
