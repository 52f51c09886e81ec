"""The configuration file: every refusal word for word, and what a correct file means.

After a deliberate change of a sentence: `python -m tests.edge_agent.test_config` rewrites the expected errors; read the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.config import DesiredState, DeviceEntry, ItemEntry
from edge_agent.errors import ConfigError

INVALID = Path(__file__).parent / "invalid"
EXAMPLE = Path(config.__file__).parent / "packaging" / "agent.toml"
SMALLEST = b'schema = 1\n[server]\nurl = "https://fleet.example.org"\n'


def _error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    return str(caught.value)


@pytest.mark.parametrize("path", sorted(INVALID.glob("*.toml")), ids=lambda path: path.stem)
def test_refusal_names_file_key_and_rule(path: Path) -> None:
    assert _error_of(path) + "\n" == path.with_suffix(".expected_error").read_text("utf-8")


def test_every_expected_error_has_its_file() -> None:
    assert {path.stem for path in INVALID.glob("*.expected_error")} == {path.stem for path in INVALID.glob("*.toml")}


def test_smallest_file_has_safe_defaults() -> None:
    got = config.parse(SMALLEST, "agent.toml")
    assert got.mqtt.tls
    assert got.local_api.http_port is None
    assert got.local_api.allowed_uids == ()
    assert got.intervals.summary_s == 900


def test_shipped_example_is_valid() -> None:
    got = config.load(EXAMPLE)
    assert got.devices
    assert got.items


def test_missing_file_is_a_sentence(tmp_path: Path) -> None:
    assert "cannot be read (No such file or directory)" in _error_of(tmp_path / "agent.toml")


def test_file_that_is_no_text() -> None:
    with pytest.raises(ConfigError, match=r"^agent.toml: not UTF-8 at byte 2$"):
        config.parse(b"# \xff", "agent.toml")


def test_huge_file_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b"#" * (config.MAX_BYTES + 1))
    assert "larger than 256 KiB" in _error_of(path)


def test_password_in_the_address_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(b'schema = 1\n[server]\nurl = "https://a:hunter2@fleet.example.org"\n', "agent.toml")
    assert "hunter2" not in str(caught.value)


def test_hosts_default_to_loopback_names() -> None:
    api = config.LocalApiTable(http_port=7077)
    assert api.hosts() == {"127.0.0.1:7077", "localhost:7077"}
    assert config.LocalApiTable(http_port=7077, allowed_hosts=("kiosk.local:7077",)).hosts() == {"kiosk.local:7077"}


class TestDesiredState:
    def test_unknown_members_are_tolerated(self) -> None:
        got = config.desired_state(
            {
                "devices": [{"slot": "scanner", "family": "scanner", "colour": "grey"}],
                "items": [{"code": "tax.invoice", "since": 3}],
                "volume": 7,
            }
        )
        assert got == DesiredState(
            devices=(DeviceEntry(slot="scanner", family="scanner"),), items=(ItemEntry(code="tax.invoice"),)
        )

    @pytest.mark.parametrize("tree", [[], {"devices": 3}, {"devices": [3]}, {"items": [{"code": "NO"}]}, {"devices": [{}]}])
    def test_what_does_not_fit_is_refused(self, tree: object) -> None:
        with pytest.raises(ConfigError, match=r"^desired state: "):
            config.desired_state(tree)

    def test_the_file_wins_where_it_speaks(self) -> None:
        file = config.parse(SMALLEST + b'[[devices]]\nslot = "scanner"\nfamily = "scanner"\n', "agent.toml")
        desired = DesiredState(devices=(DeviceEntry(slot="keypad", family="keypad"),), items=(ItemEntry(code="tax.invoice"),))
        got = config.with_desired(file, desired)
        assert [device.slot for device in got.devices] == ["scanner"]
        assert [item.code for item in got.items] == ["tax.invoice"]

    def test_contradictions_in_it_are_refused(self) -> None:
        file = config.parse(SMALLEST, "agent.toml")
        twice = DesiredState(items=(ItemEntry(code="tax.invoice"), ItemEntry(code="tax.invoice")))
        with pytest.raises(ConfigError, match=r'^desired state: items\[1\].code: "tax.invoice" is already in items\[0\]$'):
            config.with_desired(file, twice)


if __name__ == "__main__":
    for each in sorted(INVALID.glob("*.toml")):
        each.with_suffix(".expected_error").write_text(_error_of(each) + "\n", "utf-8")
