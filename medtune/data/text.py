"""Text as it is kept: one Unicode form, without what nobody sees, and never with another meaning."""

import math
import unicodedata
from typing import Any

from medtune.data.faults import Fault

_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0xFEFF])
"""Soft hyphens, zero-width spaces, word joiners, byte order marks. Joiners that Persian and Hindi need
stay."""
_JOINERS = dict.fromkeys([0x200C, 0x200D, 0x200E, 0x200F, 0x180E])
_CONTROLS = {
    code: None for code in range(0xA0) if unicodedata.category(chr(code)) == "Cc" and chr(code) not in "\n\t"
}
_NOT_A_NUMBER = ("nan", "NaN", "NAN", "<NA>")
"""What other programs write where a cell is empty."""


def text_of(value: Any, field: str) -> str | None:
    """A value as clean text, or None if it is empty: numbers as they are written, a list as paragraphs.

    Line ends become \\n; control characters, zero-width spaces and soft hyphens go; Unicode becomes NFC.
    Fault: it is a mapping, bytes or no valid Unicode.
    """
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        parts = [text_of(part, field) for part in value]
        return "\n".join(part for part in parts if part) or None
    if not isinstance(value, str):
        raise Fault("not_text", f"{field} is {_kind_of(value)}; accepted: text")
    return _clean(value, field)


def required(value: Any, field: str) -> str:
    """As `text_of`; Fault: it is empty."""
    text = text_of(value, field)
    if text is None:
        raise Fault("empty", f"{field} is {'empty' if value is not None else 'missing'}; accepted: text")
    return text


def _clean(value: str, field: str) -> str | None:
    if not value.isprintable() or not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Fault(
                "not_text",
                f"{field} has half a character (\\u{ord(value[error.start]):04x}): not valid Unicode",
            ) from None
        value = value.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS | _INVISIBLE)
        value = unicodedata.normalize("NFC", value)
        if not value.translate(_JOINERS).strip():
            return None
    value = value.strip()
    return None if value in _NOT_A_NUMBER else value or None


def _kind_of(value: Any) -> str:
    return "a mapping" if isinstance(value, dict) else type(value).__name__
