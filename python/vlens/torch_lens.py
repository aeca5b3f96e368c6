"""A lens as a torch.nn.Module."""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from vlens.lens import Lens


class TorchLens(torch.nn.Module):
    """The adapters of a lens. ``transform_hidden(h, i)`` is h + A_i h + b_i, as libvlens computes it.

    A state without an adapter is passed through: that is the logit lens. The name of the method is that of the
    tuned-lens package, so that code written for it runs."""

    def __init__(self, lens: Lens) -> None:
        super().__init__()
        self.n_layers = lens.n_layers
        for i in range(lens.n_layers):
            weight, bias = lens.weight(i), lens.bias(i)
            self.register_buffer(f"weight_{i}", None if weight is None else torch.tensor(weight.copy()))
            self.register_buffer(f"bias_{i}", None if bias is None else torch.tensor(bias.copy()))

    def transform_hidden(self, h: torch.Tensor, idx: int) -> torch.Tensor:
        """h [..., D] -> [..., D]. ``idx`` == n_layers gives h back."""
        if not 0 <= idx <= self.n_layers:
            raise IndexError(f"state {idx}: this lens reads states 0 to {self.n_layers}")
        weight = getattr(self, f"weight_{idx}", None)
        bias = getattr(self, f"bias_{idx}", None)
        out = h
        if weight is not None:
            out = out + torch.nn.functional.linear(h, weight.to(h.dtype))
        if bias is not None:
            out = out + bias.to(h.dtype)
        return out

    def forward(self, h: torch.Tensor, idx: int) -> torch.Tensor:
        return self.transform_hidden(h, idx)
