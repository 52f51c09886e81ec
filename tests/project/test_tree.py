"""The tree itself: what is tracked, what it says of itself, and what it must not contain."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from itertools import chain, pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted((ROOT / "locks").glob("*.txt"))

# Spelled in pieces, so that this file passes its own test.
REGISTRY_HOSTS = [
    "pypi" + ".org",
    "pythonhosted" + ".org",
    "registry." + "npmjs",
    "npmmirror" + ".com",
    "yarnpkg" + ".com",
    "deb.debian" + ".org",
    "snapshot.debian" + ".org",
    "nodesource" + ".com",
    "tuna.tsinghua" + ".edu",
    "mirrors.aliyun" + ".com",
    "mirrors.ustc" + ".edu",
]
MACHINE_PATHS = re.compile(r"(?<![\w.])/(?:home/[a-z]|Users/[A-Z]|work/(?:main|shared)|root/)")
# A citizen's number has this shape and a check digit (GB 11643). Test data that must pass for one is built at run time.
RESIDENT_NUMBER = re.compile(
    rb"(?<![0-9A-Fa-f])[1-6]\d{5}(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}[0-9Xx](?![0-9A-Fa-f])"
)


@cache
def tracked() -> tuple[Path, ...]:
    if not (ROOT / ".git").exists():
        pytest.skip("a source archive has no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return tuple(path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file())


def texts() -> list[tuple[str, str]]:
    """Name and content of each tracked text file."""
    found = []
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data:
            found.append((str(path.relative_to(ROOT)), data.decode("utf-8")))
    return found


def pinned(lock: Path) -> dict[str, str]:
    """Package → version of a lock."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower()


def project() -> dict[str, object]:
    table: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def test_no_file_names_a_registry() -> None:
    named = [f"{name}: {host}" for name, text in texts() for host in REGISTRY_HOSTS if host in text]
    assert named == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    here = str(ROOT)
    named = [name for name, text in texts() if MACHINE_PATHS.search(text) or (len(here) > len("/app") and here in text)]
    assert [name for name in named if name != "tests/project/test_tree.py"] == []


def test_no_file_holds_a_private_key() -> None:
    marker = "PRIVATE" + " KEY-----"
    assert [name for name, text in texts() if f"-----BEGIN {marker}" in text or f"-----BEGIN EC {marker}" in text] == []


def checks_out(number: bytes) -> bool:
    """GB 11643-1999, annex A (ISO 7064 MOD 11-2): the last character follows from the others."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(number[:17].decode()))
    return "10X98765432"[total % 11] == chr(number[17]).upper()


def test_no_file_holds_a_residents_number() -> None:
    """The standard's own example belongs to nobody and may stand as planted data; it also shows that the search works."""
    example = b"11010519491231002" + b"X"
    assert RESIDENT_NUMBER.fullmatch(example)
    assert checks_out(example)
    assert not checks_out(example[:17] + b"1")
    found = {(path.relative_to(ROOT), number) for path in tracked() for number in RESIDENT_NUMBER.findall(path.read_bytes())}
    somebodys = sorted((str(path), number) for path, number in found if checks_out(number) and number != example)
    assert somebodys == [], "the check digit fits, so somebody may have this number: change the last digit"


def test_nothing_that_is_made_is_tracked() -> None:
    ignored = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ignored.stdout.split() == []


def test_large_files_stay_out() -> None:
    assert [str(path.relative_to(ROOT)) for path in tracked() if path.stat().st_size > 2 * 2**20] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_lock_pins_by_hash_and_names_no_address(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*-", text.replace("    --hash=", ""), re.MULTILINE), "a lock holds no pip options"
    assert "\n-e " not in text
    for entry in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert re.match(r"[a-z0-9._-]+==", entry), entry.splitlines()[0]
        assert "--hash=sha256:" in entry, entry.splitlines()[0]


def test_locks_agree_on_versions() -> None:
    everything = pinned(ROOT / "locks" / "dev.txt")
    for name in ("edge", "server"):
        for package, version in pinned(ROOT / "locks" / f"{name}.txt").items():
            assert everything.get(package) == version, f"{package} in locks/{name}.txt"


def test_locks_cover_what_is_asked_for() -> None:
    """An extra changed without `make lock` would otherwise show only on a machine without the package."""
    table = project()
    extras = table["optional-dependencies"]
    base = table["dependencies"]
    assert isinstance(extras, dict)
    assert isinstance(base, list)
    asked = {
        "edge": [*base, *extras["edge"]],
        "server": [*base, *extras["server"]],
        "dev": [*base, *chain.from_iterable(extras.values())],
    }
    for name, requirements in asked.items():
        have = pinned(ROOT / "locks" / f"{name}.txt")
        wanted = {name_of(requirement) for requirement in requirements}
        assert wanted - have.keys() == set(), f"locks/{name}.txt is older than pyproject.toml: make lock"


def test_a_kiosk_carries_no_web_framework_no_orm_and_no_dnspython() -> None:
    kiosk = pinned(ROOT / "locks" / "edge.txt").keys()
    assert kiosk >= {"paho-mqtt", "pyserial", "pyusb", "evdev", "cryptography", "msgspec", "cbor2"}
    # paho loads dnspython where it finds it: 8 MiB on a machine that has none to give.
    heavy = {
        "litestar",
        "piccolo",
        "pydantic",
        "uvicorn",
        "jinja2",
        "aiosqlite",
        "amqtt",
        "httpx",
        "rich",
        "dnspython",
        "cwt",
        "pytest",
    }
    assert kiosk & heavy == set()
    # tuf, securesystemslib, urllib3 and zstandard are the updater's, the agent's process loads none; xmodem and ymodem write firmware.
    # wsproto speaks WebSocket to the kiosk application, pynmeagps is loaded where a receiver is in the inventory.
    assert len(kiosk) <= 23, "one more package on every kiosk: change this number only on purpose"


def test_front_end_packages_are_pinned_by_hash_without_address() -> None:
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    lock = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name.removeprefix("node_modules/"): entry for name, entry in lock["packages"].items() if name}
    for name, version in wanted.items():
        assert packages[name]["version"] == version, f"{name}: exact versions in package.json, then make lock"
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


def test_the_version_is_told_once() -> None:
    version = project()["version"]
    assert isinstance(version, str)
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^\]]+)\]", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == version, "the changelog's newest release is the version of pyproject.toml"
    elsewhere = re.compile(r"^__version__\s*=\s*[\"']", re.MULTILINE)
    assert [name for name, text in texts() if name.endswith(".py") and elsewhere.search(text)] == []


def test_decision_records_are_numbered_once_without_gaps_and_have_their_parts() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [int(path.name[:4]) for path in records]
    assert numbers[0] == 0
    assert all(later == earlier + 1 for earlier, later in pairwise(numbers))
    for path in records[1:]:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:4]} · "), path.name
        assert re.search(r"^Status: (proposed|accepted|superseded by \d{4}) · Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE), (
            path.name
        )
        for part in ("Context", "Decision", "Consequences"):
            assert f"\n## {part}\n" in text, f"{path.name}: {part}"


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (name, target)
        for name, text in texts()
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        if "://" not in target and not target.startswith("mailto:")
    ]
    assert [(name, target) for name, target in links if not ((ROOT / name).parent / target).exists()] == []


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "0 broken" in answer.stdout


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("protocols", []),
        ("firmware_profiles", []),
        ("edge_agent", ["edge", "pcsc"]),
        ("fleet_server", ["server", "embedded-broker"]),
        ("simulators", ["sim", "usbip"]),
    ],
)
def test_each_part_asks_for_what_it_imports(folder: str, extras: list[str]) -> None:
    """What is imported by name is asked for by name: a library that happens to come with another may be gone with its next release."""
    table = project()
    optional = table["optional-dependencies"]
    base = table["dependencies"]
    assert isinstance(optional, dict)
    assert isinstance(base, list)
    asked = {name_of(requirement) for requirement in [*base, *chain.from_iterable(optional[extra] for extra in extras)]}
    ours = {"edge_agent", "firmware_profiles", "fleet_server", "protocols", "simulators"}
    brought_by = packages_distributions()
    unasked = set()
    for source in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            loaded_by = {"pytest"} if source.name == "pytest_plugin.py" else set()
            for top in {name.split(".")[0] for name in names} - ours - loaded_by - sys.stdlib_module_names:
                if not {distribution.lower() for distribution in brought_by.get(top, [])} & asked:
                    unasked.add(f"{source.relative_to(ROOT)}: {top}")
    assert unasked == set()


def test_every_command_of_the_package_exists() -> None:
    scripts = project()["scripts"]
    assert isinstance(scripts, dict)
    for name, target in scripts.items():
        module, _, function = target.partition(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        assert source.is_file(), f"{name} → {target}"
        assert re.search(rf"^(?:async )?def {function}\(", source.read_text(encoding="utf-8"), re.MULTILINE), f"{name} → {target}"


def test_every_make_target_explains_itself() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):(?!=)(.*)$", makefile, re.MULTILINE)
    assert {name for name, _ in targets} >= {"demo", "test", "check", "bench", "soak", "lock", "assets", "clean", "help"}
    assert [name for name, rest in targets if "##" not in rest] == []


def test_continuous_integration_runs_the_readmes_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make test" in readme
    assert "make demo" in readme
