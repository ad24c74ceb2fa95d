"""What an answer says, as words that are equal where two spellings mean the same.

Each rule either brings spellings together (`10mg` and `10 mg`, `TGF-β1` and `TGF-beta 1`) or keeps apart what
looks alike (`Rh+` and `Rh-`, `1.5` and `1-5`). docs/evaluation.md has them all, with examples. Splitting has
rules of its own (medtune/data/splits.py): mending these moves no question from one split to another.
"""

import unicodedata
from decimal import Decimal
from itertools import pairwise

import regex

SET_SEPARATORS = regex.compile("[;؛]")
"""Of members of a set, in the compatibility form, in which a full-width one is the ordinary one."""

RANGE, MINUS = "–", "−"
"""The words that stand for "to" between numbers, and the sign of a number: no hyphen is left among words."""

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DASHES = str.maketrans(
    dict.fromkeys("‐‑‒–—―−﹘﹣－˗⁃➖⸺⸻᠆־", "-") | {"⁄": "/", "∕": "/", "٪": "%", "٫": ".", "٬": ","}
)
_GREEK = {letter: unicodedata.name(letter).split()[-1].lower() for letter in "αβγδεζηθικμνξοπρσςτυφχψω"} | {
    "λ": "lambda"
}
_UNITS = {
    "mcg": "μg", "ug": "μg", "ul": "μl", "um": "μm", "umol": "μmol", "microgram": "μg", "micrograms": "μg",
    "milligram": "mg", "milligrams": "mg", "gram": "g", "grams": "g", "kilogram": "kg", "kilograms": "kg",
    "milliliter": "ml", "milliliters": "ml", "millilitre": "ml", "millilitres": "ml", "liter": "l",
    "liters": "l", "litre": "l", "litres": "l", "millimole": "mmol", "millimoles": "mmol",
    "micromole": "μmol", "micromoles": "μmol",
}  # fmt: skip
_UNITS_AFTER_A_NUMBER = {"gram", "grams", "ug", "ul", "um"}
"""What is something else elsewhere, such as a Gram stain."""
_ARTICLES = ("a", "an", "the")
_AFTER_A_BLOOD_GROUP = {"positive", "negative", "antigen", "antigens", "rh", "rhd"}
_AFTER_A_NAME = frozenset(_GREEK.values()) | {"and", "or", "+", "b", "c", "wave", "waves", "fibers", "fibres"}

# Before the compatibility form, which would make 10⁵ into 105 and a narrow space into any other.
_THOUSANDS_BY_SPACE = regex.compile(r"(?<=\d)[\u00a0\u2009\u202f'’](?=\d{3}(?!\d))")
_RAISED = regex.compile(r"(?<=\d)[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+|(?<=\p{L})⁻[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_DEGREE = regex.compile(r"(?<=\d\s?)[º˚]")
_FRACTION = regex.compile(r"(\d*)\s?([½¼¾⅛⅜⅝⅞⅕⅖⅗⅘⅒])|(?<=\d)(?=[⅓⅔⅙⅚⅐⅑])")
_INVISIBLE = regex.compile(r"[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def _positive(match: regex.Match[str]) -> str:
    """As often as there is a plus."""
    return " positive" * match[0].count("+") + " "


def _decimal(match: regex.Match[str]) -> str:
    """1½ as 1.5; what no decimal equals, such as 1⅓, in two parts."""
    if match[2] is None:
        return " "
    return str(int(match[1] or 0) + unicodedata.numeric(match[2]))


_CLOSING = r"[,;:.!?)\]/\"'”’“»。、」』]"
_LESS, _MORE = "(?:less|fewer|lower|smaller)", "(?:more|greater|higher|larger)"
_NUMBER = r"(?=[-+]?\.?\d)"
_UNIT = r"(\s?(?:%|[gl]|\p{L}{2,}))"
_END = rf"(?=\s*(?:$|{_CLOSING}))"
_REWRITES = [
    (regex.compile(pattern), new)
    for pattern, new in (
        # Symbols with several spellings.
        (r"(?<=\d%?)\s*[~〜∼]\s*(?=\.?\d)", "-"),
        (r"\+\s?/\s?-", "±"),
        (r"-+>|=+>|→", " "),
        (r"≫", ">>"),
        (r"≪", "<<"),
        (r"!=", "≠"),
        (r"[≥⩾≧≮]|>\s+=", ">="),
        (r"[≤⩽≦≯]|=<|<\s+=", "<="),
        (r"≱", "<"),
        (r"≰", ">"),
        (r"[≈≃≅∼]", "~"),
        (r"[×✕]", " x "),
        (r"[↑⬆⇧]", " increased "),
        (r"[↓⬇⇩]", " decreased "),
        (r"[←⇐]|<-+(?!\.?\d)", " ← "),
        (r"¬", " not "),
        (r"(?<![\p{L}\d.])(\d+(?:\.\d+)?)e([-+]?\d+)(?![\p{L}\d])", r"\1 x 10^\2"),
        (r"(?<=\p{L})['’ʼ`](?=\p{L})", ""),
        (rf"\bnot?\s+{_LESS}\s+than\s+{_NUMBER}|\bat\s+least\s+{_NUMBER}", ">="),
        (rf"\bnot?\s+{_MORE}\s+than\s+{_NUMBER}|\bat\s+most\s+{_NUMBER}", "<="),
        (rf"\b{_LESS}\s+than\s+or\s+equal\s+to\s+{_NUMBER}", "<="),
        (rf"\b{_MORE}\s+than\s+or\s+equal\s+to\s+{_NUMBER}", ">="),
        (rf"\b{_LESS}\s+than\s+{_NUMBER}|\bbelow\s+{_NUMBER}", "<"),
        (rf"\b{_MORE}\s+than\s+{_NUMBER}|\babove\s+{_NUMBER}", ">"),
        (rf"\b(?:about|approximately|circa)\s+{_NUMBER}", "~"),
        # Numbers.
        (r"(?<![\d.,])0,(?=\d+(?![\d,]))", "0."),
        (r"(?<![\d.,])(\d+),(?=\d{1,2}\s?(?:%|°|(?:[kmμ]?g|mcg|[dm]?l|[mμ]?mol|[cm]?m)\b))", r"\1."),
        (r"(?<=\d)·(?=\d)", "."),
        (r"(?<=\d)\*\*(?=[-+]?\d)", "^"),
        (r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])", lambda match: match[0].replace(",", "")),
        (r"\bper\s?cent\b", "%"),
        (r"\bmm\s?hg\b", "mmhg"),
        (r"°\s?(?=[cf]\b)|\bdegrees?\s(?=[cf]\b)", " "),
        (r"\b(?:degrees?\s)?(celsius|fahrenheit)\b", lambda match: match[1][0]),
        # Dashes and signs, by what stands around them.
        (rf"(?<=\d){_UNIT}(?:\s+to\s+|\s*-\s*)(?=\d+(?:\.\d+)?\1(?![\p{{L}}\d]))", f" {RANGE} "),
        (r"(?<=\d%?)\s+to\s+(?=[-+]?\.?\d)", f" {RANGE} "),
        (r"(?<=\d%?)\s*-\s*(?=[-+]?\.?\d)", f" {RANGE} "),
        (r"(?<![\p{L}\p{M}\d%)\]-])-\s?(?=\.?\d)", MINUS),
        (r"(?<![\p{L}\p{M}\d%)\]+])\+(?=\.?\d)", " "),
        (r"\+ve\b|\(\+\)|\bpos\b", " positive "),
        (r"-ve\b|\(-\)|\bneg\b", " negative "),
        (rf"(?<=[\p{{L}}\p{{M}}\d)])\++(?=\s|$|-|{_CLOSING})|\s\++{_END}", _positive),
        (rf"(?<=[\p{{L}}\p{{M}}\d)])-(?=$|{_CLOSING}|\s(?!and\b|or\b|to\b))|\s-{_END}", " negative "),
        # A suspended hyphen (pre- and postnatal) is none after what is positive or negative.
        (r"(?<![\p{L}\d])(ab?|b|o|rh|er|pr|her2|hiv|hcv|hbv|cd\d+)-(?=\s(?:and|or|to)\b)", r"\1 negative "),
        (r"(?<![\p{Greek}\p{M}])([α-ω])([α-ω])(?![\p{Greek}\p{M}])", r"\1 \2"),
        (r"(?<=[\p{L}\p{M}])\^(?=\d)", ""),
        (r"(?<=\d)\s*/\s*(?=\d)", " ÷ "),
        (r"/", " per "),
        (r"(?<=\d)\s*:\s*(?=\d)", " ∶ "),
    )
]  # fmt: skip
_WORD = regex.compile(
    r"""
    (?:MINUS)?(?:\d+(?:\.\d+)*|(?<![\p{L}\d])\.\d+)     # a number
    | μ[a-z]+                                            # a unit of millionths
    | [\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]\p{M}*
    | \p{Greek}[\p{Greek}\p{M}]*
    | [\p{L}--\p{Greek}][[\p{L}\p{M}]--\p{Greek}]*
    | [<>]=? | ≠ | ~ | ± | % | ‰ | \^ | ÷ | ∶ | ← | RANGE | \+ | [$€£¥]
    """.replace("MINUS", MINUS).replace("RANGE", RANGE),
    regex.VERBOSE | regex.V1,
)


def words(text: str) -> list[str]:
    """The words, numbers and signs of a text; of a text of nothing but other symbols, those."""
    plain = _plain(text)
    found = [_named(word) for word in _WORD.findall(_rewritten(plain))]
    found = [_unit(word, before) for before, word in pairwise(["", *found])]
    if len(found) > 1 and _begins_with_an_article(plain, found):
        del found[0]
    return found or plain.split()


def members(text: str) -> frozenset[tuple[str, ...]]:
    """The members of a set, whose order and number do not count; empty ones are none."""
    return frozenset(spelt_members(text))


def spelt_members(text: str) -> dict[tuple[str, ...], str]:
    """The members of a set, each with how it is spelt where it stands first."""
    found: dict[tuple[str, ...], str] = {}
    for part in SET_SEPARATORS.split(unicodedata.normalize("NFKC", text)):
        if member := words(part):
            found.setdefault(tuple(member), part.strip())
    return found


def number(word: str) -> Decimal | None:
    """The number that a word is, if it is one."""
    digits = word.removeprefix(MINUS)
    if regex.fullmatch(r"\d+(\.\d+)?|\.\d+", digits) is None:
        return None
    return Decimal(digits) if digits == word else -Decimal(digits)


def _plain(text: str) -> str:
    """One form for all ways to write a character: no case, no width, no composition, one hyphen."""
    text = _FRACTION.sub(_decimal, _THOUSANDS_BY_SPACE.sub("", _DEGREE.sub("°", text)))
    text = _RAISED.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPTS)).translate(_DASHES)
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text).casefold())
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character for character in text
    ).strip()


def _rewritten(text: str) -> str:
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text


def _named(word: str) -> str:
    """One name for a number, however many zeros it has, and for a Greek letter."""
    if (value := number(word)) is None:
        return _GREEK.get(word, word)
    digits = f"{abs(value):f}"
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{MINUS}{digits}" if value < 0 else digits


def _unit(word: str, before: str) -> str:
    if word in _UNITS_AFTER_A_NUMBER and before != "per" and number(before) is None:
        return word
    return _UNITS.get(word, word)


def _begins_with_an_article(plain: str, found: list[str]) -> bool:
    """Not so the vitamin, blood group or fibre called A, which stands before a few words only."""
    first, second = found[:2]
    if first not in _ARTICLES or not regex.match(r"""["'“‘«(*]*\w+\s""", plain):
        return False
    if first != "a":
        return True
    is_blood_group = set(found[1:]) <= _AFTER_A_BLOOD_GROUP
    return not is_blood_group and second not in _AFTER_A_NAME and number(second) is None
