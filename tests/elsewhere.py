"""Commands in one process that finds neither a checkout, nor the extras, nor what only POSIX has.

``python elsewhere.py SITE PLACE CHECKOUT``: SITE holds the package, PLACE the inputs and whatever is written. Prints a
JSON object: for each step its exit status, stdout and stderr.
"""

import contextlib
import io
import json
import os
import signal
import sys
from pathlib import Path

SITE, PLACE, CHECKOUT = map(Path, sys.argv[1:])
POSIX = ("fcntl", "grp", "pwd", "resource", "termios")
EXTRAS = (
    *("papermill", "nbformat", "nbclient", "ipykernel", "IPython", "jupyter_client", "jupyter_book", "sphinx"),
    *("sphinx_external_toc", "latex2mathml", "faiss", "cv2", "kagglehub", "timm", "huggingface_hub", "diffusers"),
    *("transformers", "h5py", "optuna", "pyarrow", "livereload", "psutil"),
)


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name}", name=name)


for name in POSIX:
    sys.modules[name] = None
for holder, names in {os: ("O_DIRECTORY", "getuid", "killpg", "sched_getaffinity"), signal: ("SIGHUP",)}.items():
    for name in names:
        if hasattr(holder, name):
            delattr(holder, name)
sys.meta_path.insert(0, Missing())
sys.path[:] = [str(SITE), *(path for path in sys.path if path and Path(path) != CHECKOUT)]
os.chdir(PLACE)

import fer_repro  # noqa: E402
from fer_repro.cli import main  # noqa: E402
from fer_repro.logs import LineHandler, shown  # noqa: E402

assert Path(fer_repro.__file__).is_relative_to(SITE), fer_repro.__file__
done: dict[str, list] = {}


def step(name: str, *words: str) -> None:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(words))
        except SystemExit as ended:
            status = ended.code or 0
    done[name] = [status, out.getvalue(), err.getvalue()]


class CtrlC(LineHandler):
    """What a user does after the first epoch."""

    def write(self, line: str) -> None:
        print(line)
        if line.startswith("epoch 1/"):
            signal.raise_signal(signal.SIGINT)


results, runs, export = "Ergebnisse für später", "Läufe 1", "наша сеть"
smoke = ("vggnet", "--profile", "smoke", "--runs-dir", runs)
run = ("run", *smoke, "--device", "cpu")
step("list", "list", "--json")
step("packages", "packages", "list", "--json")
step("data", "data", "--root", "Gesichter né.csv", "--accept-modified", "--json")
with shown(CtrlC()):
    step("stopped", *run)
from fer_repro.training import checkpoint  # noqa: E402

with checkpoint.writer(next(Path(runs).rglob(checkpoint.NAME)).parent):
    step("second writer", *run)
step("resumed", *run)
step("export", "export", *smoke, "--out", export)
step("predict", "predict", export, "Gesicht ä.png", "--json")
step("score", "score", "vggnet", "--checkpoint", export, "--data", "synthetic", "--json")
step("verify", "verify", "--results-dir", results)
step("audit", "audit", "--results-dir", results, "--json")
from fer_repro.cli.runs import _with_weights  # noqa: E402 - what `run --all` runs, without 30 s of estimates

with contextlib.redirect_stdout(io.StringIO()) as left_out:
    able = _with_weights(["vggnet", "efficientfer-lite0-scratch"], "official", "full", fetch=False, quiet=False)
done["all"] = [0, left_out.getvalue(), " ".join(able)]
for command in ("book", "bench"):
    step(f"{command} outside", command)
step("chapter outside", "chapter", "vggnet")
step("verify outside", "verify")
os.chdir(CHECKOUT)
for command in (("book", "--out", str(PLACE / "html")), ("chapter", "vggnet")):
    step(f"{command[0]} without its extra", *command)
sys.stdout.reconfigure(encoding="utf-8")
print(json.dumps(done))
