#!/usr/bin/env python3
"""Writes a cache for vlens from any causal language or vision-language model of Hugging Face.

The format: docs/reference/formats.md.

Usage: byo_cache.py MODEL SAMPLES.jsonl CACHE    A line: {"prompt": ..., "image": a path or none}. A prompt holds the
model's own image tokens; its last token is where the answer begins."""
import hashlib, json, os, sys
import h5py, numpy as np, torch
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForVision2Seq, AutoProcessor, AutoTokenizer

path, samples, out = sys.argv[1:4]
SEED, HELDOUT = 42, 0.3
config, tokenizer = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
sees = hasattr(config, "vision_config")
processor = AutoProcessor.from_pretrained(path) if sees else tokenizer
family = AutoModelForVision2Seq if sees else AutoModelForCausalLM
model = family.from_pretrained(path, torch_dtype=torch.float32).eval()
image_id = getattr(config, "image_token_id", getattr(config, "image_token_index", -1))
head = model.get_output_embeddings()
norm = [m for name, m in model.named_modules() if "vis" not in name
        and name.split(".")[-1] in ("norm", "ln_f", "final_layer_norm", "final_layernorm")][-1]
final = []  # state L is what the final norm reads: hidden_states[-1] is normed already
norm.register_forward_pre_hook(lambda module, inputs: final.append(inputs[0]))

rows, states, prompts, split, images = [], [], [], [], []
for number, line in enumerate(map(json.loads, open(samples, encoding="utf-8"))):
    given, key = {}, line["prompt"]
    if line.get("image"):
        given["images"] = Image.open(line["image"]).convert("RGB")
        key = hashlib.sha256(open(line["image"], "rb").read()).hexdigest()
        images.append((line["image"], key, number, *given["images"].size))
    inputs = processor(text=line["prompt"], return_tensors="pt", **given)
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True, use_cache=False).hidden_states
    states.append(torch.stack([*(h[0] for h in hidden[:-1]), final.pop()[0]]).numpy())
    ids, n = inputs["input_ids"][0].numpy(), inputs["input_ids"].shape[1]
    seen, following = ids == image_id, np.append(inputs["input_ids"][0, 1:].numpy(), -1)
    following[np.append(seen[1:], False) | (following >= head.weight.shape[0])] = -1
    rows.append({"id": ids, "next_id": following, "position": np.arange(n), "sample": np.full(n, number),
                 "class": np.where(seen, 1, np.where(np.arange(n) == n - 1, 2, 0)),
                 "image": np.where(seen, len(images) - 1, -1),  # patches as one long row
                 "patch": np.where(seen, [[0], [0], [1]] * (seen.cumsum() - 1), -1).T})
    prompts.append(line["prompt"])
    split.append(int.from_bytes(hashlib.sha256(f"{SEED}:{key}".encode()).digest()[:8], "big") / 2**64 < HELDOUT)

os.makedirs(out, exist_ok=True)
with h5py.File(out + "/index.h5", "w") as f:
    f["states"] = np.concatenate(states, 1)
    f.update({"tokens/" + name: np.concatenate([r[name] for r in rows]) for name in rows[0]})
    f["samples/id"], f["samples/prompt"], f["samples/split"] = np.arange(len(prompts)), prompts, np.array(split, "u1")
    f.update({"images/" + k: list(c) for k, c in zip(("path", "sha256", "sample", "width", "height"), zip(*images))})
    ours = {"weight": head.weight, "bias": head.bias,
            "norm_weight": norm.weight, "norm_bias": getattr(norm, "bias", None)}
    f.update({"head/" + name: tensor.detach().numpy() for name, tensor in ours.items() if tensor is not None})
    f["head"].attrs.update({"norm": "layer" if isinstance(norm, torch.nn.LayerNorm) else "rms",
                            "eps": getattr(norm, "variance_epsilon", getattr(norm, "eps", None))})
    f["vocab/text"] = [tokenizer.decode([i]).replace("\0", "<0x00>") for i in range(head.weight.shape[0])]
    f.attrs.update({"format": "vlens-cache", "version": 1, "d_model": states[0].shape[2], "model_id": path,
                    "n_layers": states[0].shape[0] - 1, "vocab_size": len(head.weight), "complete": 1})
