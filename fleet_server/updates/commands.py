"""The command lines of `fleet-server tuf …` and `fleet-server release …`. What they do is in `steps`, which is loaded when it is needed."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet_server.commands import AddCommand
from fleet_server.settings import Settings
from fleet_server.updates import plan, words

Run = Callable[[Settings, argparse.Namespace], int | None]


def add_to(command: AddCommand) -> None:
    tuf = command("tuf", "keys and roles of the update repositories", _help).add_subparsers(required=True, metavar="STEP")
    release = command("release", "sign, check and upload releases", _help).add_subparsers(required=True, metavar="STEP")
    _add_tuf(tuf)
    _add_release(release)


def _sub(parent: Any, name: str, what: str, step: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = parent.add_parser(name, help=what, description=what)
    added.set_defaults(command=_lazily(step))
    return added


def _add_tuf(tuf: Any) -> None:
    _sub(tuf, "init", "make the server's own keys; then hold the ceremony", "init")

    key = tuf.add_parser("key", help="keys of people").add_subparsers(required=True, metavar="STEP")
    new = _sub(key, "new", "make an offline key, protected by a password; needs no server", "key_new")
    new.add_argument("file", type=Path)
    new.add_argument("--label", default="", help='what people call it, e.g. "safe 2"; it is public')
    shown = _sub(key, "show", "say which key a .pub file holds", "key_show")
    shown.add_argument("file", type=Path)

    found = _sub(tuf, "ceremony", "make the first roots and delegations from people's keys", "hold_ceremony")
    found.add_argument(
        "--root", type=Path, nargs="+", required=True, metavar="FILE", help="keys of root: .pub, or private to sign now"
    )
    found.add_argument("--root-threshold", type=int, default=plan.ROOT_THRESHOLD, metavar="N")
    found.add_argument("--targets", type=Path, nargs="+", metavar="FILE", help="keys of targets; those of root by default")
    found.add_argument("--targets-threshold", type=int, default=plan.ROOT_THRESHOLD, metavar="N")
    found.add_argument(
        "--release",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="keys of agent, image and profiles: one of them signs a release",
    )
    for role in plan.RELEASE_ROLES:
        found.add_argument(f"--{role}", type=Path, nargs="+", metavar="FILE", help=f"keys of {role}")
        found.add_argument(f"--{role}-threshold", type=int, default=plan.RELEASE_THRESHOLDS[role], metavar="N")

    root = tuf.add_parser("root", help="the root role, step by step").add_subparsers(required=True, metavar="STEP")
    renewed = _sub(root, "new", "draft the next root: other keys, another threshold, or only a longer validity", "root_new")
    _add_change(renewed)
    renewed.add_argument("--repository", choices=["image", "director", "both"], default="both")
    _add_out(renewed)
    for parent in (root, tuf):
        sign = _sub(parent, "sign", "sign drafts; needs no server", "sign")
        sign.add_argument("draft", type=Path, nargs="+")
        sign.add_argument("--key", type=Path, action="append", required=True, metavar="FILE")
        show = _sub(parent, "show", "say what a draft changes, and who has signed; needs no server", "show")
        show.add_argument("draft", type=Path, nargs="*")
        publish = _sub(parent, "publish", "make current what is signed by enough people", "publish")
        publish.add_argument("draft", type=Path, nargs="*", help="copies that came back; their signatures are merged")
        publish.add_argument("--urgent", action="store_true", help="withdraw keys now, though roles are not signed again yet")

    rotate = _sub(tuf, "rotate", "change the keys or the threshold of a role", "rotate")
    rotate.add_argument("role")
    rotate.add_argument("--repository", choices=["image", "director"], default="image")
    _add_change(rotate)
    _add_out(rotate)
    revoke = _sub(tuf, "revoke", "take a key out of every role", "revoke")
    revoke.add_argument("key", help="its id, or the first digits of it")
    revoke.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="replacement (.pub)")
    _add_out(revoke)
    extend = _sub(tuf, "extend", "renew the expiry of a role", "extend")
    extend.add_argument("role")
    extend.add_argument("--repository", choices=["image", "director"], default="image")
    _add_out(extend)
    delegate = _sub(tuf, "delegate", "give a release role its keys", "delegate")
    delegate.add_argument("role", choices=plan.RELEASE_ROLES)
    delegate.add_argument("--key", type=Path, nargs="+", required=True, metavar="FILE", help=".pub")
    delegate.add_argument("--threshold", type=int, metavar="N")
    _add_out(delegate)
    drop = _sub(tuf, "drop", "give up a draft", "drop")
    drop.add_argument("draft", help="as `tuf show` names it, e.g. image.root")
    withdraw = _sub(tuf, "withdraw", "emergency: let no terminal get an artifact any more", "withdraw")
    withdraw.add_argument("path", help="path in the image repository")
    _sub(tuf, "status", "every role, its keys, versions and expiry; 0 all well, 1 broken, 3 something to do", "show_status")


def _add_change(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", type=Path, nargs="+", default=[], metavar="FILE", help="keys that may sign from now on (.pub)")
    parser.add_argument("--remove", nargs="+", default=[], metavar="KEY", help="ids, or the first digits of them")
    parser.add_argument("--threshold", type=int, metavar="N")


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="also copy the drafts there, to carry them to who signs")


def _add_release(release: Any) -> None:
    state = _sub(release, "state", "write what a release engineer needs of this server", "write_state")
    state.add_argument("role", choices=plan.RELEASE_ROLES)
    state.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    sign = _sub(release, "sign", "make and sign a release pack; needs no server", "release_sign")
    sign.add_argument("artifact", type=Path)
    sign.add_argument("--state", type=Path, required=True, metavar="FILE", help="written by `release state`")
    sign.add_argument("--root", type=Path, metavar="FILE", help="a root.json that you trust already")
    sign.add_argument("--key", type=Path, action="append", required=True, metavar="FILE")
    sign.add_argument("--version", required=True)
    sign.add_argument("--release", type=int, metavar="N", help="release counter; the next by default")
    sign.add_argument("--arch", default="any")
    sign.add_argument("--hardware", nargs="+", default=[], metavar="PROFILE", help="firmware: profiles of the units it fits")
    sign.add_argument("--min-from", metavar="VERSION", help="firmware: lowest version that it may replace")
    sign.add_argument("--path", help="path in the repository; by default made from role, hardware and file name")
    sign.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    cosign = _sub(release, "cosign", "add a signature to a release pack; needs no server", "release_cosign")
    cosign.add_argument("pack", type=Path)
    cosign.add_argument("--key", type=Path, action="append", required=True, metavar="FILE")
    cosign.add_argument("--state", type=Path, metavar="FILE", help="to check the pack first")
    check = _sub(release, "check", "check a release pack, against a state file or this server", "release_check")
    check.add_argument("pack", type=Path)
    check.add_argument("--state", type=Path, metavar="FILE")
    upload = _sub(release, "upload", "check a release pack and publish it", "release_upload")
    upload.add_argument("pack", type=Path)


def _help(settings: Settings, options: argparse.Namespace) -> int:
    return 2


def _lazily(step: str) -> Run:
    """The function of `steps`; what it refuses is said in the person's language."""

    def command(settings: Settings, options: argparse.Namespace) -> int | None:
        from fleet_server.updates.errors import UpdatesError

        run: Run = getattr(importlib.import_module("fleet_server.updates.steps"), step)
        try:
            return run(settings, options)
        except UpdatesError as err:
            print(f"fleet-server: {err.sentence(words.language_of(os.environ))}", file=sys.stderr)
            return 1

    return command
