"""The tiny Mllama (Llama 3.2 Vision): its directory, its inputs and what its forward pass is hooked for."""
import json

import torch
from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaImageProcessor, MllamaProcessor
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

from . import images, write_json
from .tokenizers_ import special_roles, write_tokenizer

# name -> tokenizer flavour. As in the real models the image token's id is the first one behind the vocabulary.
MLLAMA_MODELS = {"mllama-base-bf16": "bytelevel-vision", "mllama-variant-bf16": "bytelevel-vision"}
TILE, TILES = 10, 4
# What the variant has in the place of the base's: pictures of two tiles, one intermediate state, no rotary scaling.
VARIANT_VISION = dict(hidden_size=8, intermediate_size=12, max_num_tiles=2,
                      supported_aspect_ratios=[[1, 1], [1, 2], [2, 1]], intermediate_layers_indices=[1],
                      vision_output_dim=16, norm_eps=1e-5)
VARIANT_TEXT = dict(hidden_size=16, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
                    cross_attention_layers=[1], rope_scaling=dict(rope_type="default"))
IMAGE_TOKEN = "<|image|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<|image|>' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")

# What a model of this family adds to models.scale_of: (ends of a name, mean, standard deviation).
GATES = (("gate", "gate_attn", "gate_ffn"), 0.7, 0.2)


def config(tokenizer, flavour, vision_settings, text_settings):
    """Cross-attention before and behind a block of self-attention: a wrong row mask reaches later tokens."""
    bos, eos, _, pad = special_roles(flavour)
    vision = MllamaVisionConfig(**{**dict(
        hidden_size=16, num_hidden_layers=2, num_global_layers=1, attention_heads=2, intermediate_size=24,
        vision_output_dim=48, image_size=TILE, patch_size=5, max_num_tiles=TILES, norm_eps=1e-4,
        intermediate_layers_indices=[0, 2]), **vision_settings})
    text = MllamaTextConfig(**{**dict(
        vocab_size=tokenizer.get_vocab_size() - 1, hidden_size=24, num_hidden_layers=3, num_attention_heads=3,
        num_key_value_heads=1, intermediate_size=32, cross_attention_layers=[0, 2], max_position_embeddings=256,
        rope_theta=10000.0, rms_norm_eps=1e-5, bos_token_id=tokenizer.token_to_id(bos),
        eos_token_id=tokenizer.token_to_id(eos), pad_token_id=tokenizer.token_to_id(pad),
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=32)), **text_settings})
    whole = MllamaConfig(vision, text, image_token_index=tokenizer.token_to_id(IMAGE_TOKEN))
    for part in (whole, vision, text):
        part._attn_implementation = "eager"
    return whole


def make(name, folder, randomise, finish):
    """Writes the directory; returns (model in float32, processor)."""
    flavour = MLLAMA_MODELS[name]
    tokenizer = write_tokenizer(flavour, folder)
    variant = "variant" in name
    whole = config(tokenizer, flavour, VARIANT_VISION if variant else {}, VARIANT_TEXT if variant else {})
    model = MllamaForConditionalGeneration(whole)
    randomise(model, name)
    finish(model)
    MllamaImageProcessor(size={"height": TILE, "width": TILE}, max_image_tiles=whole.vision_config.max_num_tiles, image_mean=images.CLIP_MEAN,
                         image_std=images.CLIP_STD).save_pretrained(folder)
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    return model, MllamaProcessor.from_pretrained(folder)


def encode(processor, prompt, pictures):
    inputs = processor(text=prompt, images=pictures or None, return_tensors="pt")
    return {k: v for k, v in inputs.items() if k not in ("attention_mask", "token_type_ids")}


def append(inputs, token):
    """The inputs with one more token, which sees what the last one saw (_update_model_kwargs_for_generation)."""
    inputs = {**inputs, "input_ids": torch.cat([inputs["input_ids"], token[:, None]], dim=1)}
    if "cross_attention_mask" in inputs:
        mask = inputs["cross_attention_mask"]
        inputs["cross_attention_mask"] = torch.cat([mask, mask[:, -1:]], dim=1)
    return inputs


def hook(model, seen):
    """Hooks that put vision.hidden.NN, vision.out and cross_attention_states into `seen`."""
    def keep_encoder(module, args, output):
        seen.update({f"vision.hidden.{i:02d}": hidden.clone() for i, hidden in enumerate(output.hidden_states)})
        seen["vision.out"] = output.last_hidden_state[0].clone()

    def keep_projector(module, args, output):
        seen["cross_attention_states"] = output.reshape(-1, *output.shape[-2:]).clone()

    return [model.vision_model.register_forward_hook(keep_encoder),
            model.multi_modal_projector.register_forward_hook(keep_projector)]


def shorten_config(folder):
    """Leaves out of config.json what only repeats the defaults of PretrainedConfig."""
    from transformers import PretrainedConfig

    def strip(part):
        return {k: strip(v) if isinstance(v, dict) and k.endswith("_config") else v
                for k, v in part.items() if k == "model_type" or k not in noise or v != noise[k]}

    noise = PretrainedConfig().to_dict()
    path = folder / "config.json"
    write_json(path, strip(json.loads(path.read_text())))
