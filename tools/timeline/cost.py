"""What a call asks of the device: bytes that a kernel streams and floating-point operations, from the traced arguments.

A kernel's arguments are 8-byte words as the view structs of kernels/cuda lay them out; COST has one line for each kernel.
A pointer where none is expected, or a kernel that is not listed, ends the run: the layout has changed."""
import re

from traces import TYPES, bytes_of

WIDTH = {"float": 4, "__half": 2, "__nv_bfloat16": 2}


class Words(list):
    """Arguments of one launch; the low and the high half of a word."""
    def __init__(self, call):
        super().__init__(w if w in "dh" else int(w) for w in call.fields[5:])
        self.blocks, self.type = int(call.fields[2]), call.fields[1]

    def given(self, at):
        if self[at] not in ("d", 0):
            raise SystemExit(f"a kernel's arguments have changed: word {at} of {self} is no pointer (tools/timeline/cost.py)")
        return self[at] == "d"

    def low(self, at):
        return self[at] & 0xffffffff

    def high(self, at):
        return self[at] >> 32 & 0xffffffff

    def widths(self):
        """Bytes of an element of each pointer argument."""
        return [WIDTH[t] for t in re.findall(r"(float|__half|__nv_bfloat16)(?:const)?\*", self.type)]


def attention_flops(w):
    tq, tk, offset, width, causal = w[13], w[14], w[15], w.low(17), w[19] & 0xff
    heads = w.blocks // -(-tq // 32)
    return 4 * heads * width * tq * ((tq + 1) / 2 + offset if causal else tk)


COST = {
    "convert": lambda w: w[4] * w[5] * sum(w.widths()),
    "narrow_rows": lambda w: w.blocks * w[4] * 6 * w.given(2),
    "grow_rows": lambda w: w.blocks * 4 * w.given(1),  # rows that are not scaled are not touched
    "take_rows": lambda w: w[6] * w[4] * sum(w.widths()) * w.given(1),
    "pack_rows": lambda w: w[6] * w[4] * sum(w.widths()) * w.given(1),
    "add_losses": lambda w: w[3] * 8 * w.given(1),
    "choose_scale": lambda w: 0,
    "divide_by_norm": lambda w: w[5] * w[6] * (4 + w.widths()[0]) * w.given(1),
    "scale_rows": lambda w: w.blocks * w[3] * 8 * w.given(0),
    "add_rows": lambda w: w[7] * w[8] * 4 * (2 + (w[6] != 0)) * w.given(0),
    "norm_groups": lambda w: w[8] * w[10] * 8 * w.given(1),
    "norm_backward_groups": lambda w: w[8] * w[10] * 12 * w.given(2),
    "loss_rows": lambda w: w.blocks * (12 * w[8] + 4 * (w[8] - w[9])) * w.given(1),
    "logsumexp_rows": lambda w: w.blocks * w[9] * 4 * w.given(0),
    "column_slices": lambda w: w[3] * w[4] * 4 * w.given(1),
    "column_totals": lambda w: w[2] * w.low(3) * 4 * w.given(1),
    "rotate": lambda w: w[6] * w.low(7) * w.high(7) * 16 * w.given(2),
    "activate_rows": lambda w: w[6] * w[7] * 4 * (2 + (w[2] != 0)) * w.given(1),
    "sgd_step": lambda w: w[4] * (20 if w.given(1) else 12) * w.given(2),
    "adam_step": lambda w: w[5] * 28 * w.given(3),
    "square_blocks": lambda w: w[3] * w[4] * 4 * w.given(1),
    "square_total": lambda w: 0,
    "gather": lambda w: w[4] * w[5] * sum(w.widths()),
    "cut": lambda w: w[4] * w[2] * 8 * w.given(1),
}


def product(call, card):
    """(label, seconds, flops): whole waves of tiles of 128 x 128, or the memory's time if that is longer."""
    m, n, k = (int(x) for x in call.fields[:3])
    kind, out = TYPES[call.fields[3]], 4 if call.fields[4] == "0" else 2
    tiles, units = -(-m // 128) * -(-n // 128), card["multiprocessors"]
    share = tiles / (-(-tiles // units) * units)
    size = 4 if kind == "f32" else 2
    moved = (m * k + k * n) * size + m * n * out * (2 if "r" in call.fields[5] else 1)
    flops = 2.0 * m * n * k
    seconds = max(flops / (card["product"][kind] * 1e12 * share), moved / (card["memory"] * 1e12))
    return f"product {kind}" + (" (square)" if m == n == k else ""), seconds, flops


def work(call, card):
    """(label, seconds, flops) on the device, without the fixed price of a launch or copy."""
    if call.kind == "product":
        return product(call, card)
    if call.kind == "kernel":
        words = Words(call)
        if call.name == "attend":
            flops = attention_flops(words)
            return "attend", flops / (card["attend"] * 1e12), flops
        if call.name not in COST:
            raise SystemExit(f"no cost for the kernel {call.name}: add it to COST (tools/timeline/cost.py)")
        return call.name, COST[call.name](words) / (card["memory"] * 1e12), 0.0
    if call.kind == "fill":
        return "fill", bytes_of(call) / (card["memory"] * 1e12), 0.0
    rate = {"dd": card["memory"] * 500, "hd": card["pinned"], "dh": card["pinned"]}.get(call.name, card["pageable"])
    return "copy " + call.name, bytes_of(call) / (rate * 1e9), 0.0
