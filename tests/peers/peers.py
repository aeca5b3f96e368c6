"""What the checks of this folder share: rows of a cache, tuned-lens for three models, KL."""
import json
import logging
import warnings

import h5py
import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlavaForConditionalGeneration, MllamaForConditionalGeneration
from tuned_lens import TunedLens
from tuned_lens.nn import Unembed

logging.disable(logging.WARNING)  # one for each key of ours that tuned-lens drops
warnings.filterwarnings("ignore")
torch.set_num_threads(1)
PREFIXES = {"text": "", "vlm": "vlm-", "mllama": "mllama-"}


def rows(run, heldout):
    """States [L+1, n, D] of the held-out rows, or of the others."""
    with h5py.File(f"{PREFIXES[run]}cache/index.h5") as f:
        number = {int(n): i for i, n in enumerate(f["samples/id"][:])}
        split = f["samples/split"][:]
        keep = np.array([split[number[int(s)]] == int(heldout) for s in f["tokens/sample"][:]])
        return torch.from_numpy(f["states"][:, keep].astype("f4"))


def model_of(run):
    if run == "text":
        return AutoModelForCausalLM.from_pretrained("model").eval()
    family = LlavaForConditionalGeneration if run == "vlm" else MllamaForConditionalGeneration
    return family.from_pretrained(run).eval()


def unembed_of(run, model):
    """Unembed(model) for what tuned-lens knows; for a vision-language model the way of docs/reference/interop.md."""
    if run == "text":
        return Unembed(model)
    unembed = Unembed.__new__(Unembed)
    torch.nn.Module.__init__(unembed)
    unembed.final_norm = model.get_decoder().norm
    unembed.unembedding = model.get_output_embeddings()
    return unembed.requires_grad_(False)


def load(unembed, path):
    return TunedLens.from_unembed_and_pretrained(unembed, path, map_location="cpu")


def kl(p_logits, q_logits):
    """KL(p || q) of each row, in nats."""
    p, q = (torch.as_tensor(x).double().log_softmax(-1) for x in (p_logits, q_logits))
    return (p.exp() * (p - q)).sum(-1)


def teacher_kl(lens, states):
    """Mean KL of each layer of a tuned-lens lens to the model's own distribution."""
    with torch.no_grad():
        teacher = lens.unembed(states[-1])
        return [kl(teacher, lens(states[i], i)).mean().item() for i in range(len(states) - 1)]


def evaluated(path):
    """The same as `vlens eval` measured it: the mean over all held-out rows."""
    with open(path, encoding="utf-8") as f:
        classes = {c["class"]: c for c in json.load(f)["classes"]}
    states = classes.get("all", classes["all-text"])["states"]
    return [s["tuned"]["kl"] for s in states[:-1]]
