"""The counts of tools/patch_words.py on readings made by hand. patch_words_test.py SOURCE"""
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(sys.argv[1]) / "tools"))
import patch_words  # noqa: E402

OBJECTS = [{"color": "red", "shape": "circle", "patches": [[0, 0], [0, 1]]},
           {"color": "blue", "shape": "star", "patches": [[1, 0]]}]
CELLS = {(0, 0): {"red", "four"}, (0, 1): {"green", "cross"}, (1, 0): {"star", "green"}, (1, 1): {"circle", "blue"},
         (2, 0): {"is"}, (2, 1): {"red"}, (3, 0): {"star"}, (3, 1): {"the"}}
KINDS = [(shape, color) for shape in ("circle", "star", "cross") for color in ("red", "blue", "green")]


def rates(objects, prompt):
    return patch_words.rates(CELLS, CELLS.keys(), objects, patch_words.words(prompt), KINDS)


def main():
    # the red circle: 1 of 2 inside, 2 of 5 outside; the blue star: 1 of 1 inside, 2 of 5 outside. Chance: four other
    # kinds each; of the circle's patches one shows green or cross (3 of 4 kinds), of the star's one shows green (2 of 4)
    found = rates(OBJECTS, "Describe the picture.")
    assert found == [2, 3, 4, 10, 3 / 4 + 2 / 4], found
    # a word of the prompt does not count: of the star only blue is left, which one patch outside shows
    found = rates(OBJECTS, "What color is the star? Answer with one word.")
    assert found[:4] == [1, 3, 3, 10], found
    assert rates(OBJECTS[1:], "Where is the blue star?") == [0] * 5
    e = patch_words.estimate([[1, 2, 0, 10, 0.25], [0, 2, 10, 10, 0.25]] * 50, random.Random(1))
    assert (e["inside"], e["outside"], e["chance"], e["difference"]) == (0.25, 0.5, 0.125, -0.25), e
    assert -0.45 < e["low"] < -0.35 and -0.15 < e["high"] < -0.05, e


if __name__ == "__main__":
    main()
