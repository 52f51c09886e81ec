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
    "notReleaseRole": ("{role} 不是由发布工程师签名的角色。", "{role} is no role that release engineers sign."),
    "notOnlineRole": ("{role} 不是由服务器签名的角色。", "{role} is no role that the server signs."),
    "roleNotDelegated": (
        "角色 {role} 尚未委派给任何密钥（fleet-server tuf delegate {role}）。",
        "Role {role} is not delegated to any key yet (fleet-server tuf delegate {role}).",
    ),
    "foreignFields": ("角色 {role} 的元数据含有不该有的内容。", "The metadata of role {role} holds what does not belong there."),
    "expiresSoon": (
        "角色 {role} 的元数据将于 {expires} 到期，太早。",
        "The metadata of role {role} expires on {expires}, too soon.",
    ),
    "expiresLate": (
        "角色 {role} 的元数据到 {expires} 才到期；最长 {days} 天。",
        "The metadata of role {role} expires on {expires}; {days} days are the most.",
    ),
    "targetRemoved": ("已发布的 {path} 在新元数据中消失了。", "{path}, which was released, is missing from the new metadata."),
    "targetChanged": ("已发布的 {path} 在新元数据中被更改。", "{path}, which was released, is changed in the new metadata."),
    "noNewTarget": (
        "发布包中应有 1 到 {most} 个新制品（角色 {role}）。",
        "A release adds 1 to {most} new artifacts to role {role}.",
    ),
    "metadataTooLarge": (
        "角色 {role} 的元数据太大，终端无法读取。",
        "The metadata of role {role} is larger than terminals read.",
    ),
    "counterTooLow": (
        "发布计数 {release} 不高于已有的 {highest}。",
        "The release counter {release} is not above {highest}, which was released already.",
    ),
    "badPath": ("制品路径 {path} 不合规则。", "The path {path} does not follow the rules."),
    "foreignPath": ("角色 {role} 无权签署 {path}。", "Role {role} may not sign for {path}."),
    "badHash": ("{path} 必须恰好有一个 SHA-256。", "{path} must have exactly a SHA-256."),
    "badLength": ("{path} 的长度必须在 1 字节到 {mib} MiB 之间。", "{path} must have 1 byte to {mib} MiB."),
    "badCustom": ("{path} 没有说明它是什么，或说明不合规则。", "{path} does not say what it is, or not by the rules."),
    "otherComponent": (
        "{path} 自称是 {component}，却由角色 {role} 签署。",
        "{path} says it is {component}, but role {role} signs it.",
    ),
    "noHardware": ("固件 {path} 必须写明适用的设备型号。", "Firmware {path} must name the hardware that it fits."),
    "noUnpackedSize": ("{path} 必须写明解包后的大小和文件数。", "{path} must say how much it holds when unpacked."),
    "otherUnpackedSize": ("{path} 解包后的大小与签署的不符。", "{path} holds another amount than is signed."),
    "noState": ("文件不是发布状态文件（release state）。", "The file is no state file (release state)."),
    "otherRoot": (
        "状态文件的根元数据与您信任的不是同一条链，请勿签名。",
        "The roots in the state file do not lead through the one that you trust; do not sign.",
    ),
    "pathTaken": ("{path} 已有其他内容；请换一个文件名。", "{path} has another content already; choose another name."),
    "keyNotOfRole": ("密钥 {key} 无权为角色 {role} 签名。", "Key {key} may not sign for role {role}."),
    "packTooLarge": ("发布包超过 {mib} MiB。", "The pack has more than {mib} MiB."),
    "noPack": ("文件不是完整的发布包。", "The file is no complete release pack."),
    "strayMember": ("发布包中有签名元数据没有列出的文件。", "The pack holds a file that the signed metadata does not list."),
    "otherContent": ("{path} 的内容与签名的长度或散列不符。", "{path} has not the length or hash that is signed."),
    "contentMissing": ("发布包中缺少 {path}。", "{path} is missing from the pack."),
    "alreadyTaken": ("此发布包已经发布过了。", "This pack was published before."),
    "noSpace": ("无法写入磁盘：{why}。", "The disk takes nothing more: {why}."),
    "noDraft": ("没有待签名的草稿 {name}。", "There is no draft {name} that waits for signatures."),
    "unreadableDraft": ("{file} 不是签名草稿文件。", "{file} is no draft for signing."),
    "draftDiffers": (
        "{file} 与服务器上的草稿内容不同（校验码 {code}，应为 {wanted}），签名不能合并。",
        "{file} is another draft than the server's (code {code}, not {wanted}); its signatures cannot be used.",
    ),
    "foundedBefore": (
        "仓库已经建立。请用 tuf root new、rotate、revoke 或 extend 修改。",
        "The repositories are founded already. Use tuf root new, rotate, revoke or extend to change them.",
    ),
    "nothingToSign": ("没有给出私钥文件。", "No private key was given."),
    "belowThreshold": (
        "角色 {role} 只剩 {count} 把密钥，少于需要的 {threshold} 个签名。请用 --add 同时给出替换密钥。",
        "Role {role} would be left with {count} keys, fewer than the {threshold} that must sign. Give a replacement with --add.",
    ),
    "unknownKey": ("没有任何角色使用密钥 {key}。", "No role uses a key {key}."),
    "ambiguousKey": ("密钥编号 {key} 不唯一，请多写几位。", "Several keys begin with {key}; write more of it."),
    "onlineRole": (
        "角色 {role} 的密钥由服务器自己生成，不能用 --add、--remove 或 --threshold 指定。",
        "The server makes the keys of role {role} itself; --add, --remove and --threshold do not apply.",
    ),
    "noChange": ("没有要修改的内容。", "Nothing was to be changed."),
    "notComplete": ("还不能发布：{role} 缺少 {count} 个签名。", "It cannot be published yet: {role} lacks {count} signatures."),
    "onlineKeyMissing": (
        "服务器上没有角色 {role} 的在线密钥。请恢复备份，或用 fleet-server tuf rotate {role} 更换密钥。",
        "The online key of role {role} is not on this server. Restore a backup, or replace the key with fleet-server tuf rotate {role}.",
    ),
}


def problem(language: Language, reason: str, facts: Mapping[str, object]) -> str:
    return fill(PROBLEMS[reason], language, facts)


def fill(sentence: tuple[str, str], language: Language, facts: Mapping[str, object]) -> str:
    return sentence[0 if language == "zh" else 1].format(**facts)
