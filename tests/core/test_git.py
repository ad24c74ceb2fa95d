from pathlib import Path

import pytest

from medtune.core.errors import MedtuneError
from medtune.core.git import git

IDENTITY = ("-c", "user.name=Test", "-c", "user.email=test@localhost")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    return tmp_path


def test_what_git_refuses_is_one_line_with_its_reason_wherever_it_says_it(repository: Path) -> None:
    with pytest.raises(MedtuneError, match=r"^git rev-parse: Needed a single revision$"):
        git("rev-parse", "--verify", "HEAD")
    # That there is nothing to commit git says as if it were no error.
    with pytest.raises(MedtuneError, match=r"^git commit: .*nothing to commit"):
        git(*IDENTITY, "commit", "--message", "nothing")


def test_a_name_that_is_no_utf_8_is_a_path_all_the_same(repository: Path) -> None:
    name = b"caf\xe9.jsonl".decode(errors="surrogateescape")
    (repository / name).write_text("{}")
    assert git("ls-files", "--others", "-z").split("\0") == [name, ""]


def test_without_git_it_says_so(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    with pytest.raises(MedtuneError, match="git is not installed"):
        git("status")
