"""The standard's facts as data (see ``tests/standard``), and how to read a layout table of them.

FACTS = facts("state_machine")
@pytest.mark.parametrize("row", FACTS["transitions"], ids=...)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

STANDARD = Path(__file__).parent / "standard"


@cache
def facts(name: str) -> Any:
    """The content of ``tests/standard/<name>.json``."""
    return json.loads((STANDARD / f"{name}.json").read_text(encoding="utf-8"))


def examples(*kinds: str) -> list[Any]:
    """The wire examples of some kinds, each a value in words with its octets in hex."""
    return [row for row in facts("wire_examples")["examples"] if row["kind"] in kinds]


def name_of(row: Mapping[str, Any]) -> str:
    """An id for a row that has a name."""
    return str(row["name"]).replace(" ", "-")


def lay_out(fields: Iterable[Mapping[str, Any]], octets: bytes) -> list[tuple[str, bytes]]:
    """Cut ``octets`` as a layout table says: names and octets of its fields, in order.

    A size is a number, the name of a field before it, "above" for the field right before, the
    item's length less something, or else the rest.
    """
    found: list[tuple[str, bytes]] = []
    numbers: dict[str, int] = {}
    at = 0
    for field in fields:
        name = field.get("name") or field["field"]
        if isinstance(field["offset"], int):
            assert field["offset"] == at, f"{name} stands at {at}"
        size = field["size"]
        if not isinstance(size, int):
            first, *less = str(size).split("-")
            if first == "above":
                size = int.from_bytes(found[-1][1], "big")
            elif first in numbers:
                size = numbers[first]
                for part in less:
                    size -= int(part) if part.isdigit() else numbers[part]
            else:
                size = len(octets) - at
        part = octets[at : at + size]
        assert len(part) == size, f"{name} has {len(part)} octets instead of {size}"
        found.append((name, part))
        if len(part) <= 4:
            numbers[name] = int.from_bytes(part, "big")
        at += size
    assert at == len(octets), f"{len(octets) - at} octets behind the last field"
    return found
