"""The head of a card in the hub's format: YAML between two lines of dashes, before the Markdown."""

import re
from collections.abc import Mapping
from typing import Any

import yaml

_RULE = "---\n"


def with_front_matter(content: Mapping[str, Any], body: str) -> str:
    """A card of its metadata, in their order, and its Markdown."""
    # The hub reads YAML 1.1, as PyYAML does and writes it: a kind called `no` is quoted.
    form: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    front = yaml.safe_dump(dict(content), width=4096, **form)
    return f"{_RULE}{front}{_RULE}\n{body.strip()}\n"


def split_card(text: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card and its Markdown; a ValueError if it has none."""
    parts = text.split(_RULE, 2)
    if len(parts) != 3 or parts[0]:
        raise ValueError("no front matter")
    try:
        content = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        raise ValueError(f"front matter is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError("front matter is no mapping")
    return content, parts[2].strip()


def licence_of(name: str) -> dict[str, str]:
    """A licence as the hub takes it: an identifier such as `cc-by-4.0`, else `other` with its name as one."""
    identifier = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if identifier and identifier == name.strip():
        return {"license": identifier}
    return {"license": "other", "license_name": identifier or "unknown"}
