"""Lenses that vlens exported, in tuned-lens: equal tensors, equal logits, the hash of the package itself."""
import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

import peers

source, vlens = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, str(source / "examples"))
from read_lens import lens_logits, read_safetensors  # noqa: E402

CAST = {"tuned": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_files(run, model, unembed, ours):
    prefix = peers.PREFIXES[run]
    for name, dtype in CAST.items():
        lens = peers.load(unembed, f"{prefix}lens-{name}")
        for i in range(len(lens)):
            for kind in ("weight", "bias"):
                expected = torch.from_numpy(ours[f"adapter.{i}.{kind}"]).to(dtype).float()
                assert torch.equal(getattr(lens[i], kind).data.float(), expected), (run, name, i, kind)
        raw = torch.load(f"{prefix}lens-{name}/params.pt", weights_only=True)
        assert {t.dtype for t in raw.values()} == {dtype}
        config = json.load(open(f"{prefix}lens-{name}/config.json", encoding="utf-8"))
        assert config["unembed_hash"] == unembed.unembedding_hash(), (run, name)


def check_other_formats(ours):
    """NumPy, HDF5 and jlens files of the lens of the text model: the same numbers."""
    arrays = np.load("lens.npz")
    assert sorted(arrays.files) == sorted(ours) and all(np.array_equal(arrays[k], ours[k]) for k in ours)
    with h5py.File("lens.h5") as f:
        for name in ours:
            assert np.array_equal(f[name.replace(".", "/")][:], ours[name]), name
    for name, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
        back, _ = read_safetensors(f"lens-h5-{name}/lens.safetensors")
        assert all(np.array_equal(torch.from_numpy(ours[k]).to(dtype).float().numpy(), back[k]) for k in ours), name
    artifact = torch.load("lens.pt", weights_only=True)
    layers = artifact["source_layers"]
    assert layers == list(artifact["J"]) == list(range(len(ours) // 2 - 1)) and artifact["n_prompts"] == 0
    for l in layers:
        weight = torch.from_numpy(ours[f"adapter.{l + 1}.weight"])
        assert torch.equal(artifact["J"][l], (torch.eye(artifact["d_model"]) + weight).half()), l
    print(f"npz, hdf5, jlens: {len(ours)} tensors equal")


def check_cached_rows(run, unembed, ours):
    """tuned-lens against the NumPy reader of examples/, and against what vlens eval measured."""
    states = peers.rows(run, heldout=True)
    lens = peers.load(unembed, f"{peers.PREFIXES[run]}lens-tuned")
    norm, head = (t.detach().double().numpy() for t in (unembed.final_norm.weight, unembed.unembedding.weight))
    worst = 0
    for i in range(len(states) - 1):
        with torch.no_grad():
            theirs = lens(states[i], i)
        mine = lens_logits(ours, i, states[i].double().numpy(), norm, head, unembed.final_norm.variance_epsilon)
        worst = max(worst, peers.kl(mine, theirs).abs().max().item())
    measured = peers.evaluated(f"{run}.json")
    apart = max(abs(a - b) for a, b in zip(peers.teacher_kl(lens, states), measured))
    print(f"{run}: {states.shape[1]} rows, {len(measured)} layers: largest KL to NumPy {worst:.1e}, "
          f"mean KL per layer within {apart:.1e} of vlens eval")
    assert worst < 1e-6 and apart < 1e-4


def check_whole_way(run, model, unembed):
    """From the prompt on: the model of transformers and tuned-lens against vlens topk, every token of the vocabulary."""
    lens = peers.load(unembed, f"{peers.PREFIXES[run]}lens-tuned")
    size = unembed.unembedding.weight.shape[0]
    if run != "vlm":
        name, prompt = "model" if run == "text" else run, "The cache is a directory"
        command = ["--model", name, "--raw-prompt", "--lens", f"{peers.PREFIXES[run]}lens"]
        tokenizer = AutoTokenizer.from_pretrained(name)
        begin = tokenizer.bos_token if run == "mllama" else ""  # its processor puts it there, not the tokenizer
        inputs = tokenizer(begin + prompt, return_tensors="pt", return_token_type_ids=False)
    else:
        image, prompt = source / "data/demo/images/000.png", "USER: <image>\nWhat color is the square?"
        command = ["--model", "vlm", "--lens", "vlm-lens", "--raw-prompt", "--image", str(image)]
        inputs = AutoProcessor.from_pretrained("vlm")(text=prompt, images=Image.open(image), return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    command = [vlens, "topk", *command, "--prompt", prompt, "--k", str(size), "--json", "--set", "precision=exact"]
    text = subprocess.run(command, check=True, capture_output=True).stdout
    worst = 0
    for state in json.loads(text)["positions"][0]["states"][:-1]:
        p = np.zeros(size)
        for token in state["tuned"]["top"]:
            p[token["id"]] = token["p"]
        assert abs(p.sum() - 1) < 1e-5, p.sum()
        with torch.no_grad():
            theirs = lens(hidden[state["state"]][0, -1:], state["state"])
        worst = max(worst, peers.kl(np.log(p)[None], theirs).abs().max().item())
    print(f"{run}: from the prompt on, all {size} tokens of {len(lens)} layers: largest KL {worst:.1e}")
    assert worst < 1e-6


for run, prefix in peers.PREFIXES.items():
    model = peers.model_of(run)
    unembed = peers.unembed_of(run, model)
    ours, _ = read_safetensors(f"{prefix}lens/lens.safetensors")
    check_files(run, model, unembed, ours)
    check_cached_rows(run, unembed, ours)
    check_whole_way(run, model, unembed)
    if run == "text":
        check_other_formats(ours)
