#!/usr/bin/env python3
"""The model of tools/timeline on traces made by hand, whose times can be told by hand."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools" / "timeline"))
import cost
import replay
import traces

CARD = replay.RATES["h200"]
FLOPS = 2.0 * 8192**3
ONE = 1e6 * FLOPS / (680e12 * 4096 / (32 * 132))  # microseconds: 64 x 64 tiles in 32 waves over 132 multiprocessors


def product(stream=3, at=0):
    return f"product 1 {at} {at} {stream} 8192 8192 8192 14 0 T"


def end(lines, **more):
    nodes = replay.replay([traces.parse(line) for line in lines], CARD, **more)
    return nodes, max(n.end for n in nodes)


def near(value, expected):
    assert abs(value - expected) < 0.03 * expected, (value, expected)


def test_streams_and_engines():
    near(end([product()])[1], ONE)
    near(end([product(), product()])[1], 2 * ONE)
    near(end([product(3), product(4)])[1], 2 * ONE)  # two streams, one engine
    upload = ["copy 1 0 0 4 h d 110000000 1"]  # 2000 us at 55 GB/s
    wait = ["record 1 0 0 4 1", "wait 1 0 0 3 1"]
    near(end([product(), product()] + upload)[1], 2 * ONE)  # it travels beside them
    near(end([product(), product()] + upload + wait + [product()])[1], 3 * ONE)
    near(end(upload + wait + [product()])[1], 2000 + ONE)


def test_pageable_copies_stop_the_host():
    near(end([product(), "copy 1 0 0 3 d p 10000000 1"])[1], ONE + 1000)
    near(end(["copy 1 0 0 3 d p 10000000 1", product()])[1], 1000 + ONE)


def test_host_work_is_hidden_until_it_waits():
    late = product(at=1500001)
    nodes, last = end([product(), "sync 1 1 1 3", late])
    near(last, 2 * ONE + 1500)
    path = replay.critical_path(nodes[-1], 0.0)
    near(path["product bf16 (square)"], 2 * ONE)
    near(path["host: between calls"], 1500)
    nodes, last = end([product(), late])
    near(last, 2 * ONE)
    assert replay.critical_path(nodes[-1], 0.0)["host: between calls"] == 0
    near(end([product(), "sync 1 1 1 3", late], host=0.5)[1], 2 * ONE + 750)


def test_reader():
    tile = ["sync-event 1 {0} {0} 0 1", "wait 1 {0} {0} 4 2", "copy 1 {0} {0} 4 h d 8388608 1"]
    twice = [line.format(t) for t in (0, 9000000) for line in tile]  # 9000 us were traced between the tiles
    near(end(twice, read_rate=8.388608)[1], 1000 + 1000 + 8388608 / 55e3)
    near(end(twice)[1], 9000 + 8388608 / 55e3)


def test_costs():
    near(cost.product(traces.parse(product()), CARD)[1] * 1e6, ONE)
    words = "d d d 0 4096 4096 0 1024 4096 5360320512"  # y is one row
    add = traces.parse("kernel 1 0 0 3 add_rows void(*)(add_view) 4096 256 0 " + words)
    assert cost.COST["add_rows"](cost.Words(add)) == 1024 * 4096 * 4 * 2
    widen = "kernel 1 0 0 3 convert<Out,In> void(*)(float*,__halfconst*,convert_view) 9 256 0 d d 8 8 10 8 1"
    assert cost.COST["convert"](cost.Words(traces.parse(widen))) == 10 * 8 * 6
    for line in ("kernel 1 0 0 3 add_rows T 9 256 0 7 " + words, "kernel 1 0 0 3 unknown T 9 256 0 d"):
        try:
            cost.work(traces.parse(line), CARD)
        except SystemExit:
            continue
        raise AssertionError("a changed layout and an unknown kernel must not pass: " + line)


def test_counts():
    lines = [product(), "kernel 1 0 0 3 add_rows T 9 256 0 7", "copy 1 0 0 3 d p 64 1", "copy 1 0 0 3 h d 32 1",
             "sync 1 0 0 3", "sync-event 1 0 0 0 1", "alloc 1 0 0 0 64 d", "choose 1 0 0 0"]
    found = traces.count([traces.parse(line) for line in lines])
    assert found["all"] == {"products bf16": 1, "host waits": 2, "allocations": 1, "frees": 0, "algorithms chosen": 1,
                            "launches": 2, "pageable copies": 1}, found["all"]
    assert found["copies"] == {"dp bytes": 64, "dp copies": 1, "hd bytes": 32, "hd copies": 1}
    assert traces.cuts([traces.parse(lines[1])] * 6, "add_rows:2") == [1, 3, 5]


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("ok", name)
