import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from medtune.answer.answerer import Answerer
from medtune.core.errors import MedtuneError
from medtune.core.hashing import file_sha256
from medtune.export import exporting, folders
from medtune.export.checked import describe_check
from medtune.export.drift import is_below
from medtune.export.exporting import Options, export
from medtune.export.places import FORMATS, METRICS, folder_sha256, partial_folder, require_passed
from medtune.export.trained import find_trained
from tests.conftest import edit_params
from tests.evaluate.test_card import PROMPT
from tests.export.trained import CARD, ROUNDED, SHARP, create_trained, evaluate, lock, questions, written
from tests.hub import model_hub
from tests.model import families


@pytest.fixture
def trained(
    tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> Path:
    return create_trained(tmp_path / "here", chatml_tokenizer, chdir=monkeypatch.chdir)


def test_every_format_answers_in_its_runtime_as_the_adapter_did(trained: Path) -> None:
    found = export(FORMATS, Options())
    require_passed(found, [*FORMATS])
    assert found == written(METRICS)
    forms = {form: one for kind in FORMATS for form, one in found["formats"][kind]["forms"].items()}
    assert list(forms) == ["merged", "gguf-f16", "gguf-q8_0", "adapter"]
    for one in forms.values():
        assert one["questions"] == 5
        assert one["prompts"] == {"identical": 1, "without_system": 1}
    for name in ("merged", "adapter"):
        assert forms[name]["log_likelihood"]["largest"] < 1e-3
        assert forms[name]["answers"]["identical"] == 1
    # Sixteen bits of weights, on the way from float32.
    assert forms["gguf-f16"]["log_likelihood"]["largest"] < 0.05
    for kind in FORMATS:
        assert found["formats"][kind]["sha256"] == folder_sha256(Path("models/export") / kind)


def test_the_day_and_the_prompt_of_the_training_are_in_every_template(
    tmp_path: Path, llama3_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_trained(tmp_path / "here", llama3_tokenizer, chdir=monkeypatch.chdir)
    found = export(FORMATS, Options())
    require_passed(found, [*FORMATS])
    for kind in FORMATS:
        for one in found["formats"][kind]["forms"].values():
            assert one["prompts"] == {"identical": 1, "without_system": 1}


def test_a_qwen_is_exported_in_every_format_and_answers_without_thinking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = families.byte_level(families.QWEN_3, ["<|im_start|>", "<|im_end|>"], "<|im_end|>")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model("qwen3", **SHARP, **heads, vocab_size=len(tokenizer), initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(config)
    options = {"prompt.template_options": {"enable_thinking": False}}
    create_trained(tmp_path / "here", tokenizer, model, options, chdir=monkeypatch.chdir)
    found = export(FORMATS, Options())
    require_passed(found, [*FORMATS])
    for kind in FORMATS:
        for one in found["formats"][kind]["forms"].values():
            assert one["prompts"] == {"identical": 1, "without_system": 1}
    assert (
        GGUFReader("models/export/gguf/model-f16.gguf").fields["general.architecture"].contents() == "qwen3"
    )


@pytest.mark.parametrize(
    "asked",
    [
        lambda: find_trained().settings.prompt,
        lambda: find_trained(foreign=True).settings.prompt,
        lambda: Answerer.load().encoder.encode_prompt(questions()[0]),
    ],
)
def test_an_adapter_is_asked_as_it_was_trained_and_it_is_told(
    asked: Callable[[], object], trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    as_trained = asked()
    assert "another prompt" not in capsys.readouterr().err
    edit_params(trained / "params.yaml", {"prompt.system": "Another one.", "prompt.date": "01 Jan 2020"})
    assert asked() == as_trained
    told = "asked as models/adapter was trained: params.yaml has another prompt (prompt.system, prompt.date)"
    assert told in capsys.readouterr().err


def test_equal_adapters_are_exported_to_equal_bytes(trained: Path) -> None:
    made = find_trained()
    digests = []
    for _ in range(2):
        exporting._make(made, FORMATS, Options())
        digests.append([folder_sha256(partial_folder(kind)) for kind in FORMATS])
    assert digests[0] == digests[1]


def test_what_is_merged_loads_in_one_line_and_names_no_place_of_this_machine(trained: Path) -> None:
    edit_params(trained / "params.yaml", {"export.merged": ROUNDED})
    export(["merged"], Options(dtype="bfloat16"))
    model = AutoModelForCausalLM.from_pretrained("models/export/merged")
    tokenizer = AutoTokenizer.from_pretrained("models/export/merged")
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    for file in Path("models/export/merged").iterdir():
        assert str(trained).encode() not in file.read_bytes()
        assert b"./base" not in file.read_bytes()


def test_older_versions_of_transformers_read_what_they_know_by_other_names(trained: Path) -> None:
    export(["merged", "adapter"], Options())
    config = written(Path("models/export/merged/config.json"))
    assert config["rope_theta"] == 10000.0
    assert config["rope_scaling"] is None
    for kind in ("merged", "adapter"):
        tokenizer = written(Path(f"models/export/{kind}/tokenizer_config.json"))
        assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
        assert not {"backend", "is_local", "local_files_only"} & set(tokenizer)


def test_an_adapter_names_a_base_that_a_loader_can_resolve(trained: Path) -> None:
    export(["adapter"], Options())
    assert written(Path("models/export/adapter/adapter_config.json"))["base_model_name_or_path"] == "org/tiny"
    edit_params(trained / "params.yaml", {"export.base_model": None})
    with pytest.raises(MedtuneError, match=r"export\.base_model is null"):
        export(["adapter"], Options())


def test_an_export_that_drifts_fails_and_does_not_stand_as_if_it_were_good(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(["gguf", "merged"], Options())
    monkeypatch.setattr("medtune.export.gguf_file.interleaved", lambda matrix, _: matrix)
    found = export(["gguf"], Options())
    with pytest.raises(MedtuneError, match=r"gguf-f16: .*log-likelihood is .* nats off"):
        require_passed(found, ["gguf"])
    assert not Path("models/export/gguf").exists()
    assert Path("models/export/refused-gguf").is_dir()
    # What was not made anew is as it was.
    assert found["formats"]["merged"]["passed"]
    assert Path("models/export/merged").is_dir()


def test_a_template_that_writes_other_prompts_is_found_by_its_tokens(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folders.write_merged

    def with_other_template(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        template = Path("models/export/.merged.partial/chat_template.jinja")
        template.write_text(template.read_text().replace("<|im_end|>", "<|im_end|> "))

    monkeypatch.setattr(exporting, "write_merged", with_other_template)
    found = export(["merged"], Options())
    assert found["formats"]["merged"]["forms"]["merged"]["prompts"]["identical"] == 0
    with pytest.raises(MedtuneError, match="identical prompts"):
        require_passed(found, ["merged"])


def test_damaged_weights_are_found_by_their_answers(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = exporting.merged

    def damaged(*arguments: object) -> object:
        model = merge(*arguments)  # type: ignore[arg-type]
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight[0] = 0
        return model

    monkeypatch.setattr(exporting, "merged", damaged)
    with pytest.raises(MedtuneError, match="nats off"):
        require_passed(export(["merged"], Options()), ["merged"])


@pytest.mark.parametrize(
    ("differing", "questions", "least", "below"),
    [
        (0, 1, 1.0, False),
        (1, 1000, 1.0, True),
        (1, 16, 0.95, False),
        (5, 100, 0.95, False),
        (12, 100, 0.95, True),
        (4, 4, 0.95, True),
        (4, 4, 0.0, False),
    ],
)
def test_of_few_questions_one_may_differ_unless_none_may(
    differing: int, questions: int, least: float, below: bool
) -> None:
    assert is_below(differing, questions, least) is below


def test_the_adapter_of_no_run_is_refused_unless_it_is_said_to_be_foreign(trained: Path) -> None:
    weights = Path("models/adapter/adapter_model.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(MedtuneError, match=r"adapter_model.safetensors: not the one that dvc.lock names"):
        export(["adapter"], Options())
    lock(trained)
    with pytest.raises(MedtuneError, match="the record of another adapter"):
        export(["adapter"], Options())
    with pytest.raises(MedtuneError, match="its tensors are not those that were trained"):
        export(["adapter"], Options(foreign=True))
    # One from elsewhere has no word of medtune's in its header.
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    found = export(["adapter"], Options(foreign=True))
    assert found["foreign"] is True
    assert not Path("models/export/adapter/record.json").exists()


def test_without_an_adapter_nothing_begins(trained: Path) -> None:
    shutil.rmtree("models/adapter")
    with pytest.raises(MedtuneError, match="run `dvc repro` to train it"):
        export(["merged"], Options())


@pytest.mark.parametrize("evaluated", [True, False])
def test_the_hubs_own_check_accepts_every_card(
    trained: Path, monkeypatch: pytest.MonkeyPatch, evaluated: bool
) -> None:
    if evaluated:
        evaluate(trained)
    found = export(FORMATS, Options())
    with model_hub() as hub:
        hub.writers.add("")
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        for kind in FORMATS:
            card: Any = ModelCard.load(Path("models/export") / kind / "README.md")
            card.validate()
            assert card.data.to_dict()["base_model"] == "org/tiny"
            for once in ("Not medical advice", "\n## How it was asked\n", "\nAnswer the question.\n"):
                assert card.text.count(once) == 1
            assert describe_check(found["formats"][kind]["forms"]) in card.text
            assert ("Exact answers to the test questions" in card.text) is evaluated
            assert ("Attribution of the data." in card.text) is evaluated
            # The figures are those of the adapter's weights, which one format alone has as they are.
            assert bool(card.data.eval_results) is (evaluated and kind == "adapter")
        with pytest.raises(ValueError, match="license"):
            ModelCard("---\nlicense: my-own\nbase_model: org/tiny\n---\n").validate()


def test_a_card_that_is_not_the_evaluations_own_or_of_another_adapter_is_refused(trained: Path) -> None:
    evaluate(trained)
    text = CARD.read_text()
    CARD.write_text(text.replace("Exact answers", "99% exact answers"))
    with pytest.raises(MedtuneError, match=r"adapter/README\.md: not the one that dvc\.lock names"):
        find_trained()
    # As after a training without an evaluation.
    CARD.write_text(text.replace(file_sha256(CARD.with_name("adapter_model.safetensors")), "0" * 64))
    lock(trained)
    with pytest.raises(MedtuneError, match="the card of another adapter; run `dvc repro`"):
        find_trained()
    CARD.unlink()
    with pytest.raises(MedtuneError, match=r"adapter/README\.md: not the one that dvc\.lock names"):
        find_trained()
    lock(trained)
    CARD.write_text(text)
    with pytest.raises(MedtuneError, match="no output of evaluate"):
        find_trained()


def test_headings_in_what_a_user_writes_are_no_sections_of_the_card(trained: Path) -> None:
    fence = "## Results\nAll right.\n```\n## Training data\nNone."
    evaluate(trained, prompt={**PROMPT, "system": fence})
    card = find_trained().card
    assert card is not None
    assert card.sections["Results"].startswith("Exact answers to the test questions")
    assert card.sections["Training data"] == "Attribution of the data."


def test_files_that_change_while_they_are_asked_do_not_pass(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*arguments: object) -> object:
        Path("models/export/.merged.partial/config.json").write_text("{}")
        return {}

    monkeypatch.setattr(exporting, "measure", measure)
    with pytest.raises(MedtuneError, match=r"\.merged\.partial: changed while it was asked"):
        export(["merged"], Options())
    assert not Path("models/export/merged").exists()


def test_an_adapter_of_a_base_in_four_bits_is_compared_with_what_was_evaluated_on_four_bits(
    tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"compute.quantization": "nf4", "export.merged": ROUNDED}
    create_trained(tmp_path / "here", chatml_tokenizer, params=params, chdir=monkeypatch.chdir)
    found = export(["merged"], Options())["formats"]["merged"]["forms"]["merged"]
    assert found["prompts"]["identical"] == 1
    assert found["log_likelihood"]["mean"] > 0.01
    assert "Trained and evaluated on it in nf4" in Path("models/export/merged/README.md").read_text()
