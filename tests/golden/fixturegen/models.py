"""Tiny random models in Hugging Face form. Weights are scaled so that every tensor matters."""
import copy
import json

import torch
from safetensors.torch import load_file
from transformers import (CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig,
                          LlavaForConditionalGeneration)

from . import images, mllama, rng, save_tensors, write_json
from .tokenizers_ import special_roles, write_tokenizer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}

# name -> tokenizer flavour and LlamaConfig settings over LLAMA_BASE
LLAMA_BASE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5)
LLAMA_MODELS = {
    "llama-base-f32": ("spm", {}),
    "llama-tied-bf16": ("spm", dict(tie_word_embeddings=True, num_hidden_layers=4)),
    "llama-rope3-f16": ("bytelevel", dict(
        hidden_size=48, num_attention_heads=3, num_key_value_heads=1, rope_theta=10000.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=64))),
    "llama-bias-f32": ("spm-metaspace", dict(head_dim=12, attention_bias=True, mlp_bias=True)),
    "llama-sharded-bf16": ("bytelevel-digits", dict(num_key_value_heads=4, rms_norm_eps=1e-6, rope_theta=1e5)),
}
# Models with the weights and the tokenizer of another one, by links: name -> (the other one, keys of its config.json)
SHARED_MODELS = {
    "llama-linear-f32": ("llama-base-f32", dict(rope_scaling=dict(type="linear", factor=2.5))),
    "llama-dynamic-f32": ("llama-base-f32", dict(max_position_embeddings=12,
                                                 rope_scaling=dict(rope_type="dynamic", factor=3.0))),
    "llama-yarn-f32": ("llama-base-f32", dict(max_position_embeddings=16,
                                              rope_scaling=dict(rope_type="yarn", factor=4.0))),
    "llava-last-f32": ("llava-base-f32", dict(vision_feature_layer=-1, vision_feature_select_strategy="full",
                                              image_seq_length=17, projector_hidden_act="gelu_pytorch_tanh")),
}
LLAVA_MODELS = {
    "llava-base-f32": dict(
        flavour="spm-image", patch=7, vision_layers=3, clip_act="quick_gelu", layer=-2, select="default"),
    "llava-variant-bf16": dict(
        flavour="spm-metaspace-image", patch=14, vision_layers=4, clip_act="gelu", layer=3, select="full"),
    "llava-nobias-f16": dict(
        flavour="spm-image", patch=14, vision_layers=2, clip_act="quick_gelu", layer=1, select="default", bias=False,
        text=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2), vision=dict(hidden_size=12)),
}
IMAGE_SIZE = 28
SHARD_BYTES = 30_000

# Parameters that cannot move the logits: softmax ignores what is equal for all keys, and what
# comes after the selected CLIP layer is not read.
CLIP_SILENT = ["k_proj.bias", "post_layernorm"]


# ---------------------------------------------------------------- weights

def scale_of(name, shape):
    """Mean and standard deviation of a random tensor of this name."""
    if name.endswith("bias"):
        return 0.0, 0.2
    if name.endswith(mllama.GATES[0]):
        return mllama.GATES[1:]
    if "norm" in name:
        return 1.0, 0.3
    if "embed_tokens" in name or "embedding" in name and "patch" not in name:
        return 0.0, 0.7
    fan_in = shape[-1] if len(shape) == 2 else shape[1] * shape[2] * shape[3]
    gain = 1.6 if "q_proj" in name or "k_proj" in name or "lm_head" in name else 1.0
    return 0.0, gain / fan_in ** 0.5


def randomise(model, model_name):
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            mean, std = scale_of(name, tensor.shape)
            values = rng(f"{model_name} {name}").normal(mean, std, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(values))


def round_weights(model, dtype):
    """Weights as the file stores them, arithmetic in float32.

    Parameters only: model.to(bfloat16) would also round the rotary frequencies, a buffer that no
    file holds, and the goldens would be off by 1e-3.
    """
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.copy_(tensor.to(dtype))
    model.eval()


# ---------------------------------------------------------------- text models

def save(model, folder, dtype, **kwargs):
    stored = copy.deepcopy(model).to(dtype)
    stored.config.torch_dtype = dtype
    stored.save_pretrained(folder, safe_serialization=True, **kwargs)


def make_llama(name, folder):
    """Writes the directory; returns (model in float32, tokenizer)."""
    flavour, settings = LLAMA_MODELS[name]
    tokenizer = write_tokenizer(flavour, folder)
    bos, eos, _, pad = special_roles(flavour)
    config = LlamaConfig(**{**LLAMA_BASE, **settings}, vocab_size=tokenizer.get_vocab_size(),
                         bos_token_id=tokenizer.token_to_id(bos), eos_token_id=tokenizer.token_to_id(eos),
                         pad_token_id=tokenizer.token_to_id(pad) if pad else None)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    randomise(model, name)
    dtype = DTYPES[name.rsplit("-", 1)[1]]
    round_weights(model, dtype)
    save(model, folder, dtype, **({"max_shard_size": SHARD_BYTES} if "sharded" in name else {}))
    return model, tokenizer


# ---------------------------------------------------------------- LLaVA

def llava_config(tokenizer, patch, vision_layers, clip_act, layer, select, text=(), vision=(), **_):
    text = LlamaConfig(**{**LLAMA_BASE, **dict(text)}, vocab_size=tokenizer.get_vocab_size() + 1, pad_token_id=0)
    vision = CLIPVisionConfig(**{**dict(hidden_size=24, intermediate_size=48, num_hidden_layers=vision_layers,
                                        num_attention_heads=3, image_size=IMAGE_SIZE, patch_size=patch,
                                        hidden_act=clip_act, projection_dim=24), **dict(vision)})
    n_tokens = (IMAGE_SIZE // patch) ** 2 + (select == "full")
    config = LlavaConfig(vision, text, image_token_index=tokenizer.token_to_id("<image>"),
                         projector_hidden_act="gelu", vision_feature_layer=layer,
                         vision_feature_select_strategy=select, image_seq_length=n_tokens)
    config.pad_token_id = tokenizer.token_to_id("<pad>")
    config._attn_implementation = "eager"
    text._attn_implementation = vision._attn_implementation = "eager"
    return config


def new_layout(name):
    """Tensor names of transformers >= 4.52."""
    for old, new in (("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.language_model.")):
        if name.startswith(old):
            return new + name[len(old):]
    return "model." + name


def write_new_layout(model, folder, dtype):
    """The directory as newer versions write it: renamed tensors, a short config.json."""
    config, text, vision = model.config, model.config.text_config, model.config.vision_config
    short = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        **{k: getattr(config, k) for k in (
            "image_token_index", "image_seq_length", "pad_token_id", "projector_hidden_act",
            "vision_feature_layer", "vision_feature_select_strategy")},
        "multimodal_projector_bias": True,
        "text_config": {"model_type": "llama", "torch_dtype": "bfloat16",
                        **{k: getattr(text, k) for k in (*LLAMA_BASE, "vocab_size")}},
        "vision_config": {"model_type": "clip_vision_model",
                          **{k: getattr(vision, k) for k in (
                              "hidden_act", "hidden_size", "image_size", "intermediate_size", "num_attention_heads",
                              "num_hidden_layers", "patch_size", "projection_dim")}},
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    write_json(folder / "config.json", short)
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    tensors = {new_layout(k): v.to(dtype) for k, v in model.state_dict().items()}
    save_tensors(tensors, folder / "model.safetensors", {"format": "pt"})


def make_llava(name, folder):
    """Writes the directory; returns (model in float32, tokenizer)."""
    spec = LLAVA_MODELS[name]
    tokenizer = write_tokenizer(spec["flavour"], folder)
    model = LlavaForConditionalGeneration(llava_config(tokenizer, **spec))
    randomise(model, name)
    with torch.no_grad():  # <image> is never the best next token, as in a trained model
        model.language_model.lm_head.weight[model.config.image_token_index] *= 0.1
        if not spec.get("bias", True):  # 4.46.3 always has them; what is 0 need not be there
            model.multi_modal_projector.linear_1.bias.zero_()
            model.multi_modal_projector.linear_2.bias.zero_()
    dtype = DTYPES[name.rsplit("-", 1)[1]]
    round_weights(model, dtype)
    images.processor(IMAGE_SIZE, (IMAGE_SIZE, IMAGE_SIZE)).save_pretrained(folder)
    template = ("{% for message in messages %}{{ message['role'].upper() + ': ' }}"
                "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}"
                "{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}{% endfor %}"
                "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}")
    write_json(folder / "chat_template.json", {"chat_template": template})
    if "variant" in name:
        write_new_layout(model, folder, dtype)
    else:
        preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
        write_json(folder / "preprocessor_config.json", {**preprocessor, "processor_class": "LlavaProcessor"})
        write_json(folder / "processor_config.json", {
            "image_token": "<image>", "patch_size": spec["patch"], "processor_class": "LlavaProcessor",
            "vision_feature_select_strategy": spec["select"]})
        save(model, folder, dtype)
        if not spec.get("bias", True):
            drop_projector_bias(folder)
    return model, tokenizer


def drop_projector_bias(folder):
    """The directory as newer versions write it with multimodal_projector_bias false."""
    path = folder / "model.safetensors"
    tensors = {k: v for k, v in load_file(path).items() if not (k.startswith("multi_modal") and k.endswith(".bias"))}
    save_tensors(tensors, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "multimodal_projector_bias": False})


# ---------------------------------------------------------------- weights of another model

def make_shared(name, folder, tokenizer):
    """Links to the files of the other model, a config.json of its own; returns (model in float32, tokenizer)."""
    other, changes = SHARED_MODELS[name]
    for path in sorted((folder.parent / other).iterdir()):
        if path.name not in ("config.json", "processor_config.json"):
            (folder / path.name).symlink_to(f"../{other}/{path.name}")
    config = {**json.loads((folder.parent / other / "config.json").read_text()), **changes}
    write_json(folder / "config.json", config)
    kind = LlavaForConditionalGeneration if name.startswith("llava") else LlamaForCausalLM
    if kind is LlavaForConditionalGeneration:  # as older directories have it, without patch_size
        write_json(folder / "processor_config.json", {"image_token": "<image>", "processor_class": "LlavaProcessor"})
    model = kind.from_pretrained(folder, attn_implementation="eager", torch_dtype=torch.float32)
    return model.eval(), tokenizer


# ---------------------------------------------------------------- Mllama

def make_mllama(name, folder):
    """Writes the directory; returns (model in float32, processor)."""
    dtype = DTYPES[name.rsplit("-", 1)[1]]

    def finish(model):
        round_weights(model, dtype)
        save(model, folder, dtype)
        mllama.shorten_config(folder)
        if "variant" in name:  # tensor names of transformers >= 4.52
            path = folder / "model.safetensors"
            save_tensors({new_layout(k): v for k, v in load_file(path).items()}, path, {"format": "pt"})

    return mllama.make(name, folder, randomise, finish)
