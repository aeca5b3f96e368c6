"""The parts of make_vision.py: tiny models of the vision-language families and what transformers 5.24 computes."""
