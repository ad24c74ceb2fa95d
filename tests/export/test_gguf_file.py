"""A GGUF is right if llama.cpp says what transformers says of the same weights and tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from medtune.core.errors import MedtuneError
from medtune.export.gguf_file import LLAMA_3, PRECISIONS, QWEN_2, Origin, require_writable, write_gguf
from medtune.export.llama_cpp import LlamaCpp, llama_cpp
from tests.conftest import CHATML, TEXT
from tests.export.trained import SHARP, build_llama

ORIGIN = Origin("tiny", "mit", "org/tiny")
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
END = SPECIAL.index("<|eot_id|>")
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # So short that some of the tiny head's frequencies are scaled, some are not and some lie between.
    "original_max_position_embeddings": 256,
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
HARD = ["What is 12345?", "it's  a\n\n line", "Käse, naïve 数学", " leading", "I'LL 3.14 (x)!\t"]


def cut_by(pattern: str, model: models.BPE, special: list[str]) -> Tokenizer:
    """Byte-level BPE that cuts a text by a pattern first, trained on a few words and numbers."""
    tokenizer = Tokenizer(model)
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=390,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT, "123 345 12"], trainer)
    return tokenizer


def llama_3_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 3's files have it: three digits at a time, whole words first, a BOS before every text."""
    tokenizer = cut_by(LLAMA_3, models.BPE(ignore_merges=True), SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        chat_template=TEMPLATE,
    )


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    """As Qwen's files have it: composed, cut with digits one by one, with no BOS."""
    tokenizer = cut_by(QWEN_2, models.BPE(), ["<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=CHATML)


@pytest.fixture(scope="module")
def llama_3() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    # A head of 32 numbers, and an output head of its own.
    model = build_llama(hidden_size=128, rope_parameters=SCALED, tie_word_embeddings=False)
    return model, llama_3_tokenizer()


@pytest.fixture(scope="module")
def served(
    llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LlamaCpp]:
    model, tokenizer = llama_3
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write_gguf(file, model.state_dict(), model.config, tokenizer, "f16", ORIGIN, END)
    with llama_cpp(file, 512, threads=1) as runtime:
        yield runtime


def log_likelihoods(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> list[float]:
    """Of each token of an answer, in float32."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(answer).unsqueeze(1)).flatten().tolist()


def test_a_scaled_llama_3_is_as_likely_in_llama_cpp_to_say_anything(
    llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast], served: LlamaCpp
) -> None:
    model, _ = llama_3
    torch.manual_seed(2)
    # So long that scaled positions matter.
    prompt, answer = torch.randint(5, 390, (400,)).tolist(), torch.randint(5, 390, (6,)).tolist()
    [found] = served.likelihoods([prompt], [answer])
    *text, end = log_likelihoods(model, prompt, answer)
    assert found.text == pytest.approx(sum(text), abs=0.05)
    assert found.end == pytest.approx(end, abs=0.05)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "smollm3"])
def test_another_family_is_as_likely_in_llama_cpp_to_say_anything(
    kind: str, tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(0)
    # Four layers: of SmolLM 3's the fourth rotates nothing.
    sizes = {**SHARP, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    head = 16 if kind == "qwen2" else 32
    config = AutoConfig.for_model(
        kind, **sizes, head_dim=head, vocab_size=400, initializer_range=0.2, pad_token_id=None
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if weights.ndim == 1:
                # Biases begin as zeros and norms as ones, and none would be missed.
                weights += torch.randn_like(weights) * (2 if name.endswith("bias") else 0.3)
    for precision in PRECISIONS:
        file = tmp_path / f"{precision}.gguf"
        write_gguf(file, model.state_dict(), config, chatml_tokenizer, precision, ORIGIN, 2)
        prompt, answer = torch.randint(5, 390, (200,)).tolist(), torch.randint(5, 390, (6,)).tolist()
        # The first byte of a character of two.
        answer[1] = chatml_tokenizer.convert_tokens_to_ids("Ã")
        with llama_cpp(file, 256, threads=1) as runtime:
            [found] = runtime.likelihoods([prompt], [answer])
        *text, end = log_likelihoods(model, prompt, answer)
        close = {"f16": 0.05, "q8_0": 2.0}[precision]
        assert found.text == pytest.approx(sum(text), abs=close)
        assert found.end == pytest.approx(end, abs=close)


def test_the_tokens_of_a_qwen_are_those_of_its_tokenizer(tmp_path: Path) -> None:
    tokenizer = qwen_tokenizer()
    model = build_llama(vocab_size=len(tokenizer))
    file = tmp_path / "model.gguf"
    write_gguf(file, model.state_dict(), model.config, tokenizer, "f16", ORIGIN, 1)
    assert gguf.GGUFReader(file).fields["tokenizer.ggml.pre"].contents() == "qwen2"
    conversations = [[{"role": "user", "content": text}] for text in HARD]
    with llama_cpp(file, 256, threads=1) as runtime:
        for messages, ids in zip(conversations, runtime.prompts(conversations), strict=True):
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            assert ids == tokenizer(text).input_ids


def test_a_scaled_llama_3_is_not_one_without_scaling(
    llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast],
) -> None:
    model, _ = llama_3
    plain = build_llama(
        hidden_size=128,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
    )
    plain.load_state_dict(model.state_dict())
    torch.manual_seed(2)
    prompt, answer = torch.randint(5, 390, (400,)).tolist(), torch.randint(5, 390, (6,)).tolist()
    both = [sum(log_likelihoods(one, prompt, answer)) for one in (model, plain)]
    assert abs(both[0] - both[1]) > 1


def test_llama_cpp_writes_the_prompts_that_the_tokenizer_writes(
    llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast], served: LlamaCpp
) -> None:
    _, tokenizer = llama_3
    conversations = [[{"role": "user", "content": text}] for text in HARD]
    conversations.append([{"role": "system", "content": "Be brief."}, *conversations[0]])
    for messages, ids in zip(conversations, served.prompts(conversations), strict=True):
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        # The template's BOS is the only one.
        assert ids == tokenizer(text, add_special_tokens=False).input_ids


def test_the_order_in_which_queries_and_keys_are_rotated_matters(
    tmp_path: Path,
    llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, tokenizer = llama_3
    monkeypatch.setattr("medtune.export.gguf_file.interleaved", lambda matrix, _: matrix)
    write_gguf(tmp_path / "wrong.gguf", model.state_dict(), model.config, tokenizer, "f16", ORIGIN, END)
    prompt, answer = list(range(5, 60)), [70, 80, 90]
    with llama_cpp(tmp_path / "wrong.gguf", 128, threads=1) as runtime:
        [found] = runtime.likelihoods([prompt], [answer])
    assert abs(found.text + found.end - sum(log_likelihoods(model, prompt, answer))) > 0.5


def test_the_file_names_its_licence_and_base_and_no_place(
    tmp_path: Path, llama_3: tuple[LlamaForCausalLM, PreTrainedTokenizerFast]
) -> None:
    model, tokenizer = llama_3
    file = tmp_path / "model.gguf"
    write_gguf(file, model.state_dict(), model.config, tokenizer, "q8_0", ORIGIN, END)
    fields = gguf.GGUFReader(file).fields
    assert fields["general.license"].contents() == "mit"
    assert fields["tokenizer.ggml.pre"].contents() == "llama-bpe"
    assert fields["tokenizer.ggml.add_bos_token"].contents() is True
    # The end of a turn, which was trained, and not the end of a text.
    assert fields["tokenizer.ggml.eos_token_id"].contents() == END
    assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"model_type": "mistral"}, "model_type is 'mistral'; accepted: llama, qwen2, qwen3, smollm3"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window is True"),
        ({"model_type": "qwen2", "head_dim": 32}, "head_dim is 32; accepted: 16"),
        ({"model_type": "qwen3", "rope_parameters": SCALED}, "rope_type is 'llama3'; accepted: default, lin"),
        ({"model_type": "smollm3", "no_rope_layers": [1, 0]}, r"no_rope_layers is \[1, 0\]"),
        (
            {"model_type": "smollm3", "layer_types": ["full_attention", "sliding_attention"]},
            r"layer_types is \['full_attention', 'sliding_attention'\]",
        ),
        ({"rope_parameters": {**SCALED, "low_freq_factor": 6.0}}, "low_freq_factor is 6.0; accepted: less"),
    ],
)
def test_a_model_that_could_not_be_written_right_is_refused_by_name(
    chatml_tokenizer: PreTrainedTokenizerFast, changes: dict[str, object], named: str
) -> None:
    config: Any = build_llama(**changes).config
    config.model_type = changes.get("model_type", "llama")
    with pytest.raises(MedtuneError, match=named):
        require_writable(config, chatml_tokenizer)


OVERLAPPING = {
    "overlap within": ["abc", "bc"],
    "overlap at an end": ["abc", "cd"],
    # The one that ends as both begin is not to hide behind itself.
    "overlap beside itself": ["xy", "xzx"],
}


def other_tokenizer(name: str) -> PreTrainedTokenizerBase:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "sentencepiece":
        tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[], byte_fallback=True))
    elif name == "unigram":
        tokenizer = Tokenizer(models.Unigram([("a", 0.0)]))
    else:
        tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
        tokenizer.pre_tokenizer = byte_level if name == "normalised" else pre_tokenizers.Whitespace()
        if name == "normalised":
            tokenizer.normalizer = normalizers.Lowercase()
        if name == "whole words":
            tokenizer.pre_tokenizer = byte_level
            tokenizer.add_tokens([AddedToken("mg", single_word=True)])
        if name.startswith("overlap"):
            tokenizer.pre_tokenizer = byte_level
            tokenizer.add_tokens(OVERLAPPING[name])
        if name in ("dropout", "unknown"):
            tokenizer.pre_tokenizer = byte_level
            options = {"dropout": 0.5} if name == "dropout" else {"unk_token": "a"}
            tokenizer.model = models.BPE(vocab={"a": 0}, merges=[], **options)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sentencepiece", r"is SentencePiece's \(Llama 2, Mistral\); accepted: byte-level BPE"),
        ("unigram", "is Unigram"),
        ("normalised", r"rewrites a text first \(Lowercase\); accepted: none, and NFC"),
        ("whole words", "token 'mg' has single_word, which llama.cpp does not heed"),
        ("whitespace", "cuts a text in a way that is not known"),
        ("overlap within", "added tokens 'abc' and 'bc' overlap"),
        ("overlap at an end", "added tokens 'abc' and 'cd' overlap"),
        ("overlap beside itself", "added tokens 'xzx' and 'xy' overlap"),
        ("dropout", "has dropout 0.5"),
        ("unknown", "lacks some bytes"),
    ],
)
def test_a_tokenizer_that_could_not_be_written_right_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(MedtuneError, match=reason):
        require_writable(build_llama().config, other_tokenizer(name))


def test_a_file_that_llama_cpp_cannot_load_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more")
    with (
        pytest.raises(MedtuneError, match=r"broken\.gguf: llama\.cpp cannot load it"),
        llama_cpp(tmp_path / "broken.gguf", 64, threads=1),
    ):
        raise AssertionError


def test_a_weight_that_16_bits_cannot_hold_is_refused(
    tmp_path: Path, chatml_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build_llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0, 0] = 1e6
    with pytest.raises(MedtuneError, match="float16 cannot hold"):
        write_gguf(tmp_path / "x.gguf", model.state_dict(), model.config, chatml_tokenizer, "f16", ORIGIN, 2)
