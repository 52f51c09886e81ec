"""The sentences of this part in both languages. Whole sentences, never glued; `{name}` is filled with facts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Language = Literal["zh", "en"]


def language_of(environ: Mapping[str, str]) -> Language:
    """As a terminal's locale says: LC_ALL before LC_MESSAGES before LANG."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


PROBLEMS: dict[str, tuple[str, str]] = {
    "busy": ("另一个进程正在发布，请稍后再试。", "Another process is publishing; try again in a moment."),
    "shortPassword": ("密钥口令至少 {least} 个字符。", "The password of a key has at least {least} characters."),
    "badLabel": ("密钥名称最多 60 个可见字符。", "The label of a key has at most 60 visible characters."),
    "privateNotPublic": (
        "{file} 是私钥文件。这里需要 .pub 公钥文件；私钥不得带到此处。",
        "{file} is a private key. The .pub file belongs here; the private key must not come to this place.",
    ),
    "unreadableKey": ("无法读取密钥文件 {file}。", "{file} cannot be read as a key file."),
    "wrongPassword": ("{file} 的口令不正确，或文件不是私钥。", "The password of {file} is wrong, or it is no private key."),
    "fileExists": ("{file} 已存在，不会覆盖。", "{file} exists already and is not overwritten."),
    "cannotWrite": ("无法写入 {file}：{why}。", "{file} cannot be written: {why}."),
    "notInitialised": (
        "此服务器还没有更新仓库，请先运行 fleet-server tuf init。",
        "This server has no update repositories yet; run fleet-server tuf init first.",
    ),
    "noRoot": (
        "{repository} 仓库还没有根元数据，请先完成密钥仪式（fleet-server tuf ceremony）。",
        "The {repository} repository has no root yet; hold the ceremony first (fleet-server tuf ceremony).",
    ),
    "noTargets": (
        "{repository} 仓库还没有签好的 targets 元数据，请先完成密钥仪式。",
        "The {repository} repository has no signed targets metadata yet; finish the ceremony first.",
    ),
    "unknownRole": ("{repository} 仓库没有角色 {role}。", "The {repository} repository has no role {role}."),
    "missingSignatures": (
        "角色 {role} 需要 {threshold} 个有效签名，目前只有 {valid} 个。",
        "Role {role} needs {threshold} valid signatures; there are {valid}.",
    ),
    "doubleKeys": (
        "角色 {role} 的密钥 {keys} 与另一把密钥相同，或编号与内容不符。同一把密钥不能算作两个签名。",
        "Role {role}: key {keys} is another key once more, or its id is not its own. One key never counts as two signatures.",
    ),
    "clockWentBack": (
        "系统时钟是 {now}，但现有的时间戳签发于 {signed}。请先校正时钟。",
        "The clock says {now}, but the present timestamp was signed at {signed}. Set the clock right first.",
    ),
    "unknownRepository": (
        "没有名为 {repository} 的仓库（只有 image 和 director）。",
        "There is no repository {repository}, only image and director.",
    ),
    "unreadableMetadata": ("文件不是可读取的 TUF 元数据。", "The file is no readable TUF metadata."),
    "wrongVersion": (
        "角色 {role} 的版本是 {version}，应为 {wanted}。",
        "Role {role} has version {version}; it must be {wanted}.",
    ),
    "notInImage": (
        "镜像仓库中没有 {path}，不能分配给终端。",
        "{path} is not in the image repository; it cannot be assigned.",
    ),
    "badAssignment": ("终端 {terminal} 的分配不成立：{why}。", "The assignment of terminal {terminal} does not hold: {why}."),
    "badThreshold": (
        "角色 {role} 有 {count} 把密钥，签名门槛 {threshold} 不成立。",
        "Role {role} has {count} keys; a threshold of {threshold} makes no sense.",
    ),
    "noArchive": ("文件不是完整、可读取的普通 tar 包。", "The file is no complete, readable, plain tar archive."),
    "archiveTooLarge": (
        "解包后超过 {files} 个文件或 {mib} MiB。",
        "Unpacked it has more than {files} files or {mib} MiB.",
    ),
    "badEntry": ("tar 包中的 {entry} 不允许：{why}。", "The archive's entry {entry} is not allowed: it {why}."),
    "onlineKeyMissing": (
        "服务器上没有角色 {role} 的在线密钥。请恢复备份，或用 fleet-server tuf rotate {role} 更换密钥。",
        "The online key of role {role} is not on this server. Restore a backup, or replace the key with fleet-server tuf rotate {role}.",
    ),
}


def problem(language: Language, reason: str, facts: Mapping[str, object]) -> str:
    return fill(PROBLEMS[reason], language, facts)


def fill(sentence: tuple[str, str], language: Language, facts: Mapping[str, object]) -> str:
    return sentence[0 if language == "zh" else 1].format(**facts)
