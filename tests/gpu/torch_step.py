#!/usr/bin/env python3
"""PyTorch's time for what `vlens bench kl` measures, and the best that its matrix product reaches: a bf16 head, rows of
normed states in, KL to a teacher, gradient with respect to the rows. Medians, one line per figure."""
import argparse
import statistics
import time

import torch
import torch.nn.functional as F


def median_seconds(run, device, rounds):
    times = []
    for _ in range(rounds + 1):  # the first one warms up
        began = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def measure(d, v, rows, device, rounds):
    generator = torch.Generator(device=device).manual_seed(1)
    head = torch.randn(v, d, generator=generator, device=device, dtype=torch.bfloat16) / d**0.5
    x = torch.randn(rows, d, generator=generator, device=device).requires_grad_()
    teacher = torch.log_softmax(torch.randn(rows, v, generator=generator, device=device), -1)
    narrow = x.detach().to(torch.bfloat16)

    def step():
        x.grad = None
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = F.linear(x, head)
        student = torch.log_softmax(logits.float(), -1)
        F.kl_div(student, teacher, log_target=True, reduction="sum").backward()

    product = median_seconds(lambda: F.linear(narrow, head), device, rounds)
    whole = median_seconds(step, device, rounds)
    flops = 2 * rows * d * v
    print(f"{d} x {v}, {rows} rows: product {1e3 * product:.2f} ms, {flops / product / 1e12:.1f} TFLOP/s; "
          f"KL forward and backward {1e3 * whole:.2f} ms, {2 * flops / whole / 1e12:.1f} TFLOP/s, "
          f"{100 * 2 * product / whole:.0f} % of two products")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", action="append", required=True, help="DxV, repeatable")
    parser.add_argument("--rows", type=int, default=2016)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
        n = 8192
        a = torch.randn(n, n, device="cuda", dtype=torch.bfloat16)
        best = median_seconds(lambda: a @ a, "cuda", options.rounds)
        print(f"cuBLAS, {n} x {n} x {n} in bf16: {2 * n**3 / best / 1e12:.1f} TFLOP/s")
    for size in options.size:
        d, v = (int(part) for part in size.split("x"))
        measure(d, v, options.rows, options.device, options.rounds)


if __name__ == "__main__":
    main()
