"""A pass computes what is asked for, and that is what the whole pass would say."""

import torch
from transformers import LlamaForCausalLM

from medtune.forward import only_positions, shared_length


def test_the_head_sees_the_chosen_positions_alone(tiny_llama: LlamaForCausalLM) -> None:
    head = tiny_llama.get_output_embeddings()
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    mask = torch.tensor([[False, True, False], [True, False, True]])
    full = tiny_llama(input_ids=ids).logits
    with only_positions(head, mask):
        part = tiny_llama(input_ids=ids).logits
    torch.testing.assert_close(part[0], full[mask])
    assert tiny_llama(input_ids=ids).logits.shape == full.shape


def test_every_prompt_keeps_a_token_of_its_own() -> None:
    assert shared_length([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_length([[1, 2, 3], [1, 2, 3]]) == 2
    assert shared_length([[1, 2, 3], [1]]) == 0
    assert shared_length([[1, 2, 3]]) == 0
