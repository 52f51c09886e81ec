"""axe-core over an open page, and what else a page must not do: scroll sideways, or have targets too small for a thumb."""

from __future__ import annotations

import json
from typing import Any, Final

from axe_playwright_python.base import AXE_SCRIPT
from playwright.async_api import Page

LEVELS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
CONTRAST: Final = ["color-contrast"]
TARGET_PX: Final = 44
_HAS_AXE: Final = "typeof window.axe === 'object'"


async def violations(page: Page, *, only: list[str] | None = None, within: str = "") -> list[str]:
    """What axe-core finds against WCAG 2.1 A and AA, one line each; `only`: these rules; `within`: this part of the page."""
    if not await page.evaluate(_HAS_AXE):
        await page.evaluate(AXE_SCRIPT)
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    options["runOnly"] = {"type": "rule", "values": only} if only else {"type": "tag", "values": LEVELS}
    where = json.dumps(within) if within else "document"
    found = await page.evaluate(f"axe.run({where}, {json.dumps(options)}).then((result) => result.violations)")
    return [_line(violation, node) for violation in found for node in violation["nodes"]]


def _line(violation: dict[str, Any], node: dict[str, Any]) -> str:
    why = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
    return f"{violation['id']}: {' '.join(map(str, node['target']))} {node['html'][:160]} ({'; '.join(why)[:300]})"


async def sideways(page: Page) -> str:
    """What makes the page wider than its window; empty if nothing does."""
    return str(
        await page.evaluate(
            """() => {
              const wide = document.documentElement.scrollWidth, room = document.documentElement.clientWidth;
              if (wide <= room) return '';
              const over = (one) => one.getBoundingClientRect().right > wide - 2 && !one.closest('.bottom, header.top');
              const out = [...document.querySelectorAll('body *')].filter(over);
              return `${wide} px in ${room} px: ` + out.slice(-3).map((one) => one.outerHTML.slice(0, 120)).join(' | ');
            }"""
        )
    )


async def small_targets(page: Page, selector: str) -> list[str]:
    """Visible elements of `selector` that are lower than a thumb needs."""
    found: list[str] = await page.evaluate(
        """([selector, least]) => [...document.querySelectorAll(selector)]
          .filter((one) => one.checkVisibility({ visibilityProperty: true }))
          .filter((one) => one.getBoundingClientRect().height < least - 0.5)
          .map((one) => `${Math.round(one.getBoundingClientRect().height)} px: ${one.outerHTML.slice(0, 120)}`)""",
        [selector, TARGET_PX],
    )
    return found
