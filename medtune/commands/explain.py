"""`medtune explain A [B]`: what differs between two revisions, and which of it changed the result."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from medtune.core.errors import MedtuneError
from medtune.explain.differences import added
from medtune.explain.explaining import Effect, Explanation, Tried, explain
from medtune.explain.outcomes import MARGIN

QUANTITIES = {
    "loss": "loss by {:.1e} of itself",
    "gradient norm": "gradient norm by {:.1e}",
    "validation loss": "validation loss by {:.1e}",
    "adapter": "adapter by {:.1e} of what it learned",
    "log-likelihood": "a log-likelihood by {:.1e}",
    "figure": "a figure of these answers by {:.1e}",
}


def explained(before: str, after: str, *, steps: int, answers: int, run: bool) -> Explanation:
    """Compare two revisions, and try each difference with a few steps and answers."""
    for option, value in (("--steps", steps), ("--answers", answers)):
        if value < 1:
            raise MedtuneError(f"{option} is {value}: must be 1 or more")
    return explain(before, after, steps=steps, answers=answers, run=run)


def describe_explanation(found: Explanation) -> str:
    """For people."""
    return "\n".join(_described(found))


def explanation_as_json(found: Explanation) -> str:
    """For programs: every difference with its verdict, the sizes by quantity, and all ids of rows."""
    content = {
        "before": found.names[0],
        "after": found.names[1],
        "steps": found.steps,
        "planned_steps": found.planned,
        "answers": found.asked,
        "not_run": found.missed,
        "together": _effect_as_json(found.together),
        "interaction": is_interaction(found),
        "rounding_bounds": found.bounds,
        "differences": [
            {
                "kind": tried.difference.kind,
                "name": tried.difference.name,
                "detail": tried.difference.detail,
                "stages": tried.difference.stages,
                "ids": asdict(tried.difference.ids) if tried.difference.ids else None,
                "conclusion": conclusion(tried, found),
                "alone": _effect_as_json(tried.alone),
                "taken_away": _effect_as_json(tried.away),
            }
            for tried in found.tried
        ],
    }
    # A size without bound is no number of JSON's.
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)


def conclusion(tried: Tried, found: Explanation) -> str:
    """What is known of a difference, in words; never more than was seen."""
    difference, alone, away = tried.difference, tried.alone, tried.away
    if not difference.stages:
        return "changes nothing: no stage reads it"
    if difference.change is None:
        return f"not run: {difference.untried}"
    if alone is None:
        return f"not run: {found.missed}" if found.missed else "not run"
    if alone.verdict == "not run":
        after = f"; taken away from B: {_seen(away, found)}" if away else ""
        return f"does not run alone ({alone.failed}){after}"
    if alone.verdict != "same":
        return _seen(alone, found)
    if away and away.verdict not in ("same", "not run"):
        return f"only together with others: taken away from B, {_seen(away, found)}"
    if difference.stages == ("prepare",) and _is_proven(alone) and (away is None or _is_proven(away)):
        return "changes no result: prepare alone reads it, ran in full, and left the same questions"
    others = f", and no trial runs {' and '.join(rest)}" if (rest := added(difference.stages)) else ""
    return f"not seen in {_limits(found)}: what comes later may differ{others}"


def is_interaction(found: Explanation) -> bool:
    """Whether all differences together change the result, and none of them does alone or is missed."""
    effects = [effect for tried in found.tried for effect in (tried.alone, tried.away) if effect]
    changed = found.together is not None and found.together.verdict in ("within rounding", "truly")
    # What did not run alone, or could not be tried, may well be what changes it.
    untried = any(tried.difference.kind == "stage" for tried in found.tried)
    return changed and bool(effects) and not untried and all(one.verdict == "same" for one in effects)


def _is_proven(effect: Effect) -> bool:
    return effect.failed is None and effect.verdicts.get("questions", "same") == "same"


def _described(found: Explanation) -> Iterator[str]:
    counted = _counted(len(found.tried), "difference")
    yield f"A: {found.names[0]}, B: {found.names[1]}; {counted} in what a run could read"
    for tried in found.tried:
        difference = tried.difference
        read = ", ".join(difference.stages) or "no stage"
        what = " ".join(dict.fromkeys([difference.kind, difference.name]))
        yield f"\n{what} (read by {read})\n  {difference.detail}"
        # What keeps all of them from being tried is said once, at the end.
        if (concluded := conclusion(tried, found)) != f"not run: {found.missed}":
            yield f"  {concluded}"
        if tried.alone and tried.away and tried.alone.verdict in ("truly", "within rounding"):
            yield f"  taken away from B: {_seen(tried.away, found)}"
    yield ""
    if not found.tried:
        yield "parameters, code, packages and questions are the same, and so the bytes, on one processor"
        return
    yield from _summary(found)


def _summary(found: Explanation) -> Iterator[str]:
    if found.together is None:
        yield f"not run: {found.missed or 'nothing that differs can be tried here'}"
        return
    if found.together.failed:
        yield f"B does not run here: {found.together.failed}"
    yield f"all together: {_seen(found.together, found)}"
    if is_interaction(found):
        yield "no single difference changes it, all together do"
    of = f" of {found.planned}" if found.planned else ""
    yield (
        f"seen: prepare in full, the first {found.steps}{of} training steps with the whole run's schedule, "
        f"{_counted(found.asked, 'answer')} of the untuned model and of the adapter after these steps"
    )
    yield (
        "not seen: later steps and validations, early stopping, which checkpoint is best, the other answers; "
        "all trials ran with the packages and on the machine that are here"
    )
    if found.bounds:
        told = ", ".join(f"{name} {bound:.1e}" for name, bound in found.bounds.items())
        yield (
            f"rounding: up to {MARGIN:g} times what A differs by with each example in a pass of its own, "
            f"the same sums in another order ({told}); a change as small as that is not told from it"
        )


def _seen(effect: Effect | None, found: Explanation) -> str:
    if effect is None:
        return "not run"
    if effect.verdict == "not run":
        return f"does not run ({effect.failed})"
    if effect.verdict == "same":
        return f"the same to the last bit in {_limits(found)}"
    told = [words for part, words in effect.sizes.otherwise.items() if effect.verdicts.get(part) == "truly"]
    sizes = [QUANTITIES[name].format(size) for name, size in effect.sizes.numbers.items() if size > 0]
    parts = [part for part, verdict in effect.verdicts.items() if verdict == effect.verdict]
    failed = f"; then it does not run: {effect.failed}" if effect.failed else ""
    return f"{effect.verdict}, in {', '.join(parts)}: {'; '.join([*told, *sizes])}{failed}"


def _limits(found: Explanation) -> str:
    return f"{_counted(found.steps, 'step')} and {_counted(found.asked, 'answer')}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _effect_as_json(effect: Effect | None) -> dict[str, Any] | None:
    if effect is None:
        return None
    return {
        "verdict": effect.verdict,
        "parts": dict(effect.verdicts),
        "sizes": dict(effect.sizes.numbers),
        "otherwise": dict(effect.sizes.otherwise),
        "failed": effect.failed,
    }


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return "unbounded" if content == float("inf") else content
