"""Two model directories for each family: NAME-f32 as transformers 5 saves it, NAME-bf16 as checkpoints were published."""
import json
import re
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from fixturegen import SEED, save_tensors, write_json

from . import words

CLIP = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
HALF = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
FACTOR = 1 / 255
TEXT = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=4096)
TOWER = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2)
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
THIRTIES = [[30 * i, 30 * j] for i in range(1, 4) for j in range(1, 4)]
QWEN_TOWER = dict(depth=3, num_heads=2, patch_size=4, spatial_merge_size=2, temporal_patch_size=2)


def smolvlm(name, ids):
    idefics = name.startswith("idefics3")
    tile = 28 if idefics else 30  # 30 = 4 * 7 + 2: a rim that no patch covers
    kind = "Idefics3" if idefics else "SmolVLM"
    config = dict(model_type="idefics3" if idefics else "smolvlm", image_token_id=ids("<image>"), scale_factor=2,
                  tie_word_embeddings=not idefics,
                  text_config=dict(TEXT, model_type="llama", rms_norm_eps=1e-5, rope_theta=1e5,
                                   tie_word_embeddings=not idefics, pad_token_id=ids("<|im_end|>"),
                                   bos_token_id=ids("<|im_start|>"), eos_token_id=ids("<end_of_utterance>")),
                  vision_config=dict(TOWER, image_size=tile, patch_size=7))
    image = dict(HALF, do_image_splitting=True, image_processor_type=f"{kind}ImageProcessor", resample=1,
                 max_image_size=dict(longest_edge=tile), size=dict(longest_edge=3 * tile))
    return config, image, dict(image_seq_len=4, processor_class=f"{kind}Processor"), f"{kind}ForConditionalGeneration"


def llava_next(name, ids):
    mistral = name.startswith("mistral")
    text = dict(TEXT, model_type="mistral" if mistral else "llama", rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
                **(dict(rope_theta=1e6, sliding_window=None) if mistral else {}))
    config = dict(model_type="llava_next", image_token_index=ids("<image>"), image_grid_pinpoints=PINPOINTS,
                  projector_hidden_act="gelu", vision_feature_layer=-2, vision_feature_select_strategy="default",
                  tie_word_embeddings=False, text_config=text,
                  vision_config=dict(TOWER, model_type="clip_vision_model", image_size=28, patch_size=7,
                                     projection_dim=16))
    image = dict(CLIP, image_processor_type="LlavaNextImageProcessor", crop_size=dict(height=28, width=28),
                 do_center_crop=True, do_pad=True, image_grid_pinpoints=PINPOINTS, resample=3,
                 size=dict(shortest_edge=28))
    processor = dict(image_token="<image>", num_additional_image_tokens=1, patch_size=7,
                     processor_class="LlavaNextProcessor", vision_feature_select_strategy="default")
    return config, image, processor, "LlavaNextForConditionalGeneration"


def llava_onevision(name, ids):
    limit = "anyres_max_2" if name.startswith("max2") else "anyres_max_9"
    config = dict(model_type="llava_onevision", image_token_index=ids("<image>"), video_token_index=ids("<video>"),
                  image_grid_pinpoints=THIRTIES, projector_hidden_act="gelu", vision_feature_layer=-1,
                  vision_feature_select_strategy="full", vision_aspect_ratio=limit, tie_word_embeddings=False,
                  text_config=dict(TEXT, model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1e6,
                                   tie_word_embeddings=False),
                  vision_config=dict(TOWER, model_type="siglip_vision_model", image_size=30, patch_size=7,
                                     vision_use_head=False))
    image = dict(HALF, image_processor_type="LlavaOnevisionImageProcessor", do_pad=True,
                 image_grid_pinpoints=THIRTIES, resample=3, size=dict(height=30, width=30))
    processor = dict(image_token="<image>", video_token="<video>", num_image_tokens=16,
                     processor_class="LlavaOnevisionProcessor", vision_aspect_ratio=limit,
                     vision_feature_select_strategy="full")
    return config, image, processor, "LlavaOnevisionForConditionalGeneration"


def qwen(name, ids):
    family = name.split("-")[0]
    three = family == "qwen3_vl"
    text = dict(TEXT, rms_norm_eps=1e-6, rope_theta=5e6 if three else 1e6)
    if three:
        text |= dict(model_type="qwen3_vl_text", head_dim=12, num_hidden_layers=3, attention_bias=False, tie_word_embeddings="tied" in name,
                     rope_scaling=dict(rope_type="default", mrope_section=[2, 2, 2], mrope_interleaved=True))
    else:
        text |= dict(use_sliding_window=False, rope_scaling=dict(type="mrope", mrope_section=[1, 1, 2]))
    if family == "qwen2_vl":  # embed_dim is the tower's width, hidden_size the decoder's
        tower = dict(QWEN_TOWER, embed_dim=16, hidden_size=32, mlp_ratio=2)
    elif three:
        tower = dict(QWEN_TOWER, hidden_size=16, intermediate_size=24, out_hidden_size=32, num_position_embeddings=25,
                     deepstack_visual_indexes=[0, 2], hidden_act="gelu_pytorch_tanh")
    else:
        tower = dict(QWEN_TOWER, hidden_size=16, intermediate_size=24, out_hidden_size=32, window_size=16,
                     fullatt_block_indexes=[1], hidden_act="silu")
    config = dict(model_type=family, image_token_id=ids("<|image_pad|>"), video_token_id=ids("<|video_pad|>"),
                  vision_start_token_id=ids("<|vision_start|>"), vision_end_token_id=ids("<|vision_end|>"),
                  tie_word_embeddings="tied" in name and "untied" not in name, text_config=text, vision_config=tower)
    image = dict(HALF if three else CLIP, image_processor_type="Qwen2VLImageProcessor", min_pixels=256,
                 max_pixels=1280, patch_size=4, temporal_patch_size=2, merge_size=2)
    kind = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}[family]
    return config, image, dict(processor_class=f"{kind}Processor"), f"{kind}ForConditionalGeneration"


def gemma3(name, ids):
    deep = name.startswith("deep")
    text = dict(TEXT, model_type="gemma3_text", head_dim=12, query_pre_attn_scalar=10, sliding_window=7 if deep else 9,
                rope_theta=5e5, rope_local_base_freq=5e3, rope_scaling=dict(rope_type="linear", factor=4.0),
                sliding_window_pattern=2, num_hidden_layers=3)
    config = dict(model_type="gemma3", boi_token_index=ids("<start_of_image>"), eoi_token_index=ids("<end_of_image>"),
                  image_token_index=ids("<image_soft_token>"), mm_tokens_per_image=4, text_config=text,
                  vision_config=dict(TOWER, model_type="siglip_vision_model", image_size=28, patch_size=7,
                                     vision_use_head=False))
    image = dict(HALF, image_processor_type="Gemma3ImageProcessor", resample=2, size=dict(height=28, width=28),
                 **(dict(do_convert_rgb=None, do_pan_and_scan=None) if deep else {}))
    return config, image, dict(image_seq_length=4, processor_class="Gemma3Processor"), "Gemma3ForConditionalGeneration"


def internvl(name, ids):
    plain = name.startswith("v3")
    text = dict(TEXT, model_type="qwen2", rms_norm_eps=1e-6, rope_theta=1e6, tie_word_embeddings=not plain,
                rope_scaling=dict(rope_type="dynamic", factor=2.0))
    tower = dict(TOWER, model_type="internvl_vision", image_size=[28, 28], patch_size=[7, 7], attention_bias=plain,
                 use_qk_norm=not plain, norm_type="layer_norm" if plain else "rms_norm", hidden_act="gelu",
                 layer_scale_init_value=0.1, use_mean_pooling=True)
    config = dict(model_type="internvl", image_token_id=ids("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
                  projector_hidden_act="gelu", vision_feature_layer=-1, vision_feature_select_strategy="default",
                  tie_word_embeddings=not plain, text_config=text, vision_config=tower)
    image = dict(IMAGENET, image_processor_type="GotOcr2ImageProcessor" if plain else "GotOcr2ImageProcessorFast",
                 crop_to_patches=False, min_patches=1, max_patches=6, resample=3, size=dict(height=28, width=28))
    return config, image, dict(image_seq_length=4, processor_class="InternVLProcessor"), \
        "InternVLForConditionalGeneration"


# directory -> what describes it, its family's folder, its tokenizer
MODELS = {
    "smolvlm-f32": (smolvlm, "smolvlm", "smolvlm"), "idefics3-bf16": (smolvlm, "smolvlm", "smolvlm"),
    "vicuna-f32": (llava_next, "llava_next", "llava"), "mistral-bf16": (llava_next, "llava_next", "llava"),
    "max9-f32": (llava_onevision, "llava_onevision", "onevision"),
    "max2-bf16": (llava_onevision, "llava_onevision", "onevision"),
    "qwen2_vl-untied-f32": (qwen, "qwen2_vl", "qwen"), "qwen2_vl-tied-bf16": (qwen, "qwen2_vl", "qwen"),
    "qwen2_5_vl-untied-f32": (qwen, "qwen2_5_vl", "qwen"), "qwen2_5_vl-tied-bf16": (qwen, "qwen2_5_vl", "qwen"),
    "qwen3_vl-untied-f32": (qwen, "qwen3_vl", "qwen"), "qwen3_vl-tied-bf16": (qwen, "qwen3_vl", "qwen"),
    "base-f32": (gemma3, "gemma3", "gemma"), "deep-bf16": (gemma3, "gemma3", "gemma"),
    "v3-f32": (internvl, "internvl", "internvl"), "qknorm-bf16": (internvl, "internvl", "internvl"),
}


# ---------------------------------------------------------------- chat templates, as short as they give the families' text

EACH = "{% for m in messages %}"
PARTS = "{% for p in m['content'] %}"
CHAT = {
    "smolvlm": "<|im_start|>" + EACH + "{{ m['role'] | capitalize }}:{% if m['content'][0]['type'] == 'text' %} {% endif %}"
    + PARTS + "{{ p['text'] if p['type'] == 'text' else '<image>' }}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}",
    "llava": EACH + "{{ m['role'] | upper }}: " + PARTS + "{{ p['text'] + ' ' if p['type'] == 'text' else '<image>\n' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "onevision": EACH + "<|im_start|>{{ m['role'] }} " + PARTS + "{{ '\n' + p['text'] if p['type'] == 'text' else "
    "'<image>\n' }}{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "qwen": EACH + "{% if loop.first and m['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
    "<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n" + PARTS + "{{ p['text'] if p['type'] == 'text' else "
    "'<|vision_start|><|image_pad|><|vision_end|>' }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "gemma": "{{ bos_token }}" + EACH + "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    + PARTS + "{{ p['text'] | trim if p['type'] == 'text' else '<start_of_image>' }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "internvl": EACH + "<|im_start|>{{ m['role'] }}\n" + PARTS + "{{ p['text'] if p['type'] == 'text' else "
    "'<IMG_CONTEXT>\n' }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
}


def write_template(flavour, folder, published):
    text = CHAT[flavour]
    if published:
        write_json(folder / "chat_template.json", {"chat_template": text})
    else:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- weights

def scale_of(name, shape, gemma):
    """Mean and standard deviation of a random tensor of this name: every tensor must matter."""
    text = "language_model" in name or "text_model" in name
    if name.endswith("bias"):
        return 0.0, 0.2
    if "lambda" in name:
        return 0.7, 0.1
    if "norm" in name or "ln_q" in name:
        return (0.0 if gemma and (text or "soft_emb" in name) else 1.0), 0.3
    if "embed_tokens" in name or "newline" in name or "position" in name or "pos_embed" in name \
            or "class_embedding" in name or "cls_token" in name:
        return 0.0, 0.7
    fan_in = shape[0] if "input_projection" in name else int(np.prod(shape[1:]))
    gain = 1.6 if re.search("q_proj|k_proj|qkv|lm_head", name) else 1.0
    return 0.0, gain / fan_in ** 0.5


def randomise(model, name, dtype):
    """Weights as the file stores them, arithmetic in float32."""
    gemma = model.config.model_type == "gemma3"
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            mean, std = scale_of(key, tensor.shape, gemma)
            values = np.random.default_rng([SEED, zlib.crc32(f"{name} {key}".encode())]).normal(
                mean, std, tuple(tensor.shape))
            tensor.copy_(torch.from_numpy(values).to(dtype))
    return model.eval()


# ---------------------------------------------------------------- directories

def published_name(family, key):
    if family in ("llava_next", "llava_onevision", "gemma3"):
        key = re.sub(r"^vision_tower\.(?!vision_model)", "vision_tower.vision_model.", key)
    return key


def published_config(config, kind):
    """config.json as the first checkpoints have it: short, torch_dtype, Qwen's text keys at the top level."""
    config = json.loads(json.dumps(config))
    if config["model_type"] in ("qwen2_vl", "qwen2_5_vl"):
        config |= config.pop("text_config")
    return {"architectures": [kind], **config, "torch_dtype": "bfloat16", "transformers_version": "4.41.2"}


def new_config(config):
    """What a config class of transformers 5 reads: rope_parameters instead of rope_theta and its neighbours."""
    config = json.loads(json.dumps(config))
    text = config["text_config"]
    rope = {"rope_type": "default", "rope_theta": text.pop("rope_theta", 1e4), **(text.pop("rope_scaling", None) or {})}
    if rope.get("type") == "mrope":
        rope = {**rope, "rope_type": "default"}
        del rope["type"]
    if config["model_type"] == "gemma3":
        local = {"rope_type": "default", "rope_theta": text.pop("rope_local_base_freq")}
        rope = {"full_attention": rope, "sliding_attention": local}
        n = text.pop("sliding_window_pattern")
        text["layer_types"] = [("full" if (i + 1) % n == 0 else "sliding") + "_attention"
                               for i in range(text["num_hidden_layers"])]
    text["rope_parameters"] = rope
    return config


def make(name, folder):
    """Writes the directory; returns (model in float32, processor)."""
    describe, family, flavour = MODELS[name]
    published = name.endswith("bf16")
    dtype = torch.bfloat16 if published else torch.float32
    tokenizer = words.write(flavour, folder, published)
    write_template(flavour, folder, published)
    config, image, processor, kind = describe(name, tokenizer.token_to_id)
    text = config["text_config"]
    text["vocab_size"] = tokenizer.get_vocab_size() + 3  # padded, as real ones are
    common = dict(do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True, rescale_factor=FACTOR)
    image = {**common, **image}
    new = new_config(config)
    cls = transformers.AutoConfig.for_model(new.pop("model_type"), **new)
    cls._attn_implementation = "eager"
    model = randomise(getattr(transformers, kind)(cls), name, dtype)
    if published:
        write_json(folder / "config.json", published_config(config, kind))
        write_json(folder / "preprocessor_config.json", {**image, "processor_class": processor["processor_class"]})
        if family not in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
            write_json(folder / "processor_config.json", processor)
    else:
        write_json(folder / "processor_config.json", {"image_processor": image, **processor})
    model.save_pretrained(folder / "saved")
    tensors = load_file(folder / "saved" / "model.safetensors")
    if not published:
        (folder / "saved" / "config.json").rename(folder / "config.json")
    for path in (folder / "saved").iterdir():
        path.unlink()
    (folder / "saved").rmdir()
    renamed = {published_name(family, k) if published else k: v.to(dtype) for k, v in tensors.items()}
    save_tensors(renamed, folder / "model.safetensors", {"format": "pt"})
    return model, open_processor(folder, kind.replace("ForConditionalGeneration", ""))


# Their processors ask for one; no fixture has a film.
VIDEO = {"SmolVLM": "SmolVLMVideoProcessor", "Qwen2VL": "Qwen2VLVideoProcessor", "Qwen2_5_VL": "Qwen2VLVideoProcessor",
         "Qwen3VL": "Qwen3VLVideoProcessor", "InternVL": "InternVLVideoProcessor",
         "LlavaOnevision": "LlavaOnevisionVideoProcessor"}


def open_processor(folder, kind):
    film = folder / "video_preprocessor_config.json"
    if kind in VIDEO:
        write_json(film, {"video_processor_type": VIDEO[kind]})
    processor = transformers.AutoProcessor.from_pretrained(folder)
    film.unlink(missing_ok=True)
    return processor
