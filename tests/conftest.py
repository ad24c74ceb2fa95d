"""A tokenizer and a Llama small enough to build in a test, in the styles of SmolLM2 and Llama 3."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from medtune.core.examples import Example
from medtune.core.yaml_file import read_yaml
from medtune.model.attention import implementation
from medtune.train.params import FinetuneParams

ROOT = Path(__file__).resolve().parent.parent


def edit_params(path: Path, changes: dict[str, object]) -> None:
    """Set dotted keys of a params.yaml (its comments are lost)."""
    content = read_yaml(path)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = content
        for parent in parents:
            place = place[parent]
        place[last] = value
    path.write_text(yaml.safe_dump(content))


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Renders the text of Llama 3.2's own: a date in every prompt, today's unless `date_string` is given.
LLAMA_3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if message.role in ("tool", "ipython") or "tool_calls" in message %}
        {{- raise_exception("this copy of the template leaves out tool calls") }}
    {%- endif %}
    {{- "<|start_header_id|>" + message["role"] + "<|end_header_id|>\\n\\n" }}
    {{- message["content"] | trim + "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""
TEXT = [
    "Which organ systems does fever affect? nervous system; musculoskeletal system",
    "What is the medical term for long fingers? Arachnodactyly. system user assistant Today Date",
]


def build_tokenizer(template: str, special: list[str], bos: str, eos: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        additional_special_tokens=special,
        chat_template=template,
    )


@pytest.fixture(scope="session")
def chatml_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return build_tokenizer(CHATML, special, "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="session")
def llama3_tokenizer() -> PreTrainedTokenizerFast:
    special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    return build_tokenizer(LLAMA_3, special, "<|begin_of_text|>", "<|eot_id|>")


def build_tiny_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).eval()
    model.set_attn_implementation(implementation("eager"))
    return model


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    return build_tiny_llama()


@pytest.fixture(scope="session")
def finetune_params() -> FinetuneParams:
    return FinetuneParams.load(ROOT / "params.yaml")


def set_today(monkeypatch: pytest.MonkeyPatch, day: datetime) -> None:
    """Chat templates that ask for the day get this one."""

    class Clock:
        @staticmethod
        def now() -> datetime:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def example(**changes: object) -> Example:
    fields: dict[str, object] = {
        "id": "1",
        "question": "What is fever?",
        "answer": "A high temperature.",
        "kind": "definition",
        "group": "1",
    }
    return Example.model_validate(fields | changes)


EARLIER = [
    {"role": "user", "content": "Is fever a disease?"},
    {"role": "assistant", "content": "No."},
    {"role": "user", "content": "A symptom?"},
    {"role": "assistant", "content": "Yes, of many."},
]
"""Two questions and answers before an example's own."""


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository at reduced sizes with one finished and committed run. Copy it; leave it as it is."""
    from tests.project import create_project

    return _finished_once(tmp_path_factory, "reduced", lambda top: create_project(top / "medtune"))


@pytest.fixture(scope="session")
def finished_tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a tiny model, in the folder `base` beside it, and sums. Copy it; leave it as it is."""
    from tests.tiny import build_tiny_base, create_tiny_project

    def create(top: Path) -> Path:
        params = {"answer.examples_per_kind": 8, "answer.max_new_tokens": 8}
        return create_tiny_project(top / "medtune", build_tiny_base(top / "base"), params, prepared=False)

    return _finished_once(tmp_path_factory, "tiny", create)


def _finished_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, create: Callable[[Path], Path]
) -> Path:
    """A project that is created and run by the first of the processes of the tests that needs it."""
    from tests.project import STAGES, commit, repro

    top = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    place, done = top / f"finished-{name}", top / f"finished-{name}.done"
    with FileLock(top / f"finished-{name}.lock"):
        if not done.exists():
            place.mkdir()
            folder = create(place)
            assert repro(folder) == set(STAGES)
            commit(folder, "A run")
            done.touch()
    return place / "medtune"
