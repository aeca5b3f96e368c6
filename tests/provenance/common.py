"""What the tests of provenance share: a tiny model, samples, and the program in a folder of its own."""
import json
import pathlib
import shutil
import subprocess
import sys


class Failed(AssertionError):
    pass


def need(condition, *what):
    if not condition:
        raise Failed(" ".join(str(w) for w in what))


def write_samples(path, lines):
    pathlib.Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines))


class Place:
    """A fresh folder with a copy of a model, samples of words and a configuration."""

    def __init__(self, vlens, source, folder, model="llama-base-f32", n=40):
        self.vlens, self.source = pathlib.Path(vlens).resolve(), pathlib.Path(source)
        self.folder = pathlib.Path(folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.model = self.folder / "model"
        shutil.copytree(self.source / "tests/golden/fixtures/models" / model, self.model)
        for file in self.model.iterdir():
            file.chmod(0o644)
        self.samples([{"prompt": f"number {i} and some more words"} for i in range(n)])
        self.set = {"model": "model", "data.samples": "s.jsonl", "data.template": "none", "data.heldout": "0.3",
                    "cache.dir": "cache", "cache.shard_tokens": "60", "cache.batch_tokens": "60", "output": "lens",
                    "fit.steps": "3", "fit.tokens_per_step": "64", "device": "cpu"}
        self.configure()

    def configure(self, **changes):
        self.set.update({key.replace("__", "."): value for key, value in changes.items()})
        self.run("init", "-f", "c.yaml", *[w for k, v in self.set.items() for w in ("--set", f"{k}={v}")])

    def samples(self, lines):
        write_samples(self.folder / "s.jsonl", lines)

    def call(self, *arguments, env=None):
        return subprocess.run([self.vlens, *map(str, arguments)], cwd=self.folder, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=env, text=True)

    def run(self, *arguments, env=None):
        done = self.call(*arguments, env=env)
        need(done.returncode == 0, arguments, "exit code", done.returncode, done.stderr)
        return done.stdout

    def refused(self, *arguments, words=(), code=1, env=None):
        """Runs what must fail with one line that has all the words; returns that line."""
        done = self.call(*arguments, env=env)
        need(done.returncode != 0, arguments, "was accepted", done.stdout[-300:])
        need(code is None or done.returncode == code, arguments, "exit code", done.returncode, done.stderr)
        line = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        for word in words:
            need(word in line, arguments, f"no {word!r} in:", line)
        return line


def main(module, tests):
    """TEST.py VLENS SOURCE OUTPUT [NAME ...]: runs the tests (all, or those named), each in a folder of its own."""
    vlens, source, output, *names = sys.argv[1:]
    bad = 0
    for test in tests:
        if names and test.__name__ not in names:
            continue
        try:
            test(lambda **options: Place(vlens, source, pathlib.Path(output) / module / test.__name__, **options))
            print(f"{test.__name__}: right")
        except (Failed, OSError) as failure:
            bad += 1
            print(f"{test.__name__}: WRONG: {failure}")
    sys.exit(1 if bad else 0)
