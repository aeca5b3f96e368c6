"""Lenses that tuned-lens makes and saves: trained by PyTorch on the same rows, in three element types."""
import copy

import torch
from tuned_lens.nn.lenses import TunedLens, TunedLensConfig

import peers

STEPS, ROWS = 60, 256

torch.manual_seed(0)
for run, prefix in peers.PREFIXES.items():
    states = peers.rows(run, heldout=False)
    unembed = peers.unembed_of(run, peers.model_of(run))
    lens = TunedLens(unembed, TunedLensConfig("somebody/" + run, states.shape[-1], len(states) - 1))
    optimizer = torch.optim.Adam(lens.layer_translators.parameters(), lr=2e-3)
    for step in range(STEPS):
        batch = states[:, torch.randint(states.shape[1], (ROWS,))]
        teacher = lens.unembed(batch[-1]).detach()
        loss = sum(peers.kl(teacher, lens(batch[i], i)).mean() for i in range(len(batch) - 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        copy.deepcopy(lens).to(dtype).save(f"{prefix}peer-{str(dtype)[6:]}")
    print(f"{run}: {STEPS} steps, loss {loss.item() / (len(states) - 1):.4f}")
