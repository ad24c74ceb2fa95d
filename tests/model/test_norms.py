"""PyTorch's fused norm gives what the model's own gives."""

import torch
from torch import nn
from transformers import Gemma3TextConfig, LlamaForCausalLM
from transformers.models.gemma3.modeling_gemma3 import Gemma3DecoderLayer

from medtune.model.norms import _fused, fuse_norms


def test_logits_and_gradients_are_those_of_the_models_own_norms(tiny_llama: LlamaForCausalLM) -> None:
    for layer in tiny_llama.model.layers:
        # As they begin all are one, and a norm without its weight would do as well.
        nn.init.uniform_(layer.input_layernorm.weight, 0.5, 1.5)
    ids = torch.tensor([[1, 2, 3, 4]])

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        tiny_llama.zero_grad()
        logits = tiny_llama(input_ids=ids).logits
        logits.square().mean().backward()
        gradient = tiny_llama.model.embed_tokens.weight.grad
        assert gradient is not None
        return logits.detach(), gradient.clone()

    own = run()
    fuse_norms(tiny_llama)
    assert tiny_llama.model.norm.forward.__func__ is _fused
    for mine, theirs in zip(run(), own, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_a_norm_of_another_formula_stays_as_it_is() -> None:
    config = Gemma3TextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, head_dim=8
    )
    layer = Gemma3DecoderLayer(config, layer_idx=0)
    before = layer.input_layernorm.forward
    fuse_norms(layer)
    assert layer.input_layernorm.forward == before
