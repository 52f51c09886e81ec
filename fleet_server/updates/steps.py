"""What `fleet-server tuf …` and `fleet-server release …` do; each says what changed and who must do what next, in the language of the locale."""

from __future__ import annotations

import argparse
import getpass
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata, Targets

from fleet_server.errors import SettingsError
from fleet_server.settings import Settings
from fleet_server.updates import ceremony, director, drafts, founding, intake, keys, packs, plan, releases, store, trust, words
from fleet_server.updates.ceremony import Change, Outcome
from fleet_server.updates.drafts import Draft
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.founding import Founders, Holders
from fleet_server.updates.repository import Updates
from fleet_server.updates.status import RoleStatus, status
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom
from protocols.contract.wire import WireError

PASSWORD_VARIABLE = "KF_KEY_PASSWORD_FILE"  # noqa: S105 -- the name of a variable that names a file
"""A file whose lines are tried as passwords, for machines where nobody types (a test bench); people are asked."""


# Ceremony -------------------------------------------------------------------------------------------------------------------------------


def init(settings: Settings, options: argparse.Namespace) -> None:
    updates = Updates(settings.layout.updates)
    settings.layout.make()
    made = founding.make_online_keys(updates)
    _say("onlineMade" if made else "onlineThere", folder=updates.layout.keys)
    if not updates.image.root_version():
        _say("nextKeys")


def key_new(settings: Settings, options: argparse.Namespace) -> None:
    if options.file.exists():
        raise UpdatesError("fileExists", file=options.file.name)
    key = keys.new_key_file(options.file, _new_password(), options.label)
    _say("keyMade", key=keys.label_of(key), file=options.file)


def key_show(settings: Settings, options: argparse.Namespace) -> None:
    key = keys.read_public(options.file)
    _say("keyShown", key=keys.label_of(key), keyid=key.keyid)


def hold_ceremony(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    signers: dict[str, CryptoSigner] = {}

    def holders(files: Sequence[Path], threshold: int) -> Holders:
        found: list[Key] = []
        for file in files:
            if keys.is_private(file):
                signer = _signer(file)
                signers[signer.public_key.keyid] = signer
                found.append(signer.public_key)
            else:
                found.append(keys.read_public(file))
        return Holders(tuple(found), threshold)

    # The same file is often given for several roles: its password is asked once.
    read: dict[Path, Holders] = {}

    def each(files: Sequence[Path], threshold: int) -> Holders:
        for file in files:
            if file not in read:
                read[file] = holders([file], 1)
        return Holders(tuple(read[file].keys[0] for file in files), threshold)

    release = {
        role: each(files, getattr(options, f"{role}_threshold"))
        for role in plan.RELEASE_ROLES
        if (files := getattr(options, role) or (options.release if role != "firmware" else []))
    }
    founders = Founders(
        root=each(options.root, options.root_threshold),
        targets=each(options.targets, options.targets_threshold) if options.targets else None,
        release=release,
    )
    ceremony.found(updates, founders, now_ms=_now_ms())
    return _sign_and_publish(updates, list(signers.values()))


def _sign_and_publish(updates: Updates, signers: Sequence[CryptoSigner]) -> int:
    with store.writing(updates.layout):
        for draft in drafts.pending(updates.layout):
            for signer in signers:
                if signer.public_key.keyid in {key.keyid for key in draft.may_sign()}:
                    draft.sign(signer)
                    _say("signed", draft=draft.name, key=keys.label_of(signer.public_key))
            drafts.save(updates.layout, draft)
    return _tell(updates, ceremony.publish(updates, now_ms=_now_ms()))


def root_new(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    names = ["image", "director"] if options.repository == "both" else [options.repository]
    return _tell(updates, ceremony.edit_roots(updates, names, _change(updates, options), now_ms=_now_ms()), options.out)


def rotate(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    outcome = ceremony.rotate(updates, options.repository, options.role, _change(updates, options), now_ms=_now_ms())
    return _tell(updates, outcome, options.out)


def revoke(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    added = [keys.read_public(file) for file in options.add]
    return _tell(updates, ceremony.revoke(updates, options.key, added, now_ms=_now_ms()), options.out)


def extend(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    return _tell(updates, ceremony.extend(updates, options.repository, options.role, now_ms=_now_ms()), options.out)


def delegate(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    threshold = options.threshold if options.threshold is not None else plan.RELEASE_THRESHOLDS[options.role]
    holders = Holders(tuple(keys.read_public(file) for file in options.key), threshold)
    return _tell(updates, ceremony.delegate(updates, options.role, holders, now_ms=_now_ms()), options.out)


def sign(settings: Settings, options: argparse.Namespace) -> None:
    signers = [_signer(file) for file in options.key]
    for file in options.draft:
        draft = drafts.read(file)
        _show_draft(draft)
        for signer in signers:
            draft.sign(signer)
            _say("signed", draft=draft.name, key=keys.label_of(signer.public_key))
        _replace(file, draft.to_bytes())
        _tell_draft(draft, file)


def show(settings: Settings, options: argparse.Namespace) -> None:
    shown = [(file, drafts.read(file)) for file in options.draft]
    if not options.draft:
        layout = settings.layout.updates
        shown = [(drafts.path_of(layout, draft.repository, draft.role), draft) for draft in drafts.pending(layout)]
    for file, draft in shown:
        _show_draft(draft)
        _tell_draft(draft, file)
    if not shown:
        _say("noDrafts")


def publish(settings: Settings, options: argparse.Namespace) -> int:
    updates = _updates(settings)
    given = [(file.name, drafts.read(file)) for file in options.draft]
    outcome = ceremony.publish(updates, now_ms=_now_ms(), given=given, urgent=options.urgent)
    if not any(key == "published" for key, _ in outcome.done):
        _say("nothingPublished")
        _tell(updates, outcome)
        return 1
    return _tell(updates, outcome)


def drop(settings: Settings, options: argparse.Namespace) -> None:
    updates = _updates(settings)
    repository, _, role = options.draft.partition(".")
    updates.of(repository)
    with store.writing(updates.layout):
        if not role.replace("-", "").isalnum() or not drafts.drop(updates.layout, repository, role):
            raise UpdatesError("noDraft", name=options.draft)
    _say("dropped", draft=options.draft)


def withdraw(settings: Settings, options: argparse.Namespace) -> None:
    hit = director.clear_target(_updates(settings), options.path, now_ms=_now_ms())
    _say("cleared", path=options.path, count=len(hit))


# Telling --------------------------------------------------------------------------------------------------------------------------------


def _tell(updates: Updates, outcome: Outcome, out: Path | None = None) -> int:
    for key, facts in outcome.done:
        _say(key, **facts)
    for draft in outcome.waiting:
        file = drafts.path_of(updates.layout, draft.repository, draft.role)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / file.name)
            _say("copied", file=out / file.name)
        _tell_draft(drafts.read(file) if file.exists() else draft, file if out is None else out / file.name)
    return 0


def _tell_draft(draft: Draft, file: Path) -> None:
    missing = draft.missing()
    facts = {"draft": draft.name, "code": draft.code, "count": missing, "file": file, "keys": ceremony.names(draft.may_sign())}
    _say("draftComplete" if not missing else "draftWaits" if draft.may_sign() else "draftNobody", **facts)


def _show_draft(draft: Draft) -> None:
    signed = draft.metadata.signed
    _say("draftHead", draft=draft.name, version=signed.version, expires=f"{signed.expires:%Y-%m-%d}", code=draft.code)
    if draft.before is None:
        _say("changeNew")
    else:
        _say("changeExpiry", before=f"{draft.before.signed.expires:%Y-%m-%d}", after=f"{signed.expires:%Y-%m-%d}")
    before = draft.before.signed if draft.before is not None else None
    old = {role: trust.role_of(before, role) for role in trust.roles_in(before)} if before is not None else {}
    for role in trust.roles_in(signed):
        found, holders = trust.role_of(signed, role), trust.keys_of(signed, role)
        was = old.pop(role, None)
        if found is None:
            continue
        if was is None or before is None:
            _say("changeRole", role=role, threshold=found.threshold, total=len(holders), keys=ceremony.names(holders))
            continue
        known = {key.keyid: key for key in trust.keys_of(before, role)}
        added = [key for key in holders if key.keyid not in known]
        removed = [key for keyid, key in known.items() if keyid not in found.keyids]
        if added:
            _say("changeAdded", role=role, keys=ceremony.names(added))
        if removed:
            _say("changeRemoved", role=role, keys=ceremony.names(removed))
        if was.threshold != found.threshold:
            _say("changeThreshold", role=role, before=was.threshold, after=found.threshold)
    for role in old:
        _say("changeRoleGone", role=role)
    _say("signedSoFar", keys=ceremony.names(draft.signed_by()) or words.say(_language(), "results", "nobody"))


def show_status(settings: Settings, options: argparse.Namespace) -> int:
    found = status(Updates(settings.layout.updates), now_ms=_now_ms())
    now = plan.moment(_now_ms())
    for role in found.roles:
        _say_role(role, now)
    language = _language()
    for warning in found.warnings:
        print(("✗ " if warning.weight == "broken" else "! ") + words.say(language, "warnings", warning.word, warning.facts))
    if not found.warnings:
        _say("allWell")
    return found.exit_code


def _say_role(role: RoleStatus, now: Any) -> None:
    language = _language()
    if role.expires is None:
        expiry = words.say(language, "results", "never")
    else:
        facts = {"date": f"{role.expires:%Y-%m-%d}", "days": (role.expires - now).days}
        expiry = words.say(language, "results", "until" if role.expires > now else "over", facts)
    key = "statusTerminals" if role.role == ceremony.TERMINALS else "statusRole" if role.version is not None else "statusUnsigned"
    _say(
        key,
        repository=role.repository,
        role=role.role,
        version=role.version,
        expiry=expiry,
        place=words.say(language, "results", "offline" if role.offline else "online"),
        threshold=role.threshold,
        total=len(role.keys),
        keys=", ".join(role.keys),
        count=role.count,
        targets=role.targets,
    )


# Releases -------------------------------------------------------------------------------------------------------------------------------


def write_state(settings: Settings, options: argparse.Namespace) -> None:
    _replace(options.output, packs.write_state(_updates(settings).image, options.role))
    _say("stateWritten", file=options.output)


def release_sign(settings: Settings, options: argparse.Namespace) -> None:
    state = packs.read_state(options.state.read_bytes(), options.root.read_bytes() if options.root is not None else None)
    try:
        custom = artifacts.of_custom(
            {
                artifacts.CUSTOM_KEY: {
                    "component": state.role,
                    "version": options.version,
                    "release": options.release or 1,
                    "arch": options.arch,
                    "hardware": options.hardware,
                    "min_from": options.min_from,
                }
            },
            ImageCustom,
        )
    except WireError as err:
        raise SettingsError(f"release sign: {err}") from None
    folder = f"firmware/{options.hardware[0]}" if state.role == "firmware" and options.hardware else state.role
    path = options.path or f"{folder}/{options.artifact.name}"
    target = packs.describe(state, options.artifact, path, custom, release=options.release)
    metadata = packs.prepare(state, [target], plan.moment(_now_ms()))
    for file in options.key:
        signer = _signer(file)
        packs.add_signature(state.targets.signed, state.role, metadata, signer)
        _say("packSigned", key=keys.label_of(signer.public_key))
    packs.write(options.output, state.role, metadata, {target.hashes["sha256"]: options.artifact})
    of = artifacts.of_custom(target.custom, ImageCustom)
    _say("packWritten", file=options.output, path=path, version=of.version, release=of.release, length=target.length)
    _tell_pack(state.targets.signed, state.role, metadata, options.output)


def release_cosign(settings: Settings, options: argparse.Namespace) -> None:
    state = packs.read_state(options.state.read_bytes()) if options.state is not None else None
    if state is not None:
        _check_with_state(options.pack, state, signed=False)
    with packs.opened(options.pack) as (_, pack):
        for file in options.key:
            signer = _signer(file)
            packs.add_signature(state.targets.signed if state is not None else None, pack.role, pack.metadata, signer)
            _say("packSigned", key=keys.label_of(signer.public_key))
    packs.rewrite(options.pack, pack)
    if state is not None:
        _tell_pack(state.targets.signed, pack.role, pack.metadata, options.pack)


def release_check(settings: Settings, options: argparse.Namespace) -> None:
    if options.state is not None:
        _check_with_state(options.pack, packs.read_state(options.state.read_bytes()), signed=True)
    else:
        _tell_taken(intake.examine(_updates(settings), options.pack, now_ms=_now_ms()))


def release_upload(settings: Settings, options: argparse.Namespace) -> None:
    _tell_taken(intake.take(_updates(settings), options.pack, now_ms=_now_ms()))
    _say("packTaken")


def _check_with_state(file: Path, state: packs.State, *, signed: bool) -> None:
    before = state.current.signed if state.current is not None else None
    with packs.opened(file) as (archive, pack):
        if pack.role != state.role:
            raise UpdatesError("noState")
        new = releases.new_releases(state.targets.signed, pack.role, before, pack.metadata, plan.moment(_now_ms()), signed=signed)
        packs.extract(archive, new, None)
    by = trust.signers(state.targets.signed, pack.role, pack.metadata)
    names = tuple(keys.label_of(key) for key in by.values())
    _tell_taken(intake.Taken(role=pack.role, version=pack.metadata.signed.version, releases=new, signed_by=names))


def _tell_taken(taken: intake.Taken) -> None:
    _say("packGood", role=taken.role, version=taken.version, keys=", ".join(taken.signed_by))
    for each in taken.releases:
        of = each.custom
        facts = {"path": each.path, "version": of.version, "release": of.release, "arch": of.arch}
        _say("packItem", **facts, length=each.length, sha256=each.sha256)


def _tell_pack(delegator: Targets, role: str, metadata: Metadata[Targets], file: Path) -> None:
    missing = trust.missing(delegator, role, metadata)
    done = trust.signers(delegator, role, metadata)
    left = [key for key in trust.keys_of(delegator, role) if key.keyid not in done]
    _say("packWaits" if missing else "packComplete", count=missing, file=file, keys=ceremony.names(left))


# Shared ---------------------------------------------------------------------------------------------------------------------------------


def _change(updates: Updates, options: argparse.Namespace) -> Change:
    return Change(
        add=tuple(keys.read_public(file) for file in options.add),
        remove=tuple(ceremony.find_key(updates, each) for each in options.remove),
        threshold=options.threshold,
    )


def _updates(settings: Settings) -> Updates:
    updates = Updates(settings.layout.updates)
    if not updates.layout.exists:
        raise UpdatesError("notInitialised")
    return updates


def _signer(file: Path) -> CryptoSigner:
    if not keys.is_private(file):
        raise UpdatesError("unreadableKey", file=file.name)
    if not keys.is_encrypted(file):
        return keys.read_signer(file, None)
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is None:
        return keys.read_signer(file, getpass.getpass(f"{file.name}: "))
    for line in Path(given).read_text("utf-8").splitlines():
        try:
            return keys.read_signer(file, line)
        except UpdatesError:
            continue
    raise UpdatesError("wrongPassword", file=file.name)


def _new_password() -> str:
    given = os.environ.get(PASSWORD_VARIABLE)
    if given is not None:
        return Path(given).read_text("utf-8").splitlines()[0]
    password = getpass.getpass("New password: ")
    if getpass.getpass("Again: ") != password:
        raise SettingsError("the two passwords differ")
    return password


def _replace(file: Path, data: bytes) -> None:
    building = file.with_name(f".{file.name}.new")
    building.write_bytes(data)
    store.sync_file(building)
    building.replace(file)
    store.sync_folder(file.parent)


def _say(what: str, **facts: object) -> None:
    print(words.say(_language(), "results", what, facts))


def _language() -> words.Language:
    return words.language_of(os.environ)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
