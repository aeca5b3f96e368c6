#!/usr/bin/env python3
"""Token ablation of the demo model by transformers: patches_golden.json, which patches_test.py compares vlens with.

    python make_patches_golden.py          # packages: tools/demo_vlm/requirements.txt; again whenever the model changes

Float32, one thread. Of the first LINES lines of samples.jsonl: held-out ones (the rule of docs/reference/formats.md) whose prompt
names one object of the picture, the first of each picture."""
import hashlib
import json
import pathlib
import re

import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

LINES, HELDOUT, SEED, GRID = 40, 0.4, 42, 8
HERE = pathlib.Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "data" / "demo"


def is_heldout(image):
    key = hashlib.sha256(image.read_bytes()).hexdigest()
    number = int.from_bytes(hashlib.sha256(f"{SEED}:{key}".encode()).digest()[:8], "big")
    return number / 2**64 < HELDOUT


def asked_object(objects, prompt):
    words = set(re.findall(r"\w+", prompt.lower()))
    named = [o for o in objects if {o["shape"], o["color"]} & words]
    return named[0] if len(named) == 1 else None


def questions():
    objects = {e["image"]: e["objects"] for e in map(json.loads, (DEMO / "objects.jsonl").read_text().splitlines())}
    seen, found = set(), []
    for number, line in enumerate((DEMO / "samples.jsonl").read_text().splitlines()[:LINES]):
        sample = json.loads(line)
        asked = asked_object(objects[sample["image"]], sample["prompt"])
        if asked and sample["image"] not in seen and is_heldout(DEMO / sample["image"]):
            seen.add(sample["image"])
            found.append((number, sample, asked))
    return found


def patch_sets(asked):
    inside = sorted(map(tuple, asked["patches"]))
    ring = sorted({(r + dr, c + dc) for r, c in inside for dr in (-1, 0, 1) for dc in (-1, 0, 1)
                   if 0 <= r + dr < GRID and 0 <= c + dc < GRID} - set(inside))
    return {"object": inside, "ring": ring, "both": sorted(inside + ring)}


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    processor = AutoProcessor.from_pretrained(DEMO / "model")
    model = LlavaForConditionalGeneration.from_pretrained(DEMO / "model", torch_dtype=torch.float32).eval()
    chosen = []
    for number, sample, asked in questions():
        inputs = processor(images=Image.open(DEMO / sample["image"]).convert("RGB"), return_tensors="pt",
                           text=f"USER: <image>\n{sample['prompt']} ASSISTANT:")
        ids = inputs.input_ids[0]
        rows = (ids == model.config.image_token_index).nonzero().flatten()
        patches = model.get_image_features(
            pixel_values=inputs.pixel_values, vision_feature_layer=model.config.vision_feature_layer,
            vision_feature_select_strategy=model.config.vision_feature_select_strategy)[0]
        embeds = model.get_input_embeddings()(ids)
        embeds[rows] = patches
        chosen.append((number, patch_sets(asked), embeds, rows))
    mean = torch.cat([embeds[rows] for _, _, embeds, rows in chosen]).double().mean(0).float()

    def last(embeds):
        return model.language_model(inputs_embeds=embeds[None]).logits[0, -1].double().softmax(-1)

    golden = []
    for number, sets, embeds, rows in chosen:
        p = last(embeds)
        token = int(p.argmax())
        entry = {"sample": number, "token": token, "probability": float(p[token])}
        for name, cells in sets.items():
            entry[name] = {"patches": cells}
            for value, row in (("mean", mean), ("zero", torch.zeros_like(mean))):
                changed = embeds.clone()
                changed[rows[[r * GRID + c for r, c in cells]]] = row
                q = last(changed)
                entry[name][value] = float(q[token])
                entry[name][value + "_kept"] = int(q.argmax()) == token
        golden.append(entry)
    (HERE / "patches_golden.json").write_text("[\n" + ",\n".join(map(json.dumps, golden)) + "\n]\n")
    print(f"{len(golden)} questions")


if __name__ == "__main__":
    main()
