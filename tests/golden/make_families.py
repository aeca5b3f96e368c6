#!/usr/bin/env python3
"""Rebuild or check the tiny models and goldens of the text families.

    make_families.py            rebuild tests/golden/families and families.lock
    make_families.py --check    verify that every file has the sha256 of families.lock

--check needs the standard library only; building needs requirements-families.txt. One model a family or variant, random
weights from a fixed seed; each golden is one forward of transformers in float32, eager, one thread. Names and meaning as in README.md.
"""
import argparse
import hashlib
import json
import pathlib
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
FAMILIES, LOCK = HERE / "families", HERE / "families.lock"
TOKENIZER = HERE / "fixtures" / "models" / "llama-base-f32"
SEED, N_GENERATED, WINDOW = 20261201, 8, 5
PROMPT = "The picture shows 3 red circles near the wall, and the lens reads each state."

SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128)
# What only this family shows is switched on: windows shorter than the prompt, caps that bite, two ropes.
CONFIGS = {
    "qwen2": dict(SIZES, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1),
    "qwen3": dict(SIZES, head_dim=12, tie_word_embeddings=True),
    "mistral": dict(SIZES, head_dim=12, sliding_window=WINDOW),
    "gemma2": dict(SIZES, head_dim=12, query_pre_attn_scalar=9, sliding_window=WINDOW, attn_logit_softcapping=2.0,
                   final_logit_softcapping=3.0),
    "gemma3_text": dict(SIZES, head_dim=12, query_pre_attn_scalar=9, sliding_window=WINDOW, layer_types=[
        "sliding_attention", "full_attention", "sliding_attention"], rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}),
    "gpt2": dict(n_embd=32, n_layer=3, n_head=4, n_positions=64, scale_attn_by_inverse_layer_idx=True),
    "gpt_neox": dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                     max_position_embeddings=128, rotary_pct=0.25),
    "olmo2": dict(SIZES, attention_bias=True),
    "phi3": dict(SIZES, sliding_window=WINDOW, original_max_position_embeddings=16, rope_scaling={
        "type": "longrope", "short_factor": [1.0, 1.1, 1.3, 1.6], "long_factor": [1.0, 1.5, 3.0, 5.0]},
                 max_position_embeddings=64),
    "opt-post": dict(hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=24,
                     do_layer_norm_before=False, max_position_embeddings=64),
    "opt": dict(hidden_size=32, ffn_dim=48, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=32,
                max_position_embeddings=64),
}


def hashes(folder):
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def randomise(model, torch):
    """Weights large enough that every tensor shows; norms near what is stored by trained models."""
    generator = torch.Generator().manual_seed(SEED)
    for name, tensor in model.named_parameters():
        values = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1:
            around = 1.0 if name.endswith("weight") and "gemma" not in model.config.model_type else 0.0
            tensor.data = around + 0.2 * values
        else:
            tensor.data = values * (1.3 / tensor.shape[-1] ** 0.5)


def write_golden(model, ids, path, torch, save_file):
    kept = {}
    base = model.base_model
    last = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm", "opt": "decoder.final_layer_norm"}.get(
        model.config.model_type, "norm")
    if getattr(model.config, "word_embed_proj_dim", 32) != 32:
        last = "decoder.project_out"

    def keep(_, args):
        kept.setdefault("last_prenorm", args[0].clone())

    base.get_submodule(last).register_forward_pre_hook(keep)
    with torch.no_grad():
        out = model(ids, output_hidden_states=True)
        kept |= {f"hidden.{i:02d}": h for i, h in enumerate(out.hidden_states[:-1])}
        kept["logits"] = out.logits[:, -8:]
        whole = ids
        for _ in range(N_GENERATED):  # anew each time: what a cache must reproduce
            whole = torch.cat([whole, model(whole, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    tensors = {k: v[0].float().contiguous() for k, v in kept.items()}
    tensors |= {"input_ids": ids[0], "generated": whole[0, ids.shape[1]:].contiguous()}
    save_file(tensors, path, metadata={"prompt": PROMPT})


def build(folder):
    import torch
    import transformers
    from safetensors.torch import save_file
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(TOKENIZER / "tokenizer.json"))
    ids = torch.tensor([tokenizer.encode(PROMPT).ids])
    (folder / "goldens").mkdir(parents=True)
    for name, keys in CONFIGS.items():
        family = name.split("-")[0]
        torch.manual_seed(SEED)
        config = transformers.AutoConfig.for_model(family, vocab_size=tokenizer.get_vocab_size() + 3, pad_token_id=None,
                                                   bos_token_id=1, eos_token_id=2, **keys)
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
        randomise(model, torch)
        model = model.to(torch.bfloat16).float()
        target = folder / "models" / name
        model.to(torch.bfloat16).save_pretrained(target, safe_serialization=True)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(TOKENIZER / file, target / file)
        (target / "generation_config.json").unlink(missing_ok=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32,
                                                                  attn_implementation="eager").eval()
        write_golden(model, ids, folder / "goldens" / f"{name}__text.safetensors", torch, save_file)
        print(name, sum(p.numel() for p in model.parameters()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    if parser.parse_args().check:
        locked, found = json.loads(LOCK.read_text()), hashes(FAMILIES)
        for name in sorted(locked.keys() ^ found.keys() | {n for n in locked if found.get(n) != locked[n]}):
            print("differs:", name)
        return int(locked != found)
    shutil.rmtree(FAMILIES, ignore_errors=True)
    build(FAMILIES)
    LOCK.write_text(json.dumps(hashes(FAMILIES), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
