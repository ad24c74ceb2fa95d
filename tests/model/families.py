"""Tokenizers and chat templates in the manner of model families, small enough to build in a test.

The templates write what those of the families write, for text messages; the tokenizers have their models,
normalizers and flags. Real files list no additional special tokens, so these do not either.
"""

import json
from copy import deepcopy
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.conftest import CHATML, LLAMA_3, TEXT

_SYSTEM = "{% if messages[0]['role'] == 'system' %}"

TINYLLAMA = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
LLAMA_2 = (
    _SYSTEM + "{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
GEMMA_3 = (
    "{{ bos_token }}"
    + _SYSTEM
    + "{% set first_user_prefix = messages[0]['content'] + '\n\n' %}{% set loop_messages = messages[1:] %}"
    "{% else %}{% set first_user_prefix = '' %}{% set loop_messages = messages %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI_3 = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
QWEN_3 = (
    _SYSTEM + "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% set ns = namespace(last=0) %}"
    "{% for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}"
    "{% elif message.role == 'assistant' %}{% set content = message.content.split('</think>')[-1] %}"
    "{% if loop.index0 > ns.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + content.lstrip('\n') }}"
    "{% else %}{{ '<|im_start|>assistant\n' + content }}{% endif %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)
SMOLLM_3 = (
    "{% if enable_thinking is not defined %}{% set enable_thinking = true %}{% endif %}"
    "{% set mode = '/think' if enable_thinking else '/no_think' %}"
    + _SYSTEM
    + "{% set system_message = messages[0].content %}{% if '/no_think' in system_message %}"
    "{% set mode = '/no_think' %}{% endif %}{% set messages = messages[1:] %}{% else %}"
    "{% set system_message = '' %}{% endif %}"
    "{{ '<|im_start|>system\n## Metadata\n\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning ' }}"
    "{{ 'Mode: ' + mode + '\n\n' + system_message.replace('/no_think', '').rstrip() + '\n\n<|im_end|>\n' }}"
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}{% else %}{% generation %}"
    "{% if mode == '/think' %}{{ '<|im_start|>assistant\n' + message.content.lstrip('\n') + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + message.content.lstrip('\n') }}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{% if mode == '/think' %}{{ '<|im_start|>assistant\n' }}"
    "{% else %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% else %}"
    "{{ '<|Assistant|>' + message['content'].split('</think>')[-1] + '<|end_of_sentence|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)


def byte_level(
    template: str, special: list[str], eos: str, *, plain: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """Byte-level BPE as of Llama 3, Qwen and SmolLM; `plain` are added tokens that are not special."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in plain])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=eos, pad_token=eos, chat_template=template
    )


def sentencepiece(
    template: str, special: list[str], *, legacy: bool, strips: bool = False, added: tuple[str, ...] = ()
) -> PreTrainedTokenizerFast:
    """BPE over SentencePiece's marks with bytes to fall back on, as of Llama 2, Mistral, Gemma and Phi 3.

    `legacy` marks the first word after every control token, else that of a whole text alone. `strips`:
    special tokens take the blanks after them away. `added` are tokens that are not special.
    """
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>", *special, *bytes_],
        initial_alphabet=list("▁▁[]/ISTN<>|:."),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT, "[INST] [/INST] <|user|> <|assistant|>"] * 3, trainer)
    # Trained as special, as the trainer has no other way; bytes are ordinary entries of the vocabulary.
    state = models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True, **_entries(tokenizer))
    tokenizer = Tokenizer(state)
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, normalized=False, rstrip=strips) for name in ["<unk>", "<s>", "</s>", *special]]
    )
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in added])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        chat_template=template,
    )


def _entries(tokenizer: Tokenizer) -> dict[str, Any]:
    """Vocabulary and merges of a BPE."""
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(pair) for pair in model["merges"]]}


_CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA_3 = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def build(family: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a family, with its chat template."""
    return deepcopy(_build(family))


@cache
def _build(family: str) -> PreTrainedTokenizerFast:
    match family:
        case "llama-2":
            return sentencepiece(LLAMA_2, [], legacy=True)
        case "tinyllama":
            return sentencepiece(TINYLLAMA, [], legacy=True)
        case "tinyllama, not legacy":
            return sentencepiece(TINYLLAMA, [], legacy=False)
        case "mistral 0.1":
            return sentencepiece(MISTRAL, [], legacy=True)
        case "mistral 0.3":
            return sentencepiece(MISTRAL, ["[INST]", "[/INST]"], legacy=False)
        case "gemma 3":
            return sentencepiece(
                GEMMA_3, ["<start_of_turn>", "<end_of_turn>"], legacy=False, added=("\n", "\n\n", "  ")
            )
        case "phi 3":
            special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
            return sentencepiece(PHI_3, special, legacy=True, strips=True)
        case "llama 3":
            return byte_level(LLAMA_3, _LLAMA_3, "<|end_of_text|>")
        case "qwen 2.5":
            return byte_level(CHATML, _CHATML, "<|im_end|>", plain=("<tool_call>",))
        case "qwen 3":
            return byte_level(QWEN_3, _CHATML, "<|im_end|>", plain=("<think>", "</think>"))
        case "smollm3":
            return byte_level(SMOLLM_3, _CHATML, "<|im_end|>", plain=("<think>", "</think>"))
        case "r1":
            special = ["<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>"]
            return byte_level(R1, special, "<|end_of_sentence|>", plain=("<think>", "</think>"))
    raise AssertionError(family)
