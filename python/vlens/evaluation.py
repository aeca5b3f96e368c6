"""Held-out KL per layer, lens and token class: `vlens eval` as an object."""
from __future__ import annotations

import html
import os
from typing import TYPE_CHECKING, Any

from vlens._run import run_json, settings

if TYPE_CHECKING:
    import pandas

_LENSES = ("logit", "baseline", "tuned", "wrong_picture")


class Evaluation:
    """The result of `vlens eval`; ``data`` is its JSON (docs/reference/formats.md)."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __repr__(self) -> str:
        names = ", ".join(c["class"] for c in self.data["classes"])
        return f"<vlens.Evaluation of {self.data['lens']}: {self.data['n_layers']} layers; {names}>"

    def rows(self) -> list[dict[str, Any]]:
        """One dict per class, state and lens: class, state, lens, rows, kl, kl_low, kl_high and the other metrics."""
        out = []
        for group in self.data["classes"]:
            for i, state in enumerate(group["states"]):
                for lens in _LENSES:
                    if lens in state:
                        numbers = {k: v for k, v in state[lens].items() if not isinstance(v, dict)}
                        out.append({"class": group["class"], "state": state.get("state", i), "lens": lens, **numbers})
        return out

    def kl(self, token_class: str = "all-text", lens: str = "tuned") -> list[float | None]:
        """Mean KL in nats, one per state, as the table of `vlens eval` shows it."""
        found = [r["kl"] for r in self.rows() if r["class"] == token_class and r["lens"] == lens]
        if not found:
            raise KeyError(f"no {lens} lens for class {token_class!r} in this result")
        return found

    def to_pandas(self) -> pandas.DataFrame:
        """``rows()`` as a DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        """KL by state and lens, one table per token class."""
        out = []
        for group in self.data["classes"]:
            lenses = [x for x in _LENSES if any(x in s for s in group["states"])]
            head = "".join(f"<th>{html.escape(x.replace('_', ' '))}</th>" for x in lenses)
            body = ""
            for i, state in enumerate(group["states"]):
                cells = "".join(_cell(state.get(x)) for x in lenses)
                body += f"<tr><th>{state.get('state', i)}</th>{cells}</tr>"
            out.append(f"<table><caption>KL in nats, {html.escape(group['class'])}, {group['rows']} rows</caption>"
                       f"<tr><th>state</th>{head}</tr>{body}</table>")
        return "".join(out)


def _cell(value: dict[str, Any] | None) -> str:
    if value is None or value.get("kl") is None:
        return "<td></td>"
    low, high = value.get("kl_low"), value.get("kl_high")
    interval = f" title='{low:.4f} to {high:.4f}'" if low is not None and high is not None else ""
    return f"<td{interval}>{value['kl']:.4f}</td>"


def evaluate(config: str | os.PathLike[str], *, lens: str | os.PathLike[str] | None = None,
             allow_other_model: bool = False, **options: Any) -> Evaluation:
    """Evaluates a lens on the held-out rows of the cache that a configuration file names.

    ``options`` are settings with "." written as "__": ``eval__bootstrap=100``.

    >>> result = vlens.evaluate(CONFIG, eval__bootstrap=10)
    >>> result.kl("all-text", "tuned")[3] < result.kl("all-text", "logit")[3]
    True
    """
    arguments = ["eval", os.fspath(config)]
    if lens is not None:
        arguments += ["--lens", os.fspath(lens)]
    if allow_other_model:
        arguments.append("--allow-other-model")
    arguments += settings({key.replace("__", "."): value for key, value in options.items()})
    return Evaluation(run_json(*arguments))
