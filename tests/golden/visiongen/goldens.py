"""One forward pass of transformers (float32, eager, one thread) as a safetensors file."""
import hashlib
import json

import torch
from PIL import Image
from transformers import GenerationConfig

from fixturegen import save_tensors

N_GENERATED = 20
LOGIT_ROWS = 8
MIN_MARGIN = 1e-3  # least gap between the best two logits for which greedy choice is a fair test
TURN, END, ASK = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "What is in this picture?"
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
GEMMA = "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"

# (directory, case) -> prompt, pictures, settings of the processor
CASES = {
    ("smolvlm-f32", "tiles"): ("<|im_start|>User:<image>" + ASK + "<end_of_utterance>\nAssistant:", ["wide.png"], {}),
    ("idefics3-bf16", "two"): ("<|im_start|>User:<image>and<image>12 red.<end_of_utterance>\nAssistant:",
                               ["square.png", "tall.png"], {}),
    ("smolvlm-f32", "whole"): ("<|im_start|>User:<image>the state<end_of_utterance>\nAssistant:", ["scene.png"],
                               {"do_image_splitting": False}),
    ("vicuna-f32", "tall"): ("USER: <image>\n" + ASK + " ASSISTANT:", ["tall.png"], {}),
    ("mistral-bf16", "two"): ("[INST] <image>\n<image>\nthe colour [/INST]", ["wide.png", "small.png"], {}),
    ("max9-f32", "wide"): ("<|im_start|>user <image>\n" + ASK + "<|im_end|><|im_start|>assistant\n", ["wide.png"], {}),
    ("max2-bf16", "pooled"): ("<|im_start|>user <image>\nred<|im_end|><|im_start|>assistant\n", ["scene.png"], {}),
    ("max2-bf16", "two"): ("<|im_start|>user <image>\n<image>\nred<|im_end|><|im_start|>assistant\n",
                           ["tall.png", "square.png"], {}),
    ("base-f32", "scene"): (GEMMA.format("<start_of_image>" + ASK), ["scene.png"], {}),
    ("base-f32", "crops"): (GEMMA.format("<start_of_image>the state"), ["wide.png"],
                            {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 10}),
    ("deep-bf16", "two"): (GEMMA.format("A<start_of_image>B<start_of_image>the circle"), ["tall.png", "small.png"], {}),
    ("deep-bf16", "text"): (GEMMA.format("The lens reads the state."), [], {}),
    ("v3-f32", "tiles"): (TURN + "<IMG_CONTEXT>\n" + ASK + END, ["wide.png"], {}),
    ("qknorm-bf16", "two"): (TURN + "<IMG_CONTEXT>\n<IMG_CONTEXT>\nthe colour" + END, ["square.png", "tall.png"], {}),
}
for family in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
    CASES[family + "-untied-f32", "wide"] = (TURN + PICTURE + ASK + END, ["wide.png"], {})
    CASES[family + "-tied-bf16", "two"] = (TURN + PICTURE + "and" + PICTURE + "the colour" + END,
                                           ["tall.png", "small.png"], {})
    CASES[family + "-tied-bf16", "text"] = (TURN + "The lens reads 12." + END, [], {})


def greedy(model, inputs, label):
    settings = GenerationConfig(max_new_tokens=N_GENERATED, do_sample=False, use_cache=True, pad_token_id=0,
                                eos_token_id=-1, output_logits=True, return_dict_in_generate=True)
    found = model.generate(**inputs, generation_config=settings)
    margin = min((v[0] - v[1]).item() for v in (logits[0].topk(2).values for logits in found.logits))
    if margin < MIN_MARGIN:
        print(f"{label}: greedy margin {margin:.1e}; choose another prompt")
    return found.sequences[0, -N_GENERATED:]


def parts(model):
    """(decoder, blocks of the tower)."""
    inner = model.model
    text = getattr(inner, "language_model", None) or inner.text_model
    tower = next(m for m in (getattr(inner, n, None) for n in ("visual", "vision_tower", "vision_model")) if m is not None)
    blocks = getattr(tower, "blocks", None)
    if blocks is None:
        encoder = getattr(tower, "vision_model", tower).encoder
        blocks = encoder.layer if hasattr(encoder, "layer") else encoder.layers
    return text, blocks


def trace(model, inputs):
    """{name: tensor} of everything that a golden holds. State i is what block i reads: after Qwen3-VL's injection."""
    text, blocks = parts(model)
    seen, hooks = {}, []

    def keep(name):
        def hook(module, args, kwargs):
            value = args[0] if args else kwargs["hidden_states"]
            seen[name] = value.squeeze(0).clone()
        return hook

    def keep_output(name):
        def hook(module, args, output):
            value = output[0] if isinstance(output, tuple) else output
            seen[name] = value.squeeze(0).clone()
        return hook

    for i, layer in enumerate(text.layers):
        hooks.append(layer.register_forward_pre_hook(keep(f"hidden.{i:02d}"), with_kwargs=True))
    hooks.append(text.norm.register_forward_pre_hook(keep("last_prenorm"), with_kwargs=True))
    hooks.append(text.norm.register_forward_hook(keep_output(f"hidden.{len(text.layers):02d}")))
    for i, block in enumerate(blocks):
        hooks.append(block.register_forward_pre_hook(keep(f"vision.hidden.{i:02d}"), with_kwargs=True))
    hooks.append(blocks[-1].register_forward_hook(keep_output(f"vision.hidden.{len(blocks):02d}")))
    hooks.append(text.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(position_ids=kwargs.get("position_ids")), with_kwargs=True))
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[0, -LOGIT_ROWS:]
    for hook in hooks:
        hook.remove()
    positions = seen.pop("position_ids")
    n = inputs["input_ids"].shape[1]
    if positions is None:
        positions = torch.arange(n)[None]
    seen["position_ids"] = positions[-3:, 0] if positions.ndim == 3 else positions[0]
    return {**seen, "logits": logits}


def pixel_hashes(processor, inputs, n):
    """SHA-256 of the float32 pixel values of each picture, without the tiles that only fill a batch."""
    if n == 0:
        return []
    pixels = inputs["pixel_values"]
    if "image_grid_thw" in inputs:  # Qwen: rows of patches
        sizes = inputs["image_grid_thw"].prod(-1).tolist()
    elif pixels.ndim == 5 and len(pixels) == n:  # tiles of a picture, padded with zeros
        used = [[t for t in p if t.any()] for p in pixels]
        sizes, pixels = [len(p) for p in used], torch.stack([t for p in used for t in p])
    else:
        pixels = pixels.reshape(-1, *pixels.shape[-3:])
        sizes = tiles_of(processor, inputs, len(pixels), n)
    parts = pixels.split(sizes)
    return [hashlib.sha256(p.contiguous().numpy().tobytes()).hexdigest() for p in parts]


def tiles_of(processor, inputs, total, n):
    """How many of the tiles belong to each picture, from the image tokens that it was given."""
    if n == 1:
        return [total]
    text = processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    counts, seen = [], 0
    for end in [i for i, t in enumerate(text) if t in ("<global-img>", "</img>", "<end_of_image>")]:
        tokens = [t for t in text[seen:end] if t in ("<image>", "<IMG_CONTEXT>", "<image_soft_token>")]
        counts.append(len(tokens) // 4 + (text[end] == "<global-img>"))
        seen = end + (5 if text[end] == "<global-img>" else 0)
    assert sum(counts) == total and len(counts) == n, (counts, total)
    return counts


def write(model, processor, key, image_folder, path):
    prompt, names, settings = CASES[key]
    pictures = [Image.open(image_folder / n).convert("RGB") for n in names]
    given = {"images": [pictures]} if pictures else {}
    inputs = processor(text=[prompt], return_tensors="pt", **given, **settings)
    inputs = {k: v for k, v in inputs.items() if k != "attention_mask"}
    tensors = trace(model, inputs)
    if key[0].endswith("bf16"):  # one directory of a family shows the stages of its tower
        tensors = {k: v for k, v in tensors.items() if not k.startswith("vision.")}
    tensors["input_ids"] = inputs["input_ids"][0]
    tensors["generated"] = greedy(model, inputs, path.stem)
    save_tensors(tensors, path, {"model_dir": key[0], "prompt": prompt, "images": json.dumps(names), "exif": "false",
                                 "processor_kwargs": json.dumps(settings),
                                 "pixels": json.dumps(pixel_hashes(processor, inputs, len(names)))})


QUESTION = "What is the colour of the circle?"


def chat(processor, name, image_folder):
    """What the directory's template and processor make of a question about two pictures, and of one about none."""
    found = []
    for names in ([], ["scene.png"], ["scene.png", "small.png"]):
        pictures = [Image.open(image_folder / n).convert("RGB") for n in names]
        content = [{"type": "image"} for _ in names] + [{"type": "text", "text": QUESTION}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        # the template has written the token that the tokenizer would put in front
        special = {} if not text.startswith("<bos>") else {"add_special_tokens": False}
        given = {"images": [pictures]} if pictures else {}
        ids = processor(text=[text], return_tensors="pt", **given, **special)["input_ids"][0].tolist()
        found.append({"dir": name, "question": QUESTION, "images": names, "ids": ids})
    return found
