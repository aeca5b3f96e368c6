"""Writes torch_lens/: a lens of 2 layers of width 4 as tuned-lens 0.2.0 and PyTorch 2.5.1 save it; see test_params.c.

Usage: python3 tests/lens/make_torch_lens.py (in the environment of tests/peers)"""
import pathlib

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from tuned_lens import TunedLens

torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=300, hidden_size=4, intermediate_size=8, num_hidden_layers=2,
                                     num_attention_heads=2, num_key_value_heads=2, name_or_path="tiny"))
lens = TunedLens.from_model(model)
for i, layer in enumerate(lens.layer_translators):
    layer.weight.data = torch.arange(16.0).reshape(4, 4) + 100 * i
    layer.bias.data = -torch.arange(4.0) - 100 * i
lens.save(pathlib.Path(__file__).parent / "torch_lens")
