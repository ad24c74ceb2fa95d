"""Shots: which are drawn, and that answers after them are those of one question at a time."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from medtune.answer import answerer as answering
from medtune.answer.answerer import Answerer
from medtune.answer.generation import Answer, generate_answers
from medtune.answer.params import AnswerParams
from medtune.answer.shots import drawn_shots
from medtune.core.errors import MedtuneError
from medtune.core.examples import Example
from medtune.model.chat import ChatEncoder
from medtune.model.forward import shared_length
from medtune.model.params import PromptParams
from medtune.verify.chain import verify_chain
from tests.conftest import edit_params, example
from tests.project import attempt, repro, run

PROMPT = PromptParams(system="Answer briefly.", date="26 Jul 2024")
ANSWER = AnswerParams(
    launch="single", seed=7, examples_per_kind=None, batch_size=4, max_new_tokens=6, unquantized=False
)
CHOICES = ["A high temperature.", "A cough.", "A noise."]


def of_each_kind(number: int, **fields: object) -> Example:
    kind = ("definition", "term", "closed")[number % 3]
    return example(kind=kind, choices=CHOICES if kind == "closed" else None, **fields)


def training() -> list[Example]:
    return [
        of_each_kind(i, id=f"t{i}", question=f"What is it, number {i}?", answer=CHOICES[i % 2])
        for i in range(30)
    ]


def questions() -> list[Example]:
    return [
        of_each_kind(i, id=f"q{i}", question=f"What is {'rather ' * (i % 5)}fever {i}?") for i in range(20)
    ]


def test_shots_are_of_the_kind_and_do_not_depend_on_the_order_of_the_file() -> None:
    kinds = {"definition", "closed"}
    shots = drawn_shots(training(), kinds, 7, 4)
    assert shots.keys() == kinds
    for kind, shown in shots.items():
        assert [one.kind for one in shown] == [kind] * 4
        assert len({one.id for one in shown}) == 4
    assert shots == drawn_shots(training()[::-1], kinds, 7, 4)
    assert shots != drawn_shots(training(), kinds, 8, 4)
    assert drawn_shots(training(), kinds, 7, 2) == {kind: shown[:2] for kind, shown in shots.items()}


@pytest.mark.parametrize(("kind", "found"), [("definition", 10), ("unknown", 0)])
def test_too_few_examples_to_show_are_an_error(kind: str, found: int) -> None:
    with pytest.raises(MedtuneError) as error:
        drawn_shots(training(), [kind], 7, 11)
    assert f"answer.shots is 11, but of '{kind}' there are {found} training examples" in str(error.value)
    assert f"data.kinds.{kind}.train" in str(error.value)


@pytest.fixture(params=["chatml_tokenizer", "llama3_tokenizer"])
def answerer(request: pytest.FixtureRequest, tiny_llama: LlamaForCausalLM) -> Answerer:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(request.param)
    shots = drawn_shots(training(), {"definition", "term", "closed"}, 7, 2)
    return Answerer(tiny_llama, ChatEncoder(tokenizer, PROMPT), ANSWER, shots)


def test_answers_after_shots_are_those_of_one_question_at_a_time(answerer: Answerer) -> None:
    together = answerer.answer(questions())
    alone = [answerer.answer([question])[0] for question in questions()]
    whole = dataclasses.replace(answerer, params=ANSWER.model_copy(update={"batch_size": 64}))
    for other in (alone, whole.answer(questions())):
        assert [answer.text for answer in other] == [answer.text for answer in together]
        for one, answer in zip(other, together, strict=True):
            assert one.log_likelihoods == (
                None if answer.log_likelihoods is None else pytest.approx(answer.log_likelihoods, abs=1e-4)
            )
    unshown = dataclasses.replace(answerer, shots={}).answer(questions())
    assert [answer.text for answer in unshown] != [answer.text for answer in together]


def test_questions_after_the_same_shots_share_them(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []

    def generate(model: Any, prompts: list[list[int]], **options: Any) -> list[Answer]:
        shared.append(shared_length(prompts))
        return generate_answers(model, prompts, **options)

    monkeypatch.setattr(answering, "generate_answers", generate)
    answerer.answer([question for question in questions() if question.kind != "closed"])
    shown = [
        shared_length([answerer.encoder.encode_prompt(example(question=text), shots) for text in ("?", "!")])
        for kind, shots in answerer.shots.items()
        if kind != "closed"
    ]
    # Seven questions of each kind in batches of four: one of four has both kinds.
    assert sorted(length >= min(shown) for length in shared) == [False, True, True, True]


def test_shots_that_the_context_has_no_room_for_are_an_error(answerer: Answerer) -> None:
    unshown = dataclasses.replace(answerer, shots={})
    longest = max(len(unshown.encoder.encode_prompt(question)) for question in questions())
    answerer.model.config.max_position_embeddings = longest + 30
    assert unshown.fitting(questions()) == (questions(), [])
    with pytest.raises(
        MedtuneError, match=r"the longest question takes \d+ with its answer; lower answer\.shots"
    ):
        answerer.answer(questions())


@pytest.fixture(scope="module")
def project(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shots") / "medtune"
    return shutil.copytree(finished_tiny_project, folder, symlinks=True)


def content(name: str) -> Any:
    return json.loads(Path(f"metrics/answers-{name}.json").read_text())


@pytest.mark.slow
def test_without_shots_nothing_is_asked_and_no_torch_is_loaded(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    nothing: dict[str, Any] = {"record": {}, "too_long": [], "answers": []}
    assert content("shots") == nothing
    without_torch = "import sys; sys.modules['torch'] = None; sys.argv = ['stages.answer', 'shots']"
    script = f"{without_torch}; import runpy; runpy.run_module('stages.answer', run_name='__main__')"
    for launch in ("ddp", "single"):
        edit_params(project / "params.yaml", {"answer.launch": launch})
        Path("metrics/answers-shots.json").unlink()
        printed = run(sys.executable, "-c", script, cwd=project)
        assert printed == "answer-shots: nothing is asked, as answer.shots is 0\n"
        assert content("shots") == nothing


@pytest.mark.slow
def test_with_shots_the_base_answers_the_same_questions_after_them(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "medtune"
    shutil.copytree(project, copy, symlinks=True)
    monkeypatch.chdir(copy)
    edit_params(copy / "params.yaml", {"answer.shots": 3})
    assert repro(copy) == {"code", "answer-base", "answer-tuned", "answer-shots", "evaluate"}
    base, shots = content("base"), content("shots")
    assert [row["id"] for row in shots["answers"]] == [row["id"] for row in base["answers"]]
    assert [row["text"] for row in shots["answers"]] != [row["text"] for row in base["answers"]]
    assert shots["record"].pop("shots").keys() == {"definition"}
    assert shots["record"]["inputs"].keys() - base["record"]["inputs"].keys() == {"data/prepared/train.jsonl"}
    assert not [link for link in verify_chain() if link.broken]

    path = Path("metrics/answers-shots.json")
    forged = content("shots")
    forged["record"]["shots"]["definition"].reverse()
    path.write_text(json.dumps(forged))
    broken = next(link.broken for link in verify_chain() if link.name.endswith("-> answers"))
    assert broken == f"{path}: 'shots.definition' is not what it should be"

    edit_params(copy / "params.yaml", {"answer.shots": 16})
    told = attempt("dvc", "repro", "answer-shots", cwd=copy).stderr
    assert "a context of 512 tokens, but the longest question takes" in told
    assert "lower answer.shots" in told
