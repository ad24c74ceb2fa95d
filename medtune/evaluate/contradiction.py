"""Whether two answers say opposite things though they share most of their words: never partly right.

no evidence of cancer        evidence of cancer
increased cardiac output     decreased cardiac output
> 5 mg                       < 5 mg
0.5 mg                       5 mg
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product

from medtune.evaluate.wording import number


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(one, other) for one, _, other in (pair.partition("/") for pair in text.split())]


NEGATIONS = _words(
    """
    no not non never none neither nor without absence absent lack lacks lacking denies denied
    cannot cant couldnt doesnt dont didnt isnt arent wasnt werent hasnt havent hadnt wont wouldnt shouldnt
    mustnt neednt sin sans ohne kein keine nicht 不 没 無 无 未 非
    """
)
DENIALS = frozenset(
    tuple(pair.split())
    for pair in (
        "free of", "negative for", "rule out", "ruled out", "rules out", "fail to", "fails to", "failed to",
        "な い", "な し", "ไ ม่",
    )
) | {("free", "")}  # fmt: skip
"""Of two words, which in scripts without spaces are characters; "free" at the end."""
NEUTRAL = frozenset(["and", "or", "but", "with", "of", "in", "the", "a", "an"])
"""What says nothing of the words beside it."""
TOGETHER = frozenset(["and", "or", "per"])
COMPARISONS = frozenset(["<", ">", "<=", ">=", "~", "±", "≠"])
OPPOSITES = _pairs(
    """
    left/right  upper/lower  high/low  higher/lower  highest/lowest  increas/decreas  increas/reduc
    elevat/decreas  elevat/reduc  elevat/depress  rais/lower  rise/fall  gain/loss  more/less
    most/least  many/few  all/none  always/never  above/below  before/after  over/under
    anterior/posterior  ventral/dorsal  proximal/distal  medial/lateral  superior/inferior
    cranial/caudal  superficial/deep  internal/external  inner/outer  central/peripheral
    ascending/descending  afferent/efferent  arterial/venous  artery/vein  systol/diastol
    unilateral/bilateral  acute/chronic  early/late  benign/malignan  positive/negative  present/absent
    presence/absence  male/female  man/woman  men/women  maternal/paternal  congenital/acquired
    dominant/recessive  agonist/antagonist  activat/inhibit  activat/inactivat  stimulat/inhibit
    dilat/constrict  vasodilat/vasoconstrict  bronchodilat/bronchoconstrict  contract/relax
    flexion/extension  flexor/extensor  abduct/adduct  pronat/supinat  invers/eversi  inspirat/expirat
    inhal/exhal  long/short  large/small  big/small  tall/short  wide/narrow  broad/narrow  thick/thin
    fast/slow  rapid/slow  hard/soft  strong/weak  mild/severe  maxim/minim  sensitive/resistant
    convex/concave  open/closed  full/empty  hot/cold  warm/cold  wet/dry  old/young  adult/child
    true/false  yes/no  better/worse  improv/worsen  safe/unsafe  excess/deficien  surplus/deficit
    aerob/anaerob  able/unable  indicat/contraindicat  高/低  左/右  上/下  急/慢  阳/阴  陽/陰  增/减  增/減
    increas/lower  increas/low  elevat/low  elevat/lower  rais/low  rais/reduc  rais/decreas  high/reduc
    high/decreas  rising/falling  rise/drop  leftward/rightward  good/poor  good/bad  well/poorly
    stimulat/suppress  stimulat/block  activat/suppress  activat/block  shorten/prolong  shorten/lengthen
    hypertroph/atroph  sympathetic/parasympathetic  immunocompet/immunocomprom
    immunocompet/immunosuppress  miosis/mydriasis  polyuri/oliguri  confirm/exclud  includ/exclud
    inpatient/outpatient  inflow/outflow  over/<  >/under  exceed/<  older/younger  older/<  >/younger
    slow/speed  slow/accelerat
    升/降  良/恶  良/悪  大/小  男/女  多/少  前/后  前/後  内/外
    """
)
"""Beginnings of words."""
PREFIX_PAIRS = _pairs(
    """
    hyper/hypo  tachy/brady  macro/micro  pre/post  intra/extra  endo/exo  poly/oligo  pro/anti
    super/sub  supra/infra  ante/retro  homo/hetero  eu/dys  mono/poly
    eu/hyper  eu/hypo  normo/hyper  normo/hypo  normo/macro  normo/micro  ante/post  up/down
    """
)
"""Beginnings before one and the same rest, or alone before a hyphen: hypertension, hypo-tension."""
SUFFIX_PAIRS = _pairs(
    """
    penia/cytosis  penia/sis  penia/philia  penic/philic  penia/emia  positive/negative  less/ful
    acidosis/alkalosis
    """
)
"""Ends after one and the same beginning: leukopenia, leukocytosis."""
PREFIXES = ("un", "in", "im", "ir", "il", "non", "ab", "a", "dis", "de", "dys", "anti", "counter")
"""What turns a word into its opposite: normal, abnormal."""
SHORTEST_STEM = 4
"""Letters that have to follow one of PREFIX_PAIRS, and fewer than have to follow one of PREFIXES."""
LONGEST_END = 2
"""Letters that may follow a beginning of no more letters than that."""


def contradict(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether what only one of two answers says is the opposite of what only the other says.

    Both are words as `medtune.evaluate.wording.words` gives them.
    """
    mine, yours = set(one) - set(other), set(other) - set(one)
    if _denies(one, other) != _denies(other, one) or _swapped(one, other):
        return True
    if mine & COMPARISONS and yours & COMPARISONS:
        return True
    numbers = [{word for word in words if number(word) is not None} for words in (one, other)]
    if all(numbers) and not numbers[0] & numbers[1]:
        return True
    powers = [{after for before, after in pairwise(words) if before == "^"} for words in (one, other)]
    if all(powers) and powers[0] != powers[1]:
        return True
    return any(_are_opposite(*pair) or _are_opposite(*pair[::-1]) for pair in product(mine, yours))


def _denies(words: Sequence[str], other: Sequence[str]) -> bool:
    """A phrase counts unless its longer word stands in the other too: ruled out, not ruled out."""
    phrases = [*pairwise(words), (words[-1], "") if words else ("", "")]
    return bool(NEGATIONS & set(words)) or any(
        one in DENIALS and max(one, key=len) not in other for one in phrases
    )


def _begins(word: str, beginning: str) -> bool:
    """After a short beginning little may follow: `low` begins lower, `late` not lateral."""
    rest = len(word) - len(beginning)
    return word.startswith(beginning) and (len(beginning) > SHORTEST_STEM or rest <= LONGEST_END)


def _swapped(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether what both have belongs to other words: ER+ and PR-, from left to right, no fever but cough."""
    ours, theirs = _denied(one), _denied(other)
    if Counter(one) == Counter(other) and ours - theirs and theirs - ours:
        return True
    for first, second in OPPOSITES:
        mine, yours = (_beside(words, first, second) for words in (one, other))
        before, after = (_turned(mine[side], yours[side]) for side in (0, 1))
        settled = [bool(mine[side]) and mine[side] == yours[side] for side in (0, 1)]
        if (before and not settled[1]) or (after and not settled[0]):
            return True
    return False


def _beside(words: Sequence[str], first: str, second: str) -> list[set[tuple[str, bool]]]:
    """The words before and after each of two opposites, each with whether it stands beside the first.

    None where one of the two is missing or they stand together (left and right): then both have what follows.
    """
    places = {index: _begins(word, first) for index, word in enumerate(words)}
    places = {index: here for index, here in places.items() if here or _begins(words[index], second)}
    together = any(
        places.get(index + 2, here) != here and words[index + 1] in TOGETHER for index, here in places.items()
    )
    if together or len(set(places.values())) < 2:
        return [set(), set()]
    content = [(word, places.get(index)) for index, word in enumerate(words) if word not in NEUTRAL]
    pairs = list(pairwise(content))
    before = {(word, here) for (word, _), (_, here) in pairs if here is not None}
    after = {(word, here) for (_, here), (word, _) in pairs if here is not None}
    return [before, after]


def _turned(mine: set[tuple[str, bool]], yours: set[tuple[str, bool]]) -> bool:
    """Whether a word stands beside the one opposite here and beside the other one there."""
    return any((word, not here) in mine - yours for word, here in yours - mine)


def _denied(words: Sequence[str]) -> set[str]:
    """The words after a negation, up to the next "but"."""
    found, denied = set(), False
    for word in words:
        denied = (denied or word in NEGATIONS) and word != "but"
        if denied:
            found.add(word)
    return found - NEUTRAL


def _are_opposite(one: str, other: str) -> bool:
    if any(_begins(one, first) and _begins(other, second) for first, second in OPPOSITES):
        return True
    if len(other) > SHORTEST_STEM and any(one == prefix + other for prefix in PREFIXES):
        return True
    for first, second in PREFIX_PAIRS:
        if one == first and other == second:
            return True
        stem = one.removeprefix(first)
        if stem != one and len(stem) >= SHORTEST_STEM and other == second + stem:
            return True
    return any(
        one.endswith(first) and one.removesuffix(first) + second == other for first, second in SUFFIX_PAIRS
    )
