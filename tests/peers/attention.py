"""Cross-attention weights that vlens reads from the small Mllama, against those of transformers.
attention.py SOURCE VLENS"""
import json
import pathlib
import subprocess
import sys

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, MllamaForConditionalGeneration

LIMIT = 7e-7  # measured 1.3e-7 here, 1.8e-7 on a trained model of that size


def main():
    source, vlens = pathlib.Path(sys.argv[1]), sys.argv[2]
    picture = source / "data/demo/images/000.png"
    prompt = "<|image|><|begin_of_text|>What color is it?"
    run = subprocess.run([vlens, "topk", "--model", "mllama", "--image", str(picture), "--prompt", prompt, "--raw-prompt",
                          "--position", "all", "--json", "--set", "precision=exact"], check=True, stdout=subprocess.PIPE)
    ours = json.loads(run.stdout)["positions"]
    model = MllamaForConditionalGeneration.from_pretrained("mllama", attn_implementation="eager",
                                                           torch_dtype=torch.float32).eval()
    inputs = AutoProcessor.from_pretrained("mllama")(images=Image.open(picture).convert("RGB"), text=prompt,
                                                     add_special_tokens=False, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    assert inputs["input_ids"][0].tolist() == [p["id"] for p in ours]
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions
    tiles = model.config.vision_config.max_num_tiles
    worst = 0
    for b, block in enumerate(model.config.text_config.cross_attention_layers):
        weights = attentions[block][0].mean(0).double().numpy().reshape(len(ours), tiles, -1)  # [T, G, N]
        for t, position in enumerate(ours):
            got = position["attention"][b]
            assert got["block"] == block
            worst = max(worst, np.abs(np.array(got["tiles"]) - weights[t].sum(1)).max(),
                        abs(got["class_rows"] - weights[t][:, 0].sum()))
    print(f"  mllama   cross-attention of {len(ours)} tokens: largest difference {worst:.1e} (limit {LIMIT:.0e})")
    assert worst <= LIMIT


if __name__ == "__main__":
    main()
