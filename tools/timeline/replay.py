#!/usr/bin/env python3
"""Replays a trace of kernels/cuda_on_cpu on a model of a card: a prediction, never a measurement.

    VL_CUDA_ON_CPU_TRACE=fit.trace VL_CUDA_ON_CPU_DRY=1 vlens train CONFIG --set device=cuda_on_cpu
    replay.py fit.trace --mark adam_step:8 [--card h200] [--read GB/s] [--host FACTOR] [--json]

The trace is cut at every N-th launch of a kernel; the first piece (warm-up) and what follows the last cut are left out.
Figures are means of the pieces. The card: one compute engine, an engine for copies in each direction, streams in order,
events, one launch at a time. The host: the time between calls as it was traced, and fixed prices of calls (rates.json).
What it cannot say: clocks, caches, overlap of kernels, the host of the machine with the card."""
import argparse
import collections
import json
import pathlib
import statistics
import sys

import cost
import traces

RATES = json.loads((pathlib.Path(__file__).parent / "rates.json").read_text())
CARDS = [name for name in RATES if name not in ("about", "microseconds")]
PRICE = RATES["microseconds"]
TILE_BYTES = 1 << 20  # an upload of at least this is a tile of the cache


class Node:
    """A piece of time on the host or the device, in microseconds, and what it waited for."""
    def __init__(self, name, start, length, cause, call=None, flops=0.0):
        self.name, self.start, self.end = name, start, start + length
        self.cause, self.call, self.flops = cause, call, flops

    @property
    def on_device(self):
        return not self.name.startswith("host")


def later(a, b):
    return b if a is None or (b is not None and b.end > a.end) else a


def upload_behind(calls, i):
    """Bytes of the upload that call i waits to prepare, or 0 (kernels/cuda/transfer.cu: wait, fill, order, send)."""
    for c in calls[i:i + 3]:
        if c.kind == "copy":
            return traces.bytes_of(c) if c.name == "hd" else 0
        if c.kind not in ("sync-event", "wait"):
            return 0
    return 0


def host_work(calls):
    """Microseconds of the host's own work before each call: the median over places that look alike, for machines are noisy."""
    end, before, found, alike = {}, {}, [], collections.defaultdict(list)
    for i, c in enumerate(calls):
        gap = max(0, c.begin - end.get(c.thread, c.begin)) / 1e3
        place = before.get(c.thread), c.name, upload_behind(calls, i), c.kind == "copy" and c.fields[2]
        found.append((place, gap))
        alike[place].append(gap)
        end[c.thread], before[c.thread] = c.end, c.name
    typical = {place: statistics.median(gaps) for place, gaps in alike.items()}
    return [typical[place] if len(alike[place]) >= 3 else gap for place, gap in found]


class Machine:
    def __init__(self, card, read_rate=0.0):
        self.card, self.read_rate = card, read_rate
        self.nodes, self.host, self.stream, self.event, self.engine, self.read_since = [], {}, {}, {}, {}, {}

    def add(self, name, start, length, cause, **more):
        self.nodes.append(Node(name, start, length, cause, **more))
        return self.nodes[-1]

    def host_does(self, c, name, length):
        now = self.host.get(c.thread)
        self.host[c.thread] = self.add("host: " + name, now.end if now else 0.0, length, now, call=c)

    def wait_for_reader(self, c, size):
        """A thread has been reading the tile since the last one was taken (trainer/fit/reader.c)."""
        now = self.host.get(c.thread)
        start = now.end if now else 0.0
        ready = max(start, self.read_since.get(c.thread, start) + size / (self.read_rate * 1e3))
        self.host[c.thread] = self.add("host: waits for the reader", start, ready - start, now, call=c)
        self.read_since[c.thread] = ready

    def queue(self, c):
        label, seconds, flops = cost.work(c, self.card)
        self.host_does(c, "launches", PRICE["copy" if c.kind == "copy" else "launch"])
        launched = self.host[c.thread]
        engine = {"hd": "up", "pd": "up", "dh": "down", "dp": "down"}.get(c.name, "compute")
        cause = later(later(launched, self.stream.get(c.stream)), self.engine.get(engine))
        start = max(launched.end + PRICE["latency"], cause.end + (0 if cause is launched else PRICE["gap"]))
        done = self.add(label, start, seconds * 1e6 + PRICE["kernel"], cause, call=c, flops=flops)
        self.stream[c.stream] = self.engine[engine] = done
        if c.name in ("dp", "pd"):  # the driver copies pageable memory through its own, and the host takes part
            self.host[c.thread] = self.add("host: synchronises", done.end, 0.0, done, call=c)

    def synchronise(self, c):
        now = self.host.get(c.thread)
        start = now.end if now else 0.0
        ends = [n for n in self.stream.values() if n]
        target = {"sync": self.stream.get(c.stream), "sync-event": self.event.get(c.fields[0]) if c.fields else None,
                  "sync-device": max(ends, key=lambda n: n.end, default=None)}[c.kind]
        if target is not None and target.end > start:
            self.host[c.thread] = self.add("host: synchronises", target.end, PRICE["sync"], target, call=c)
        else:
            self.host_does(c, "events", PRICE["event"])

    def manage_memory(self, c):
        if c.kind == "free":  # it waits for the device
            self.host[c.thread] = later(self.host.get(c.thread),
                                        max((n for n in self.stream.values() if n), key=lambda n: n.end, default=None))
        self.host_does(c, "memory", PRICE["memory"])

    def call(self, c):
        if c.kind in ("kernel", "product", "copy", "fill"):
            self.queue(c)
        elif c.kind in traces.HOST_WAITS:
            self.synchronise(c)
        elif c.kind in ("alloc", "free"):
            self.manage_memory(c)
        elif c.kind == "choose":
            self.host_does(c, "chooses algorithms", PRICE["choose"])
        else:
            self.host_does(c, "events", PRICE["event"])
            if c.kind == "record":
                self.event[c.fields[0]] = self.stream.get(c.stream)
            else:
                self.stream[c.stream] = later(self.stream.get(c.stream), self.event.get(c.fields[0]))


def replay(calls, card, read_rate=0.0, host=1.0):
    """All nodes in the order of the trace. read_rate: GB/s of the reading thread; 0: the time that was traced."""
    machine, gaps = Machine(card, read_rate), host_work(calls)
    for i, (c, gap) in enumerate(zip(calls, gaps)):
        if read_rate and c.kind == "sync-event" and upload_behind(calls, i) >= TILE_BYTES:
            machine.wait_for_reader(c, upload_behind(calls, i))
        elif gap * host > 0:
            machine.host_does(c, "between calls", gap * host)
        machine.call(c)
    return machine.nodes


def critical_path(last, begin):
    """Microseconds by name along the chain of causes, back from `last` to the time `begin`."""
    spent, node, upper = collections.Counter(), last, last.end
    while node is not None and upper > begin:
        lower = max(node.start, begin)
        spent[node.name] += max(0.0, upper - lower)
        upper = min(upper, lower)
        if node.cause is not None and node.cause.end < upper:
            spent["latency and gaps"] += upper - max(node.cause.end, begin)
            upper = max(node.cause.end, begin)
        node = node.cause
    return spent


def figures(nodes, calls, mark):
    """Means over the pieces: milliseconds, shares, TFLOP/s."""
    where = traces.cuts(calls, mark)
    pieces = len(where) - 1
    done = {id(n.call): i for i, n in enumerate(nodes) if n.on_device}
    last = max(i for i, n in enumerate(nodes) if n.on_device) if mark == "all" else done[id(calls[where[-1]])]
    first = -1 if mark == "all" else done[id(calls[where[0]])]
    begin = 0.0 if mark == "all" else nodes[first].end
    part, wall = nodes[first + 1:last + 1], nodes[last].end - begin
    busy, path = collections.Counter(), critical_path(nodes[last], begin)
    for n in part:
        if n.on_device:
            busy[n.name] += n.end - n.start
    compute = sum(t for name, t in busy.items() if name not in ("copy hd", "copy pd", "copy dh", "copy dp"))
    return {"pieces": pieces, "ms": wall / pieces / 1e3, "busy": compute / wall,
            "products": sum(t for name, t in busy.items() if name.startswith("product")) / wall,
            "tflops": sum(n.flops for n in part) / wall / 1e6,
            "device_ms": {k: v / pieces / 1e3 for k, v in busy.most_common()},
            "path_ms": {k: v / pieces / 1e3 for k, v in path.most_common()}}


def show(f, card):
    print(f"{card}, predicted: {f['ms']:.2f} ms a piece ({f['pieces']} pieces); GPU busy {100 * f['busy']:.0f} %, in "
          f"products {100 * f['products']:.0f} %; {f['tflops']:.0f} TFLOP/s in all")
    for title, key in (("on the device", "device_ms"), ("critical path", "path_ms")):
        print(f"  {title}, ms: " + "; ".join(f"{k} {v:.2f}" for k, v in f[key].items() if v >= 0.005 * f["ms"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--mark", required=True, metavar="KERNEL:N", help="every N-th launch of it ends a piece; all: one piece")
    parser.add_argument("--card", choices=CARDS, action="append", help="default: all")
    parser.add_argument("--read", type=float, default=0.0, help="GB/s of the thread that reads the cache (default: as traced)")
    parser.add_argument("--host", type=float, default=1.0, help="factor on the host's own time")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    calls = traces.read(args.trace)
    for card in args.card or CARDS:
        found = figures(replay(calls, RATES[card], args.read, args.host), calls, args.mark)
        print(json.dumps({"card": card, **found})) if args.json else show(found, card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
