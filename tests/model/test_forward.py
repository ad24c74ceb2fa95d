"""A pass computes what is asked for, and that is what the whole pass would say."""

import pytest
import torch
from transformers import LlamaForCausalLM

from medtune.core.errors import MedtuneError
from medtune.model.forward import logits_at, only_positions, shared_length


def test_the_head_sees_the_chosen_positions_alone(tiny_llama: LlamaForCausalLM) -> None:
    head = tiny_llama.get_output_embeddings()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    mask = torch.tensor([[False, True, False], [True, False, True]])
    full = tiny_llama(input_ids=ids).logits
    with only_positions(head, mask):
        part = tiny_llama(input_ids=ids).logits
    torch.testing.assert_close(part[0], full[mask])
    assert tiny_llama(input_ids=ids).logits.shape == full.shape


def test_rows_see_the_prefix_and_no_other_row(tiny_llama: LlamaForCausalLM) -> None:
    prefix, rows = torch.tensor([7, 8, 9]), torch.tensor([[1, 2, 3], [4, 5, 6]])
    wanted = torch.tensor([[True, False, True], [False, True, True]])
    whole = tiny_llama(input_ids=torch.cat([prefix.expand(2, -1), rows], dim=1)).logits[:, 3:]
    with torch.no_grad():
        part = logits_at(tiny_llama, tiny_llama.get_output_embeddings(), prefix, rows, wanted)
    torch.testing.assert_close(part, whole[wanted])


def test_attention_that_asks_for_more_than_llama_s_is_refused(tiny_llama: LlamaForCausalLM) -> None:
    with pytest.raises(MedtuneError, match=r"needs softcap; see docs/models\.md"):
        tiny_llama(input_ids=torch.tensor([[1, 2]]), softcap=2.0)


def test_every_prompt_keeps_a_token_of_its_own() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_length([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_length([[1, 2, 3], [1]]) == 0
    assert shared_length([[1, 2, 3]]) == 0
