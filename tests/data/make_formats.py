"""Writes formats/: the same 60 captions, and the same 60 conversations, in every format that data.samples may have."""
import json
import pathlib
import random

HERE = pathlib.Path(__file__).parent / "formats"
QUESTION = "Describe the picture."
NAMES = ["a.png", "b.png", "c.png"]
WORDS = "lamp table red wall on the is a two \u00e4 \U0001f600 dog".split()


def lines(name, rows):
    (HERE / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def main():
    rng = random.Random(3)

    def text():
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(2, 6))) + rng.choice([".", "?", "\n\"x\""])

    captions = [(rng.choice(NAMES), text()) for _ in range(60)]
    lines("prompts.jsonl", [{"image": i, "prompt": QUESTION, "answer": c} for i, c in captions])
    (HERE / "prompts.json").write_text(json.dumps([{"id": n, "answer": c, "prompt": QUESTION, "image": [i]}
                                                   for n, (i, c) in enumerate(captions)]))
    lines("captions.jsonl", [{"image": i, "caption": c} for i, c in captions])
    coco = {"info": {}, "images": [{"id": 7 * k + 1, "file_name": name} for k, name in enumerate(NAMES)],
            "annotations": [{"id": n, "image_id": 7 * NAMES.index(i) + 1, "caption": c}
                            for n, (i, c) in enumerate(captions)]}
    (HERE / "coco.json").write_text(json.dumps(coco, indent=1))
    lines("short_llava.jsonl", [{"image": i, "conversations": [{"from": "human", "value": "<image>\n" + QUESTION},
                                                               {"from": "gpt", "value": c}]} for i, c in captions])

    llava, sharegpt, messages, placed = [], [], [], []
    for n in range(60):
        images = rng.sample(NAMES, rng.randint(0, 2))
        turns = [["system", text()]] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 3)):
            turns += [["human", text()], ["gpt", text()]]
        first = next(i for i, turn in enumerate(turns) if turn[0] == "human")
        marked = [[who, "<image>" * len(images) * (i == first) + ("\n" if images and i == first else "") + said]
                  for i, (who, said) in enumerate(turns)]
        marked = [[who, said.rstrip() if images and i == first else said] for i, (who, said) in enumerate(marked)]
        turns = [[who, said.rstrip() if images and i == first else said] for i, (who, said) in enumerate(turns)]
        role = {"human": "user", "gpt": "assistant", "system": "system"}
        llava.append({"id": str(n), **({"image": images} if images else {}),
                      "conversations": [{"from": who, "value": said} for who, said in marked]})
        sharegpt.append({"conversations": [{"from": who, "value": said} for who, said in turns],
                         **({"images": images} if images else {})})
        messages.append({"messages": [{"role": role[who], "content": said} for who, said in marked],
                         **({"images": images} if images else {})})
        placed.append({"messages": [{"role": role[who], "content": [
            {"type": "image", "path": name} for name in images if i == first] + [{"type": "text", "text": said}]}
            for i, (who, said) in enumerate(turns)]})
    (HERE / "llava.json").write_text(json.dumps(llava, indent=2))
    lines("sharegpt.jsonl", sharegpt)
    lines("messages.jsonl", messages)
    lines("messages_parts.jsonl", placed)


main()
