"""Finds the residual stream, the final norm and the head of a transformers model, and checks what it found.

A cache whose last state is normed already, or whose head leaves out a scale or a soft cap, teaches another model, and
nothing would say so. So everything is measured on one forward of the model itself: the final norm and the head, applied
to the last state as vlens will apply them, must give the model's own logits."""
from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from vlens._native import VlensError

# relative to the largest logit; 16-bit models round every product
_TOLERANCE = {torch.float32: 2e-4, torch.float64: 2e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}


@dataclasses.dataclass
class Head:
    """What stands behind the last state, as vlens computes it (docs/reference/formats.md, /head)."""

    norm: str  # "rms" or "layer"
    eps: float
    norm_weight: torch.Tensor  # [D]; 1 + w where the model multiplies by that
    norm_bias: torch.Tensor | None
    weight: torch.Tensor  # [V, D]; a projection in front of it is multiplied in
    bias: torch.Tensor | None
    softcap: float = 0.0  # logits = c tanh(logits / c); 0: none

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """states [T, D] -> [T, V] in float32."""
        x = states.float()
        if self.norm == "layer":
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.norm_weight.float()
        if self.norm_bias is not None:
            x = x + self.norm_bias.float()
        z = torch.nn.functional.linear(x, self.weight.float(), None if self.bias is None else self.bias.float())
        return self.softcap * torch.tanh(z / self.softcap) if self.softcap else z


class Tap:
    """Hooks that keep the residual stream of a forward: state i is what block i reads, state L what the norm reads."""

    def __init__(self, layers: torch.nn.ModuleList, norm: torch.nn.Module) -> None:
        self.states: list[torch.Tensor | None] = [None] * (len(layers) + 1)
        self._handles = [layer.register_forward_pre_hook(self._keep(i), with_kwargs=True)
                         for i, layer in enumerate(layers)]
        self._handles.append(norm.register_forward_pre_hook(self._keep(len(layers)), with_kwargs=True))

    def _keep(self, i: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs.get("hidden_states")
            self.states[i] = x.detach() if isinstance(x, torch.Tensor) else None

        return hook

    def take(self) -> torch.Tensor:
        """[L + 1, B, T, D] of the last forward."""
        missing = [i for i, x in enumerate(self.states) if x is None]
        if missing:
            raise VlensError("unsupported", f"state {missing[0]} was not seen: block {missing[0]} of this model does "
                             "not take its hidden states as its first argument")
        out = torch.stack([x for x in self.states if x is not None])
        self.states = [None] * len(self.states)
        return out

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def text_config(model: Any) -> Any:
    """The configuration of the decoder."""
    return model.config.get_text_config(decoder=True) if hasattr(model.config, "get_text_config") else model.config


def find_layers(model: Any) -> torch.nn.ModuleList:
    """The decoder's blocks: the ModuleList as long as num_hidden_layers says, outside of vision and audio towers."""
    n = text_config(model).num_hidden_layers
    found = [(name, m) for name, m in model.named_modules()
             if isinstance(m, torch.nn.ModuleList) and len(m) == n
             and not any(x in name.lower() for x in ("vis", "audio", "encoder.layers", "experts"))]
    if not found:
        raise VlensError("unsupported", f"no list of {n} decoder blocks was found in {type(model).__name__}")
    return max(found, key=lambda pair: sum(p.numel() for p in pair[1].parameters()))[1]


class _Trace:
    """The modules that a forward calls behind the last block and before the head, with what they read and gave."""

    def __init__(self, model: Any, layers: torch.nn.ModuleList, head: torch.nn.Module) -> None:
        self.calls: list[tuple[torch.nn.Module, torch.Tensor, torch.Tensor]] = []
        self.head_input: torch.Tensor | None = None
        inside = {id(m) for layer in layers for m in layer.modules()}
        self._after = False
        self._handles = [layers[-1].register_forward_hook(self._last)]
        self._handles.append(head.register_forward_pre_hook(self._head))
        for module in model.modules():
            if id(module) not in inside and module is not head and not list(module.children()):
                self._handles.append(module.register_forward_hook(self._call))

    def _last(self, module: Any, args: Any, output: Any) -> None:
        self._after = True

    def _call(self, module: Any, args: Any, output: Any) -> None:
        if self._after and args and isinstance(args[0], torch.Tensor) and isinstance(output, torch.Tensor):
            self.calls.append((module, args[0].detach(), output.detach()))

    def _head(self, module: Any, args: Any) -> None:
        self._after = False
        self.head_input = args[0].detach()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.float() - b.float()).abs().max() / b.float().abs().max().clamp_min(1e-30))


def _classify_norm(norm: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, tolerance: float) -> dict[str, Any]:
    """Which norm gives y from x: by trying, not by its name."""
    w = getattr(norm, "weight", None)
    if w is None:
        raise VlensError("unsupported", f"the final norm ({type(norm).__name__}) has no weight")
    bias = getattr(norm, "bias", None)
    eps = next((float(getattr(norm, name)) for name in ("variance_epsilon", "eps", "epsilon")
                if getattr(norm, name, None) is not None), None)
    if eps is None:
        raise VlensError("unsupported", f"the final norm ({type(norm).__name__}) names no epsilon")
    tried = []
    for kind, weight in (("rms", w.float()), ("rms", 1 + w.float()), ("layer", w.float())):
        h = x.float()
        if kind == "layer":
            h = h - h.mean(-1, keepdim=True)
        h = h * torch.rsqrt((h * h).mean(-1, keepdim=True) + eps) * weight
        b = bias if kind == "layer" else None
        h = h if b is None else h + b.float()
        tried.append((_relative(h, y), kind, weight, b))
    error, kind, weight, b = min(tried, key=lambda t: t[0])
    if error > tolerance:
        raise VlensError("unsupported", f"the final norm ({type(norm).__name__}) is neither an RMS norm nor a layer "
                         f"norm that vlens knows: off by {error:.2g}")
    return {"norm": kind, "eps": eps, "norm_weight": weight.detach(), "norm_bias": None if b is None else b.detach()}


def inspect(model: Any, forward: Callable[[], Any]) -> tuple[torch.nn.ModuleList, torch.nn.Module, Head]:
    """Blocks, final norm and head of a model. ``forward()`` runs it once and returns its output.

    Raises VlensError where the model's logits are not what vlens would compute from its last state, and says by how
    much they differ."""
    output_head = model.get_output_embeddings()
    if not isinstance(output_head, torch.nn.Linear):
        raise VlensError("unsupported", f"{type(model).__name__} has no linear head: get_output_embeddings() gives "
                         f"{type(output_head).__name__}")
    layers = find_layers(model)
    trace = _Trace(model, layers, output_head)
    try:
        with torch.no_grad():
            logits = forward().logits.detach()
    finally:
        trace.close()
    tolerance = _TOLERANCE.get(next(model.parameters()).dtype, 4e-2)
    norms = [c for c in trace.calls if "norm" in type(c[0]).__name__.lower()]
    if not norms:
        raise VlensError("unsupported", f"no final norm was called between the last block and the head of "
                         f"{type(model).__name__}")
    norm, x, y = norms[-1]
    found = _classify_norm(norm, x, y, tolerance)
    weight = output_head.weight.detach().float()
    for module, given, _ in trace.calls[trace.calls.index(norms[-1]) + 1:]:
        if isinstance(module, torch.nn.Linear) and module.bias is None and given.shape == y.shape:
            weight = weight @ module.weight.detach().float()  # OPT's project_out
    head = Head(weight=weight, bias=None if output_head.bias is None else output_head.bias.detach(), **found)
    _fit_logits(head, x, logits, text_config(model), tolerance)
    return layers, norm, head


def _fit_logits(head: Head, x: torch.Tensor, logits: torch.Tensor, config: Any, tolerance: float) -> None:
    """Sets scale and soft cap so that the head gives the model's logits, or refuses."""
    tried = []
    cap = getattr(config, "final_logit_softcapping", None) or 0.0
    scales = [1.0]
    if getattr(config, "logit_scale", None):
        scales.append(float(config.logit_scale))
    if getattr(config, "logits_scaling", None):
        scales.append(1 / float(config.logits_scaling))
    for softcap in {0.0, float(cap)}:
        for scale in scales:
            bias = None if head.bias is None else head.bias * scale
            trial = dataclasses.replace(head, softcap=softcap, weight=head.weight * scale, bias=bias)
            tried.append((_relative(trial.logits(x[..., -logits.shape[-2]:, :]), logits), softcap, scale))
    error, head.softcap, scale = min(tried)
    if error > tolerance:
        raise VlensError("mismatch", "the final norm and the head, applied to the last state, do not give the model's "
                         f"own logits: off by {error:.2g} of the largest, at most {tolerance:.0e} is "
                         "expected. Something else stands behind the last state (a norm, a scale, a cap), and a lens "
                         "would learn it wrong")
    if scale != 1:  # a scale in front of the cap is one of the unembedding: the cache needs no word for it
        head.weight = head.weight * scale
        head.bias = None if head.bias is None else head.bias * scale
