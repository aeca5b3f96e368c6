"""Lenses that tuned-lens saved and vlens imported and evaluated: the same KL per layer."""
import torch

import peers

for run, prefix in peers.PREFIXES.items():
    states = peers.rows(run, heldout=True)
    unembed = peers.unembed_of(run, peers.model_of(run))
    for dtype in ("float32", "float16", "bfloat16"):
        saved = torch.load(f"{prefix}peer-{dtype}/params.pt", weights_only=True)
        assert {str(t.dtype) for t in saved.values()} == {f"torch.{dtype}"}
        theirs = peers.teacher_kl(peers.load(unembed, f"{prefix}peer-{dtype}"), states)
        ours = peers.evaluated(f"{prefix}peer-{dtype}.json")
        apart = max(abs(a - b) for a, b in zip(theirs, ours))
        print(f"{run} {dtype:9}: mean KL per layer {ours[0]:.7f} to {ours[-1]:.7f}, within {apart:.1e}")
        assert len(theirs) == len(ours) and apart < 1e-4
