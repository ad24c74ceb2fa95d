"""A second opinion on choices: lm-evaluation-harness asks the same model the same questions."""

import random
from typing import Any, NamedTuple

import pytest
import torch
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedTokenizerBase

from medtune.answer.answerer import Answerer
from medtune.answer.params import AnswerParams
from medtune.core.examples import Example
from medtune.data import ontology
from medtune.data.params import DataParams
from medtune.evaluate.choices import RULES, Ballot, choice_figures, pick
from medtune.evaluate.params import EvaluateParams
from medtune.evaluate.predictions import judge
from medtune.model.base import base_folder, load_model, load_tokenizer
from medtune.model.chat import ChatEncoder
from medtune.model.params import ModelParams, PromptParams
from medtune.run.params import ComputeParams
from tests.conftest import CHATML, ROOT, build_tiny_llama, build_tokenizer, example

SYSTEM, END = "Answer briefly.", "<|im_end|>"
METRICS = {"sum": "acc", "per_character": "acc_norm"}
"""What the harness calls the accuracy by a rule."""
SEPARATED = CHATML.replace("'\n' + message['content']", "'<|im_sep|>' + message['content']").replace(
    "assistant\n", "assistant<|im_sep|>"
)
"""With this template a prompt ends with a special token, where that of ChatML ends with a newline."""
WORDS = (
    "fever fièvre Fieber лихорадка 発熱 œdème Ménière naïve β-blocker 5 mg aorta ventricle hypo hyper the "
    "of left right µg syndrome arachnodactyly nervous system gøy Sjögren"
)


class WholeAnswers(ConfigurableTask):  # type: ignore[misc]
    """The harness's questions with choices, each scored with the token that ends an answer."""

    def construct_requests(self, doc: Any, ctx: Any, **keywords: Any) -> list[Any]:
        requests: list[Any] = super().construct_requests(doc, ctx, **keywords)
        for request in requests:
            prompt, choice = request.arguments
            request.arguments = (prompt, choice + END)
        return requests


class WholePrompts(HFLM):  # type: ignore[misc]
    """The harness's model, which does not count the newline that ends a prompt into the choice."""

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return self.tok_encode(context), self.tok_encode(continuation, add_special_tokens=False)


class Asked(NamedTuple):
    """Who is asked, and what."""

    answerer: Answerer
    tokenizer: PreTrainedTokenizerBase
    examples: list[Example]


class Opinion(NamedTuple):
    """The accuracies and the picks by each rule, and the log-likelihoods of the choices of each question.

    `ends` are those of the end token after each choice, which the harness has no figure of.
    """

    accuracies: dict[str, float]
    picks: dict[str, list[int]]
    log_likelihoods: list[list[float]]
    ends: list[list[float]] | None = None


def by_medtune(asked: Asked) -> Opinion:
    answers = asked.answerer.answer(asked.examples)
    params = EvaluateParams.load(ROOT / "params.yaml").model_copy(update={"set_kinds": []})
    given = {one.id: answer for one, answer in zip(asked.examples, answers, strict=True)}
    judged = {
        rule: judge(asked.examples, given, params.model_copy(update={"choice_rule": rule})) for rule in RULES
    }
    log_likelihoods = [answer.log_likelihoods or [] for answer in answers]
    ends = [answer.end_log_likelihoods or [] for answer in answers]
    ballots = [
        Ballot(choices_of(one), found, choices_of(one).index(one.answer), end)
        for one, found, end in zip(asked.examples, log_likelihoods, ends, strict=True)
    ]
    figures = choice_figures(ballots)
    return Opinion(
        {rule: figures[f"accuracy_{rule}"] for rule in RULES},
        {rule: [choices_of(one.example).index(one.answer.text) for one in judged[rule]] for rule in RULES},
        log_likelihoods,
        ends,
    )


def by_harness(
    asked: Asked, model: type[HFLM] = HFLM, task: type[ConfigurableTask] = ConfigurableTask
) -> Opinion:
    """What the harness finds. It renders the prompt itself: the tokens are checked to be medtune's."""
    docs = [
        {
            "text": one.user_text,
            "choices": choices_of(one),
            "right": choices_of(one).index(one.answer),
        }
        for one in asked.examples
    ]
    means = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in METRICS.values()]
    questions = task(
        config={
            "task": "questions",
            "custom_dataset": lambda: {"test": Dataset.from_list(docs)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "text",
            "doc_to_choice": "choices",
            "doc_to_target": "right",
            "num_fewshot": 0,
            "metric_list": means,
        }
    )
    lm = model(pretrained=asked.answerer.model, tokenizer=asked.tokenizer, batch_size=8)
    found = evaluate(
        lm=lm,
        task_dict={"questions": questions},
        system_instruction=SYSTEM,
        apply_chat_template=True,
        bootstrap_iters=0,
    )
    samples = found["samples"]["questions"]
    for one, sample in zip(asked.examples, samples, strict=True):
        for prompt, _ in sample["arguments"]:
            assert lm.tok_encode(prompt) == asked.answerer.encoder.encode_prompt(one)
    return Opinion(
        {rule: found["results"]["questions"][f"{name},none"] for rule, name in METRICS.items()},
        {rule: [picked(questions, sample, name) for sample in samples] for rule, name in METRICS.items()},
        [[value for value, _ in sample["filtered_resps"]] for sample in samples],
    )


def picked(task: ConfigurableTask, sample: dict[str, Any], metric: str) -> int:
    """The one choice that the harness would count as a hit if it were right."""
    doc, results = sample["doc"], sample["filtered_resps"]
    (hit,) = [
        number
        for number in range(len(results))
        if task.process_results({**doc, "right": number}, results)[metric]
    ]
    return hit


def choices_of(one: Example) -> list[str]:
    return one.choices or []


def gaps(theirs: Opinion, ours: Opinion) -> list[list[float]]:
    """How much likelier each choice is to the harness."""
    return [
        [a - b for a, b in zip(one, other, strict=True)]
        for one, other in zip(theirs.log_likelihoods, ours.log_likelihoods, strict=True)
    ]


def assert_agreed(theirs: Opinion, ours: Opinion) -> None:
    assert max(abs(gap) for row in gaps(theirs, ours) for gap in row) < 1e-4
    assert {rule: ours.picks[rule] for rule in METRICS} == theirs.picks
    assert {rule: ours.accuracies[rule] for rule in METRICS} == theirs.accuracies


def made_up(count: int) -> list[Example]:
    """Questions with two to six choices, of which two begin like the first, in several scripts."""
    # A seed with which both rules, and what is no rule of ours, give other accuracies, and no two choices are
    # so near that rounding decides: 0.008 a character lie between the best and the second.
    drawn, words = random.Random(12), WORDS.split()
    found = []
    for number in range(count):
        first, *others = (" ".join(drawn.sample(words, drawn.randint(1, 4))) for _ in range(4))
        choices = [first, f"{first} {drawn.choice(words)}", f"{first}s", *others]
        choices = list(dict.fromkeys(choices))[: drawn.randint(2, 6)]
        drawn.shuffle(choices)
        changes: dict[str, object] = {"choices": choices, "answer": drawn.choice(choices)}
        if number % 5 == 0:
            changes["context"] = "Ses mains — très longues — étaient froides."
        question = " ".join(drawn.sample(words, drawn.randint(2, 12))) + "?"
        found.append(example(id=str(number), question=question, **changes))
    return found


def from_the_ontology(count: int) -> list[Example]:
    """Terms asked for by their lay names among those next to them in the alphabet."""
    drawn = random.Random(7)
    params = DataParams.load(ROOT / "params.yaml")
    made = ontology.examples("hpo", params.sources["hpo"], params)
    terms = [one for one in made if one.kind == "medical_term"]
    names = sorted({one.answer for one in terms})
    found = []
    for one in drawn.sample(terms, count):
        start = min(max(names.index(one.answer) - drawn.randint(0, 3), 0), len(names) - 4)
        choices = drawn.sample(names[start : start + 4], 4)
        found.append(one.model_copy(update={"choices": choices}))
    return found


def ask(model: Any, tokenizer: PreTrainedTokenizerBase, examples: list[Example]) -> Asked:
    encoder = ChatEncoder(tokenizer, PromptParams(system=SYSTEM))
    return Asked(Answerer(model, encoder, AnswerParams.load(ROOT / "params.yaml")), tokenizer, examples)


def ask_tiny(template: str) -> Asked:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_sep|>", END]
    return ask(build_tiny_llama(), build_tokenizer(template, special, "<|im_start|>", END), made_up(60))


@pytest.mark.parametrize(("template", "model"), [(SEPARATED, HFLM), (CHATML, WholePrompts)])
def test_the_harness_agrees_on_every_pick_and_to_the_last_digit(template: str, model: type[HFLM]) -> None:
    asked = ask_tiny(template)
    ours = by_medtune(asked)
    assert_agreed(by_harness(asked, model), ours)
    # The rules differ, and so would bytes or tokens for characters.
    assert 0 < ours.accuracies["sum"] < ours.accuracies["per_character"] < 1
    for unit in (str.encode, asked.answerer.encoder.encode_answer):
        lengths = [["x" * len(unit(choice)) for choice in choices_of(one)] for one in asked.examples]
        by_unit = [
            pick(one, found, "per_character")
            for one, found in zip(lengths, ours.log_likelihoods, strict=True)
        ]
        assert by_unit != ours.picks["per_character"]


def test_with_the_end_token_the_harness_picks_as_the_rule_of_whole_answers() -> None:
    asked = ask_tiny(SEPARATED)
    ours, theirs = by_medtune(asked), by_harness(asked, task=WholeAnswers)
    for one, texts, ends in zip(theirs.log_likelihoods, ours.log_likelihoods, ours.ends or [], strict=True):
        assert one == pytest.approx([text + end for text, end in zip(texts, ends, strict=True)], abs=1e-4)
    assert theirs.picks["sum"] == ours.picks["whole"] != ours.picks["sum"]
    assert theirs.accuracies["sum"] == ours.accuracies["whole"] != ours.accuracies["sum"]


def test_the_harness_counts_a_newline_that_ends_the_prompt_into_every_choice() -> None:
    asked = ask_tiny(CHATML)
    ours, theirs = by_medtune(asked), by_harness(asked)
    for one, row in zip(asked.examples, gaps(theirs, ours), strict=True):
        *before, newline = asked.answerer.encoder.encode_prompt(one)
        with torch.inference_mode():
            logits = asked.answerer.model(input_ids=torch.tensor([before])).logits[0, -1]
        assert row == pytest.approx([float(logits.log_softmax(-1)[newline])] * len(row), abs=1e-4)
    assert theirs.picks["sum"] == ours.picks["sum"]
    assert theirs.picks["per_character"] != ours.picks["per_character"]


@pytest.mark.slow
def test_on_the_default_model_too_the_harness_agrees_to_the_last_digit() -> None:
    params = ModelParams.load(ROOT / "params.yaml")
    compute = ComputeParams.load(ROOT / "params.yaml")
    model = load_model(params, compute, torch.float32, torch.device("cpu"))
    asked = ask(model, load_tokenizer(base_folder(params)), from_the_ontology(24))
    ours = by_medtune(asked)
    assert_agreed(by_harness(asked, WholePrompts), ours)
    assert ours.picks["sum"] != ours.picks["per_character"]
