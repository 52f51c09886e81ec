"""Owns the decision what may be installed: what the signed desired state, the director and the image repository all say, or nothing.

`compare` is pure. `Trust.look` fetches: two python-tuf clients, each with its own pinned root and its own directory, judged by the time of
`TimeFloor`. Nothing here believes the agent: the desired state is opened again with keys that the fleet root certified.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, TargetFile, Timestamp
from tuf.ngclient import Updater, UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface

from edge_agent import files
from edge_agent.updater.cache import alone_in
from edge_agent.updater.counters import Counters
from edge_agent.updater.download import explained, of_disk
from edge_agent.updater.errors import NotTrusted
from edge_agent.updater.floor import TimeFloor, as_datetime, as_ms
from protocols.contract import artifacts, certs, orders
from protocols.contract.artifacts import CUSTOM_KEY, DirectorCustom, ImageCustom, PackedCustom
from protocols.contract.envelope import EnvelopeError
from protocols.contract.limits import ORDER_KEYS_MAX
from protocols.contract.orders import Bundle, Desired, Wanted
from protocols.contract.records import UpdateReason
from protocols.contract.wire import T, WireError

Via = Literal["full", "packed", "delta"]
CLOCK_AHEAD_MS = 400 * 24 * 3600 * 1000
"""A clock so far ahead of everything the server ever signed is told as the likely cause when metadata look expired. It changes no decision."""


@dataclass(frozen=True, slots=True)
class Terminal:
    """What this terminal is, as far as artifacts must fit it."""

    id: str
    arch: str
    """As `uname -m` says."""
    units: Mapping[str, str] | None = None
    """Profile of the unit in each slot; None where only the agent knows, who then checks it before it writes to a unit."""


@dataclass(frozen=True, slots=True)
class Form:
    """One way to get an artifact: the image itself, or a packed form of it."""

    via: Via
    url: str
    length: int
    sha256: bytes
    base: bytes | None = None
    """Delta: SHA-256 of the image that it starts from."""


@dataclass(frozen=True, slots=True)
class Component:
    """One artifact on which all three agree."""

    wanted: Wanted
    image: ImageCustom
    lowers: bool = False
    """Its release counter is below the highest ever installed, and both have said that this is meant."""
    forms: tuple[Form, ...] = ()
    """From the shortest to the image itself, which is always the last."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What may be installed: all of it or nothing."""

    bundle: Bundle
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing of the bundle may be installed. `component`: where it showed; None for the whole."""

    reason: UpdateReason
    component: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class Roots:
    """The pinned roots of both repositories, as they came with enrolment."""

    image: bytes
    director: bytes


# ------------------------------------------------------------------------------------------------------------------- desired state


def open_desired(raw: bytes, certificates: Sequence[bytes], *, root: Ed25519PublicKey, fleet: str, terminal: str) -> Desired:
    """The desired state, if an order key that the fleet root certified signed it for this terminal and a second person approved its bundle.

    NotTrusted otherwise: `wrongTerminal` for a neighbour's, else `notAuthentic`. Whether it is newer than the one before is for
    `Counters.accept_desired`.
    """
    keys: dict[bytes, Ed25519PublicKey] = {}
    for certificate in certificates[:ORDER_KEYS_MAX]:
        try:
            cert = certs.open_order_key_cert(certificate, root, fleet)
            keys[cert.kid] = Ed25519PublicKey.from_public_bytes(cert.public_key)
        except (EnvelopeError, WireError):
            continue  # one that is not ours opens nothing
    try:
        desired = orders.open_desired(raw, keys, fleet, terminal)
    except EnvelopeError as err:
        if err.reason == "signature" and (other := orders.addressee(raw, keys, fleet, orders.DESIRED_CONTEXT)) is not None:
            raise NotTrusted("wrongTerminal", f"the desired state is for {other}") from err
        raise NotTrusted("notAuthentic", f"the desired state is not authentic ({err.reason})") from err
    except WireError as err:
        raise NotTrusted("notAuthentic", "the desired state cannot be read by this version") from err
    if orders.needs_two(desired) and not orders.approved(desired):
        raise NotTrusted("notAuthentic", "no second person approved the desired state")
    return desired


# ------------------------------------------------------------------------------------------------------------------------ decision


def compare(
    bundle: Bundle,
    director: Mapping[str, TargetFile | None],
    images: Mapping[str, TargetFile | None],
    terminal: Terminal,
    releases: Mapping[str, int],
) -> Plan | Refused:
    """Pure. `director`: by component; `images`: by path of the target; `releases`: highest ever installed, by component."""
    names = [wanted.component for wanted in bundle.wanted]
    if len(set(names)) != len(names):
        return Refused("mixedBundle", None, "the desired state names a component twice")
    assigned: dict[str, DirectorCustom] = {}
    for wanted in bundle.wanted:
        target = director.get(wanted.component)
        custom = _custom(target, DirectorCustom)
        if target is not None and custom is None:
            return Refused("differs", wanted.component, "the director does not say what it means")
        if custom is not None:
            assigned[wanted.component] = custom
    if refusal := _set_refused(bundle, assigned):
        return refusal
    components: list[Component] = []
    for wanted in bundle.wanted:
        directed = director[wanted.component]
        assert directed is not None
        found = _component(bundle, wanted, directed, assigned[wanted.component], images.get(wanted.target), terminal, releases)
        if isinstance(found, Refused):
            return found
        components.append(found)
    return Plan(bundle, tuple(components))


def _set_refused(bundle: Bundle, assigned: Mapping[str, DirectorCustom]) -> Refused | None:
    """Whether desired state and director mean the same set of components."""
    if not assigned:
        return Refused("notInDirector", None, "the director gives this terminal none of it")
    for component, custom in assigned.items():
        if custom.bundle != bundle.id.hex():
            return Refused("mixedBundle", component, "the director gives it as part of another bundle")
    missing = [wanted.component for wanted in bundle.wanted if wanted.component not in assigned]
    if missing:
        return Refused("partialBundle", missing[0], "the director does not give it")
    for component, custom in assigned.items():
        if custom.size != len(bundle.wanted):
            return Refused(
                "partialBundle", component, f"{len(bundle.wanted)} of the director's {custom.size} components are wanted"
            )
    return None


def _component(
    bundle: Bundle,
    wanted: Wanted,
    directed: TargetFile,
    assigned: DirectorCustom,
    target: TargetFile | None,
    terminal: Terminal,
    releases: Mapping[str, int],
) -> Component | Refused:
    def refused(reason: UpdateReason, detail: str) -> Refused:
        return Refused(reason, wanted.component, detail)

    said = (assigned.component, assigned.target, assigned.version, assigned.release)
    if said != (wanted.component, wanted.target, wanted.version, wanted.release) or not _is(directed, wanted):
        return refused("differs", "the director describes something else than the desired state")
    if target is None:
        return refused("notInImages", "the image repository does not know it")
    image = _custom(target, ImageCustom)
    kind = wanted.component.split("/")[0]
    # The role that may sign for a kind is delegated its folder, so the path must say the same as what the target says of itself.
    if image is None or image.component != kind or wanted.target.split("/")[0] != kind:
        return refused("differs", f"the image repository does not describe it as {kind}")
    if (
        (image.version, image.release) != (wanted.version, wanted.release)
        or not _is(target, wanted)
        or target.hashes != directed.hashes
    ):
        return refused("differs", "the image repository describes something else than the desired state")
    if image.arch not in ("any", terminal.arch):
        return refused("wrongArch", f"it is for {image.arch}, this is {terminal.arch}")
    if not _fits(wanted.component, image, terminal):
        return refused("wrongHardware", "it is not for the unit of this terminal")
    lowers = wanted.release < releases.get(wanted.component, 0)
    if lowers and not (bundle.downgrade and assigned.downgrade):
        return refused("downgrade", f"release {wanted.release} is below {releases[wanted.component]}, which was installed once")
    return Component(wanted, image, lowers)


def _fits(component: str, image: ImageCustom, terminal: Terminal) -> bool:
    kind, _, slot = component.partition("/")
    if kind == "firmware" and not image.hardware:
        return False
    if terminal.units is None or not image.hardware:
        return True
    if kind == "firmware":
        return terminal.units.get(slot) in image.hardware
    return any(profile in image.hardware for profile in terminal.units.values())


def _is(target: TargetFile, wanted: Wanted) -> bool:
    return target.length == wanted.length and target.hashes.get("sha256") == wanted.sha256.hex()


def _custom(target: TargetFile | None, kind: type[T]) -> T | None:
    if target is None:
        return None
    try:
        return artifacts.of_custom(target.custom, kind)
    except WireError:
        return None


# --------------------------------------------------------------------------------------------------------------------- repositories


class TimedUpdater(Updater):
    """python-tuf's client with the two things for which version 7 has no parameter.

    The time by which metadata expire: `TrustedMetadataSet` reads the system's clock into its public attribute `reference_time` when it is made, and
    judges everything by that. Roots are followed without looking at the time, so it is set between them and the timestamp: by then it is known which
    keys root names now. And how metadata reach the disk: they are renamed into place but not synced, so a power cut could leave an empty file where
    the version numbers stood that stop a rollback.
    """

    def __init__(
        self,
        folder: Path,
        metadata_url: str,
        *,
        fetcher: FetcherInterface,
        bootstrap: bytes | None,
        now: Callable[[Root], datetime.datetime] | None = None,
        target_dir: Path | None = None,
        target_base_url: str | None = None,
        config: UpdaterConfig | None = None,
    ) -> None:
        super().__init__(
            str(folder),
            metadata_url,
            None if target_dir is None else str(target_dir),
            target_base_url,
            fetcher,
            config,
            bootstrap=bootstrap,
        )
        self._now = now

    @property
    def accepted_timestamp(self) -> Timestamp:
        """After a refresh."""
        return self._trusted_set.timestamp

    @property
    def accepted_root(self) -> Root:
        return self._trusted_set.root

    def target_url(self, target: TargetFile, base_url: str) -> str:
        """Where a target lies: with consistent snapshots its name begins with its hash (TUF specification 6.2)."""
        if not self._trusted_set.root.consistent_snapshot:
            return f"{base_url}{target.path}"
        folder, slash, name = target.path.rpartition("/")
        return f"{base_url}{folder}{slash}{target.hashes['sha256']}.{name}"

    def _load_root(self) -> None:
        super()._load_root()
        if self._now is not None:
            self._trusted_set.reference_time = self._now(self._trusted_set.root)

    def _persist_file(self, filename: str, data: bytes) -> None:
        files.write_atomically(Path(filename), data)


class Trust:
    """Both repositories of one fleet, as this terminal sees them. `folder` is its own; a second one on it raises CacheInUse while this one looks."""

    def __init__(
        self,
        folder: Path,
        *,
        base_url: str,
        roots: Roots,
        fetcher: FetcherInterface,
        floor: TimeFloor,
        counters: Counters,
    ) -> None:
        """`base_url`: of the server; the repositories lie below `/updates/`."""
        self._folder = folder
        self._base = base_url.rstrip("/") + "/updates"
        self._roots = roots
        self._fetcher = fetcher
        self._floor = floor
        self._counters = counters

    def look(
        self, bundle: Bundle, terminal: Terminal, *, system_ms: int, bases: Mapping[str, bytes] | None = None
    ) -> Plan | Refused:
        """Refresh both repositories and decide. `bases`: SHA-256 of the images at hand, by component, from which a difference could start.

        A repository that does not verify is a Refused as well. Unavailable if one cannot be reached or the disk fails, CacheInUse.
        """
        with alone_in(self._folder):
            try:
                director = self._open("director", self._roots.director, system_ms)
                directed = {
                    wanted.component: director.get_targetinfo(artifacts.director_path(terminal.id, wanted.component))
                    for wanted in bundle.wanted
                }
                image = self._open("image", self._roots.image, system_ms)
                images = {wanted.target: image.get_targetinfo(wanted.target) for wanted in bundle.wanted}
            except tuf_errors.DownloadError as err:
                raise explained(err) from err
            except tuf_errors.RepositoryError as err:
                return Refused(self._why(err, system_ms), None, f"{type(err).__name__}: {err}")
            except OSError as err:
                raise of_disk(err) from err
            decided = compare(bundle, directed, images, terminal, self._counters.releases)
            if isinstance(decided, Refused):
                return decided
            return Plan(
                bundle,
                tuple(self._with_forms(image, each, images[each.wanted.target], bases or {}) for each in decided.components),
            )

    def _open(self, name: Literal["image", "director"], root: bytes, system_ms: int) -> TimedUpdater:
        folder = self._folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        updater = TimedUpdater(
            folder,
            f"{self._base}/{name}/metadata/",
            fetcher=self._fetcher,
            bootstrap=root,
            now=lambda root: as_datetime(self._floor.now_for_ms(name, _timestamp_keys(root), system_ms)),
        )
        updater.refresh()
        timestamp = updater.accepted_timestamp
        ours = timestamp.unrecognized_fields.get(CUSTOM_KEY)
        signed_ms = ours.get("signed_ms") if isinstance(ours, dict) else None
        if isinstance(signed_ms, int):
            keys = _timestamp_keys(updater.accepted_root)
            self._floor.hear_repository(
                name, keys, version=timestamp.version, issued_ms=signed_ms, expires_ms=as_ms(timestamp.expires)
            )
        return updater

    def _with_forms(
        self, image: TimedUpdater, component: Component, target: TargetFile | None, bases: Mapping[str, bytes]
    ) -> Component:
        assert target is not None
        wanted = component.wanted
        base_url = f"{self._base}/image/targets/"
        full = Form("full", image.target_url(target, base_url), wanted.length, wanted.sha256)
        to, base = wanted.sha256.hex(), bases.get(wanted.component)
        others: list[Form] = []
        for origin in (None, base.hex() if base is not None and base != wanted.sha256 else None):
            via: Via = "packed" if origin is None else "delta"
            if via in [form.via for form in others]:
                continue
            try:
                packed = image.get_targetinfo(artifacts.packed_path(to, origin))
            except (tuf_errors.RepositoryError, tuf_errors.DownloadError):
                continue  # another form of the same bytes is a convenience: without it the image itself is fetched
            custom = _custom(packed, PackedCustom)
            if packed is None or custom is None or custom.to != to or custom.base != origin or "sha256" not in packed.hashes:
                continue
            if packed.length < wanted.length:
                digest = bytes.fromhex(packed.hashes["sha256"])
                others.append(Form(via, image.target_url(packed, base_url), packed.length, digest, base if origin else None))
        return Component(wanted, component.image, component.lowers, (*sorted(others, key=lambda form: form.length), full))

    def _why(self, err: tuf_errors.RepositoryError, system_ms: int) -> UpdateReason:
        if isinstance(err, tuf_errors.ExpiredMetadataError):
            return "clock" if system_ms > self._floor.ms + CLOCK_AHEAD_MS else "metadataExpired"
        if isinstance(err, tuf_errors.BadVersionNumberError):
            return "metadataRollback"
        return "notAuthentic"


def _timestamp_keys(root: Root) -> str:
    """Tells whether root names other keys for timestamps than it did."""
    role = root.roles[Timestamp.type]
    return hashlib.sha256(f"{role.threshold}:{','.join(sorted(role.keyids))}".encode()).hexdigest()[:32]


def must(decided: Plan | Refused) -> Plan:
    """The plan, or the refusal as an error."""
    if isinstance(decided, Refused):
        raise NotTrusted(decided.reason, decided.detail)
    return decided
