"""vlens.record on families that transformers builds: right, or refused with a number."""
import json

import h5py
import numpy as np
import pytest
import torch
import vlens
from conftest import spread
from transformers import AutoConfig, AutoModelForCausalLM

SMALL = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
# model_type -> what the configuration needs beside the vocabulary. Those marked * vlens does not read itself.
FAMILIES = {
    "llama": SMALL,
    "qwen2": SMALL,
    "qwen3": SMALL | {"head_dim": 12},
    "mistral": SMALL,
    "gemma2": SMALL | {"head_dim": 12, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 12},
    "gemma3_text": SMALL | {"head_dim": 12, "query_pre_attn_scalar": 12},
    "gpt2": dict(n_embd=48, n_layer=3, n_head=4, n_positions=128),
    "gpt_neox": dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4),
    "opt": dict(hidden_size=48, ffn_dim=64, num_hidden_layers=3, num_attention_heads=4, word_embed_proj_dim=48),
    "olmo2": SMALL,
    "cohere": SMALL | {"logit_scale": 0.25},  # *
    "granite": SMALL | {"logits_scaling": 3.0, "embedding_multiplier": 2.0},  # *
    "bloom": dict(hidden_size=48, n_layer=3, n_head=4),  # *
    "falcon": dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4),  # *
    "phi": SMALL | {"num_key_value_heads": 4},  # *
    "stablelm": SMALL | {"num_key_value_heads": 4, "partial_rotary_factor": 1.0},  # *
}
PROMPTS = ["The capital of France is", "One two three four five", "A picture of a cat", "def f(x): return x",
           "What are they doing?", "Answer with one word."]


def make(family, tokenizer, **more):
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer) + 3, **{**FAMILIES[family], **more})
    return spread(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))


@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_logits_are_those_of_the_model(family, tokenizer, tmp_path):
    model = make(family, tokenizer)
    cache = vlens.record(model, tokenizer, [{"prompt": p} for p in PROMPTS], tmp_path / "cache", template=False,
                         progress=False)
    ids = tokenizer(PROMPTS[2], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = model(input_ids=ids, output_hidden_states=True)
    rows = cache.rows(sample=2)
    assert cache.id[rows].tolist() == ids[0].tolist()
    for i in range(cache.n_states - 1):  # hidden_states[-1] is normed
        want = out.hidden_states[i][0].numpy()
        assert np.abs(cache.states(i, rows) - want).max() <= 1e-5 * np.abs(want).max(), i
    logits = cache.head().logits(cache.states(cache.n_states - 1, rows))
    want = out.logits[0].numpy()
    assert np.abs(logits - want).max() <= 2e-5 * np.abs(want).max()


def test_a_head_that_is_not_understood_is_refused(tokenizer, tmp_path):
    """Something behind the last state that no attribute names: a lens would learn it wrong."""
    model = make("llama", tokenizer)
    plain = model.lm_head.forward
    for wrong in (lambda x: plain(x) * 1.1, lambda x: 3 * torch.tanh(plain(x) / 3), lambda x: plain(x + 0.05)):
        model.lm_head.forward = wrong
        with pytest.raises(vlens.VlensError, match="off by 0"):
            vlens.record(model, tokenizer, [{"prompt": PROMPTS[0]}], tmp_path / "cache", template=False, progress=False)
        assert not (tmp_path / "cache").exists()


def test_an_interrupted_recording_goes_on(tokenizer, tmp_path):
    model = make("llama", tokenizer)
    samples = [{"prompt": p} for p in PROMPTS * 4]
    vlens.record(model, tokenizer, samples, tmp_path / "whole", shard_tokens=24, template=False, progress=False)
    calls = 0
    forward = model.forward

    def stops(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    model.forward = stops
    with pytest.raises(KeyboardInterrupt):
        vlens.record(model, tokenizer, samples, tmp_path / "cut", shard_tokens=24, template=False, progress=False)
    assert list((tmp_path / "cut").glob("shard-*.h5")) and not (tmp_path / "cut/index.h5").exists()
    calls = 100
    cut = vlens.record(model, tokenizer, samples, tmp_path / "cut", shard_tokens=24, template=False, progress=False)
    assert calls < 100 + len(samples), "it began again"
    whole = vlens.Cache.open(tmp_path / "whole")
    for i in range(whole.n_states):
        assert np.array_equal(whole.states(i), cut.states(i))
    with h5py.File(tmp_path / "whole/index.h5") as a, h5py.File(tmp_path / "cut/index.h5") as b:
        for name in ("samples/split", "tokens/next_id", "tokens/class"):
            assert np.array_equal(a[name][:], b[name][:])


def test_answers_are_a_class_of_their_own(tokenizer, tmp_path):
    model = make("llama", tokenizer)
    samples = [{"prompt": "What is it?", "answer": "a red cat"},
               {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "two"},
                             {"role": "user", "content": "Three?"}, {"role": "assistant", "content": "four"}]}]
    cache = vlens.record(model, tokenizer, samples, tmp_path / "cache", heldout=0.5, progress=False)
    answer = cache.rows("answer", sample=0)
    assert "a red cat" in tokenizer.decode(cache.id[answer])
    rows = cache.rows("answer", sample=1)
    said = tokenizer.decode(cache.id[rows])
    assert "two" in said and "four" in said and "Three" not in said
    assert len(cache.rows("last", sample=1)) == 2


def test_a_cache_is_not_replaced_unasked(tokenizer, tmp_path):
    model = make("llama", tokenizer)
    vlens.record(model, tokenizer, [{"prompt": PROMPTS[0]}], tmp_path / "cache", template=False, progress=False)
    with pytest.raises(FileExistsError, match="fresh=True"):
        vlens.record(model, tokenizer, [{"prompt": PROMPTS[0]}], tmp_path / "cache", template=False, progress=False)


def test_train_and_eval_take_a_recorded_cache(tokenizer, tmp_path):
    model = make("granite", tokenizer)
    lines = [{"prompt": f"{p} number {n}"} for n in range(20) for p in PROMPTS]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    vlens.record(model, tokenizer, tmp_path / "samples.jsonl", tmp_path / "cache", template=False, progress=False)
    config = tmp_path / "run.yaml"
    config.write_text(f"output: {tmp_path}/lens\nprecision: exact\ncache: {{dir: {tmp_path}/cache}}\n"
                      "fit: {tokens_per_step: 256, epochs: 4}\neval: {bootstrap: 10}\n", encoding="utf-8")
    vlens._run.run("train", str(config), "--quiet")
    result = vlens.evaluate(config)
    name = result.data["classes"][0]["class"]
    logit, tuned = result.kl(name, "logit"), result.kl(name, "tuned")
    assert all(t < plain for t, plain in zip(tuned[:-1], logit[:-1])), (tuned, logit)
    assert "<table>" in result._repr_html_() and len(result.to_pandas()) == len(result.rows())
