"""Batches once written down are not asked again; a damaged line counts as not written."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from medtune import generation
from medtune.answer_log import AnswerLog

PROMPTS = [[5, 6, 7, 8 + i] + [9] * (i % 3) for i in range(10)]


def generate(model: LlamaForCausalLM, log: AnswerLog | None = None) -> list[generation.Answer]:
    return generation.generate_answers(model, PROMPTS, end_id=2, max_new_tokens=6, batch_size=3, log=log)


@pytest.mark.parametrize("cut", [0, 1, 40])
def test_an_interrupted_run_asks_only_what_is_missing_and_answers_the_same(
    tiny_llama: LlamaForCausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    expected = generate(tiny_llama)
    path = tmp_path / "answers.jsonl"
    asked: list[int] = []
    original = generation._generate

    def counted(prompts: list[list[int]], *rest: object) -> object:
        if len(asked) == 2 and not interrupted:
            raise KeyboardInterrupt
        asked.append(len(prompts))
        return original(prompts, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(generation, "_generate", counted)
    interrupted: Sequence[int] = []
    with pytest.raises(KeyboardInterrupt):
        generate(tiny_llama, AnswerLog(path))
    interrupted, asked = asked, []
    if cut:
        path.write_text(path.read_text()[:-cut])
    assert generate(tiny_llama, AnswerLog(path)) == expected
    assert interrupted == [3, 3]
    assert sum(asked) == len(PROMPTS) - (3 if cut else 6)


def test_a_changed_line_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    log = AnswerLog(path)
    log.add([4, 1], [{"ids": [7]}, {"ids": [8]}], 1.5)
    log.add([2], [{"ids": [9]}], 0.5)
    again = AnswerLog(path)
    assert again.get([4, 1]) == [{"ids": [7]}, {"ids": [8]}]
    assert again.get([1, 4]) is None
    assert again.seconds == 2.0
    path.write_text(path.read_text().replace("[7]", "[6]"))
    damaged = AnswerLog(path)
    assert damaged.get([4, 1]) is None
    assert damaged.get([2]) == [{"ids": [9]}]
