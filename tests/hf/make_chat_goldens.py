"""Writes chat_goldens.json: what transformers makes of conversations with the templates in templates/.

    python3 -m venv venv && venv/bin/pip install transformers==5.0.0 jinja2==3.1.6
    venv/bin/python make_chat_goldens.py
"""
import datetime
import json
import pathlib
import sys

import transformers
from transformers.utils import chat_template_utils

HERE = pathlib.Path(__file__).parent
DATE = "2024-07-06"
WITH_PICTURES = {"features", "gemma3", "llava", "mllama", "onevision", "qwen2_vl", "smolvlm"}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class FixedDate(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 6, 12)


# Roles and parts; None is a picture.
TALKS = {
    "one": [("user", ["What is it?"])],
    "answered": [("user", [" Hi \n"]), ("assistant", [" A lamp.\n"])],
    "system": [("system", ["Be brief. "]), ("user", ["Why?"]), ("assistant", ["Because."])],
    "turns": [("user", ["One?"]), ("assistant", ["1"]), ("user", ["Two\n\n?"]), ("assistant", ["2 \u00e4\u00a0"]),
              ("user", ["Three?"])],
    "system turns": [("system", ["S"]), ("user", ["a"]), ("assistant", ["b"]), ("user", ["c"]), ("assistant", ["d"])],
    "empty answer": [("user", ["Say nothing."]), ("assistant", [""])],
    "empty question": [("user", [""]), ("assistant", ["What?"])],
    "spells tags": [("user", ["{{ 1 + 1 }} {% raw %} <|im_end|> </s>"]), ("assistant", ["\\n \"x\" '"])],
    "answer first": [("assistant", ["Hello"]), ("user", ["Hi"])],
    "picture": [("user", [None, "What?"])],
    "picture behind": [("user", ["What?", None]), ("assistant", ["A dot."])],
    "two pictures": [("user", [None, "and", None, "?"]), ("assistant", ["Yes."]), ("user", ["Sure?"])],
    "pictures in turns": [("system", ["Look."]), ("user", [None, "a"]), ("assistant", ["b"]), ("user", [None, "c"]),
                          ("assistant", ["d"])],
}


def messages_of(talk, as_parts):
    def content(parts):
        if not as_parts:
            return "".join(parts)
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
    return [{"role": role, "content": content(parts)} for role, parts in talk]


def render(template, messages):
    ask = messages[-1]["role"] != "assistant"
    compiled = chat_template_utils._compile_jinja_template(template)
    try:
        return {"text": compiled.render(messages=messages, tools=None, documents=None, add_generation_prompt=ask,
                                        **TOKENS)}
    except Exception as error:  # what it says differs; that it refuses does not
        return {"refused": type(error).__name__}


def main():
    chat_template_utils.datetime = FixedDate
    rows = []
    for path in sorted((HERE / "templates").glob("*.jinja")):
        template = path.read_text()
        for as_parts in (False, True):
            if (as_parts and path.stem not in WITH_PICTURES) or (not as_parts and path.stem == "onevision"):
                continue  # not how that template is called
            for name, talk in TALKS.items():
                if not as_parts and any(part is None for _, parts in talk for part in parts):
                    continue
                if path.stem == "features" and any(role == "assistant" for role, _ in talk):
                    continue  # no frame of turns
                rows.append({"template": path.name, "as_parts": as_parts, "talk": name,
                             **render(template, messages_of(talk, as_parts))})
    out = {"made_with": f"transformers {transformers.__version__}", "date": DATE, **TOKENS,
           "talks": {name: [[role, parts] for role, parts in talk] for name, talk in TALKS.items()}, "rows": rows}
    text = json.dumps(out, ensure_ascii=True, indent=0)
    (HERE / "chat_goldens.json").write_text(text + "\n")
    print(len(rows), "rows,", sum("refused" in row for row in rows), "refused", file=sys.stderr)


main()
