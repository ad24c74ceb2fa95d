"""Text as it is kept: one Unicode form, without what nobody sees, and never with another meaning."""

import math
import re
import unicodedata
from typing import Any

from medtune.data.faults import Fault

_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0xFEFF])
"""Soft hyphens, zero-width spaces, word joiners, byte order marks. Joiners, which Persian needs, stay."""
_JOINERS = dict.fromkeys([0x200C, 0x200D, 0x200E, 0x200F, 0x180E])
_CONTROLS = {
    code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\n\t"
}
_UNWANTED = _CONTROLS | _INVISIBLE
_HAS_UNWANTED = re.compile("[" + "".join(map(re.escape, map(chr, _UNWANTED))) + "]")
_NOT_A_NUMBER = ("nan", "NaN", "NAN", "<NA>")
"""What other programs write where a cell is empty."""
_EXACT = 2**53
"""Beyond it a float stands for several integers."""


def text_of(value: Any, field: str) -> str | None:
    """A value as clean text, or None if it is empty; numbers as they are written.

    Line ends become \\n; control characters, zero-width spaces and soft hyphens go; Unicode becomes NFC.
    Fault: it is a list, a mapping, bytes, infinite or no valid Unicode.
    """
    if isinstance(value, str):
        return _clean(value, field)
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else _number(value)
    if isinstance(value, int) and abs(value) < 10**100:
        return str(value)
    raise Fault("not_text", f"{field} is {_kind_of(value)}; accepted: text or a number")


def joined(value: Any, field: str) -> str | None:
    """As `text_of`, and a list of texts as paragraphs."""
    if not isinstance(value, list):
        return text_of(value, field)
    parts = [text_of(part, f"{field}, part {number},") for number, part in enumerate(value, start=1)]
    return "\n".join(part for part in parts if part) or None


def required(value: Any, field: str) -> str:
    """As `text_of`; Fault: it is empty."""
    text = text_of(value, field)
    if text is None:
        raise Fault("empty", f"{field} is {'missing' if value is None else 'empty'}; accepted: text")
    return text


def _clean(value: str, field: str) -> str | None:
    if not value.isascii():
        value = _without_the_unseen(value, field)
    elif not value.isprintable() and _HAS_UNWANTED.search(value):
        value = _without_controls(value)
    value = value.strip()
    return None if value in _NOT_A_NUMBER else value or None


def _without_the_unseen(value: str, field: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Fault(
            "not_text",
            f"{field} has half a character (\\u{ord(value[error.start]):04x}); accepted: valid Unicode",
        ) from None
    if _HAS_UNWANTED.search(value):
        value = _without_controls(value)
    value = unicodedata.normalize("NFC", value)
    return value if value.translate(_JOINERS).strip() else ""


def _without_controls(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\r", "\n").translate(_UNWANTED)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)


def _kind_of(value: Any) -> str:
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, value))}" if value else "an empty mapping"
    if isinstance(value, int | float):
        return f"too large a number ({float(value) if isinstance(value, float) else 'over 100 digits'})"
    return "a list" if isinstance(value, list) else f"of the type {type(value).__name__}"
