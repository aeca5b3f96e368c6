"""Records a cache from any causal language or vision-language model of transformers."""
from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vlens._native import VlensError
from vlens.cache import Cache

if TYPE_CHECKING:
    import torch

_TEXT, _IMAGE, _LAST, _ANSWER = 0, 1, 2, 4


def record(model: Any, processor: Any, samples: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
           out: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None, heldout: float = 0.3,
           seed: int = 42, dtype: str = "auto", shard_tokens: int = 65536, template: bool = True, fresh: bool = False,
           progress: bool = True) -> Cache:
    """Runs ``model`` on samples and writes every state of every token to ``out``; then `vlens train` takes it.

    model:     a transformers causal LM or vision-language model, on whatever device and in whatever type it is.
    processor: its AutoProcessor; for a text model its AutoTokenizer.
    samples:   a JSONL file or dicts: {"prompt", "image" or "images", "answer"}, or {"messages": [...]} as
               apply_chat_template takes them. An answer is run too, and its tokens get the class "answer".
    images:    the folder that picture paths are relative to (default: that of the JSONL).
    heldout, seed: the split (docs/reference/formats.md); samples that share a picture stay together.
    dtype:     "bfloat16", "float16", "float32" of the stored states; "auto": float32 for a float32 model, else
               bfloat16.
    template:  use the chat template of the processor where it has one; False takes the prompt as it is.
    fresh:     throw away what an earlier recording left in ``out``. Otherwise an interrupted one goes on.

    The states are the residual stream before the final norm. They are checked before anything is written: final norm
    and head, applied to the last state, must give the model's own logits; if not, VlensError says by how much. Soft
    caps and scales of the logits are recorded. Memory: one shard of states."""
    import torch

    from vlens import _inspect, _shards

    out = pathlib.Path(out)
    plan = list(_read_samples(samples, images))
    if not plan:
        raise ValueError("no samples were given")
    split = _split(plan, heldout, seed)
    encoder = _Encoder(model, processor, template)
    model = model.eval()
    first = encoder.encode(plan[0], 0)
    layers, norm, head = _inspect.inspect(model, lambda: model(**first.inputs, use_cache=False))
    if dtype == "auto":
        dtype = "float32" if next(model.parameters()).dtype == torch.float32 else "bfloat16"
    attributes = {"format": "vlens-cache", "version": 1, "d_model": head.weight.shape[1], "n_layers": len(layers),
                  "vocab_size": head.weight.shape[0], "model_id": str(getattr(model.config, "_name_or_path", "")),
                  "model_type": str(model.config.model_type)}
    _prepare(out, fresh)
    writer = _shards.Writer(out, attributes, dtype, shard_tokens)
    done = writer.open()
    tap = _inspect.Tap(layers, norm)
    show = _Progress(len(plan), done, progress)
    try:
        pending: _Pending | None = None
        for number in range(done, len(plan)):
            encoded = encoder.encode(plan[number], number)
            with torch.no_grad():
                model(**encoded.inputs, use_cache=False)
            following = _Pending(encoded, tap.take()[:, 0], dtype)
            if pending:  # the copy of the last sample's states ran while this one was computed
                writer.add(pending.sample(split, head.weight.shape[0]))
                show.step(pending.encoded.number + 1)
            pending = following
        if pending:
            writer.add(pending.sample(split, head.weight.shape[0]))
    finally:
        tap.close()
    writer.finish(head, encoder.pieces(head.weight.shape[0]))
    show.step(len(plan))
    cache = Cache.open(out)
    _compare(cache, first, model, head)
    return cache


def _prepare(out: pathlib.Path, fresh: bool) -> None:
    index = out / "index.h5"
    if index.exists() and not fresh:
        raise FileExistsError(f"{index} is there already; fresh=True replaces what this function wrote")
    if fresh:
        for path in [index, *sorted(out.glob("shard-*.h5"))]:
            path.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)


def _compare(cache: Cache, first: _Encoded, model: Any, head: Any) -> None:
    """The logits that vlens computes from the cache against those that the model gave."""
    import torch

    rows = cache.rows(sample=first.number)[-4:]
    last = torch.from_numpy(cache.states(cache.n_states - 1, rows))
    want = head.logits(last.to(head.weight.device)).cpu().numpy()
    got = cache.head().logits(last.numpy())
    off = float(np.abs(got - want).max() / np.abs(want).max())
    if off > 1e-3:
        (pathlib.Path(cache.path) / "index.h5").unlink(missing_ok=True)
        raise VlensError("mismatch", f"libvlens {off:.2g} apart from the model's logits: it does not know this head "
                         "(a soft cap or scale behind the unembedding?)")


# ---- samples --------------------------------------------------------------------------------------------------


def _read_samples(samples: Any, images: Any) -> Iterator[dict[str, Any]]:
    """Dicts with "messages" and "images" (absolute paths), in order."""
    folder = pathlib.Path(images) if images is not None else pathlib.Path(".")
    if isinstance(samples, (str, os.PathLike)):
        path = pathlib.Path(samples)
        folder = pathlib.Path(images) if images is not None else path.parent
        with open(path, encoding="utf-8-sig") as f:
            lines = [(f"{path}:{n}: ", line) for n, line in enumerate(f, 1) if line.strip()]
        given: Iterable[tuple[str, Any]] = ((where, _parse(where, line)) for where, line in lines)
    else:
        given = ((f"sample {n}: ", dict(s)) for n, s in enumerate(samples))
    for where, sample in given:
        yield _normalise(where, sample, folder)


def _parse(where: str, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as e:
        raise ValueError(f"{where}no valid JSON: {e.msg}") from None


def _normalise(where: str, sample: Any, folder: pathlib.Path) -> dict[str, Any]:
    if not isinstance(sample, dict) or not ("messages" in sample or "prompt" in sample):
        raise ValueError(f'{where}a sample needs "prompt" or "messages"')
    paths = sample.get("images") or ([sample["image"]] if sample.get("image") else [])
    messages = sample.get("messages")
    if messages is None:
        content = [{"type": "image"} for _ in paths] + [{"type": "text", "text": sample["prompt"]}]
        messages = [{"role": "user", "content": content}]
        if sample.get("answer"):
            messages.append({"role": "assistant", "content": [{"type": "text", "text": sample["answer"]}]})
    else:
        for message in messages:
            for part in message["content"] if isinstance(message["content"], list) else []:
                if part.get("type") == "image":
                    path = part.get("path") or part.get("image") or part.get("url")
                    if isinstance(path, str) and not sample.get("images"):
                        paths = [*paths, path]
    found = []
    for path in paths:
        full = folder / path
        if not full.is_file():
            raise FileNotFoundError(f"{where}picture {full}: no such file")
        found.append(full)
    return {"messages": messages, "images": found, "prompt": sample.get("prompt"), "answer": sample.get("answer") or ""}


def _split(plan: list[dict[str, Any]], heldout: float, seed: int) -> list[bool]:
    """Held out by picture: all samples that are connected through pictures follow the smallest hash."""
    def u(key: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")

    parent = list(range(len(plan)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    owner: dict[str, int] = {}
    least = []
    for i, sample in enumerate(plan):
        sample["sha256"] = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sample["images"]]
        for digest in sample["sha256"]:
            parent[root(i)] = root(owner.setdefault(digest, i))
        least.append(u(sample["sha256"][0] if sample["sha256"] else _prompt(sample)))
    smallest: dict[int, int] = {}
    for i, value in enumerate(least):
        smallest[root(i)] = min(value, smallest.get(root(i), value))
    return [smallest[root(i)] / 2**64 < heldout for i in range(len(plan))]


def _prompt(sample: Mapping[str, Any]) -> str:
    """The user's words of a sample."""
    if sample["prompt"] is not None:
        return str(sample["prompt"])
    texts = []
    for message in sample["messages"]:
        if message["role"] == "user":
            content = message["content"]
            texts += [content] if isinstance(content, str) else [p["text"] for p in content if p.get("type") == "text"]
    return "\n".join(texts)


# ---- tokens ---------------------------------------------------------------------------------------------------


class _Encoded:
    """What the model is given for a sample, and the class of each of its rows."""

    def __init__(self, number: int, sample: dict[str, Any], inputs: dict[str, Any], token_class: Any,
                 grids: list[tuple[int, int]]) -> None:
        self.number, self.sample, self.inputs = number, sample, inputs
        self.token_class, self.grids = token_class, grids


class _Encoder:
    """Chat template, tokens, pixels and token classes."""

    def __init__(self, model: Any, processor: Any, template: bool) -> None:
        self._processor = processor
        self._tokenizer = getattr(processor, "tokenizer", processor)
        self._device = next(model.parameters()).device
        self._dtype = next(model.parameters()).dtype
        config = model.config
        self._image_id = next((i for i in (getattr(config, name, None) for name in
                                           ("image_token_id", "image_token_index")) if i is not None), None)
        self._template = template and bool(getattr(processor, "chat_template", None)
                                           or getattr(self._tokenizer, "chat_template", None))
        self._parts = getattr(processor, "tokenizer", None) is not None  # contents as lists of parts

    def pieces(self, n: int) -> list[str]:
        """Each token as people read it; ids beyond the tokenizer are empty."""
        known = len(self._tokenizer)
        return [self._tokenizer.decode([i]).replace("\0", "<0x00>") if i < known else "" for i in range(n)]

    def _render(self, messages: list[dict[str, Any]], ask: bool) -> str:
        given = messages if self._parts else [m | {"content": _joined(m["content"])} for m in messages]
        owner = self._processor if getattr(self._processor, "chat_template", None) else self._tokenizer
        return str(owner.apply_chat_template(given, tokenize=False, add_generation_prompt=ask))

    def _texts(self, sample: dict[str, Any]) -> list[tuple[str, int]]:
        """The text up to each boundary between prompt and answer, the class of what it adds, the whole text last."""
        messages = sample["messages"]
        if not self._template:
            user = _joined(messages[0]["content"]) if sample["prompt"] is None else sample["prompt"]
            return [(user, _TEXT)] + ([(user + " " + sample["answer"], _ANSWER)] if sample["answer"] else [])
        out: list[tuple[str, int]] = []
        for i, message in enumerate(messages):
            if message["role"] == "assistant":
                out.append((self._render(messages[:i], True), _TEXT))
                out.append((self._render(messages[:i + 1], False), _ANSWER))
        if messages[-1]["role"] != "assistant":
            out.append((self._render(messages, True), _TEXT))
        return out

    def _tokens(self, text: str, pictures: list[Any]) -> dict[str, Any]:
        special = not (self._template and _begins(text, self._tokenizer))
        if not self._parts:
            return dict(self._processor(text, return_tensors="pt", add_special_tokens=special))
        given = {"images": pictures} if pictures else {}
        return dict(self._processor(text=[text], return_tensors="pt", add_special_tokens=special, **given))

    def encode(self, sample: dict[str, Any], number: int) -> _Encoded:
        pictures = _open_pictures(sample)
        texts = self._texts(sample)
        inputs = self._tokens(texts[-1][0], pictures)
        ids = inputs["input_ids"][0].numpy()
        token_class = np.full(len(ids), _TEXT, np.uint8)
        first = 0
        for text, kind in texts:
            n = len(ids)
            if text != texts[-1][0]:
                part = self._tokens(text, pictures[:self._pictures_in(text, pictures)])
                n = _common(ids, part["input_ids"][0].numpy())
            token_class[first:n] = kind
            if kind == _TEXT and n > first:
                token_class[n - 1] = _LAST
            first = max(first, n)
        if self._image_id is not None:
            token_class[ids == self._image_id] = _IMAGE
        moved = {k: self._move(v) for k, v in inputs.items() if hasattr(v, "to")}
        return _Encoded(number, sample, moved, token_class, _grids(inputs, self._processor))

    def _pictures_in(self, text: str, pictures: list[Any]) -> int:
        """How many pictures a text refers to: the placeholders that its template wrote."""
        token = getattr(self._processor, "image_token", None) or (
            self._tokenizer.convert_ids_to_tokens(self._image_id) if self._image_id is not None else None)
        return min(len(pictures), text.count(token)) if token else len(pictures)

    def _move(self, value: Any) -> Any:
        return value.to(self._device, self._dtype) if value.is_floating_point() else value.to(self._device)


def _joined(content: Any) -> str:
    return content if isinstance(content, str) else "".join(p["text"] for p in content if p.get("type") == "text")


def _begins(text: str, tokenizer: Any) -> bool:
    """The template writes the token that begins a text itself: the tokenizer must not add another."""
    return tokenizer.bos_token is None or text.startswith(tokenizer.bos_token)


def _open_pictures(sample: dict[str, Any]) -> list[Any]:
    from PIL import Image, ImageOps

    out = []
    for path in sample["images"]:
        with Image.open(path) as image:
            turned = ImageOps.exif_transpose(image) or image
            out.append(turned.convert("RGB"))
    return out


def _common(a: Any, b: Any) -> int:
    """The length of the common beginning of two arrays of ids."""
    n = min(len(a), len(b))
    apart = np.flatnonzero(a[:n] != b[:n])
    return int(apart[0]) if apart.size else n


def _grids(inputs: Mapping[str, Any], processor: Any) -> list[tuple[int, int]]:
    """Rows and columns that the decoder sees of each picture, where the processor says so (Qwen-VL)."""
    grid = inputs.get("image_grid_thw")
    if grid is None:
        return []
    merge = int(getattr(getattr(processor, "image_processor", None), "merge_size", 1))
    return [(int(h) // merge, int(w) // merge) for _, h, w in grid.tolist()]


# ---- rows -----------------------------------------------------------------------------------------------------


class _Pending:
    """States on their way from the device: cast there, copied once, waited for when they are needed."""

    def __init__(self, encoded: _Encoded, states: torch.Tensor, dtype: str) -> None:
        import torch

        self.encoded = encoded
        self._kind = dtype
        device = states.to({"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[dtype])
        self._host = torch.empty(device.shape, dtype=device.dtype, pin_memory=device.is_cuda)
        self._host.copy_(device, non_blocking=True)
        cuda: Any = torch.cuda
        self._done = cuda.Event() if device.is_cuda else None
        if self._done:
            self._done.record()
        self._device = device  # kept until the copy is done

    def _states(self) -> Any:
        import torch

        if self._done:
            self._done.synchronize()
        if not torch.isfinite(self._host).all():
            layer = int((~torch.isfinite(self._host)).flatten(1).any(1).nonzero()[0])
            raise VlensError("wrong format", f"sample {self.encoded.number}: state {layer} holds a number that is not "
                             f"finite in {self._kind}; dtype=\"float32\" or \"bfloat16\" holds a wider range")
        return self._host.view(torch.uint16).numpy() if self._kind == "bfloat16" else self._host.numpy()

    def sample(self, split: list[bool], vocab: int) -> Any:
        from vlens._shards import Sample

        e = self.encoded
        ids = e.inputs["input_ids"][0].cpu().numpy()
        picture = e.token_class == _IMAGE
        following = np.append(ids[1:], -1)
        following[np.append(picture[1:], False) | (following >= vocab)] = -1
        image, patch = _patches(picture, e.grids, len(e.sample["images"]))
        columns = {"id": ids, "next_id": following, "position": np.arange(len(ids)),
                   "sample": np.full(len(ids), e.number), "class": e.token_class, "image": image, "patch": patch}
        files = [{"path": str(p), "sha256": d, "width": w, "height": h} for p, d, (w, h) in
                 zip(e.sample["images"], e.sample["sha256"], (i.size for i in _open_pictures(e.sample)))]
        return Sample(e.number, _prompt(e.sample), e.sample["answer"], split[e.number], files, columns, self._states())


def _patches(picture: Any, grids: list[tuple[int, int]], n_images: int) -> tuple[Any, Any]:
    """/tokens/image and /tokens/patch: runs of picture rows are shared out among the pictures in order."""
    image, patch = np.full(len(picture), -1, np.int32), np.full((len(picture), 3), -1, np.int16)
    rows = np.flatnonzero(picture)
    if not rows.size or not n_images:
        return image, patch
    sizes = [r * c for r, c in grids]
    if sum(sizes) != rows.size:  # no grid is known: pictures take equal shares
        share = rows.size // n_images
        sizes = [share] * (n_images - 1) + [rows.size - share * (n_images - 1)]
        grids = [(side, side) if (side := int(n**0.5)) * side == n else (1, n) for n in sizes]
    first = 0
    for i, (size, (_, columns)) in enumerate(zip(sizes, grids)):
        here = rows[first:first + size]
        image[here] = i
        k = np.arange(len(here))
        patch[here] = np.stack([np.zeros_like(k), k // columns, k % columns], 1)
        first += size
    return image, patch


class _Progress:
    """One line on stderr that is written over."""

    def __init__(self, total: int, done: int, shown: bool) -> None:
        import time

        self._total, self._first, self._shown = total, done, shown and sys.stderr.isatty()
        self._start, self._time = time.monotonic(), time.monotonic

    def step(self, done: int) -> None:
        if not self._shown:
            return
        spent = self._time() - self._start
        left = spent / max(done - self._first, 1) * (self._total - done)
        end = "\n" if done == self._total else ""
        print(f"\rrecord {done}/{self._total} samples, {left:.0f} s left ", end=end, file=sys.stderr, flush=True)
