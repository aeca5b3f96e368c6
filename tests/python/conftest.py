"""What the tests of the Python package share: tiny random models of transformers, and a tokenizer for them."""
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer of ours with a chat template in the ChatML form."""
    from transformers import PreTrainedTokenizerFast

    path = SOURCE / "tests/golden/fixtures/models/llama-base-f32/tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    tokenizer.chat_template = ("{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}\n{% endfor %}"
                               "{% if add_generation_prompt %}<|assistant|>\n{% endif %}")
    return tokenizer


def spread(model, seed=5):
    """Weights of a fresh model are so small that every layer says the same."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        wide = torch.randn(p.shape, generator=generator)
        p.data = wide * (0.15 if p.ndim > 1 else 0.3) + (1 if p.ndim == 1 and "norm" in name else 0)
    return model.eval()
