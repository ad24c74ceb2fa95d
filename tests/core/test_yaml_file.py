"""YAML means the same to a stage as to DVC, which writes what it read into dvc.lock."""

from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml as dvc_parse_yaml

from medtune.core.errors import MedtuneError
from medtune.core.yaml_file import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "kinds: {yes: 1, no: 2, on: 3, off: 4, y: 5}",
            {"kinds": {"yes": 1, "no": 2, "on": 3, "off": 4, "y": 5}},
        ),
        ("set_kinds: [yes, no]", {"set_kinds": ["yes", "no"]}),
        ("a: true\nb: False\nc: TRUE", {"a": True, "b": False, "c": True}),
        ("a: 010\nb: 0o10\nc: 0x10", {"a": 10, "b": 8, "c": 16}),
        (
            "a: 5e-4\nb: 1E3\nc: -2.5e+1\nd: 5e\ne: 1.",
            {"a": 5e-4, "b": 1000.0, "c": -25.0, "d": "5e", "e": 1.0},
        ),
        ("a: 1_000\nb: 12:30:45", {"a": 1000, "b": "12:30:45"}),
        ("base: &base {r: 8, alpha: 16}\nlora:\n  <<: *base\n  r: 4", None),
        ("a: null\nb: ~\nc:\nd: 'null'", {"a": None, "b": None, "c": None, "d": "null"}),
        ("a: >\n  two\n  lines\nb: |\n  two\n  lines\n", {"a": "two lines\n", "b": "two\nlines\n"}),
        ("%YAML 1.1\n---\na: yes\n", {"a": "yes"}),
        ("2: one\ntrue: yes", {2: "one", True: "yes"}),
    ],
)
def test_a_text_means_what_it_means_to_dvc(text: str, expected: dict[str, object] | None) -> None:
    found = parse_yaml(text, Path("params.yaml"))
    # repr: to Python True is 1.
    assert repr(found) == repr(dvc_parse_yaml(text, Path("params.yaml")))
    if expected is not None:
        assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"seed: 1\nseed: 2\n", "file.yaml, line 2: the key 'seed' stands twice"),
        (b"a: [\n", "file.yaml, line 2: "),
        (b"a: *b\n", "file.yaml, line 1: found undefined alias"),
        (b"- 1\n", "file.yaml: expected a mapping"),
        (b"", "file.yaml: expected a mapping"),
        (b"\xff\xfe", "file.yaml: not readable as YAML"),
        (b"a: \x00", "file.yaml: not readable as YAML"),
    ],
)
def test_what_is_no_mapping_is_one_clear_error(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(MedtuneError) as error:
        read_yaml(path)
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(expected)
    assert len(str(error.value).splitlines()) == 1
