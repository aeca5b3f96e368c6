#!/usr/bin/env python3
"""README.md by its word: every command of its table is run, every export format written and read again, every family, type of
weights and kind of picture used. Usage: readme.py VLENS SOURCE"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

vlens, source = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
readme = (source / "README.md").read_text(encoding="utf-8")
fixtures, demo = source / "tests/golden/fixtures/models", source / "data/demo"
failures = []

CONFIG = f"""model: {demo}/model
output: lens
data: {{samples: samples.jsonl, images: {demo}, heldout: 0.4}}
cache: {{dir: cache, positions: {{image: 4}}}}
fit: {{tokens_per_step: 128}}
eval: {{bootstrap: 10}}
fidelity: {{layers: 2, directions: 2, samples: 2, max_rows: 16, transfer_rows: 16}}
study: {{samples: study.jsonl, images: {demo}, dir: study}}
"""
# what the words in capitals of the table stand for
WORDS = {"CONFIG": "run.yaml", "[FILE]": "new.yaml", "LENS": "lens", "PATH": "cache", "TEXT": "Is there a circle?",
         "NAME": "npz", "page.html": "page.html", "MODEL": str(demo / "model")}
AFTER = {"--model": str(demo / "model"), "--image": str(demo / "images/000.png"), "--lens": "lens", "--out": "out.npz",
         "--report": "report.html"}
BY_COMMAND = {"info": {"PATH": "lens"}, "figure": {"figure.svg": "figure.svg"}, "import": {"PATH": "out.npz", "LENS": "imported"}}
SHORT = {"bench": ["--size", "64x256", "--rows", "8", "--rounds", "1"]}
# the rows of the table of families: fixtures that stand for them
TEXT = ["qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "olmo2", "phi3", "opt"]
VISION = ["qwen2_vl/qwen2_vl-untied-f32", "qwen2_5_vl/qwen2_5_vl-untied-f32", "qwen3_vl/qwen3_vl-untied-f32", "gemma3/base-f32",
          "smolvlm/smolvlm-f32", "smolvlm/idefics3-bf16", "llava_next/vicuna-f32", "llava_onevision/max9-f32", "internvl/v3-f32"]
FAMILIES = {"LLaMA": ["llama-base-f32"], "Qwen2 ": [f"../../families/models/{name}" for name in TEXT],
            "Qwen2-VL": [f"../../vision/{name}" for name in VISION], "LLaVA": ["llava-base-f32"], "Llama 3.2 Vision": ["mllama-base-bf16"]}


def run(*args):
    done = subprocess.run([vlens, *args], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        failures.append(f"vlens {' '.join(args)}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


def table(after):
    """Rows of the first table behind a line."""
    lines = readme[readme.index(after):].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    for line in lines[start + 2:]:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def fill(words):
    """The words of a synopsis as arguments."""
    own, result = BY_COMMAND.get(words[0], {}), []
    for word in words:
        before = result[-1] if result else ""
        if before in own or before in AFTER and word not in own:
            word = AFTER.get(before, word)
        else:
            word = own.get(word, WORDS.get(word, word))
        result.append(word)
    return result + SHORT.get(words[0], [])


def commands():
    seen = set()
    for first, _ in table("## What it does"):
        for text in re.findall(r"`vlens ([^`]*)`", first):
            plain = re.sub(r"\[(--[^\]]*)\]", r"\1", text).split()  # options in brackets are tried as well
            if plain[0] == "serve":  # it would not end; tests/serve starts one
                seen.add("serve")
                continue
            if plain[0] == "cache":
                run("cache", "run.yaml", "--dry-run")
                plain = ["cache", "CONFIG"]
            if plain[0] == "eval":
                run("eval", "run.yaml", "--json")
                plain = ["eval", "CONFIG", "--report", "FILE"]
            run(*fill(plain))
            seen.add(plain[0])
    known = set(re.findall(r"^  (\w+) ", run("--help"), re.M))
    if seen != known:
        failures.append(f"the table has {sorted(seen - known)} that do not exist, and lacks {sorted(known - seen)}")


def formats():
    row = next(second for first, second in table("## What it does") if "vlens export" in first)
    named = set(re.findall(r"`([\w-]+)`", row))
    known = set(re.search(r"exports +(.*)", run("--version")).group(1).split(", "))
    if named != known:
        failures.append(f"README names the formats {sorted(named)}, the program has {sorted(known)}")
    interop = (source / "docs/reference/interop.md").read_text(encoding="utf-8")
    for name, types, back in re.findall(r"^\| `([\w-]+)` \|[^|]*\|([^|]*)\|([^|]*)\|$", interop, re.M):
        named.discard(name)
        for dtype in re.findall(r"\w+", types):
            out = {"npz": f"f-{dtype}.npz", "hdf5": f"f-{dtype}.h5", "jlens": f"f-{dtype}.pt"}.get(name, f"f-{name}-{dtype}")
            run("export", "lens", "--format", name, "--dtype", dtype, "--out", out, "--cache", "cache")
            if back.strip().startswith("yes"):
                run("verify", out, "--against", "cache", "--lens", "lens")
    if named:
        failures.append(f"docs/reference/interop.md says nothing of {sorted(named)}")


def families():
    rows = [first for first, _ in table("images, or `data.text`")]
    for row in rows:
        found = [fixture for name, all_of in FAMILIES.items() if row.startswith(name) for fixture in all_of]
        if not found:
            failures.append(f"no model stands for the family \"{row}\"")
        for fixture in found:
            run("topk", "--model", str(fixtures / fixture), "--prompt", "What is it?", "--json")
    if len(rows) < len(FAMILIES):
        failures.append(f"the table of families has {len(rows)} rows")
    sentence = re.search(r"Weights: safetensors in (.*?), single or sharded\. Pictures: (.*?)\.", readme)
    for dtype in re.findall(r"\w\w+\d", sentence.group(1)):
        model = next((m for m in fixtures.iterdir() if m.name.endswith(dtype.lower())), None)
        run("info", str(model))
    run("topk", "--model", str(fixtures / "llama-sharded-bf16"), "--prompt", "What is it?", "--json")
    for kind in re.findall(r"[A-Z]+", sentence.group(2)):
        pictures = {"PNG": demo / "images/000.png", "JPEG": "picture.jpg", "BMP": "picture.bmp"}
        run("topk", "--model", str(demo / "model"), "--image", str(pictures[kind]), "--prompt", "Is there a circle?")


def write_pictures():
    """A BMP by hand; a JPEG out of the tests of the decoder."""
    row = bytes([200, 30, 30] * 64)
    head = (14 + 40 + len(row) * 64).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    info = (40).to_bytes(4, "little") + (64).to_bytes(4, "little") * 2 + bytes([1, 0, 24, 0]) + bytes(24)
    pathlib.Path("picture.bmp").write_bytes(b"BM" + head + info + row * 64)
    samples = (source / "tests/image/image_samples.h").read_text(encoding="utf-8")
    array = re.search(r"jpeg_420\[\] = \{(.*?)\}", samples, re.S).group(1)
    pathlib.Path("picture.jpg").write_bytes(bytes(int(x, 0) for x in re.findall(r"0x[0-9a-f]+|\d+", array)))


with tempfile.TemporaryDirectory() as work:

    os.chdir(work)
    pathlib.Path("run.yaml").write_text(CONFIG)
    lines = (demo / "samples.jsonl").read_text(encoding="utf-8").splitlines()[:30]
    pathlib.Path("samples.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pathlib.Path("study.jsonl").write_text(lines[0] + "\n", encoding="utf-8")
    write_pictures()
    commands()
    formats()
    families()
    os.chdir("/")
for failure in failures:
    print("FAILED:", failure)
print(f"{len(failures)} failures" if failures else "README: as it says")
sys.exit(bool(failures))
