"""One forward pass of transformers (float32, eager, 1 thread) dumped as a safetensors file."""
import json

import torch
from PIL import Image
from transformers import GenerationConfig

from . import images, mllama, save_tensors
from .models import CLIP_SILENT, IMAGE_SIZE

N_GENERATED = 6
LOGIT_ROWS = 8      # the last rows: the head works row by row, and what it reads is compared at all of them
MIN_MARGIN = 2e-3   # least gap between the best two logits for which greedy choice is a fair test

ASCII = "The picture shows 3 red circles near the wall."
UNICODE = "Gr\u00f6\u00dfe  \u4f60, \U0001f600 the\n\t\u043d"
LONG = "It's the state of each layer that the lens reads, 1234 zebra. \u00bfQu\u00e9? \u65e5\n\nThe teacher is the last layer."
CHAT = "USER: <image>\nWhat is the colour? \u00e9\u2713\nASSISTANT:"
# Rows before the picture see no tile.
ROWS = "The lens reads the state of each layer."
AROUND = "<image>The first.<image>and <image>"  # first, in the middle, last
VISION_CHAT = "<|begin_of_text|><|start_header_id|>u<|end_header_id|>\n\n<|image|>the ?<|eot_id|>"
TWO = "<image>The first.<image>\nAnd the second?"

# (model, case) -> prompt and pictures
CASES = {
    ("llama-base-f32", "ascii"): (ASCII, []),
    ("llama-base-f32", "unicode"): (UNICODE, []),
    ("llama-tied-bf16", "unicode"): (UNICODE, []),
    ("llama-rope3-f16", "long"): (LONG, []),
    ("llama-rope3-f16", "special"): ("<|start_header_id|>user<|end_header_id|>\n\nHi \u00e9<|eot_id|>", []),
    ("llama-bias-f32", "unicode"): (UNICODE, []),
    ("llama-sharded-bf16", "unicode"): ("<|im_start|>" + UNICODE, []),
    ("llava-base-f32", "scene"): (CHAT, ["scene.png"]),
    ("llava-base-f32", "two"): (TWO, ["tall.png", "palette.png"]),
    ("llava-base-f32", "text"): ("the colour of the circle \u00fc", []),
    ("llava-variant-bf16", "scene"): (CHAT, ["scene.png"]),
    ("llava-variant-bf16", "two"): (TWO, ["alpha.png", "gray.png"]),
    ("mllama-base-bf16", "chat"): (VISION_CHAT, ["alpha.png"]),
    ("mllama-base-bf16", "three"): ("<|image|><|image|>of <|image|>the", ["wide.png", "small.png", "tall.png"]),
    ("mllama-base-bf16", "text"): ("the state", []),
    ("llama-linear-f32", "rows"): (ROWS, []),
    ("llama-dynamic-f32", "rows"): (ROWS, []),
    ("llama-yarn-f32", "rows"): (ROWS, []),
    ("llava-last-f32", "scene"): ("<image>the colour", ["scene.png"]),
    ("llava-nobias-f16", "around"): (AROUND, ["wide.png", "gray.png", "square.png"]),
    ("mllama-variant-bf16", "scene"): ("of <|image|>the state", ["scene.png"]),
}


def encode(model, tokenizer, prompt, pictures):
    """input_ids with <image> already repeated for every image row, and pixel_values."""
    if model.config.model_type == "mllama":
        return mllama.encode(tokenizer, prompt, pictures)
    inputs = {}
    if pictures:
        n = model.config.image_seq_length
        prompt = prompt.replace("<image>", "<image>" * n)
        inputs["pixel_values"] = images.processor(IMAGE_SIZE, (IMAGE_SIZE, IMAGE_SIZE))(
            pictures, return_tensors="pt")["pixel_values"]
    inputs["input_ids"] = torch.tensor([tokenizer.encode(prompt).ids])
    return inputs


def forward(model, inputs, **kwargs):
    # LLaVA 4.46.3 fails on text-only prompts; its language model alone is the same computation.
    if model.config.model_type == "llava" and "pixel_values" not in inputs:
        model = model.language_model
    with torch.no_grad():
        return model(**inputs, use_cache=False, return_dict=True, **kwargs)


def greedy(model, inputs, label):
    """N_GENERATED ids by transformers' own generate(), with its KV cache; it does not stop at an end token."""
    if model.config.model_type == "llava" and "pixel_values" not in inputs:
        model = model.language_model
    settings = GenerationConfig(max_new_tokens=N_GENERATED, do_sample=False, use_cache=True, pad_token_id=0,
                                eos_token_id=-1, output_logits=True, return_dict_in_generate=True)
    found = model.generate(**inputs, generation_config=settings)
    for logits in found.logits:
        best = logits[0].topk(2).values
        if (best[0] - best[1]).item() < MIN_MARGIN:
            raise SystemExit(f"{label}: greedy margin too small; choose another prompt")
    return found.sequences[0, -N_GENERATED:]


def trace(model, inputs):
    """{name: tensor} of everything that a golden holds."""
    language = getattr(model, "language_model", model)
    seen = {}
    hooks = [language.model.norm.register_forward_pre_hook(
        lambda module, args: seen.update(last_prenorm=args[0][0].clone()))]
    if "pixel_values" in inputs and model.config.model_type == "mllama":
        hooks += mllama.hook(model, seen)
    elif "pixel_values" in inputs:
        def keep_tower(module, args, output):
            for i, hidden in enumerate(output.hidden_states):
                seen[f"vision.hidden.{i:02d}"] = hidden.clone()
        hooks.append(model.vision_tower.register_forward_hook(keep_tower))
        hooks.append(model.multi_modal_projector.register_forward_hook(
            lambda module, args, output: seen.update({"vision.out": output.clone()})))
    output = forward(model, inputs, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    for i, hidden in enumerate(output.hidden_states):
        seen[f"hidden.{i:02d}"] = hidden[0]
    return {**seen, "logits": output.logits[0, -LOGIT_ROWS:]}


def write_golden(model, tokenizer, key, image_folder, path):
    prompt, names = CASES[key]
    inputs = encode(model, tokenizer, prompt, [Image.open(image_folder / n) for n in names])
    tensors = trace(model, inputs)
    tensors["input_ids"] = inputs["input_ids"][0]
    tensors["generated"] = greedy(model, inputs, path.stem)
    if names and model.config.model_type == "mllama":
        tensors |= {name: inputs[name][0] for name in (
            "pixel_values", "aspect_ratio_ids", "aspect_ratio_mask", "cross_attention_mask")}
    elif names:
        tensors["pixel_values"] = inputs["pixel_values"]
    save_tensors(tensors, path, {"model_dir": key[0], "prompt": prompt, "images": json.dumps(names), "exif": "false"})
    return inputs


def sensitivity(model, all_inputs):
    """Least relative change of the logits when any one tensor is perturbed by 10 %."""
    reference = [forward(model, inputs).logits for inputs in all_inputs]
    least = (float("inf"), "")
    for name, tensor in model.named_parameters():
        if is_silent(model, name) or not tensor.any():
            continue
        kept = tensor.detach().clone()
        with torch.no_grad():
            tensor.mul_(1 + 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
        change = max(((forward(model, i).logits - r).abs().max() / r.abs().max()).item()
                     for i, r in zip(all_inputs, reference))
        with torch.no_grad():
            tensor.copy_(kept)
        least = min(least, (change, name))
    return least


def is_silent(model, name):
    if "vision_tower" not in name:
        return False
    layers = model.config.vision_config.num_hidden_layers
    used = model.config.vision_feature_layer % (layers + 1)
    unread = [f"layers.{i}." for i in range(used, layers)]
    return any(part in name for part in CLIP_SILENT + unread)
