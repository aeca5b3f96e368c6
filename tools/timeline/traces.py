"""Traces of kernels/cuda_on_cpu (trace.h): reading them, cutting them into pieces, and counting what a piece does."""
import collections

TYPES = {"0": "f32", "2": "f16", "14": "bf16"}  # cudaDataType
HOST_WAITS = ("sync", "sync-event", "sync-device")

Call = collections.namedtuple("Call", "kind thread begin end stream name fields")


def parse(line):
    kind, thread, begin, end, stream, *fields = line.split()
    name = fields[0].split("<")[0] if kind == "kernel" else fields[0] + fields[1] if kind == "copy" else kind
    return Call(kind, int(thread), int(begin), int(end), int(stream), name, fields)


def read(path):
    with open(path) as lines:
        return [parse(line) for line in lines]


def bytes_of(call):
    return int(call.fields[2 if call.kind == "copy" else 0])


def product_name(call):
    m, n, k, into = call.fields[:4]
    return f"{TYPES[into]} {m}x{n}x{k}"


def cuts(calls, mark):
    """Where pieces end: mark is KERNEL:N, every N-th launch of it; or "all", the whole trace as one piece."""
    if mark == "all":
        return [-1, len(calls) - 1]
    kernel, _, every = mark.partition(":")
    found = [i for i, c in enumerate(calls) if c.kind == "kernel" and c.name == kernel][int(every or 1) - 1::int(every or 1)]
    if len(found) < 2:
        raise SystemExit(f"{mark}: {len(found)} cuts, at least 2 are needed")
    return found


def count(calls):
    """What a host and a device do, as numbers that depend on nothing but the program and its input."""
    launches, products, copies = collections.Counter(), collections.Counter(), collections.Counter()
    out = collections.Counter()
    for c in calls:
        if c.kind == "kernel":
            launches[c.name] += 1
        elif c.kind == "product":
            products[product_name(c)] += 1
            out["products " + TYPES[c.fields[3]]] += 1
        elif c.kind == "copy":
            copies[c.name + " copies"] += 1
            copies[c.name + " bytes"] += bytes_of(c)
        elif c.kind in HOST_WAITS:
            out["host waits"] += 1
        elif c.kind in ("alloc", "free"):
            out["allocations"] += c.kind == "alloc"
            out["frees"] += c.kind == "free"
        elif c.kind in ("choose", "fill"):
            out[{"choose": "algorithms chosen", "fill": "fills"}[c.kind]] += 1
        if c.kind == "copy" and "p" in c.name:  # the driver makes the host wait
            out["pageable copies"] += 1
    out["launches"] = sum(launches.values()) + sum(products.values())
    return {"all": dict(sorted(out.items())), "kernels": dict(sorted(launches.items())),
            "copies": dict(sorted(copies.items())), "products": dict(sorted(products.items()))}
