"""Tokenizers of the families, tiny: the pre-tokenizers and special tokens are theirs, the merges our own."""
import json

from tokenizers import Tokenizer, pre_tokenizers

from fixturegen import tokenizers_ as t
from fixturegen import write_json

QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")
CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SPECIAL = {
    "smolvlm": CHATML + ["<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>"]
    + [f"<row_{r}_col_{c}>" for r in range(1, 7) for c in range(1, 7)],
    "qwen": CHATML + ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "internvl": CHATML + ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
    "onevision": CHATML + ["<image>", "<video>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>",
              "<end_of_image>", "<image_soft_token>"],
    "llava": ["<unk>", "<s>", "</s>", "<image>", "<pad>"],
}


def byte_level(special, split):
    """GPT-2's bytes; a blank line is one token, so that text is joined before it is tokenised."""
    pre = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
        t.byte_level_part(use_regex=False)]}
    merges = [("\u010a", "\u010a")] + t.learn_merges(t.pre_split(pre), 40)
    vocab = t.unique(special + sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(pair) for pair in merges])
    return t.tokenizer_json(t.bpe_model(vocab, merges), special, pre_tokenizer=pre,
                            post_processor=t.byte_level_part(use_regex=False),
                            decoder=t.byte_level_part(use_regex=True))


def pieces(special, bos, **parts):
    """Byte fallback, as sentencepiece models are written."""
    words = t.Counter(t.SPACE + word for word in t.CORPUS.split())
    merges = [("\n", "\n"), (t.SPACE, t.SPACE)] + t.learn_merges(words, 40)
    characters = sorted(set("".join(words)) | set("\n"))
    vocab = t.unique(special + [f"<0x{b:02X}>" for b in range(256)] + ["".join(pair) for pair in merges] + characters)
    model = t.bpe_model(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    decoder = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": t.SPACE}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return t.tokenizer_json(model, special, decoder=decoder, post_processor=t.bos_template(bos, vocab.index(bos)), **parts)


def describe(flavour):
    special = SPECIAL[flavour]
    if flavour == "gemma":
        return pieces(special, "<bos>", normalizer={"type": "Replace", "pattern": {"String": " "}, "content": t.SPACE},
                      pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                     "invert": False})
    if flavour == "llava":
        return pieces(special, "<s>", normalizer={"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": t.SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": t.SPACE}]})
    return byte_level(special, t.LLAMA3_SPLIT if flavour == "smolvlm" else QWEN_SPLIT)


ROLES = {
    "smolvlm": dict(bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>",
                    unk_token="<|endoftext|>", image_token="<image>", fake_image_token="<fake_token_around_image>",
                    global_image_token="<global-img>", end_of_utterance_token="<end_of_utterance>"),
    "qwen": dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", image_token="<|image_pad|>",
                 video_token="<|video_pad|>", vision_start_token="<|vision_start|>",
                 vision_end_token="<|vision_end|>"),
    "internvl": dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", context_image_token="<IMG_CONTEXT>",
                     start_image_token="<img>", end_image_token="</img>", video_token="<video>"),
    "onevision": dict(eos_token="<|im_end|>", pad_token="<|endoftext|>", image_token="<image>",
                      video_token="<video>"),
    "gemma": dict(bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
                  boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"),
    "llava": dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", image_token="<image>"),
}
ORDINARY = ("bos_token", "eos_token", "pad_token", "unk_token")


def write(flavour, folder, published):
    """tokenizer.json (a link where a flavour is there already) and tokenizer_config.json, as old or as new versions
    spell it. Returns the tokenizer."""
    tokenizer = Tokenizer.from_str(json.dumps(describe(flavour)))
    common = folder.parents[1] / "tokenizers" / f"{flavour}.json"
    common.parent.mkdir(exist_ok=True)
    tokenizer.save(str(common))
    (folder / "tokenizer.json").symlink_to(f"../../tokenizers/{flavour}.json")
    roles = ROLES[flavour]
    config = {"clean_up_tokenization_spaces": False, "model_max_length": 4096, **roles,
              "tokenizer_class": "PreTrainedTokenizerFast" if published else "TokenizersBackend"}
    if published:
        config["extra_special_tokens"] = {k: v for k, v in roles.items() if k not in ORDINARY}
    write_json(folder / "tokenizer_config.json", config)
    return tokenizer
