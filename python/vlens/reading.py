"""What each layer would say: the page and the numbers of `vlens view`."""
from __future__ import annotations

import html
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

from vlens._run import run_json, settings


class Reading:
    """One reading: ``html`` is the page, ``data`` the JSON of `vlens topk` (docs/reference/formats.md)."""

    def __init__(self, page: str, data: dict[str, Any]) -> None:
        self.html = page
        self.data = data

    def __repr__(self) -> str:
        return f"<vlens.Reading {len(self.data['positions'])} positions, {self.data['n_states']} states>"

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its styles stay inside."""
        return (f'<iframe srcdoc="{html.escape(self.html)}" style="width:100%;height:900px;border:0" '
                'sandbox="allow-scripts allow-downloads" title="vlens"></iframe>')

    def top(self, position: int = -1, lens: str | None = None) -> list[list[tuple[str, float]]]:
        """For each state the top tokens and their probabilities at one position of the list in ``data``."""
        row = self.data["positions"][position]
        name = lens or ("tuned" if self.data["has_lens"] else "logit")
        return [[(t["token"], t["p"]) for t in state[name]["top"]] for state in row["states"]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the page as one HTML file that needs nothing else."""
        pathlib.Path(path).write_text(self.html, encoding="utf-8")


def read(model: str | os.PathLike[str], prompt: str, *, images: Sequence[str | os.PathLike[str]] = (),
         lens: str | os.PathLike[str] | None = None, k: int = 5, track: Sequence[str] = (),
         allow_other_model: bool = False, **options: Any) -> Reading:
    """Runs a model on a prompt (and pictures) and reads every state at every position.

    ``options`` are settings of the configuration with "." written as "__": ``data__template="none"``.

    >>> reading = vlens.read(MODEL, "What shape is red? Answer with one word.", images=[IMAGE], lens=LENS, k=3)
    >>> len(reading.top()[-1])
    3
    """
    with tempfile.TemporaryDirectory(prefix="vlens-") as folder:
        page = pathlib.Path(folder) / "page.html"
        arguments = ["view", "--model", os.fspath(model), "--prompt", prompt, "--k", str(k), "--out", str(page)]
        for image in images:
            arguments += ["--image", os.fspath(image)]
        for word in track:
            arguments += ["--track", word]
        if lens is not None:
            arguments += ["--lens", os.fspath(lens)]
        if allow_other_model:
            arguments.append("--allow-other-model")
        arguments += settings({key.replace("__", "."): value for key, value in options.items()})
        data = run_json(*arguments)
        return Reading(page.read_text(encoding="utf-8"), data)
