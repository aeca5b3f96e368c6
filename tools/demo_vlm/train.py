#!/usr/bin/env python3
"""Train the demo model: a small LLaVA that answers questions about shapes.

    python train.py --minutes 40 --out ../../data/demo

writes OUT/model (a Hugging Face directory, weights in bfloat16) and
OUT/accuracy.json.  One CPU thread.  Everything is drawn from fixed seeds, so the
same number of steps on the same machine gives the same weights; --steps fixes
that number.

Training sees no stored pictures: every step renders new scenes.  One row of a
batch is one scene: the template's start and the picture once, then several
questions with their answers.  A mask hides the questions from each other and
their positions restart, so that each is computed as if it stood alone.

The picture rows are trained to name their patch: half colour word, half shape word of
the shape that covers more than half of it, a line break where there is no shape.
"""
import argparse
import json
import math
import pathlib
import random
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import (
    AddedToken, AutoProcessor, CLIPImageProcessor, CLIPVisionConfig, LlamaConfig,
    LlamaTokenizerFast, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor,
)

import render

SEED = 20
VOCAB = 640                       # with <image> and <pad>, the last two
IMAGE_ID, PAD_ID = VOCAB - 2, VOCAB - 1
IMAGE_TOKENS = (render.SIZE // render.PATCH) ** 2
ROOM = 128                        # tokens of a row behind the picture
BATCH = 64                        # scenes per step
SLICE = 16                        # of them at a time: small tensors stay in the caches
PROMPT_WEIGHT = 0.1               # of the loss on the template and the questions
PATCH_WEIGHT = 0.15               # on a picture row whose patch one shape covers by more than half
EMPTY_WEIGHT = 0.02               # on one whose patch no shape touches: there are many of them
KINDS = ("color", "shape", "where", "count", "caption")

ENGLISH = """
The old house stands at the end of a long road near the river.
She wrote a short letter and put it on the table by the window.
We can see many things in a picture, but not all of them have a name.
In the morning the light is soft and the air is cold.
A child counts the birds that sit on the wall: one, two, three, four, five.
Please tell me what is shown here and how you know it.
There are no people in this image, only some simple things on a plain ground.
Is it true that the first answer was wrong? Yes, it is. No, it is not.
He looked at the map, turned to the right and walked for an hour.
Some words are short and some are long; most of them are used every day.
What do you think is behind the door? I do not know, but we could look.
The train leaves at ten and it will be there before night.
They made a small model of the town with paper, wood and glue.
Every question should have a clear answer, and every answer a reason.
Water runs down the hill, over the stones and under the bridge.
"""


# ---------------------------------------------------------------- tokenizer

def build_tokenizer(folder):
    """A LLaMA-style SentencePiece BPE tokenizer made from the project's own text."""
    import sentencepiece

    lines = ENGLISH.strip().split("\n") * 40
    for index in range(3000):
        scene = render.make_scene(render.TRAIN_STREAM, index)
        asked = render.questions(scene) + [("", render.CAPTION_PROMPT, render.caption(scene))]
        lines += [f"USER: {prompt} ASSISTANT: {answer}" for _, prompt, answer in asked]
        # After the line break of the template a question starts without a space.
        lines.append(f"({asked[index % len(asked)][1]})")
    text, model = folder / "text.txt", folder / "tokenizer"
    text.write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(model), model_type="bpe", vocab_size=VOCAB - 2,
        byte_fallback=True, split_digits=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        num_threads=1, minloglevel=2)
    tok = LlamaTokenizerFast(
        vocab_file=f"{model}.model", legacy=True, add_prefix_space=True, from_slow=True,
        padding_side="left", model_max_length=512, clean_up_tokenization_spaces=False)
    tok.add_tokens(AddedToken("<image>", special=True, normalized=False), special_tokens=True)
    tok.add_special_tokens({"pad_token": AddedToken("<pad>", special=True, normalized=False)})
    assert len(tok) == VOCAB and tok.convert_tokens_to_ids("<image>") == IMAGE_ID
    for word in sum(render.ANSWERS.values(), ()):
        ids = tok(template(f"{word}?") + " " + word).input_ids
        assert tok.convert_ids_to_tokens(ids[-1]) == "\u2581" + word, word
    return tok


def template(prompt):
    return f"USER: <image>\n{prompt} ASSISTANT:"


# -------------------------------------------------------------------- model

def build_model():
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=128, intermediate_size=256, num_hidden_layers=5, num_attention_heads=4,
            image_size=render.SIZE, patch_size=render.PATCH, projection_dim=128),
        text_config=LlamaConfig(
            vocab_size=VOCAB, hidden_size=128, intermediate_size=320, num_hidden_layers=12,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
            rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=PAD_ID),
        image_token_index=IMAGE_ID, pad_token_id=PAD_ID, image_seq_length=IMAGE_TOKENS,
        vision_feature_layer=-2, vision_feature_select_strategy="default")
    model = LlavaForConditionalGeneration(config)
    # transformers gives this class no init for training: scale every matrix by its fan-in
    # and what a block adds to its residual stream by the depth as well.
    last = ("o_proj", "down_proj", "out_proj", "fc2")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            depth = 24 if "language" in name else 10
            scale = depth ** -0.5 if name.endswith(last) else 1.0
            torch.nn.init.normal_(module.weight, std=scale / math.sqrt(module.in_features))
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
        elif isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.3)
    torch.nn.init.normal_(model.language_model.lm_head.weight, std=0.02)
    vision = model.vision_tower.vision_model
    torch.nn.init.normal_(vision.embeddings.patch_embedding.weight,
                          std=(3 * render.PATCH ** 2) ** -0.5)
    torch.nn.init.normal_(vision.embeddings.class_embedding, std=0.3)
    return model


def normalise(scenes):
    """Pixels as CLIPImageProcessor makes them of pictures that have the right size."""
    pixels = torch.from_numpy(np.stack([s.pixels for s in scenes])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]))
    return (pixels - mean) / std


def patch_features(model, pixels):
    hidden = model.vision_tower(pixels, output_hidden_states=True).hidden_states
    return hidden[model.config.vision_feature_layer][:, 1:]


# ------------------------------------------------------------------ batches

class Packer:
    """Turns scenes into rows: the shared start, then questions side by side."""

    def __init__(self, tok):
        self.tok = tok
        self.line_break = tok.convert_tokens_to_ids("<0x0A>")
        self.start, _ = self.split(template("").replace("<image>", "<image>" * IMAGE_TOKENS))
        self.first_patch = self.start.index(IMAGE_ID)
        self.cache = {}
        self.word = {w: tok.convert_tokens_to_ids("\u2581" + w)
                     for w in (*render.COLORS, *render.SHAPES)}
        assert tok.unk_token_id not in self.word.values()

    def split(self, text):
        """The ids up to the line break behind the picture, and those after it."""
        ids = self.tok(text).input_ids
        at = ids.index(self.line_break) + 1
        return ids[:at], ids[at:]

    def ids(self, prompt, answer):
        """(question ids, answer ids), tokenised inside the template."""
        if prompt not in self.cache:
            self.cache[prompt] = self.split(template(prompt))[1]
        if answer not in self.cache:
            self.cache[answer] = self.tok(answer, add_special_tokens=False).input_ids
        return self.cache[prompt], self.cache[answer] + [self.tok.eos_token_id]

    def row(self, scene, rng):
        """Ids, positions, part numbers and loss weights (of the ids as targets)."""
        asked = render.questions(scene)
        rng.shuffle(asked)
        asked.insert(0, ("caption", render.CAPTION_PROMPT, render.caption(scene)))
        parts, used = [], 0
        for _, prompt, answer in asked:
            question, reply = self.ids(prompt, answer)
            if used + len(question) + len(reply) <= ROOM:
                parts.append((question, reply))
                used += len(question) + len(reply)
        rng.shuffle(parts)
        ids, n = list(self.start), len(self.start)
        weight = [0.0 if i == IMAGE_ID else PROMPT_WEIGHT for i in ids]
        position, part = list(range(n)), [0] * n
        for number, (question, reply) in enumerate(parts, 1):
            length = len(question) + len(reply)
            ids += question + reply
            position += range(n, n + length)
            part += [number] * length
            # The first id of a question follows the start, which is beside the first part only.
            first = PROMPT_WEIGHT if number == 1 else 0.0
            weight += [first] + [PROMPT_WEIGHT] * (len(question) - 1) + [1.0] * len(reply)
        fill = len(self.start) + ROOM - len(ids)
        return (ids + [PAD_ID] * fill, position + [0] * fill, part + [-1] * fill,
                weight + [0.0] * fill)

    def patch_words(self, scene):
        """What each picture row should name: [2, patches] ids (colour, shape), [patches] weights."""
        cover = scene.patch_cover().reshape(len(scene.things), -1)
        best, most = cover.argmax(0), cover.max(0)
        names = np.array([[self.word[t.color], self.word[t.shape]] for t in scene.things])
        target = np.where(most > 0.5, names[best].T, self.line_break)
        weight = np.select([most > 0.5, most == 0], [PATCH_WEIGHT, EMPTY_WEIGHT], 0.0)
        return torch.from_numpy(target), torch.from_numpy(weight).float()

    def batch(self, scenes, rng):
        rows = [self.row(s, rng) for s in scenes]
        ids, position, part = (torch.tensor([r[i] for r in rows]) for i in range(3))
        weight = torch.tensor([r[3] for r in rows])
        causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        same = part[:, :, None] == part[:, None, :]
        seen = causal & (same | (part == 0)[:, None, :])
        mask = torch.zeros(seen.shape).masked_fill_(~seen, -1e9)[:, None]
        words, patch_weight = (torch.stack(x) for x in zip(*map(self.patch_words, scenes)))
        return ids, position, mask, weight, (self.first_patch, words, patch_weight)


def text_loss(model, features, ids, position, mask, weight, patches):
    embeds = model.get_input_embeddings()(ids)
    at_image = (ids == IMAGE_ID)[..., None]
    embeds = embeds.masked_scatter(at_image, model.multi_modal_projector(features).to(embeds.dtype))
    hidden = model.language_model.model(
        inputs_embeds=embeds, position_ids=position, attention_mask=mask, use_cache=False)[0]
    keep = weight[:, 1:] > 0
    logits = model.language_model.lm_head(hidden[:, :-1][keep]).float()
    loss = F.cross_entropy(logits, ids[:, 1:][keep], reduction="none")
    weights = weight[:, 1:][keep]
    first, words, patch_weight = patches
    keep = patch_weight > 0
    logits = model.language_model.lm_head(hidden[:, first:first + IMAGE_TOKENS][keep]).float()
    named = sum(F.cross_entropy(logits, words[:, i][keep], reduction="none") for i in range(2)) / 2
    patch_weight = patch_weight[keep]
    return ((loss * weights).sum() + (named * patch_weight).sum()) / (weights.sum() + patch_weight.sum())


class PatchLoss(torch.nn.Module):
    """Names shape and colour of what covers a patch; used in training, then dropped.

    Without it the vision tower takes most of the training to tell shapes apart.
    """

    def __init__(self, width):
        super().__init__()
        self.sizes = [len(render.SHAPES) + 1, len(render.COLORS) + 1]
        self.head = torch.nn.Linear(width, sum(self.sizes))

    def forward(self, features, scenes):
        target = torch.zeros(2, len(scenes), IMAGE_TOKENS, dtype=torch.long)
        for row, scene in enumerate(scenes):
            cover = scene.patch_cover().reshape(len(scene.things), -1)
            best, enough = cover.argmax(0), cover.max(0) > 0.25
            shape = np.array([render.SHAPES.index(t.shape) + 1 for t in scene.things])
            color = np.array([list(render.COLORS).index(t.color) + 1 for t in scene.things])
            target[0, row] = torch.from_numpy(np.where(enough, shape[best], 0))
            target[1, row] = torch.from_numpy(np.where(enough, color[best], 0))
        split = self.head(features).float().split(self.sizes, dim=-1)
        return sum(F.cross_entropy(s.flatten(0, 1), t.flatten()) for s, t in zip(split, target)) / 2


# ---------------------------------------------------------------- optimiser

class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are made orthogonal (Jordan et al. 2024)."""

    def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr, momentum=0.95, weight_decay=0.02))

    @staticmethod
    def orthogonal(g):
        x = g.T if g.shape[0] > g.shape[1] else g
        x = x / (x.norm() + 1e-7)
        for _ in range(5):   # Newton-Schulz, coefficients of the paper
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return x.T if g.shape[0] > g.shape[1] else x

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                m.lerp_(p.grad, 1 - group["momentum"])
                update = self.orthogonal(p.grad.lerp(m, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def optimisers(model, patch_loss):
    """Muon for the matrices inside the blocks, AdamW for all the rest."""
    inner, rest = [], list(patch_loss.parameters())
    for name, p in model.named_parameters():
        block = ".layers." in name or "projector" in name
        (inner if block and p.ndim == 2 else rest).append(p)
    found = [Muon(inner, lr=0.02), torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.98),
                                                     weight_decay=0.0)]
    for o in found:
        for group in o.param_groups:
            group["peak"] = group["lr"]
    return found


# --------------------------------------------------------------- evaluation

@torch.no_grad()
def first_words(model, processor, pictures, prompts, size=16):
    """The most likely next id of every (picture, prompt), as any user would compute it."""
    found = []
    for at in range(0, len(prompts), size):
        inputs = processor(images=pictures[at:at + size], padding=True, return_tensors="pt",
                           text=[template(p) for p in prompts[at:at + size]])
        found += model(**inputs).logits[:, -1].argmax(-1).tolist()
    return found


@torch.no_grad()
def captions_right(model, processor, pictures, texts, size=16):
    """How many captions greedy decoding gives word for word."""
    right = 0
    for at in range(0, len(texts), size):
        n = len(texts[at:at + size])
        inputs = processor(images=pictures[at:at + size], return_tensors="pt",
                           text=[template(render.CAPTION_PROMPT)] * n)
        out = model.generate(**inputs, max_new_tokens=64, do_sample=False)
        said = processor.batch_decode(out[:, inputs.input_ids.shape[1]:], skip_special_tokens=True)
        right += sum(a.strip() == b for a, b in zip(said, texts[at:at + size]))
    return right


def wrong_partner(rows):
    """For each row the index of another one: same prompt, other picture; None if there is none."""
    rng, groups = random.Random(SEED), {}
    for i, row in enumerate(rows):
        groups.setdefault(row["prompt"], []).append(i)
    return [rng.choice(others) if others else None for others in (
        [j for j in groups[row["prompt"]] if rows[j]["image"] != row["image"]] for row in rows)]


def evaluate(folder, rows, pictures):
    """Accuracy by kind of question with the right and with a wrong picture, and the best guess.

    The guess is what answering every prompt with its most frequent answer gives.
    """
    processor = AutoProcessor.from_pretrained(folder)
    model = LlavaForConditionalGeneration.from_pretrained(folder, torch_dtype=torch.float32).eval()
    short = [r for r in rows if r["kind"] != "caption"]
    partner = wrong_partner(short)
    images = [pictures[r["image"]] for r in short]
    prompts = [r["prompt"] for r in short]
    target = [processor.tokenizer(r["answer"], add_special_tokens=False).input_ids for r in short]
    assert all(len(t) == 1 for t in target)
    right = first_words(model, processor, images, prompts)
    wrong = first_words(model, processor,
                        [images[i if p is None else p] for i, p in enumerate(partner)], prompts)
    frequent = {}
    for r in short:
        frequent.setdefault(r["prompt"], []).append(r["answer"])
    guess = {p: max(sorted(set(a)), key=a.count) for p, a in frequent.items()}
    table = {}
    for kind in KINDS[:-1]:
        of = [i for i, r in enumerate(short) if r["kind"] == kind]
        paired = [i for i in of if partner[i] is not None]
        table[kind] = {
            "questions": len(of),
            "right_picture": np.mean([right[i] == target[i][0] for i in of]),
            "wrong_picture": np.mean([wrong[i] == target[i][0] for i in paired]),
            "best_guess": np.mean([guess[prompts[i]] == short[i]["answer"] for i in of]),
        }
    told = [r for r in rows if r["kind"] == "caption"]
    other = told[1:] + told[:1]
    table["caption"] = {"questions": len(told)}
    for name, seen in (("right_picture", told), ("wrong_picture", other)):
        table["caption"][name] = captions_right(
            model, processor, [pictures[r["image"]] for r in seen],
            [r["answer"] for r in told]) / len(told)
    return {kind: {name: x if name == "questions" else round(float(x), 4)
                   for name, x in row.items()} for kind, row in table.items()}


def demo_rows(data):
    """The demo set as rows with the kind of question; pictures by name."""
    from PIL import Image

    kinds = {"What color": "color", "What shape": "shape", "Where is": "where", "How many": "count"}
    rows = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()]
    for row in rows:
        row["kind"] = next((k for s, k in kinds.items() if row["prompt"].startswith(s)), "caption")
    return rows, {r["image"]: Image.open(data / r["image"]).convert("RGB") for r in rows}


def test_rows(count=150):
    """A small set from its own stream, for the log during training."""
    from PIL import Image

    rows, pictures = [], {}
    for index in range(count):
        scene = render.make_scene(render.TEST_STREAM, index)
        pictures[index] = Image.fromarray(scene.pixels)
        asked = render.questions(scene, full_names=False)
        rows += [dict(image=index, kind=k, prompt=p, answer=a) for k, p, a in asked]
        if index < 40:
            rows.append(dict(image=index, kind="caption", prompt=render.CAPTION_PROMPT,
                             answer=render.caption(scene)))
    return rows, pictures


def print_table(table):
    print("| question | number | right picture | wrong picture | most frequent answer |")
    print("|---|---|---|---|---|")
    for kind, v in table.items():
        guess = f"{100 * v['best_guess']:.1f} %" if "best_guess" in v else "-"
        print(f"| {kind} | {v['questions']} | {100 * v['right_picture']:.1f} % | "
              f"{100 * v['wrong_picture']:.1f} % | {guess} |", flush=True)


# ----------------------------------------------------------------- training

def save(model, tok, folder):
    """A complete Hugging Face directory with bfloat16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    model.config.torch_dtype = torch.bfloat16
    model.save_pretrained(folder, state_dict=state, safe_serialization=True)
    images = CLIPImageProcessor(size={"shortest_edge": render.SIZE}, resample=3,
                                crop_size={"height": render.SIZE, "width": render.SIZE})
    LlavaProcessor(images, tok, patch_size=render.PATCH,
                   vision_feature_select_strategy="default").save_pretrained(folder)
    for extra in ("tokenizer.model", "added_tokens.json"):   # tokenizer.json says it all
        (folder / extra).unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    settings["add_prefix_space"] = None   # else transformers rebuilds it from tokenizer.model
    file.write_text(json.dumps(settings, indent=2) + "\n")
    for file in folder.iterdir():
        file.chmod(0o644)


def train(args):
    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        tok = build_tokenizer(pathlib.Path(scratch))
        model, packer = build_model(), Packer(tok)
        patch_loss = PatchLoss(model.config.vision_config.hidden_size)
        opts = optimisers(model, patch_loss)
        print(f"{sum(p.numel() for p in model.parameters())} parameters, "
              f"{len(packer.start)} ids before a question", flush=True)
        begin, saved, shown, step, index = time.time(), 0.0, [0.0, 0.0, 0.0], 0, 0
        while True:
            spent = (time.time() - begin) / 60
            done = step / args.steps if args.steps else spent / args.minutes
            if done >= 1:
                break
            scenes = [render.make_scene(render.TRAIN_STREAM, index + i) for i in range(BATCH)]
            index += BATCH
            rng = random.Random(index)
            pace = min(1, (step + 1) / 50) * min(1, 0.02 + (1 - done) / 0.7)
            for o in opts:
                for group in o.param_groups:
                    group["lr"] = group["peak"] * pace
            text = patches = 0.0
            for some in (scenes[i:i + SLICE] for i in range(0, BATCH, SLICE)):
                with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                    features = patch_features(model, normalise(some))
                    loss = patch = patch_loss(features, some)
                    patches += float(patch.detach()) * SLICE / BATCH
                    if step >= args.warmup:   # until then only the vision tower learns
                        told = text_loss(model, features, *packer.batch(some, rng))
                        text += float(told.detach()) * SLICE / BATCH
                        loss = told + 0.3 * patch
                (loss * (SLICE / BATCH)).backward()
            norm = torch.nn.utils.clip_grad_norm_(
                [p for o in opts for g in o.param_groups for p in g["params"]], 1.0)
            for o in opts:
                o.step()
                o.zero_grad(set_to_none=True)
            step += 1
            for i, x in enumerate((text, patches, norm)):
                shown[i] += float(x) / 20
            if step % 20 == 0:
                print(f"step {step} minute {spent:.1f} text {shown[0]:.4f} patch {shown[1]:.4f} "
                      f"norm {shown[2]:.2f}", flush=True)
                shown = [0.0, 0.0, 0.0]
            if spent - saved > args.every:
                saved = spent
                save(model, tok, args.out / "model")
                print_table(evaluate(args.out / "model", *test_rows()))
        save(model, tok, args.out / "model")
        print(f"{step} steps of {BATCH} scenes in {(time.time() - begin) / 60:.1f} minutes")
    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the demo set")
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--steps", type=int, default=0, help="instead of --minutes")
    parser.add_argument("--warmup", type=int, default=150, help="steps for the vision tower alone")
    parser.add_argument("--every", type=float, default=5, help="minutes between saved models")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16 while training")
    parser.add_argument("--evaluate", action="store_true", help="only measure OUT/model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = 0 if args.evaluate else train(args)
    table = evaluate(args.out / "model", *demo_rows(args.out))
    print_table(table)
    if steps:
        (args.out / "accuracy.json").write_text(
            json.dumps({"steps": steps, "batch": BATCH, "accuracy": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
