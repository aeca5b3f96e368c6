"""Five tiny tokenizers in tokenizer.json form, and test vectors for them.

  spm              LLaMA-2 style, "legacy": normalizer Prepend + Replace, no pre-tokenizer, byte fallback
  spm-metaspace    LLaMA-2 style, "non-legacy": pre-tokenizer Metaspace, prepend_scheme "first"
  bytelevel        LLaMA-3 style: Split by regex + ByteLevel, ignore_merges, BOS by TemplateProcessing
  bytelevel-vision the same without BOS (the Mllama processor puts it into the text), <|image|> as the last token
  bytelevel-digits GPT-2 style: Digits + ByteLevel(use_regex), no BOS
"""
import json
from collections import Counter

from tokenizers import Tokenizer, pre_tokenizers

from . import write_json

SPACE = "\u2581"  # sentencepiece's visible space
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
                r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPM_SPECIAL = ["<unk>", "<s>", "</s>"]
BYTELEVEL_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                     "<|end_header_id|>", "<|eot_id|>"]
VISION_SPECIAL = BYTELEVEL_SPECIAL + ["<|finetune_right_pad_id|>", "<|image|>"]
DIGITS_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # first in the vocabulary
IMAGE_SPECIAL = ["<image>", "<pad>"]
# Whole pre-tokens that no merge can build: only ignore_merges finds them.
UNMERGED_WORDS = ["\u0120zebra", "123", "xyzzy"]

CORPUS = """
The lens reads the state of each layer and shows what the model would say if it stopped there.
A small picture shows a red circle near the blue square; the other picture shows a green field.
What is the colour of the circle? The colour of the circle is red. What is in this picture?
The answer of the last layer is the teacher, and the answer of each earlier layer is the student.
When the train comes to the station in the morning, the people on the platform read their letters.
It's the same thing that they'd seen; we're sure that they'll see it there again, aren't we?
The quick brown fox jumps over the lazy dog while the cat sleeps near the warm stone wall.
USER: Describe the image. ASSISTANT: There are three people in the image, and one of them reads.
In the beginning there was nothing to measure, and then there was one number: 0, 1, 2, 3, 10, 100.
Der kleine Hund läuft über die Brücke. Le garçon a mangé une crème brûlée près de la forêt.
"""


# ---------------------------------------------------------------- byte-pair training

def learn_merges(words, n_merges):
    """Plain BPE on {word: count}; ties go to the pair that sorts first."""
    pieces = {word: list(word) for word in words}
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in pieces.values():
            i = 0
            while i + 1 < len(parts):
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = ["".join(best)]
                i += 1
    return merges


def unique(items):
    return list(dict.fromkeys(items))


# ---------------------------------------------------------------- tokenizer.json parts

def added_token(content, token_id, special=True):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": special}


def bos_template(bos, bos_id):
    token = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [token, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [token, {"Sequence": {"id": "A", "type_id": 0}},
                 {"SpecialToken": {"id": bos, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
    }


def bpe_model(vocab, merges, **options):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "ignore_merges": False, "vocab": {token: i for i, token in enumerate(vocab)},
             "merges": [list(pair) for pair in merges]}
    return {**model, **options}


def tokenizer_json(model, special, **parts):
    ids = model["vocab"]
    base = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": sorted((added_token(t, ids[t]) for t in special), key=lambda a: a["id"]),
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return {**base, **parts, "model": model}


# ---------------------------------------------------------------- the four flavours

def spm(legacy, image_tokens):
    words = Counter(SPACE + word for word in CORPUS.split())
    # Runs of spaces are tokens of their own, as in LLaMA-2.
    merges = [(SPACE, SPACE), (SPACE * 2, SPACE * 2)] + learn_merges(words, 62)
    characters = sorted(set("".join(words)) | set("\n"))
    vocab = unique(SPM_SPECIAL + [f"<0x{b:02X}>" for b in range(256)]
                   + ["".join(pair) for pair in merges] + characters)
    vocab += IMAGE_SPECIAL if image_tokens else []
    model = bpe_model(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    if legacy:
        split = {"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]}}
    else:
        split = {"pre_tokenizer": {"type": "Metaspace", "replacement": SPACE,
                                   "prepend_scheme": "first", "split": False}}
    decoder = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    special = SPM_SPECIAL + (IMAGE_SPECIAL if image_tokens else [])
    return tokenizer_json(model, special, decoder=decoder,
                          post_processor=bos_template("<s>", 1), **split)


def byte_level_part(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, **options}


def pre_split(pre_tokenizer):
    """{byte-level piece: count} of the corpus under the given pre-tokenizer description."""
    probe = Tokenizer.from_str(json.dumps(tokenizer_json(bpe_model(["a"], []), [],
                                                         pre_tokenizer=pre_tokenizer)))
    return Counter(piece for piece, _ in probe.pre_tokenizer.pre_tokenize_str(CORPUS))


def bytelevel_llama3(special=BYTELEVEL_SPECIAL, n_merges=72, add_bos=True):
    pre = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False},
        byte_level_part(use_regex=False)]}
    merges = learn_merges(pre_split(pre), n_merges)
    vocab = unique(sorted(pre_tokenizers.ByteLevel.alphabet())
                   + ["".join(pair) for pair in merges] + UNMERGED_WORDS + special)
    bos = special[0]
    post = {"type": "Sequence", "processors": [byte_level_part(use_regex=True),
                                               bos_template(bos, vocab.index(bos))]}
    post = post if add_bos else byte_level_part(use_regex=True)
    return tokenizer_json(bpe_model(vocab, merges, ignore_merges=True), special,
                          pre_tokenizer=pre, post_processor=post, decoder=byte_level_part(use_regex=True))


def bytelevel_digits():
    pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True},
                                                 byte_level_part(use_regex=True)]}
    merges = learn_merges(pre_split(pre), 60)
    vocab = unique(DIGITS_SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
                   + ["".join(pair) for pair in merges])
    return tokenizer_json(bpe_model(vocab, merges, unk_token=DIGITS_SPECIAL[0]), DIGITS_SPECIAL,
                          pre_tokenizer=pre, decoder=byte_level_part(use_regex=True))


FLAVOURS = {
    "spm": lambda: spm(legacy=True, image_tokens=False),
    "spm-image": lambda: spm(legacy=True, image_tokens=True),
    "spm-metaspace": lambda: spm(legacy=False, image_tokens=False),
    "spm-metaspace-image": lambda: spm(legacy=False, image_tokens=True),
    "bytelevel": bytelevel_llama3,
    "bytelevel-vision": lambda: bytelevel_llama3(VISION_SPECIAL, n_merges=16, add_bos=False),
    "bytelevel-digits": bytelevel_digits,
}


def special_roles(flavour):
    """(bos, eos, unk, pad), None where there is none."""
    if flavour.startswith("spm"):
        return "<s>", "</s>", "<unk>", "<pad>" if flavour.endswith("image") else None
    if flavour == "bytelevel":
        return BYTELEVEL_SPECIAL[0], BYTELEVEL_SPECIAL[1], None, None
    if flavour == "bytelevel-vision":
        return VISION_SPECIAL[0], VISION_SPECIAL[1], None, VISION_SPECIAL[-2]
    return DIGITS_SPECIAL[1], DIGITS_SPECIAL[2], DIGITS_SPECIAL[0], DIGITS_SPECIAL[2]


def write_tokenizer(flavour, folder):
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json. Returns the tokenizer."""
    description = FLAVOURS[flavour]()
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.save(str(folder / "tokenizer.json"))
    if flavour == "bytelevel-digits":  # merges as "a b" strings: the form of older files
        saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        saved["model"]["merges"] = [" ".join(pair) for pair in saved["model"]["merges"]]
        write_json(folder / "tokenizer.json", saved)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    bos, eos, unk, pad = special_roles(flavour)
    roles = {"bos_token": bos, "eos_token": eos, "unk_token": unk, "pad_token": pad}
    config = {
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
                                 for t in description["added_tokens"]},
        **roles,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    if flavour.startswith("spm"):
        config.update(tokenizer_class="LlamaTokenizer", add_bos_token=True, add_eos_token=False,
                      legacy="metaspace" not in flavour, sp_model_kwargs={})
    else:
        config.update(tokenizer_class="PreTrainedTokenizerFast")
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", {k: v for k, v in roles.items() if v})
    return tokenizer


# ---------------------------------------------------------------- test vectors

TEXTS = [
    "", " ", "  ", "   ", "    ", "         ", "\n", "\n\n", "\n \n", "\t", " \t ", "\r\n", "a", " a", "a ", "  a  b   c    d",
    "The lens reads the state of each layer.", "the colour of the circle is red", "Hello, world!",
    " leading space", "trailing space ", "two  spaces", "line one\nline two\n\nline four\n",
    "tabs\tand\ttabs", "windows\r\nline\r\nends", "   indented\n      more\n", "UPPER lower MiXeD camelCaseWord snake_case_word",
    "It's they're we'll I'd you've I'm DON'T it'S", "don\u2019t \u201cquote\u201d \u2013 dash \u2014 long\u2026",
    "0 1 12 123 1234 12345 3.14159 1,000,000 -7 +8 1e-5", "abc123def456", "x=y+z; if (a<b && c>d) { return a->b[0]; }",
    "def f(x):\n    return x ** 2  # square\n", "https://example.org/a/b?c=d&e=%20f#g", "user@example.org", "!!!??? ... ---- ####", "a.b.c,d;e:f",
    " zebra", "zebra zebras xyzzy 123", "The zebra", "naïve café crème brûlée", "cafe\u0301 = caf\u00e9", "a\u0300\u0301\u0302b", "Größe Straße ÄÖÜ äöü ß",
    "Ελληνικά αβγ", "Привет, мир!", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया", "ไทยภาษา", "你好,世界。", "日本語のテキスト ひらがな カタカナ", "한국어 텍스트", "混合 mixed 文本 text",
    "😀", "😀😃 smile", "👩‍👩‍👧‍👦 family", "👍🏽 skin tone", "🇩🇪🇫🇷 flags", "e\u200db zero\u200bwidth", "nb\u00a0space thin\u2009space ideographic\u3000space", "\ufeffbom", "½ ² ① Ⅷ ٣ ४",
    "\u2581already\u2581visible \u2581", "<0x41> <0x0A> is text", "null\u0000byte \u0001\u007f", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟙𝟚𝟛", "İstanbul ıI ſs K", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "thethethethethe", "\U0010ffff last",
]
SPECIAL_TEXTS = {
    "spm": ["<s>", "</s>", "a<s>b", "a <s> b", "<s>a</s>", "a</s> b", " </s> ", "<unk>", "x<unk>y", "<s><s>", "< s >", "<S>", "<s", "first</s>\nsecond"],
    "image": ["<image>", "a<image>b", "USER: <image>\nWhat is in this picture?\nASSISTANT:", "<image><image>", "<image> <image>", "<pad>", "a <pad> b", "<image", "<image>\n"],
    "bytelevel": ["<|begin_of_text|>", "a<|eot_id|>b", "a <|eot_id|> b", "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "<|begin_of_text|>The lens", "<|eot_id|><|eot_id|>", "<|eot_id", "<|unknown|>"],
    "bytelevel-vision": ["<|image|>", "<|image|><|begin_of_text|>The lens", "a <|image|> b", "<|image|><|image|>\n", "<|image", "<|finetune_right_pad_id|>"],
    "bytelevel-digits": ["<|endoftext|>", "a<|im_end|>b", "a <|im_end|> b", "<|im_start|>user\nHi<|im_end|>\n", "<|im_start|><|im_end|>", "<|im_start"],
}


def vector(tokenizer, text):
    ids = tokenizer.encode(text).ids
    return {"text": text, "ids": ids,
            "ids_nospecial": tokenizer.encode(text, add_special_tokens=False).ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip": tokenizer.decode(ids, skip_special_tokens=True)}


def write_vectors(flavour, tokenizer, path):
    texts = [] if flavour.endswith(("image", "vision")) else list(TEXTS)  # the plain flavour covers these
    for key, extra in SPECIAL_TEXTS.items():
        applies = {"spm": flavour.startswith("spm"), "image": flavour.endswith("image")}
        if applies.get(key, key == flavour):
            texts += extra
    lines = [json.dumps(vector(tokenizer, text), ensure_ascii=True) for text in texts]
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return len(lines)


def backend(tokenizer):
    """The Tokenizer inside what a model of transformers comes with."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor
    return getattr(tokenizer, "backend_tokenizer", tokenizer)
