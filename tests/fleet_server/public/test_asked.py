"""Whatever is asked, the answer is calm: settings and addresses of every kind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_server.errors import SettingsError
from fleet_server.public.asked import QUERY_MAX_BYTES, NotAsked, PageAsk, api_ask, page_ask
from fleet_server.settings import load, to_environment


@given(st.binary(max_size=2 * QUERY_MAX_BYTES))
def test_any_query_is_understood_or_refused(query: bytes) -> None:
    with suppress(NotAsked):
        asked = page_ask(query)
        assert len(asked.words) <= 40
        assert max(len(asked.area), len(asked.service)) <= 64
    with suppress(NotAsked):
        assert 0 <= api_ask(query).limit <= 100


ASKED = st.builds(
    PageAsk,
    lang=st.sampled_from(["zh", "en"]),
    mode=st.sampled_from(["usual", "elder"]),
    area=st.text("ab-1&=%", max_size=8),
    words=st.text("义乌 &=#%", max_size=8).map(lambda text: " ".join(text.split())),
    open_only=st.booleans(),
    all=st.booleans(),
)


@given(ASKED)
def test_an_address_says_what_it_was_made_from(asked: PageAsk) -> None:
    assert page_ask(asked.query.encode()) == asked


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    prefix=st.sampled_from(["/", "/cards", "/sites/", "/static/", "/api/v1/", "/api/v1/sites/", "/api/v1/sites"]),
    rest=st.text(max_size=30),
    query=st.text(max_size=60),
)
async def test_no_address_breaks_anything(citizen: httpx.AsyncClient, prefix: str, rest: str, query: str) -> None:
    answer = await citizen.get(f"{prefix}{quote(rest, safe='', errors='replace')}?{quote(query, safe='=&', errors='replace')}")
    assert answer.status_code in {200, 400, 404, 414}, (prefix, rest, query)
    assert "content-type" in answer.headers


def test_settings_of_the_public_face_survive_the_way_to_its_process(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(
        '[public]\nenabled = true\nport = 9090\ntitle_zh = "金华"\nmap_link = "geo:{lat},{lon}?q={name}"\n', encoding="utf-8"
    )
    first = load({}, data_dir=tmp_path)
    assert load(to_environment(first)) == first
    assert first.public.map_link == "geo:{lat},{lon}?q={name}"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "http://maps.example/", 'https://x/"><script>', "https://x/ y"])
def test_a_map_link_that_is_none_is_refused(tmp_path: Path, link: str) -> None:
    with pytest.raises(SettingsError, match=r"public\.map_link"):
        load({"KF_PUBLIC_MAP_LINK": link}, data_dir=tmp_path)
