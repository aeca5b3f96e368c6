#!/usr/bin/env python3
"""`vlens topk --format json-v2` against `--json` of the same reading: the same tokens, the same probabilities where both
have them, and the whole path of a tracked word. json_v2_test.py VLENS SOURCE"""
import json
import pathlib
import subprocess
import sys

PROMPT = "What color is the square? Answer with one word."


def main():
    vlens, source = sys.argv[1], pathlib.Path(sys.argv[2])

    def topk(*arguments):
        command = [vlens, "topk", "--model", str(source / "data/demo/model"), "--image",
                   str(source / "data/demo/images/000.png"), "--prompt", PROMPT, "--position", "all", "-k", "3"]
        return json.loads(subprocess.run([*command, *arguments], check=True, stdout=subprocess.PIPE).stdout)
    v2, plain = topk("--format", "json-v2"), topk("--json", "--track", "red")
    assert v2["meta"]["version"] == 2 and v2["meta"]["lens"] == "logit", v2["meta"]
    assert v2["layers"] == list(range(plain["n_states"]))
    assert v2["input"] == [p["token"] for p in plain["positions"]]
    red, paths, checked = plain["tracked"][0]["token"], 0, 0
    for i, position in enumerate(plain["positions"]):
        path = v2["tracked"][i]
        in_top = set()
        for s, state in enumerate(position["states"]):
            cell = state["logit"]
            assert v2["topk"][s][i] == [t["token"] for t in cell["top"]], (s, i)
            assert v2["entropy"][s][i] == cell["entropy"], (s, i)
            for t in cell["top"]:
                in_top.add(t["token"])
                assert abs(path[t["token"]][s] - t["p"]) <= 1e-6 * t["p"], (s, i, t)
                checked += 1
        assert set(path) == in_top, i
        if red in path:
            paths += 1
            for s, state in enumerate(position["states"]):
                want = state["logit"]["tracked"][0]
                assert abs(path[red][s] - want) <= 1e-6 * want, (s, i)
    assert paths > 0
    print(f"{checked} probabilities and {paths} whole paths of {red!r} agree")


if __name__ == "__main__":
    main()
