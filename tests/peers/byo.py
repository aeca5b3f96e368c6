"""Families that vlens does not run itself: examples/byo_cache.py caches tiny random models, vlens does the rest.

A Qwen2-VL (RMS norm, pictures, M-RoPE) and a GPT-2 (LayerNorm with bias, tied head). What vlens eval says of the logit
lens is compared with the hidden states of transformers; the logits of the lens with float64 (vlens verify --against)."""
import json
import pathlib
import subprocess
import sys

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (AutoTokenizer, GPT2Config, GPT2LMHeadModel, Qwen2TokenizerFast, Qwen2VLConfig,
                          Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor)

import peers

source, vlens = pathlib.Path(sys.argv[1]), sys.argv[2]
SPECIAL = ["<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]


def make_tokenizer():
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    text = (source / "docs/reference/formats.md").read_text(encoding="utf-8").splitlines()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(text, trainer)
    return Qwen2TokenizerFast(tokenizer_object=raw, eos_token=SPECIAL[0], pad_token=SPECIAL[0])


def spread(model):
    """Weights of a fresh model are so small that every layer says the same."""
    torch.manual_seed(5)
    for p in model.parameters():
        p.data = torch.randn_like(p) * (0.15 if p.ndim > 1 else 0.3) + (1 if p.ndim == 1 else 0)
    return model.eval()


def make_gpt2(tokenizer):
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=48, n_layer=3, n_head=4, n_positions=128)
    spread(GPT2LMHeadModel(config)).save_pretrained("gpt2")
    tokenizer.save_pretrained("gpt2")
    with open("gpt2.jsonl", "w", encoding="utf-8") as f:
        for line in (source / "docs/reference/numerics.md").read_text(encoding="utf-8").split("\n"):
            if len(line) > 60:
                f.write(json.dumps({"prompt": line[:100]}) + "\n")


def make_qwen2vl(tokenizer):
    ids = {name: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in
           ("vision_start", "vision_end", "image_pad", "video_pad")}
    config = Qwen2VLConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
        vision_token_id=ids["image_pad"], image_token_id=ids["image_pad"], video_token_id=ids["video_pad"])
    spread(Qwen2VLForConditionalGeneration(config)).save_pretrained("qwen2-vl")
    images = Qwen2VLImageProcessor(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
    Qwen2VLProcessor(images, tokenizer).save_pretrained("qwen2-vl")
    with open("qwen2-vl.jsonl", "w", encoding="utf-8") as f:
        for line in list(open(source / "data/demo/samples.jsonl", encoding="utf-8"))[:40]:
            sample = json.loads(line)
            prompt = "<|vision_start|><|image_pad|><|vision_end|>" + sample["prompt"]
            f.write(json.dumps({"prompt": prompt, "image": str(source / "data/demo" / sample["image"])}) + "\n")


def run(*command):
    done = subprocess.run([vlens, *command], capture_output=True, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def expected_kl(name):
    """Mean KL of the logit lens over the held-out rows, from transformers alone."""
    import h5py
    with h5py.File(f"{name}-cache/index.h5") as f:
        held = f["samples/split"][:].astype(bool)
    sums, n = 0, 0
    if name == "gpt2":
        model, processor = GPT2LMHeadModel.from_pretrained(name).eval(), AutoTokenizer.from_pretrained(name)
        norm = model.transformer.ln_f
    else:
        model = Qwen2VLForConditionalGeneration.from_pretrained(name).eval()
        processor, norm = Qwen2VLProcessor.from_pretrained(name), model.model.norm
    for number, line in enumerate(map(json.loads, open(f"{name}.jsonl", encoding="utf-8"))):
        if not held[number]:
            continue
        given = {"images": Image.open(line["image"]).convert("RGB")} if "image" in line else {}
        with torch.no_grad():
            out = model(**processor(text=line["prompt"], return_tensors="pt", **given), output_hidden_states=True)
            kl = [peers.kl(out.logits[0], model.lm_head(norm(h[0]))).sum() for h in out.hidden_states[:-1]]
        sums, n = sums + torch.stack(kl), n + out.logits.shape[1]
    return (sums / n).tolist()


def check(name):
    cache, lens = f"{name}-cache", f"{name}-lens"
    subprocess.run([sys.executable, str(source / "examples/byo_cache.py"), name, f"{name}.jsonl", cache], check=True)
    assert "whole" in run("verify", cache, "--quiet")
    with open(f"{name}.yaml", "w", encoding="utf-8") as f:
        f.write(f"precision: exact\noutput: {lens}\ncache: {{dir: {cache}}}\n"
                "fit: {tokens_per_step: 256, epochs: 4}\neval: {bootstrap: 10}\n")
    run("train", f"{name}.yaml", "--quiet")
    classes = {c["class"]: c for c in json.loads(run("eval", f"{name}.yaml", "--json", "--quiet"))["classes"]}
    states = classes.get("all", classes["all-text"])["states"]
    apart = max(abs(s["logit"]["kl"] - e) for s, e in zip(states, expected_kl(name)))
    kept = [s["tuned"]["kl"] / s["logit"]["kl"] for s in states[:-1]]
    least = min(s["logit"]["kl"] for s in states[:-1])
    print(f"{name}: logit lens (KL from {least:.2f} nats on) within {apart:.1e} nats of transformers; the tuned lens keeps {min(kept):.2f} to "
          f"{max(kept):.2f} of its KL")
    assert least > 0.05 and apart < 1e-4 and max(kept) < 1, (apart, kept)
    assert "as its numbers say" in run("verify", lens, "--against", cache)
    table = run("topk", "--cache", cache, "--sample", "0", "--lens", lens)
    assert "logit" in table and "tuned" in table, table
    page = run("view", "--cache", cache, "--sample", "0", "--lens", lens, "--out", f"{name}.html")
    assert pathlib.Path(f"{name}.html").stat().st_size > 10000, page


words = make_tokenizer()
make_gpt2(words)
make_qwen2vl(words)
check("gpt2")
check("qwen2-vl")
