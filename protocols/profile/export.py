"""Prints the JSON Schema of a profile file: `python -m protocols.profile.export > firmware_profiles/schema.json`."""

from __future__ import annotations

import json
import sys

from protocols.profile.schema import json_schema


def schema_text() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
