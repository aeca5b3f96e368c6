#!/usr/bin/env python3
"""The tables of docs/results/scale.md, from counted flops and bytes and stated rates.

scale.py DOC            writes them between the markers of the document
scale.py DOC --check    says whether they are there as they would be written
scale.py --bytes D L N  bytes of the states of N tokens in 16 bit"""
import math
import sys

TOKENS = {"1M": 1e6, "65M": 65e6, "1G": 1e9}
STEP_TOKENS = 16384  # fit.tokens_per_step at this scale: the optimiser's own products are then a small part

# name: D, V, blocks (for the states), flops of one text token and of one picture, tokens of a sample, weights (bytes)
SELF_7B = 4 * 4096**2 + 3 * 4096 * 11008
SELF_8B = 2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336
CROSS_8B = 2 * 4096**2 + 3 * 4096 * 14336  # keys and values belong to the picture
VISION_L = 24 * (4 * 1024**2 + 2 * 1024 * 4096)  # CLIP ViT-L/14, 577 rows
VISION_H = 40 * (4 * 1280**2 + 2 * 1280 * 5120)  # 32 + 8 layers, 4 tiles of 1601 rows
MODELS = {
    "LLaVA-1.5-7B": dict(d=4096, v=32064, l=32, token=2 * 32 * SELF_7B, picture=2 * 577 * VISION_L, sample=616,
                         weights=2 * 7.06e9),
    "Llama-3.2-11B-Vision": dict(d=4096, v=128256, l=40, token=2 * (32 * SELF_8B + 8 * CROSS_8B),
                                 picture=2 * 4 * 1601 * (VISION_H + 8 * 2 * 4096 * 1024), sample=64, weights=2 * 10.67e9),
}

# peak bf16 flops, share of it that is assumed (GPUs) or measured (this machine), bytes of memory
GPUS = {"A40": (149.7e12, 0.40, 48e9), "H100": (989e12, 0.40, 80e9)}
CPU = 0.94e12  # measured: docs/results/speed.md, the KL step on two cores
DISK = 3e9     # bytes a second that one machine reads, measured here on a cold file: one NVMe drive
MACHINE_GPUS = 8


def state_bytes(d, l, n=1):
    return (l + 1) * d * 2 * n


def forward(m):
    """Flops of one token, with its share of a picture."""
    return m["token"] + m["picture"] / m["sample"]


def fit(m, gpus=1):
    """Flops of one training row on the busiest of so many processes, and what it reads in bytes."""
    d, v, l = m["d"], m["v"], m["l"]
    parts = min(gpus, l)
    members, layers = gpus / parts, math.ceil(l / parts)
    head, start = 4 * d * v, 4 * d * d             # logits and their gradient; moments of the closed form
    adapter = 4 * d * d                            # the product and its gradient
    muon = 5 * 3 * 2 * d**3 / STEP_TOKENS          # five steps of Newton-Schulz, three products each
    row = 2 * d * v + layers * (head + adapter)    # the teacher once for all layers
    flops = row / members + layers * (start + muon)
    # the fit reads the teacher's state and those of its layers, the closed form (one member) a pair for each layer
    return flops, 2 * d * (1 + layers + 2 * layers) / members


def fit_memory(m, gpus=1):
    """Bytes on one device: head in two packings, a tile of 1024 rows of logits twice, adapters of 4 D^2 floats."""
    layers = math.ceil(m["l"] / min(gpus, m["l"]))
    return 4 * m["d"] * m["v"] + 2 * 4 * 1024 * m["v"] + layers * 4 * 4 * m["d"] ** 2


def duration(seconds):
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s"


def size(value):
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.0f} B"


def times(m, tokens, gpu, gpus):
    """Caching and fitting: the slower of arithmetic and of storage (each machine of eight GPUs has its own drive)."""
    rate = GPUS[gpu][0] * GPUS[gpu][1]
    disk = DISK * max(1, gpus // MACHINE_GPUS)
    cache = max(tokens * forward(m) / rate / gpus, state_bytes(m["d"], m["l"], tokens) / disk)
    flops, bytes_read = fit(m, gpus)
    arithmetic, reading = tokens * flops / rate, tokens * bytes_read * gpus / disk
    return cache, max(arithmetic, reading), reading > arithmetic


def counts():
    yield "| | " + " | ".join(MODELS) + " |"
    yield "|---|" + "---|" * len(MODELS)
    lines = {"states of a token in 16 bit": lambda m: size(state_bytes(m["d"], m["l"])).replace(" MB", " MB"),
             "forward, flops a token (with its share of the picture)": lambda m: f"{forward(m):.2e}",
             "of that, the picture": lambda m: f"{m['picture'] / m['sample'] / forward(m):.0%}",
             "fit, flops a row, all layers": lambda m: f"{fit(m)[0]:.2e}",
             "of that, the unembedding": lambda m: f"{m['l'] * 4 * m['d'] * m['v'] / fit(m)[0]:.0%}",
             "memory of the fit, all layers": lambda m: size(fit_memory(m)),
             "weights in 16 bit": lambda m: size(m["weights"]),
             "two CPU cores, fit of 1M tokens": lambda m: duration(1e6 * fit(m)[0] / CPU)}
    for name, value in lines.items():
        yield f"| {name} | " + " | ".join(value(m) for m in MODELS.values()) + " |"


def table():
    yield "| model | tokens | cache | on | make the cache | fit | bound of the fit | sent per step |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, m in MODELS.items():
        for label, tokens in TOKENS.items():
            for gpu, gpus in (("A40", 1), ("H100", 1), ("A40", 8), ("H100", 8), ("A40", 64), ("H100", 64)):
                cache, fitting, by_disk = times(m, tokens, gpu, gpus)
                members = gpus / min(gpus, m["l"])
                sent = size(2 * 4 * m["d"] ** 2) if members > 1 else "nothing"
                yield (f"| {name} | {label} | {size(state_bytes(m['d'], m['l'], tokens))} | {gpus} x {gpu} | "
                       f"{duration(cache)} | {duration(fitting)} | {'storage' if by_disk else 'arithmetic'} | {sent} |")


def border():
    """Reading a token's states against making them again."""
    yield "| model | GPU | forward of a token | reads as fast at | |"
    yield "|---|---|---|---|---|"
    for name, m in MODELS.items():
        for gpu, (peak, share, _) in GPUS.items():
            seconds = forward(m) / (peak * share)
            rate = state_bytes(m["d"], m["l"]) / seconds
            verdict = "one drive is enough" if rate < DISK else f"{rate / DISK:.1f} drives a GPU"
            yield f"| {name} | {gpu} | {seconds * 1e6:.0f} us | {size(rate)}/s | {verdict} |"


def main():
    if sys.argv[1] == "--bytes":
        print(state_bytes(*map(int, sys.argv[2:5])))
        return 0
    with open(sys.argv[1], encoding="utf-8") as f:
        old = text = f.read()
    for name in (counts, table, border):
        begin, end = f"<!-- {name.__name__}: tools/scale.py -->\n", f"<!-- end of {name.__name__} -->"
        before, rest = text.split(begin)
        text = before + begin + "\n".join(name()) + "\n" + end + rest.split(end, 1)[1]
    if "--check" in sys.argv:
        if text != old:
            print(f"{sys.argv[1]}: its tables are not what tools/scale.py writes")
        return text != old
    with open(sys.argv[1], "w", encoding="utf-8") as f:
        f.write(text)
    return 0


sys.exit(main())
