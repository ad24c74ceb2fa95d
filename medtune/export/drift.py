"""How far an export is from what was evaluated: two findings, which have different causes.

1. Are the prompts the same tokens? The runtime's own template and tokenizer, against those of training.
2. Given the same tokens: are the answers the same words, how likely is each reference answer, and is the
   accuracy shown to be another one? Weights, precision and kernels.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

from medtune.answer.answerer import Answerer
from medtune.answer.choices import choice_log_likelihoods
from medtune.core import answers
from medtune.core.answers import AnswerText, read_answers
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example, read_jsonl
from medtune.core.hashing import file_sha256, unit_hash
from medtune.evaluate.comparison import LEVEL, compare
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import predict
from medtune.export.params import Form, Tolerance
from medtune.export.runtimes import Likelihood, Message, Runtime
from medtune.export.trained import Trained
from medtune.model.adapter import WEIGHTS, load_adapter
from medtune.model.base import load_model
from medtune.run.device import set_up

TEST = Path("data/prepared/test.jsonl")
DIGITS = 4
"""Of figures that are written: the last bits of a sum are a processor's own."""
_FEW = 32
"""Prompts that are written without a system message."""


@dataclass(frozen=True)
class Reference:
    """Questions with what the adapter said when it was evaluated, and how likely it found the right answers.

    `prompts` are in tokens, `right` the reference answers with the token that ends them.
    """

    examples: list[Example]
    given: Mapping[str, AnswerText]
    conversations: list[list[Message]]
    prompts: list[list[int]]
    right: list[list[int]]
    choices: list[list[list[int]]]
    likelihoods: list[Likelihood]
    max_new_tokens: int

    @property
    def context(self) -> int:
        """The most tokens that a prompt takes with an answer."""
        texts = [max(map(len, own), default=self.max_new_tokens) for own in self.choices]
        longest = max(
            len(prompt) + max(len(right), text)
            for prompt, right, text in zip(self.prompts, self.right, texts, strict=True)
        )
        return longest + 1


def reference(trained: Trained, questions: int | None) -> Reference:
    """What exports of the adapter are compared with: asked unmerged, on the base that it was trained on.

    The answers are those of the stage answer-tuned where they are this adapter's, else it is asked now.
    """
    encoder = trained.encoder()
    examples, given = _asked(trained, questions)
    given = given or _asked_now(trained, examples)
    conversations = [conversation(example, trained.settings.prompt.system) for example in examples]
    prompts = [encoder.encode_prompt(example) for example in examples]
    right = [encoder.encode_answer(example.answer) for example in examples]
    return Reference(
        examples=examples,
        given=given,
        conversations=conversations,
        prompts=prompts,
        right=right,
        choices=[[encoder.encode_answer(one) for one in example.choices or ()] for example in examples],
        likelihoods=_likelihoods(trained, prompts, right),
        max_new_tokens=trained.settings.answer.max_new_tokens,
    )


def conversation(example: Example, system: str) -> list[Message]:
    """An example as messages, as a user of the model would send it."""
    first = (example.system or system).strip()
    turns = zip(cycle(("user", "assistant")), example.turns, strict=False)
    return [
        *([{"role": "system", "content": first}] if first else []),
        *({"role": role, "content": text.strip()} for role, text in turns),
    ]


def measure(
    runtime: Runtime, form: Form, known: Reference, tolerance: Tolerance, rules: EvaluateParams
) -> dict[str, Any]:
    """Both findings on an export in its runtime; `exceeded` says what is beyond tolerance."""
    found: dict[str, Any] = {"runtime": runtime.name, "questions": len(known.examples)}
    found["prompts"] = _prompts(runtime, known)
    said = _said(runtime, known)
    same = [said[example.id].text == known.given[example.id].text for example in known.examples]
    found["answers"] = {"identical": _share(same), "differing": same.count(False)}
    found["log_likelihood"] = _log_likelihood(runtime, known)
    before, after = (
        [predict(example, side[example.id], rules) for example in known.examples]
        for side in (known.given, said)
    )
    accuracy = compare(before, after, rules.seed)["all"]["accuracy"]
    found["accuracy"] = {
        name: round(value, DIGITS) if isinstance(value, float) else value for name, value in accuracy.items()
    }
    found["tolerated"] = tolerance.model_dump()
    found["exceeded"] = _exceeded(found, tolerance, form)
    return found


def _prompts(runtime: Runtime, known: Reference) -> dict[str, Any]:
    made = runtime.prompts(known.conversations)
    found = {"identical": _share(one == other for one, other in zip(made, known.prompts, strict=True))}
    plain = [
        (messages[1:], prompt)
        for example, messages, prompt in zip(known.examples, known.conversations, known.prompts, strict=True)
        if messages[0]["role"] == "system" and example.system is None
    ][:_FEW]
    if plain:
        bare = runtime.prompts([messages for messages, _ in plain])
        found["without_system"] = _share(one == prompt for one, (_, prompt) in zip(bare, plain, strict=True))
    return found


def _said(runtime: Runtime, known: Reference) -> dict[str, AnswerText]:
    """An answer to each question: of choices the likeliest, else what it says."""
    given: dict[str, AnswerText] = {}
    rows = list(zip(known.examples, known.prompts, known.choices, strict=True))
    free = [(example, prompt) for example, prompt, choices in rows if not choices]
    texts = runtime.answers([prompt for _, prompt in free], known.max_new_tokens)
    for (example, _), one in zip(free, texts, strict=True):
        given[example.id] = AnswerText(text=one.text, tokens=one.tokens, truncated=one.truncated)
    pairs = [(example, prompt, ids) for example, prompt, choices in rows for ids in choices]
    odds = iter(runtime.likelihoods([prompt for _, prompt, _ in pairs], [ids for _, _, ids in pairs]))
    for example, _, choices in rows:
        if choices:
            own = [next(odds) for _ in choices]
            best = max(range(len(own)), key=lambda number, own=own: own[number].text)  # type: ignore[misc]
            given[example.id] = AnswerText(
                text=(example.choices or [])[best],
                tokens=len(choices[best]) - 1,
                truncated=False,
                log_likelihoods=[one.text for one in own],
                end_log_likelihoods=[one.end for one in own],
            )
    return given


def _log_likelihood(runtime: Runtime, known: Reference) -> dict[str, float]:
    """How far reference answers, each with its end, are from being as likely as they were."""
    made = runtime.likelihoods(known.prompts, known.right)
    differences = [
        abs(one.text + one.end - other.text - other.end)
        for one, other in zip(made, known.likelihoods, strict=True)
    ]
    mean = sum(differences) / len(differences)
    # The largest of several may hide a NaN, their mean does not.
    largest = max(differences) if math.isfinite(mean) else mean
    return {"largest": round(largest, DIGITS), "mean": round(mean, DIGITS)}


def _exceeded(found: Mapping[str, Any], tolerance: Tolerance, form: Form) -> list[str]:
    key = f"export.{form.replace('-', '_')}"
    prompts, accuracy = found["prompts"], found["accuracy"]
    shares = [(prompts["identical"], "identical prompts")]
    if "without_system" in prompts:
        shares.append((prompts["without_system"], "identical prompts without a system message"))
    beyond = [
        f"{value:.1%} {words}, {key}.prompts asks for {tolerance.prompts:.1%}"
        for value, words in shares
        if value < tolerance.prompts
    ]
    if is_below(found["answers"]["differing"], found["questions"], tolerance.answers):
        beyond.append(
            f"{found['answers']['identical']:.1%} identical answers, {key}.answers asks for "
            f"{tolerance.answers:.1%}"
        )
    largest = found["log_likelihood"]["largest"]
    # As a negation: NaN is within no tolerance.
    if not largest <= tolerance.log_likelihood:
        beyond.append(
            f"a reference answer's log-likelihood is {largest:g} nats off, {key}.log_likelihood allows "
            f"{tolerance.log_likelihood:g}"
        )
    if accuracy["verdict"] == "worse" and -accuracy["difference"] > tolerance.accuracy:
        beyond.append(
            f"accuracy is {100 * -accuracy['difference']:.1f} points lower, {key}.accuracy allows "
            f"{100 * tolerance.accuracy:.1f}"
        )
    return beyond


def is_below(differing: int, questions: int, least: float) -> bool:
    """Whether a share of identical answers is shown to be less than `least`: of few questions one may differ.

    With `least` 1 none may.
    """
    return float(binomtest(differing, questions, 1 - least, alternative="greater").pvalue) < LEVEL


def _share(hits: Any) -> float:
    found = list(hits)
    return round(sum(found) / len(found), DIGITS) if found else 1.0


def _asked(trained: Trained, questions: int | None) -> tuple[list[Example], Mapping[str, AnswerText] | None]:
    """The questions, in the order of the test, with their answers if these are the adapter's."""
    known = {example.id: example for example in read_jsonl(TEST)}
    given = _own_answers(trained)
    ids = [name for name in known if given is None or name in given]
    drawn = sorted(ids, key=lambda name: unit_hash(trained.params.seed, name))[:questions]
    if not drawn:
        raise MedtuneError(f"{TEST}: holds no question that the adapter was asked; run `dvc repro`")
    return [known[name] for name in ids if name in set(drawn)], given


def _own_answers(trained: Trained) -> Mapping[str, AnswerText] | None:
    """What the stage answer-tuned wrote, if it asked this adapter these questions with these parameters."""
    if not answers.TUNED.is_file():
        return None
    found, settings = read_answers(answers.TUNED), trained.settings
    record = found.record
    parameters = {
        part.name: part.model_dump()
        for part in (settings.model, settings.prompt, settings.compute, settings.answer)
    }
    inputs = record.get("inputs", {})
    is_own = (
        inputs.get((trained.folder / WEIGHTS).as_posix()) == file_sha256(trained.folder / WEIGHTS)
        and inputs.get(TEST.as_posix()) == file_sha256(TEST)
        # As they are written: 1 and true are equal in Python, and not in a template.
        and json.dumps(record.get("parameters"), sort_keys=True) == json.dumps(parameters, sort_keys=True)
    )
    return found.given if is_own and found.given else None


def _asked_now(trained: Trained, examples: Sequence[Example]) -> dict[str, AnswerText]:
    given = Answerer.build(trained.settings, trained.folder).answer(examples, progress="reference")
    return {example.id: answer for example, answer in zip(examples, given, strict=True)}


def _likelihoods(
    trained: Trained, prompts: Sequence[list[int]], right: Sequence[list[int]]
) -> list[Likelihood]:
    """Of the reference answers, in float32, by the adapter beside its base: a merge is not taken on trust."""
    settings = trained.settings
    device = set_up(settings.compute, settings.answer.seed)
    base = load_model(settings.model, settings.compute, torch.float32, device)
    model = load_adapter(base, trained.folder)
    size, found = settings.answer.batch_size, []
    for start in range(0, len(prompts), size):
        part = slice(start, start + size)
        odds = choice_log_likelihoods(model, prompts[part], [[ids] for ids in right[part]])  # type: ignore[arg-type]
        found += [Likelihood(one.texts[0], one.ends[0]) for one in odds]
    return found
