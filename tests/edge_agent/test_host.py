from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import host
from edge_agent.clock import ClockReading
from edge_agent.host import HostMeter, HostSample, ProcProbe
from protocols.contract.records import Boot, ClockQuality, encode_record

WALL_MS = 1_790_000_000_000
CALM = HostSample(
    cpu_busy=1000,
    cpu_total=10_000,
    mem_total_mib=8000,
    mem_free_mib=4000,
    disk_total_mib=64_000,
    disk_free_mib=32_000,
    temp_c=50,
    uptime_s=100,
    agent_rss_kib=40_000,
)


def at(boot_ms: int) -> ClockReading:
    return ClockReading(wall_ms=WALL_MS + boot_ms, boot_ms=boot_ms, quality=ClockQuality.SYNCED)


class TestParsing:
    def test_stat(self) -> None:
        assert host.parse_stat("cpu  10 1 5 80 4 0 1 2 99 99\ncpu0 1 2 3\n") == (19, 103)

    def test_meminfo(self) -> None:
        assert host.parse_meminfo("MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n") == (8192, 4096)

    def test_rss_and_uptime(self) -> None:
        assert host.parse_rss_kib("Name:\tx\nVmRSS:\t   34816 kB\n") == 34_816
        assert host.parse_uptime("12345.67 99.9\n") == 12_345

    def test_hottest_believable_zone(self) -> None:
        assert host.hottest(["45000\n", "61500\n", "-274000\n", "999000\n", "", "x"]) == 61
        assert host.hottest([]) is None

    @given(st.text(max_size=200))
    def test_nonsense_is_zero_never_an_error(self, text: str) -> None:
        host.parse_stat(text)
        host.parse_meminfo(text)
        host.parse_rss_kib(text)
        host.parse_uptime(text)
        host.hottest([text])
        os_name = host.parse_os_release(f"NAME={text}\nVERSION_ID={text}\n")
        encode_record(
            Boot(agent="0.1.0", os=os_name, arch="x86_64", python="3.11.7", previous="none"),
            wall_ms=0,
            quality=ClockQuality.UNSET,
            boot_ms=0,
        )

    @pytest.mark.parametrize(
        ("text", "name"),
        [
            ('NAME="Debian GNU/Linux"\nVERSION_ID="12"\n', "Debian GNU/Linux 12"),
            ('NAME="Kylin Linux Advanced Server"\nVERSION_ID="V10"\n', "Kylin Linux Advanced Server V10"),
            ('NAME="统信"\n', "Linux 6.1.0-18-amd64"),
            ('NAME="Debian GNU/Linux"\n', "Linux 6.1.0-18-amd64"),
            ("", "Linux 6.1.0-18-amd64"),
        ],
    )
    def test_os_release(self, text: str, name: str) -> None:
        assert host.parse_os_release(text, "6.1.0-18-amd64") == name


class TestProbe:
    def test_this_host(self, tmp_path: Path) -> None:
        sample = ProcProbe(tmp_path).sample()
        assert sample.cpu_total > 0
        assert 0 < sample.mem_free_mib <= sample.mem_total_mib
        assert 0 < sample.disk_free_mib <= sample.disk_total_mib
        assert sample.agent_rss_kib > 1000

    def test_host_that_tells_nothing(self, tmp_path: Path) -> None:
        sample = ProcProbe(tmp_path / "no", proc=tmp_path, thermal=tmp_path).sample()
        assert sample == HostSample(
            cpu_busy=0,
            cpu_total=0,
            mem_total_mib=0,
            mem_free_mib=0,
            disk_total_mib=0,
            disk_free_mib=0,
            temp_c=None,
            uptime_s=0,
            agent_rss_kib=0,
        )
        meter = HostMeter(at(0), sample)
        meter.observe(sample)
        assert meter.conditions() == frozenset()


class TestMeter:
    def test_summary(self) -> None:
        meter = HostMeter(at(0), CALM)
        meter.observe(replace(CALM, cpu_busy=1500, cpu_total=11_000, temp_c=71))
        meter.observe(replace(CALM, cpu_busy=1500, cpu_total=12_000, temp_c=60, mem_free_mib=3000))
        body = meter.close_span(at(900_000), outbox_batches=3)
        assert (body.cpu_pct, body.temp_c, body.mem_free_mib, body.outbox_batches) == (25, 71, 3000, 3)
        assert body.to_ms - body.from_ms == 900_000
        assert meter.close_span(at(1_800_000), outbox_batches=0).temp_c == 60

    @pytest.mark.parametrize(
        ("changes", "codes"),
        [
            ({}, set()),
            ({"cpu_busy": 10_900, "cpu_total": 20_000}, {"HOST.CPU_HIGH"}),
            ({"mem_free_mib": 600}, {"HOST.MEM_HIGH"}),
            ({"disk_free_mib": 900}, {"HOST.DISK_FULL"}),
            ({"disk_free_mib": 2000}, set()),
            ({"disk_total_mib": 4000, "disk_free_mib": 900}, set()),
            ({"temp_c": 85}, {"HOST.TEMP_HIGH"}),
            ({"temp_c": None}, set()),
        ],
    )
    def test_conditions(self, changes: dict[str, int], codes: set[str]) -> None:
        meter = HostMeter(at(0), CALM)
        meter.observe(replace(CALM, **changes))
        assert meter.conditions() == codes
        assert codes <= host.HOST_CODES

    def test_load_is_of_the_last_interval(self) -> None:
        meter = HostMeter(at(0), CALM)
        meter.observe(replace(CALM, cpu_busy=11_000, cpu_total=20_000))
        meter.observe(replace(CALM, cpu_busy=11_000, cpu_total=30_000))
        assert meter.conditions() == set()


@pytest.mark.parametrize(
    ("quality", "behind_ms", "server_offset_ms", "off"),
    [
        (ClockQuality.SYNCED, 10, 100_000, False),
        (ClockQuality.UNSET, 0, None, False),
        (ClockQuality.UNSET, 1, None, True),
        (ClockQuality.HOLDOVER, 0, 59_999, False),
        (ClockQuality.HOLDOVER, 0, -60_000, True),
    ],
)
def test_clock_is_off(quality: ClockQuality, behind_ms: int, server_offset_ms: int | None, off: bool) -> None:
    assert host.clock_is_off(ClockReading(WALL_MS, 0, quality), behind_ms, server_offset_ms) is off


def test_facts_name_no_person(tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text('NAME="Debian GNU/Linux"\nVERSION_ID="12"\n')
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    facts = host.facts(os_release=tmp_path / "os-release", machine_id=tmp_path / "machine-id")
    told = facts.for_enrolment("0.1.0")
    assert set(told) == {"agent", "arch", "os", "cpus", "mem_mib", "machine"}
    assert "0123456789abcdef" not in str(told)
    assert host.facts(machine_id=tmp_path / "none").machine is None
