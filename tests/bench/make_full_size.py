#!/usr/bin/env python3
"""Writes a Hugging Face directory of random weights with the exact shapes of a published model.

    make_full_size.py llava-1.5-7b OUT                       14.1 GB, float16 as published, 3 shards
    make_full_size.py llava-1.5-7b OUT --dtype bf16
    make_full_size.py llama-3.2-11b-vision-instruct OUT      21.3 GB, bfloat16 as published, 5 shards
    make_full_size.py MODEL OUT --blocks 4                   the same with fewer blocks of the decoder
    make_full_size.py MODEL OUT --hollow                     weights and pictures are holes in their files: zeros
    make_full_size.py MODEL --list                           names and shapes as JSON, nothing is written

Weights are scaled so that activations stay finite. The tokenizer knows bytes and the model's special tokens, at their
published ids. OUT/samples.jsonl, OUT/*.bmp and OUT/cache.yaml are four prompts with pictures for `vlens cache`.
NumPy only; --hollow and --list do without. Shapes and settings: config.json and model.safetensors.index.json of llava-hf/llava-1.5-7b-hf and
meta-llama/Llama-3.2-11B-Vision(-Instruct).
"""
import argparse
import json
import math
import pathlib
import struct
import sys

try:
    import numpy as np
except ImportError:
    np = None

POOL = 1 << 22  # random numbers that all tensors are cut from
GATE = 0.5
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
TORCH_DTYPE = {"f16": "float16", "bf16": "bfloat16", "f32": "float32"}
STORED = {"f16": "F16", "bf16": "BF16", "f32": "F32"}


# ---------------------------------------------------------------- shapes

def norm(name, n, bias):
    return {f"{name}.weight": [n], **({f"{name}.bias": [n]} if bias else {})}


def decoder_mlp(p, d, f):
    return {f"{p}mlp.gate_proj.weight": [f, d], f"{p}mlp.up_proj.weight": [f, d], f"{p}mlp.down_proj.weight": [d, f]}


def llava(blocks):
    shapes, v, clip = {}, "vision_tower.vision_model.", 1024
    shapes |= {f"{v}embeddings.class_embedding": [clip], f"{v}embeddings.patch_embedding.weight": [clip, 3, 14, 14],
               f"{v}embeddings.position_embedding.weight": [577, clip], **norm(f"{v}pre_layrnorm", clip, True)}
    for i in range(24):
        p = f"{v}encoder.layers.{i}."
        for part in ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"):
            shapes |= {f"{p}{part}.weight": [clip, clip], f"{p}{part}.bias": [clip]}
        shapes |= norm(f"{p}layer_norm1", clip, True)
        shapes |= {f"{p}mlp.fc1.weight": [4096, clip], f"{p}mlp.fc1.bias": [4096],
                   f"{p}mlp.fc2.weight": [clip, 4096], f"{p}mlp.fc2.bias": [clip]}
        shapes |= norm(f"{p}layer_norm2", clip, True)
    shapes |= norm(f"{v}post_layernorm", clip, True)
    for name, n_in in (("linear_1", clip), ("linear_2", 4096)):
        shapes |= {f"multi_modal_projector.{name}.weight": [4096, n_in], f"multi_modal_projector.{name}.bias": [4096]}
    shapes["language_model.model.embed_tokens.weight"] = [32064, 4096]
    for i in range(blocks):
        p = f"language_model.model.layers.{i}."
        shapes |= {f"{p}self_attn.{x}_proj.weight": [4096, 4096] for x in "qkvo"}
        shapes |= decoder_mlp(p, 4096, 11008)
        shapes |= norm(f"{p}input_layernorm", 4096, False) | norm(f"{p}post_attention_layernorm", 4096, False)
    shapes |= norm("language_model.model.norm", 4096, False)
    shapes["language_model.lm_head.weight"] = [32064, 4096]
    return shapes


CROSS = [3, 8, 13, 18, 23, 28, 33, 38]


def mllama_encoder(rows):
    shapes, v, c = {}, "vision_model.", 1280
    shapes |= {f"{v}class_embedding": [c], f"{v}patch_embedding.weight": [c, 3, 14, 14],
               f"{v}gated_positional_embedding.gate": [1], f"{v}gated_positional_embedding.embedding": [rows, c],
               f"{v}gated_positional_embedding.tile_embedding.weight": [9, 4 * rows * c]}
    for name in ("pre_tile", "post_tile"):
        shapes |= {f"{v}{name}_positional_embedding.gate": [1],
                   f"{v}{name}_positional_embedding.embedding.weight": [9, 4 * c]}
    shapes |= norm(f"{v}layernorm_pre", c, True) | norm(f"{v}layernorm_post", c, True)
    for group, n in (("transformer", 32), ("global_transformer", 8)):
        for i in range(n):
            p = f"{v}{group}.layers.{i}."
            if n == 8:
                shapes |= {f"{p}gate_attn": [1], f"{p}gate_ffn": [1]}
            shapes |= {f"{p}self_attn.{x}_proj.weight": [c, c] for x in "qkvo"}
            shapes |= {f"{p}mlp.fc1.weight": [5120, c], f"{p}mlp.fc1.bias": [5120],
                       f"{p}mlp.fc2.weight": [c, 5120], f"{p}mlp.fc2.bias": [c]}
            shapes |= norm(f"{p}input_layernorm", c, True) | norm(f"{p}post_attention_layernorm", c, True)
    return shapes


def mllama(image_size, blocks):
    shapes = mllama_encoder((image_size // 14) ** 2 + 1)
    shapes["language_model.model.embed_tokens.weight"] = [128264, 4096]
    for i in range(blocks):
        p = f"language_model.model.layers.{i}."
        if i in CROSS:
            shapes |= {f"{p}cross_attn_attn_gate": [1], f"{p}cross_attn_mlp_gate": [1]}
            shapes |= norm(f"{p}cross_attn.q_norm", 128, False) | norm(f"{p}cross_attn.k_norm", 128, False)
        attention = "cross_attn" if i in CROSS else "self_attn"
        shapes |= {f"{p}{attention}.{x}_proj.weight": [1024 if x in "kv" else 4096, 4096] for x in "qkvo"}
        shapes |= decoder_mlp(p, 4096, 14336)
        shapes |= norm(f"{p}input_layernorm", 4096, False) | norm(f"{p}post_attention_layernorm", 4096, False)
    shapes |= norm("language_model.model.norm", 4096, False)
    shapes["language_model.lm_head.weight"] = [128256, 4096]
    return shapes | {"multi_modal_projector.weight": [4096, 7680], "multi_modal_projector.bias": [4096]}


# ---------------------------------------------------------------- settings

def llava_config(blocks, dtype):
    """As published: nearly all that equals a default of the classes is left out."""
    text = {"max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-05, "torch_dtype": dtype,
            "vocab_size": 32064, **({} if blocks == 32 else {"num_hidden_layers": blocks})}
    vision = {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
              "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768,
              "vocab_size": 32000}
    return {"architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
            "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu", "text_config": text,
            "tie_word_embeddings": False, "torch_dtype": dtype, "vision_config": vision, "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default", "vocab_size": 32064}


def mllama_config(image_size, blocks, dtype):
    rope = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192, "rope_type": "llama3"}
    text = {"bos_token_id": 128000, "cross_attention_layers": [i for i in CROSS if i < blocks],
            "eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096,
            "intermediate_size": 14336, "max_position_embeddings": 131072, "model_type": "mllama_text_model",
            "num_attention_heads": 32, "num_hidden_layers": blocks, "num_key_value_heads": 8, "pad_token_id": 128004,
            "rms_norm_eps": 1e-05, "rope_scaling": rope, "rope_theta": 500000, "tie_word_embeddings": False,
            "vocab_size": 128256}
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    vision = {"attention_heads": 16, "hidden_act": "gelu", "hidden_size": 1280, "image_size": image_size,
              "intermediate_layers_indices": [3, 7, 15, 23, 30], "intermediate_size": 5120, "max_num_tiles": 4,
              "model_type": "mllama_vision_model", "norm_eps": 1e-05, "num_channels": 3, "num_global_layers": 8,
              "num_hidden_layers": 32, "patch_size": 14, "supported_aspect_ratios": ratios, "vision_output_dim": 7680}
    return {"architectures": ["MllamaForConditionalGeneration"], "image_token_index": 128256, "model_type": "mllama",
            "text_config": text, "torch_dtype": dtype, "vision_config": vision}


PICTURES = {"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True,
            "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "rescale_factor": 1 / 255}


def llava_files():
    return {"preprocessor_config.json": {
                **PICTURES, "crop_size": {"height": 336, "width": 336}, "do_center_crop": True,
                "image_processor_type": "CLIPImageProcessor", "resample": 3, "size": {"shortest_edge": 336}},
            "processor_config.json": {"image_token": "<image>", "patch_size": 14, "processor_class": "LlavaProcessor",
                                      "vision_feature_select_strategy": "default"},
            **tokenizer({"<unk>": 0, "<s>": 1, "</s>": 2, "<image>": 32000, "<pad>": 32001}, 3, "<s>", "</s>", True)}


def mllama_files(image_size):
    special = {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|start_header_id|>": 128006,
               "<|end_header_id|>": 128007, "<|eot_id|>": 128009, "<|image|>": 128256}
    return {"preprocessor_config.json": {
                **PICTURES, "do_pad": True, "image_processor_type": "MllamaImageProcessor", "max_image_tiles": 4,
                "resample": 2, "size": {"height": image_size, "width": image_size}},
            **tokenizer(special, 0, "<|begin_of_text|>", "<|end_of_text|>", False)}


def byte_letters():
    """The letter that stands for each byte in a byte-level tokenizer (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


def tokenizer(special, first, bos, eos, adds_bos):
    letters = byte_letters()
    vocab = {letters[b]: first + b for b in range(256)} | {t: i for t, i in special.items() if i < first}
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for t, i in sorted(special.items(), key=lambda pair: pair[1])]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    start = {"SpecialToken": {"id": bos, "type_id": 0}}
    template = {"type": "TemplateProcessing", "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [start, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {bos: {"id": bos, "ids": [special[bos]], "tokens": [bos]}}}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
             "vocab": vocab, "merges": []}
    return {"tokenizer.json": {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                               "normalizer": None, "pre_tokenizer": level,
                               "post_processor": template if adds_bos else level, "decoder": level, "model": model},
            "tokenizer_config.json": {"bos_token": bos, "eos_token": eos,
                                      "tokenizer_class": "PreTrainedTokenizerFast"}}


# name -> blocks, published type, shapes(blocks), config(blocks, dtype), other files
MODELS = {
    "llava-1.5-7b": (32, "f16", llava, llava_config, llava_files()),
    "llama-3.2-11b-vision": (40, "bf16", lambda n: mllama(448, n), lambda n, t: mllama_config(448, n, t),
                             mllama_files(448)),
    "llama-3.2-11b-vision-instruct": (40, "bf16", lambda n: mllama(560, n), lambda n, t: mllama_config(560, n, t),
                                      mllama_files(560)),
}


# ---------------------------------------------------------------- weights

class Numbers:
    """Normal numbers of any deviation, cut from one pool; as bytes of the stored type."""

    def __init__(self, dtype, hollow):
        self.dtype, self.hollow, self.at, self.scaled = dtype, hollow, 0, {}
        if hollow:
            return
        self.pool = np.random.default_rng(1).standard_normal(POOL, dtype=np.float32)

    def encode(self, values):
        if self.dtype == "f32":
            return values
        if self.dtype == "f16":
            return values.astype(np.float16)
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

    def constant(self, n, value):
        yield self.encode(np.full(n, value, np.float32))

    def normal(self, n, deviation):
        if deviation not in self.scaled:
            self.scaled[deviation] = self.encode(self.pool * np.float32(deviation))
        while n > 0:
            part = self.scaled[deviation][self.at:self.at + n]
            self.at = (self.at + len(part)) % POOL
            n -= len(part)
            yield part


def tensor(numbers, name, shape, blocks):
    n = math.prod(shape)
    if name.endswith("bias"):
        return numbers.normal(n, 0.02)
    if shape == [1]:
        return numbers.constant(n, GATE)
    if "norm" in name:
        return numbers.constant(n, 1.0)
    if "embed" in name and "patch" not in name:
        return numbers.normal(n, 0.5)
    fan_in = shape[1] if len(shape) == 2 else math.prod(shape[1:])
    branch = any(part in name for part in ("o_proj", "out_proj", "down_proj", "fc2"))
    return numbers.normal(n, (2 * blocks if branch else 1) ** -0.5 * fan_in ** -0.5)


def plan_shards(shapes, element, limit):
    shards = [{}]
    size = 0
    for name, shape in shapes.items():
        n = math.prod(shape) * element
        if size + n > limit and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += n
    return shards


def write_shard(path, shapes, numbers, blocks):
    element = 4 if numbers.dtype == "f32" else 2
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * element
        header[name] = {"dtype": STORED[numbers.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if numbers.hollow:
            file.truncate(file.tell() + at)
            return
        for name, shape in shapes.items():
            for part in tensor(numbers, name, shape, blocks):
                file.write(part.data)


def write_weights(folder, shapes, numbers, blocks, limit):
    dtype = numbers.dtype
    shards = plan_shards(shapes, 4 if dtype == "f32" else 2, limit)
    index = {"metadata": {"total_size": sum(map(math.prod, shapes.values())) * (4 if dtype == "f32" else 2)},
             "weight_map": {}}
    for i, part in enumerate(shards, 1):
        name = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / name, part, numbers, blocks)
        index["weight_map"] |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


# ---------------------------------------------------------------- prompts

def write_bmp(path, width, height, rows):
    """`rows`: bytes of the padded rows, or their number where the picture is a hole."""
    size = rows if isinstance(rows, int) else len(rows)
    header = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + size, 0, 0, 54, 40, width, height, 1, 24, 0, size,
                         2835, 2835, 0, 0)
    with open(path, "wb") as file:
        file.write(header)
        file.truncate(54 + size) if isinstance(rows, int) else file.write(rows)


def write_picture(path, width, height, seed):
    """Coloured noise with large structure, as an uncompressed BMP."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 8 // height, np.arange(width) * 8 // width
    pixels = coarse[rows][:, columns] // 2 + rng.integers(0, 128, (height, width, 3), dtype=np.uint8)
    data = np.zeros((height, (width * 3 + 3) // 4 * 4), np.uint8)
    data[:, :width * 3] = pixels[::-1, :, ::-1].reshape(height, -1)
    write_bmp(path, width, height, data.tobytes())


def write_samples(folder, hollow):
    lines = []
    for i, size in enumerate([(640, 480), (480, 640), (336, 336), (900, 300)]):
        if hollow:
            write_bmp(folder / f"picture{i}.bmp", *size, (size[0] * 3 + 3) // 4 * 4 * size[1])
        else:
            write_picture(folder / f"picture{i}.bmp", *size, seed=i)
        lines.append(json.dumps({"prompt": f"What is in picture {i}?", "image": f"picture{i}.bmp"}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "cache.yaml").write_text(
        f"model: {folder.resolve()}\noutput: {folder.resolve()}/run\n"
        f"data: {{samples: {folder.resolve()}/samples.jsonl, images: {folder.resolve()}, heldout: 0.5}}\n"
        f"cache: {{batch_tokens: 2400, positions: {{image: all, text: all, last: all}}}}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--dtype", choices=STORED, help="of the weights (default: as published)")
    parser.add_argument("--blocks", type=int, help="of the decoder (default: as published)")
    parser.add_argument("--shard-bytes", type=float, default=5e9)
    parser.add_argument("--hollow", action="store_true", help="for dry runs, where nobody looks at a number")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    all_blocks, published, shapes_of, config_of, files = MODELS[args.model]
    blocks, dtype = args.blocks or all_blocks, args.dtype or published
    if args.list:
        print(json.dumps(shapes_of(blocks)))
        return 0
    if not args.out:
        parser.error("OUT is missing")
    if not np and not args.hollow:
        parser.error("NumPy is missing (--hollow does without)")
    args.out.mkdir(parents=True)
    for name, content in {"config.json": config_of(blocks, TORCH_DTYPE[dtype]), **files}.items():
        (args.out / name).write_text(json.dumps(content, indent=1))
    write_samples(args.out, args.hollow)
    write_weights(args.out, shapes_of(blocks), Numbers(dtype, args.hollow), blocks, args.shard_bytes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
