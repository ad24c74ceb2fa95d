"""What asks an export as its users will: transformers and PEFT from their folders, llama.cpp from a GGUF.

None of medtune's own code for attention, batches or prompts is used here: a runtime writes its own prompts
and generates in its own way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

Message = dict[str, str]
"""A turn: `role` and `content`."""
TOGETHER = 16
"""Questions that transformers is asked at once."""


@dataclass(frozen=True)
class Said:
    """An answer's text and the number of its tokens; whether the length limit cut it off."""

    text: str
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a text after a prompt, in nats, and of the end token after both."""

    text: float
    end: float


class Runtime(Protocol):
    """Something that an export is loaded into."""

    name: str

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """The tokens of conversations, by its own template and tokenizer, up to the answer."""

    def answers(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Said]:
        """What it says to prompts in tokens, greedily."""

    def likelihoods(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Likelihood]:
        """How likely answers in tokens are, the last token of each being the one that ends it."""


class Transformers:
    """A folder in transformers, as its card says to load it; with `base`, an adapter on that in PEFT."""

    def __init__(self, folder: Path, device: torch.device, base: Path | None = None) -> None:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            base or folder, dtype="auto", local_files_only=True, trust_remote_code=False
        )
        loaded.to(device)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
        self._model = PeftModel.from_pretrained(loaded, str(folder)) if base else loaded
        self._model.eval()
        self._end = self._tokenizer.eos_token_id
        self.name = f"transformers {transformers.__version__}"
        if base:
            import peft

            self.name = f"peft {peft.__version__}"
            # An adapter's folder has no settings of generation: its tokenizer knows what ends an answer.
            loaded.generation_config = GenerationConfig(eos_token_id=self._end)

    def prompts(self, conversations: Sequence[Sequence[Message]]) -> list[list[int]]:
        """As `Runtime`."""
        return [
            list(
                self._tokenizer.apply_chat_template(
                    list(messages), add_generation_prompt=True, return_dict=True
                )["input_ids"]
            )
            for messages in conversations
        ]

    def answers(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Said]:
        """As `Runtime`."""
        found: dict[int, Said] = {}
        for part in _parts(prompts):
            found |= dict(zip(part, self._generate([prompts[i] for i in part], max_new_tokens), strict=True))
        return [found[index] for index in range(len(prompts))]

    def likelihoods(self, prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> list[Likelihood]:
        """As `Runtime`."""
        rows = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
        found: dict[int, Likelihood] = {}
        for part in _parts(rows):
            # A token is predicted at the one before it; nothing is after the last.
            ids, mask = self._padded([rows[index][:-1] for index in part])
            kept = max(len(answers[index]) for index in part)
            with torch.inference_mode():
                logits = self._model(
                    input_ids=ids,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                    logits_to_keep=kept,
                ).logits
            for own, index in zip(logits.float().cpu(), part, strict=True):
                answer = torch.tensor(answers[index])
                odds = own[-len(answer) :].log_softmax(-1)
                values = odds.gather(1, answer.unsqueeze(1)).flatten().tolist()
                found[index] = Likelihood(sum(values[:-1]), values[-1])
        return [found[index] for index in range(len(rows))]

    def _generate(self, prompts: Sequence[list[int]], max_new_tokens: int) -> list[Said]:
        ids, mask = self._padded(prompts)
        configured = self._model.generation_config.eos_token_id
        ends = configured if isinstance(configured, list) else [configured]
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=self._end,
            )[:, ids.shape[1] :].tolist()
        return [self._said(row, ends) for row in made]

    def _padded(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of one width, filled up on the left, and a mask of what is theirs."""
        width = max(map(len, rows))
        ids = [[self._end] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def _said(self, row: list[int], ends: Sequence[int]) -> Said:
        length = next((number for number, token in enumerate(row) if token in ends), None)
        text = str(self._tokenizer.decode(row[:length], skip_special_tokens=True)).strip()
        return Said(text, len(row[:length]), length is None)


def _parts(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of rows that run together, of similar length."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    return [order[start : start + TOGETHER] for start in range(0, len(order), TOGETHER)]
