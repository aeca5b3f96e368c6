"""Runs every Python block of a Markdown file, in order and in one namespace."""
import logging
import re
import sys
import warnings

logging.disable(logging.WARNING)
warnings.filterwarnings("ignore")
blocks = re.findall(r"^```python\n(.*?)^```", open(sys.argv[1], encoding="utf-8").read(), re.MULTILINE | re.DOTALL)
namespace = {}
for number, block in enumerate(blocks, 1):
    exec(compile(block, f"{sys.argv[1]}, block {number}", "exec"), namespace)  # the project's own text
print(f"{len(blocks)} blocks ran")
assert blocks
