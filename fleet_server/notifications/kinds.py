"""The kinds of channel there are."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_server.notifications import dingtalk, feishu, mail, webhook, wecom
from fleet_server.notifications.setup import Kind

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (webhook.KIND, mail.KIND, dingtalk.KIND, wecom.KIND, feishu.KIND)}
