"""What reruns what: each row of the table in README.md, on the pipeline with a tiny model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medtune.core.hashing import file_sha256
from medtune.run.lock_file import entries, read_lock
from tests.conftest import edit_params
from tests.project import attempt, repro, run

pytestmark = pytest.mark.slow

QUICK = {"code"}


@pytest.fixture
def project(finished_tiny_project: Path, tmp_path: Path) -> Path:
    """A finished run, to be edited. It shares nothing with the others, not even DVC's memory of runs."""
    folder = tmp_path / "medtune"
    shutil.copytree(finished_tiny_project, folder, symlinks=True)
    assert repro(folder) == set()
    return folder


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def what_no_result_depends_on(project: Path) -> None:
    append(project / "README.md", "\nMore.\n")
    append(project / "docs/scale.md", "\nMore.\n")
    append(project / "tests/tools.py", "\nMORE = 1\n")
    append(project / "benchmarks/side.py", "\nMORE = 1\n")
    append(project / "medtune/commands/check.py", "\nMORE = 1\n")
    append(project / "medtune/train/loss.py", "\n# More.\n")
    replace(project / "medtune/train/loss.py", '"""', '"""Also: ')
    replace(
        project / "medtune/evaluate/scoring.py",
        "f1 = token_f1(predicted, expected)",
        "f1 = (\n        token_f1(predicted, expected))",
    )


def versions_that_no_result_depends_on(project: Path) -> None:
    for lock in ("requirements/runtime.txt", "requirements/development.txt"):
        lines = (project / lock).read_text().splitlines()
        tools = ("ruff==", "pytest==", "moto==", "trl==", "dvc==", "flask==", "tqdm==")
        edited = [f"{line}.1" if line.startswith(tools) else line for line in lines]
        assert edited != lines
        (project / lock).write_text("\n".join(edited) + "\n")


def a_launch_file_that_is_not_taken(project: Path) -> None:
    append(project / "configs/accelerate/fsdp.yaml", "# More.\n")
    replace(project / "configs/accelerate/fsdp.yaml", "num_machines: 1", "num_machines: 2")


def a_line_of_the_loss(project: Path) -> None:
    replace(project / "medtune/train/loss.py", "part.float()", "1.5 * part.float()")


def a_line_of_the_loss_that_changes_nothing(project: Path) -> None:
    replace(
        project / "medtune/train/loss.py",
        "return _cross_entropy(run(), targets), len(targets)",
        "summed = _cross_entropy(run(), targets)\n        return summed, len(targets)",
    )


def a_line_of_the_scoring(project: Path) -> None:
    replace(project / "medtune/evaluate/scoring.py", "if shared == 0:", "if not shared:")


def a_line_of_a_card(project: Path) -> None:
    replace(project / "medtune/evaluate/card.py", "# LoRA adapter for", "# An adapter for")


def a_data_parameter_that_leaves_the_questions(project: Path) -> None:
    edit_params(
        project / "params.yaml",
        {"data.sources.sums.sha256": file_sha256(project / "data/raw/questions.jsonl")},
    )


def parameter(key: str, value: object) -> Callable[[Path], None]:
    return lambda project: edit_params(project / "params.yaml", {key: value})


TUNED = {"finetune", "answer-tuned", "evaluate"}
ANSWERING = {"answer-base", "answer-tuned", "answer-shots"}


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (what_no_result_depends_on, QUICK),
        (versions_that_no_result_depends_on, QUICK),
        (a_launch_file_that_is_not_taken, set()),
        (a_line_of_the_loss, QUICK | TUNED),
        (a_line_of_the_loss_that_changes_nothing, QUICK | {"finetune"}),
        (a_line_of_the_scoring, QUICK | {"evaluate"}),
        (a_line_of_a_card, QUICK | {"evaluate"}),
        (a_data_parameter_that_leaves_the_questions, QUICK | {"prepare"}),
        (parameter("finetune.learning_rate", 0.02), QUICK | TUNED),
        (parameter("evaluate.partial_f1", 0.4), QUICK | {"evaluate"}),
        (parameter("answer.max_new_tokens", 3), QUICK | ANSWERING | {"evaluate"}),
        (parameter("answer.shots", 1), QUICK | ANSWERING | {"evaluate"}),
        (parameter("prompt.system", "Answer."), QUICK | TUNED | ANSWERING),
    ],
    ids=[
        "nothing",
        "tools",
        "another launch file",
        "loss",
        "loss, same adapter",
        "scoring",
        "card",
        "data, same questions",
        "finetune",
        "evaluate",
        "answer",
        "shots",
        "prompt",
    ],
)
def test_an_edit_reruns_what_it_affects(
    project: Path, edit: Callable[[Path], None], expected: set[str]
) -> None:
    edit(project)
    assert repro(project) == expected
    assert repro(project) == set()


def test_a_forced_finetune_that_gives_the_same_adapter_reruns_nothing_else(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    assert repro(project, "--force", "--single-item", "finetune") == {"finetune"}
    assert repro(project) == set()
    assert (project / "dvc.lock").read_bytes() == before


def test_what_a_launcher_around_it_has_set_decides_nothing(project: Path) -> None:
    before = (project / "dvc.lock").read_bytes()
    left = {"ACCELERATE_MIXED_PRECISION": "bf16", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "RANK": "1"}
    stages = ("finetune", "answer-base", "answer-tuned")
    assert repro(project, "--force", "--single-item", *stages, env=left) == set(stages)
    assert (project / "dvc.lock").read_bytes() == before


def test_no_stage_records_the_lock_or_the_code_but_the_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    for entry in entries(read_lock()):
        if entry.path in ("medtune", "stages", "requirements/runtime.txt"):
            assert entry.stage == "code"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"finetune.lora.r": "sixteen"}, "finetune.lora.r is 'sixteen'"),
        ({"evaluate.partial_f1": "half"}, "evaluate.partial_f1 is 'half'"),
        (
            {"evaluate.set_kinds": ["definitoin"]},
            "'definitoin', of which there are no questions; did you mean 'definition'?",
        ),
        ({"answer.launch": "dpp"}, "answer.launch is 'dpp'; did you mean 'ddp'?"),
        ({"compute.device": "cuda"}, "compute.device is 'cuda', but no CUDA device is there"),
        ({"model.sha256": "0" * 64}, "model.sha256 in params.yaml says 000"),
        (
            {"data.sources.sums.path": "data/raw/nothing.jsonl"},
            "code does not depend on data/raw/nothing.jsonl, which params.yaml names",
        ),
        ({"data.sources.sums.columns": {"answer": "anwser"}}, "columns.answer is 'anwser', a column that"),
        ({"finetune.launch": "fsdp"}, "finetune.launch is 'fsdp', which shards a model on GPUs only"),
        ({"finetune.max_length": 8}, "examples have more tokens than finetune.max_length (8), first "),
        ({"answer.shots": 17}, "answer.shots is 17"),
        (
            {"answer.shots": 4, "data.kinds.definition.train": 3},
            "answer.shots is 4, but data.kinds.definition.train is 3; lower the one or raise the other",
        ),
        ({"data.kinds.definition.test": 200}, "data.kinds.definition.test asks for 200 examples, of which "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_mistake_is_told_before_any_output_is_deleted(
    project: Path, changes: dict[str, object], expected: str
) -> None:
    edit_params(project / "params.yaml", changes)
    result = attempt("dvc", "repro", cwd=project)
    assert result.returncode != 0
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    run("git", "checkout", "--quiet", "params.yaml", cwd=project)
    assert run("git", "status", "--porcelain", cwd=project) == ""
    assert repro(project) == set()


def test_a_bad_row_is_told_before_any_output_is_deleted(project: Path) -> None:
    source = project / "data/raw/questions.jsonl"
    good = source.read_text()
    source.write_text(good + '{"id": 1}\n')
    result = attempt("dvc", "repro", cwd=project)
    assert "error: data/raw/questions.jsonl, line 261: " in result.stderr
    assert (project / "data/prepared/train.jsonl").is_file()
    source.write_text(good)
    assert repro(project) == set()


def test_all_mistakes_are_told_at_once(project: Path) -> None:
    edit_params(
        project / "params.yaml", {"finetune.lora.r": 0, "answer.batch_size": 0, "evaluate.partial_f1": 2}
    )
    told = attempt("dvc", "repro", cwd=project).stderr
    for key in ("finetune.lora.r", "answer.batch_size", "evaluate.partial_f1"):
        assert f"error: params.yaml: {key} is " in told
