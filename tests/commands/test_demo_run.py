"""`medtune demo` after a real run: its examples are those of the adapter, or there are none."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from medtune.commands.demo_pair import Pair
from medtune.commands.demo_run import BASE_RESULTS, describe_run, read_evaluated
from medtune.core.errors import MedtuneError
from tests.conftest import edit_params
from tests.project import commit, environment, run

ADAPTER = Path("models/adapter")


@pytest.fixture(scope="module")
def finished(finished_tiny_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "medtune"
    return shutil.copytree(finished_tiny_project, folder, symlinks=True)


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(finished, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def address(finished: Path, tmp_path: Path) -> Iterator[str]:
    command = (sys.executable, "-m", "medtune.commands.cli", "demo", "--port", "0")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=finished, env=environment(), stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout
    line = process.stdout.readline()
    try:
        yield re.findall(r"^models/adapter and its base at (http://127\.0\.0\.1:\d+) ", line)[0]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    said = (tmp_path / "log").read_text()
    assert said.startswith("Not medical advice.") and said.count("\n") == 1


def test_the_page_of_a_run_has_its_examples_its_origin_and_the_answers_of_ask(
    finished: Path, address: str
) -> None:
    with httpx2.Client(base_url=address, trust_env=False, timeout=60) as client:
        page = client.get("/").text
        examples = client.get("/examples").json()["examples"]
        shown = [client.get(f"/examples/{one['number']}").json() for one in examples]
        question = next(one["asked"] for one in shown if one["plain"])
        *_, answered, _ = client.post("/ask", json={"question": question}).text.splitlines()
    for side, name in (("base", "baseline_results"), ("tuned", "evaluation_results")):
        rows = json.loads((finished / f"metrics/{name}.json").read_text())["results"]
        assert [one[side]["text"] for one in shown] == [row["prediction"] for row in rows]
        assert [one[side]["verdict"] for one in shown] == [row["match_type"] for row in rows]
        recorded = next(row["prediction"] for row in rows if row["question"] == question)
        assert json.loads(answered)[side] == recorded
    assert run(sys.executable, "-m", "medtune.commands.cli", "ask", question, cwd=finished) == (
        json.loads(answered)["tuned"] + "\n"
    )
    head = run("git", "rev-parse", "HEAD", cwd=finished).strip()
    assert f"<dt>Commit</dt><dd>{head}</dd>" in page
    assert "<dd>Answer &lt;b&gt;with&lt;/b&gt; the sum alone: {{ 7 }}.</dd>" in page
    weights = json.loads((finished / "models/record.json").read_text())["adapter"]
    assert f"<dd>models/adapter, sha256 {weights}</dd>" in page


def edit_results() -> None:
    path = Path(BASE_RESULTS)
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"incorrect"', '"exact"'))


def other_params() -> None:
    edit_params(Path("params.yaml"), {"finetune.learning_rate": 0.5})
    commit(Path.cwd(), "Never run")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (edit_results, f"{BASE_RESULTS}: not what dvc.lock names"),
        (other_params, "is not of its finetune.*in params.yaml"),
        (Path("metrics/evaluation_results.json").unlink, "metrics/evaluation_results.json is neither here"),
    ],
)
def test_no_verdict_and_no_commit_is_shown_of_a_run_that_is_not_the_adapters(
    here: Path, spoil: Callable[[], None], expected: str
) -> None:
    assert read_evaluated(ADAPTER)
    spoil()
    with pytest.raises(MedtuneError, match=expected) as error:
        read_evaluated(ADAPTER)
    assert "not vouched for" in dict(describe_run(ADAPTER, Pair.load(ADAPTER), str(error.value)))["Commit"]


def test_an_adapter_from_another_folder_and_what_is_not_committed_are_told(here: Path) -> None:
    shutil.copytree(ADAPTER, "copy")
    assert read_evaluated(Path("copy"))
    config = Path("copy/adapter_config.json")
    config.chmod(0o644)
    config.write_text(config.read_text() + "\n")
    with pytest.raises(MedtuneError, match="copy: not the adapter that was evaluated"):
        read_evaluated(Path("copy"))
    pair = Pair.load(ADAPTER)
    head = run("git", "rev-parse", "HEAD", cwd=here).strip()
    assert dict(describe_run(ADAPTER, pair, None))["Commit"] == head
    edit_params(Path("params.yaml"), {"diff.tolerated_loss.accuracy": 0.5})
    told = dict(describe_run(ADAPTER, pair, None))["Commit"]
    assert told == f"{head}, but not as committed: params.yaml"
