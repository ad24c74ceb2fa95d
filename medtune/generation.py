"""Greedy answers in batches."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile

import torch
from tqdm import tqdm
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from medtune import processes
from medtune.answer_log import AnswerLog

PAD = 0
"""Fills up rows; masked by position, so any token id would do."""


@dataclass(frozen=True)
class Answer:
    """Generated token ids without the end token; `truncated` if the length limit came before it."""

    ids: list[int]
    truncated: bool


def generate_answers(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    *,
    end_id: int,
    max_new_tokens: int,
    batch_size: int,
    progress: str | None = None,
    log: AnswerLog | None = None,
) -> list[Answer]:
    """Continue each prompt greedily until `end_id`; answers come in the order of the prompts.

    Batches that the log holds are not generated again. Several processes share the batches; all get all
    answers, which are those that one process would give.
    Prompts of similar length share a batch. In float32 the text does not depend on the batch an example
    is in (tests/test_generation.py); in bfloat16 it would.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    shares = batches[processes.rank() :: processes.count()]
    answers: dict[int, Answer] = {}
    shown = progress is not None and processes.is_main()
    with tqdm(total=sum(map(len, shares)), desc=progress, unit="example", disable=not shown) as bar:
        for batch in shares:
            start_time = time.monotonic()
            logged = log.get(batch) if log else None
            if logged is not None:
                rows = [Answer(**answer) for answer in logged]
            else:
                rows = list(_generate([prompts[index] for index in batch], model, end_id, max_new_tokens))
                if log:
                    log.add(batch, [asdict(row) for row in rows], time.monotonic() - start_time)
            answers |= dict(zip(batch, rows, strict=True))
            bar.update(len(batch))
    for others in processes.gather(answers):
        answers |= others
    return [answers[index] for index in range(len(prompts))]


def _generate(
    prompts: list[list[int]], model: PreTrainedModel, end_id: int, max_new_tokens: int
) -> Iterator[Answer]:
    """Answer the prompts of one batch; what all of them begin with runs through the model once."""
    shared = _shared_length(prompts)
    longest = max(len(prompt) for prompt in prompts)
    # Padding stands between the shared tokens and a row's own; positions are counted without it.
    padded = [prompt[:shared] + [PAD] * (longest - len(prompt)) + prompt[shared:] for prompt in prompts]
    mask = [[1] * shared + [0] * (longest - len(prompt)) + [1] * (len(prompt) - shared) for prompt in prompts]
    config = GenerationConfig(
        do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end_id, pad_token_id=end_id
    )
    with torch.inference_mode():
        cache = DynamicCache(config=model.config)
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=model.device)
            model(input_ids=prefix, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_repeat_interleave(len(prompts))
        output = model.generate(  # type: ignore[operator]
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            past_key_values=cache,
            generation_config=config,
        )
    for row in output[:, longest:].tolist():
        end = row.index(end_id) if end_id in row else len(row)
        yield Answer(row[:end], truncated=end == len(row) == max_new_tokens)


def _shared_length(prompts: list[list[int]]) -> int:
    """How many first tokens the prompts share, leaving each at least one of its own."""
    if len(prompts) == 1:
        return 0
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
