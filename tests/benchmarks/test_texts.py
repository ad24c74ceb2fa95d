from pathlib import Path

import pytest

from benchmarks.texts import ANSWER, CONTEXT, TRAIN, long_examples
from medtune.core.examples import write_jsonl
from tests.conftest import example


def test_long_examples_are_always_the_same_and_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    TRAIN.parent.mkdir(parents=True)
    write_jsonl(TRAIN, [example(id=str(n), answer=f"A sign of disease {n}. " * 4) for n in range(9)])
    found = long_examples(20)
    assert found == long_examples(20)
    assert len({one.context for one in found}) == 20
    for one in found:
        assert CONTEXT[0] <= len((one.context or "").split()) <= CONTEXT[1]
        assert ANSWER[0] <= len(one.answer.split()) <= ANSWER[1]
