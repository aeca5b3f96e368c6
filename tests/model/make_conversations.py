"""Writes conversations.jsonl: ids and classes of 200 conversations over four templates, by transformers and tokenizers.

    python3 -m venv venv && venv/bin/pip install transformers==5.0.0 tokenizers jinja2==3.1.6
    venv/bin/python make_conversations.py

Where an answer stands is found in the rendered text (what the turns before it render to when they ask for one, to what
they render to with it, without white space behind), and a token belongs to it if its last byte does: by the offsets of
the tokenizers library.
"""
import json
import pathlib
import random

import tokenizers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
MODELS = HERE / "../golden/fixtures/models"
TEMPLATES = HERE / "../hf/templates"
PAIRS = [("llama-rope3-f16", "chatml"), ("llama-base-f32", "llama2"), ("llama-bias-f32", "gemma"),
         ("llava-base-f32", "llava")]
WORDS = ("the lamp on table is red 42 What colour? \u00e4\u00f6 \u4f60\u597d \U0001f600 wall \u00a0 it's  two. three, \n "
         "a <b> {c} [INST] [/INST] ASSISTANT: x=1; I'd 3.14").split(" ")


def text(rng, most):
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, most)))


def make_talk(rng, pictures, system):
    talk = [["system", [text(rng, 5)]]] if system and rng.random() < 0.3 else []
    for _ in range(rng.randint(1, 3)):
        parts = [text(rng, 8)]
        if pictures and rng.random() < 0.6:
            parts.insert(rng.choice([0, 1]), None)
        talk += [["user", parts], ["assistant", [text(rng, 8)]]]
    if rng.random() < 0.3:
        talk += [["user", [text(rng, 6)]]]
    return talk


def messages_of(talk, as_parts):
    def content(parts):
        if not as_parts:
            return "".join(parts)
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return [{"role": role, "content": content(parts)} for role, parts in talk]


def encode(model, template, talk):
    folder = MODELS / model
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    specials = {key: config[key] for key in ("bos_token", "eos_token") if isinstance(config.get(key), str)}
    compiled = chat_template_utils._compile_jinja_template((TEMPLATES / f"{template}.jinja").read_text())
    pictures = template == "llava"
    messages = messages_of(talk, pictures)

    def render(n, ask):
        return compiled.render(messages=messages[:n], tools=None, documents=None, add_generation_prompt=ask, **specials)

    open_end = talk[-1][0] != "assistant"
    whole = render(len(talk), open_end)
    spans = []
    for k, (role, _) in enumerate(talk):
        if role == "assistant":
            first, end = len(render(k, True)), len(render(k + 1, False))
            assert whole.startswith(render(k, True)) and whole.startswith(render(k + 1, False))
            while end > first and whole[end - 1] in " \n\t\r":
                end -= 1
            spans.append((first, end))
    if pictures:
        rows = (28 // 7) ** 2

        def grow(at):
            return at + whole[:at].count("<image>") * (rows - 1) * len("<image>")
        spans = [(grow(first), grow(end)) for first, end in spans]
        whole = whole.replace("<image>", "<image>" * rows)
    encoded = tokenizer.encode(whole, add_special_tokens=pictures and not whole.startswith(specials.get("bos_token", "\0")))
    image = tokenizer.token_to_id("<image>") if pictures else None
    classes = []
    for token, (_, end) in zip(encoded.ids, encoded.offsets):
        inside = any(first < end <= last for first, last in spans)
        classes.append("i" if token == image else "a" if inside else "t")
    for i in range(1, len(classes)):
        if classes[i] == "a" and classes[i - 1] != "a":
            classes[i - 1] = "l"
    if open_end:
        classes[-1] = "l"
    return encoded.ids, "".join(classes)


def main():
    rng = random.Random(17)
    with open(HERE / "conversations.jsonl", "w") as out:
        for model, template in PAIRS:
            for _ in range(50):
                talk = make_talk(rng, template == "llava", template == "chatml")
                ids, classes = encode(model, template, talk)
                out.write(json.dumps({"model": model, "template": template, "talk": talk, "ids": ids,
                                      "classes": classes}, separators=(",", ":")) + "\n")


main()
