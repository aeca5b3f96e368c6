"""The program in a folder of a test's own."""
import pathlib
import shutil
import subprocess


def prepare(vlens, source, folder, config):
    """A fresh folder with run.yaml, and a function that runs the program there: it wants the exit code, and returns what
    was printed, on stderr where that code is not 0."""
    folder = pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "run.yaml").write_text(config.format(source=source))

    def run(*arguments, code=0):
        done = subprocess.run([vlens, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == code, (arguments, done.returncode, done.stderr.decode())
        return done.stdout.decode() if code == 0 else done.stderr.decode()

    return folder, run
