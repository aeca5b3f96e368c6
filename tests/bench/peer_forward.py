#!/usr/bin/env python3
"""The forward of LLaVA by vlens and by Hugging Face transformers, side by side: same weights (mapped, bfloat16), same
prompts, same number of threads.

    peer_forward.py VLENS MODEL [--samples 4] [--tokens 600] [--blocks N] [--rounds 2] [--cpu-time]

MODEL is a directory of make_full_size.py. Needs torch and transformers. transformers runs the prompts as one batch,
without a KV cache, with the logits of one position, and with output_hidden_states, as one needs them for a lens.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

FIRST_TEXT_ID, IMAGE_TOKEN = 3, 32000


class Random:
    """The generator of trainer/bench/forward.c."""

    def __init__(self):
        self.state = 1

    def next(self):
        self.state = (self.state * 1664525 + 1013904223) & 0xFFFFFFFF
        return self.state


def prompts(config, samples, tokens):
    """ids [samples, tokens] and pixels [samples, 3, side, side], as vlens makes them."""
    import torch

    random, side = Random(), config.vision_config.image_size
    picture = (side // config.vision_config.patch_size) ** 2
    ids, pixels = [], []
    for _ in range(samples):
        row = [FIRST_TEXT_ID + random.next() % (config.text_config.vocab_size // 2) for _ in range(tokens)]
        ids.append([IMAGE_TOKEN if 1 <= t <= picture else FIRST_TEXT_ID if id_ == IMAGE_TOKEN else id_
                    for t, id_ in enumerate(row)])
        pixels.append([(random.next() >> 8) * 2 ** -23 - 1 for _ in range(3 * side * side)])
    return torch.tensor(ids), torch.tensor(pixels, dtype=torch.bfloat16).view(samples, 3, side, side)


def run_vlens(args):
    command = [args.vlens, "bench", "forward", "--model", args.model, "--samples", str(args.samples), "--tokens",
               str(args.tokens), "--rounds", str(args.rounds), "--blocks", str(args.blocks), "--threads",
               str(args.threads), "--json"] + (["--cpu-time"] if args.cpu_time else [])
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    lines = {(line["name"], line["unit"]): line for line in result["forward"]["results"][0]["lines"]}
    peak = next(iter(lines.values()))
    print(f"vlens: library's packed product {peak['median']:.0f} GFLOP/s; peak anonymous memory "
          f"{result['memory']['peak_anonymous_bytes'] / 2 ** 20:.0f} MiB", flush=True)
    keys = f"{args.samples} x {args.tokens} tokens", f"1 x {args.tokens} tokens"
    for key in keys:
        print(f"vlens: {key}: {lines[key, 'GFLOP/s']['median']:.0f} GFLOP/s, "
              f"{100 * lines[key, 'GFLOP/s']['share']:.1f} % of it", flush=True)
    return [lines[key, "tokens/s"]["median"] for key in keys]


def anonymous_bytes():
    for line in open("/proc/self/smaps_rollup"):
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    return -1


def open_mapped(path):
    """The model with its weights left in the mapped files: from_pretrained would copy them."""
    import torch
    from safetensors import safe_open
    from transformers import LlavaConfig, LlavaForConditionalGeneration
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlavaConfig.from_pretrained(path)
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    tensors = {}
    for shard in sorted(pathlib.Path(path).glob("*.safetensors")):
        with safe_open(shard, "pt") as file:
            tensors |= {name: file.get_tensor(name) for name in file.keys()}
    model.load_state_dict(tensors, assign=True)
    for module in model.modules():  # buffers that no file holds
        if hasattr(module, "rotary_emb"):
            module.rotary_emb = LlamaRotaryEmbedding(config=config.text_config)
    embeddings = model.vision_tower.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions).expand(1, -1)
    left = [name for name, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
    assert not left, left
    return model.eval()


def run_transformers(args):
    import torch

    torch.set_num_threads(args.threads)
    model = open_mapped(args.model)
    if args.blocks:
        del model.language_model.model.layers[args.blocks:]
    ids, pixels = prompts(model.config, args.samples, args.tokens)
    clock = (lambda: time.process_time() / args.threads) if args.cpu_time else time.perf_counter
    rates = []
    for n in (args.samples, 1):
        seconds = []
        for _ in range(args.rounds + (n == args.samples)):  # the first of all is a warm-up
            began = clock()
            with torch.inference_mode():
                model(input_ids=ids[:n], pixel_values=pixels[:n], attention_mask=torch.ones_like(ids[:n]),
                      use_cache=False, output_hidden_states=True, num_logits_to_keep=1)
            seconds.append(clock() - began)
        rates.append(n * args.tokens / statistics.median(seconds[-args.rounds:]))
    return rates, anonymous_bytes()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vlens")
    parser.add_argument("model")
    for name, default in (("samples", 4), ("tokens", 600), ("blocks", 0), ("rounds", 2), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--cpu-time", action="store_true", help="count the time that threads ran: for a busy machine")
    args = parser.parse_args()
    os.environ.update(TRANSFORMERS_VERBOSITY="error", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    before = run_vlens(args)
    theirs, memory = run_transformers(args)
    after = run_vlens(args)
    print(f"tokens/s, {args.threads} threads, bfloat16{', by processor time' if args.cpu_time else ''}; "
          f"transformers holds {memory / 2 ** 20:.0f} MiB of anonymous memory")
    print(f"{'':18} {'vlens, before':>14} {'transformers':>14} {'vlens, after':>14} {'ratio':>7}")
    for i, name in enumerate((f"{args.samples} x {args.tokens}", f"1 x {args.tokens}")):
        ratio = (before[i] + after[i]) / 2 / theirs[i]
        print(f"{name:18} {before[i]:14.1f} {theirs[i]:14.1f} {after[i]:14.1f} {ratio:7.2f}")


if __name__ == "__main__":
    main()
