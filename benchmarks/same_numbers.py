"""Do two commits compute the same numbers, bit for bit?

    python benchmarks/same_numbers.py BEFORE [AFTER] [--keep DIR]

Checks out both commits (AFTER is HEAD if left out), runs the same tiny configs on each with the packages of this
environment, and compares ``records.parquet``, ``metrics.csv``, ``attention.parquet`` and the counts of
``summary.json``. Names that keys had in BEFORE are translated. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

TINY = (
    "data=reverse", "data.symbols=6", "data.train_lengths=[2,6]", "data.test_lengths=[2,9]", "data.train_size=300",
    "data.validation_size=40", "data.test_size=48", "model.hidden_size=16", "model.embedding_size=8",
    "loader.batch_tokens=256", "trainer.max_steps=20", "trainer.val_check_interval=10", "trainer.log_every_n_steps=10",
    "trainer.accelerator=cpu", "logger=none",
)  # fmt: skip
MODEL = tuple(word for word in TINY if not word.startswith("data"))
WORDS = ("a cat sat", "the dog ran far", "one bird sang", "two cats sat down", "a fish swam", "the sun rose early")
FORMER = {
    "decoding=": "search=",
    "decoding.": "search.",
    "decoding/length_penalty=normalisation": "search.length_normalisation=1.0",
    "selection_metric=": "choose_by=",
    "checkpoint_interval=": "checkpoint_every=",
    "encoder.final_state=": "encoder.final=",
    "hydra.launcher.n_jobs=": "hydra.launcher.at_a_time=",
}
"""How overrides of today began when modules lay flat."""
COUNTS = (
    "arm", "data", "seed", "parameters", "updates", "best_update", "best_validation_loss", "test", "examples",
    "dropped", "skipped", "unknown", "overlap", "references_over_limit", "training_lengths", "test_fingerprint",
    "threads", "devices",
)  # fmt: skip
"""What is compared of a summary."""


def write_inputs(directory: Path) -> None:
    """Small files of every kind that a corpus can be read from."""
    rows = [{"source": text, "target": text[::-1], "links": "0-0"} for text in WORDS for _ in range(8)]
    pairs = [{"translation": {"en": row["source"], "de": row["target"]}} for row in rows]
    for split in ("train", "validation", "test"):
        frame = pd.DataFrame(rows)
        frame.to_csv(directory / f"{split}.csv", index=False)
        frame.drop(columns="links").to_csv(directory / f"{split}.tsv", sep="\t", index=False, header=False)
        frame.to_parquet(directory / f"{split}.parquet")
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        for side, suffix in (("source", "de"), ("target", "en")):
            (directory / f"{split}.{suffix}").write_text("\n".join(frame[side]) + "\n", encoding="utf-8")
        (directory / "hub").mkdir(exist_ok=True)
        frame.to_csv(directory / "hub" / f"{split}.csv", index=False)
        (directory / "task" / "eng").mkdir(parents=True, exist_ok=True)
        sounds = [f"{row['source'].split()[0]}\t{' '.join(row['source'].split()[0])}\n" for row in rows]
        (directory / "task" / "eng" / f"{split}.tsv").write_text("".join(sounds), encoding="utf-8")


def files(directory: Path, ending: str) -> list[str]:
    """Overrides that read the three files of one ending."""
    return ["data=files", *(f"data.{split}={directory / split}.{ending}" for split in ("train", "validation", "test"))]


def cases(arms: Sequence[str], inputs: Path) -> dict[str, list[str]]:
    """Name -> overrides, of runs that need no process of their own."""
    generated = ("data.train_size=200", "data.validation_size=30", "data.test_size=40")
    tokens = "data.source_tokens={0} data.target_tokens={0}".format
    named = ("data.source=source", "data.target=target")
    found = {f"arm {arm}": [*TINY, f"decoder={arm}"] for arm in arms}
    found |= {
        "beam": [*TINY, "decoding=beam", "decoding.beam_size=3"],
        "beam, normalised, plain": [*TINY, "decoder=plain", "decoding=beam", "decoding/length_penalty=normalisation"],
        "sequence error rate": [*TINY, "selection_metric=sequence_error_rate", "plateau.patience=1"],
        "dropout, label smoothing": [*TINY, "model.dropout=0.2", "label_smoothing=0.1", "seed=3"],
        "copy": [*MODEL, "data=copy", "data.train_lengths=[2,6]", "data.test_lengths=[2,9]", *generated],
        "recall_two_hop": [
            *MODEL, "data=recall_two_hop", "data.train_lengths=[5,9]", "data.test_lengths=[5,12]", *generated,
        ],
        "pronunciation": [*MODEL, "data.train_lengths=[3,9]", "data.test_lengths=[3,12]", *generated],
        "csv, words": [*MODEL, *files(inputs, "csv"), *named, *tokens("words").split()],
        "csv, symbols, links": [
            *MODEL, *files(inputs, "csv"), *named, *tokens("symbols").split(), "data.alignment=links",
        ],
        "tsv, characters": [
            *MODEL, *files(inputs, "tsv"), *named, "data.columns=[source,target]", *tokens("characters").split(),
        ],
        "json lines, bpe": [
            *MODEL, *files(inputs, "jsonl"), "data.source=translation.en", "data.target=translation.de",
            "data.vocabulary_size=270",
        ],
        "parquet, joined rows": [
            *MODEL, *files(inputs, "parquet"), *named, *tokens("characters").split(), "data.concat=2",
        ],
        "parallel": [
            *MODEL, "data=parallel", *(f"data.{split}={inputs / split}" for split in ("train", "validation", "test")),
            "data.source=de", "data.target=en", *tokens("characters").split(),
        ],
        "hub directory": [*MODEL, "data=hub", f"data.path={inputs / 'hub'}", *named, *tokens("characters").split()],
        "sigmorphon2020": [*MODEL, "data=sigmorphon2020", f"data.root={inputs / 'task'}", "data.language=eng"],
    }  # fmt: skip
    for arm in ("plain", "bahdanau", "luong_general", "luong_general_feeding"):
        found[f"LSTM {arm}"] = [*TINY, f"decoder={arm}", "rnn=lstm"]
    found["one direction, reversed"] = [*TINY, "encoder=unidirectional", "encoder.reverse=true", "rnn=lstm"]
    return found


class Checkout:
    """A commit with an environment in which only it is installed."""

    def __init__(self, commit: str, directory: Path) -> None:
        self.commit = commit
        self.directory = directory
        self.code = directory / "code"
        git("worktree", "add", "--force", "--detach", str(self.code), commit)
        self.is_former = (self.code / "conf" / "search").is_dir()
        self.module = "attnspan.train" if (self.code / "src/attnspan/train.py").exists() else "attnspan.cli.train"
        self.python = self._make_environment()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "WANDB", "ATTNSPAN"))},
            **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "RAYON")},
            "ATTNSPAN_CACHE": str(directory / "cache"),
        }

    def _make_environment(self) -> Path:
        """Python with this environment's packages, but attnspan from the checkout."""
        packages, links = Path(sysconfig.get_path("purelib")), self.directory / "packages"
        links.mkdir()
        for entry in packages.iterdir():
            if entry.suffix != ".pth" and entry.name not in ("attnspan", "__pycache__"):
                (links / entry.name).symlink_to(entry)
        venv.create(self.directory / "venv", with_pip=False)
        (own,) = (self.directory / "venv" / "lib").glob("python*/site-packages")
        (own / "checkout.pth").write_text(f"{self.code / 'src'}\n{links}\n", encoding="utf-8")
        return self.directory / "venv" / "bin" / "python"

    def words(self, overrides: Sequence[str]) -> list[str]:
        """Overrides as this commit calls them."""
        if not self.is_former:
            return list(overrides)
        return [
            next((f"{former}{word[len(now) :]}" for now, former in FORMER.items() if word.startswith(now)), word)
            for word in overrides
        ]

    def start(self, name: str, overrides: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start the command in a directory of its own."""
        place = self.directory / "runs" / name
        place.mkdir(parents=True, exist_ok=True)
        with (place / "log").open("ab") as log:
            return subprocess.Popen(
                [self.python, "-m", self.module, *self.words(overrides)],
                cwd=place, env=self.environment, stdout=log, stderr=log,
            )  # fmt: skip

    def run(self, name: str, overrides: Sequence[str]) -> None:
        """Run the command to its end."""
        code = self.start(name, overrides).wait()
        if code:
            print(f"{self.commit[:9]}: {name}: exit code {code}")

    def run_killed(self, name: str, overrides: Sequence[str]) -> None:
        """Kill the command twice, some time after a checkpoint, then run it to its end."""
        for _ in range(2):
            process = self.start(name, overrides)
            place = self.directory / "runs" / name
            while process.poll() is None and not list(place.rglob("last.ckpt")):
                time.sleep(0.02)
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.run(name, overrides)

    def run_all(self, named: dict[str, list[str]]) -> None:
        """Run many cases, two at a time, in forks of one process that has loaded the libraries."""
        asked = {name: self.words(overrides) for name, overrides in named.items()}
        command = [self.python, __file__, "--drive", self.module, str(self.directory / "runs")]
        subprocess.run(command, input=json.dumps(asked), text=True, env=self.environment, check=True)

    def results(self, name: str) -> dict[str, dict[str, Any]]:
        """What is compared, of each run of a case by arm, seed and overrides."""
        found = {}
        for path in sorted((self.directory / "runs" / name).rglob("summary.json")):
            summary = json.loads(path.read_text(encoding="utf-8"))
            attention = path.with_name("attention.parquet")
            key = f"{summary['arm']} {summary['seed']} {summary['parameters']} {summary['best_validation_loss']}"
            found[key] = {
                "records.parquet": pd.read_parquet(path.with_name("records.parquet")).drop(columns="run_id").to_json(),
                "metrics.csv": path.with_name("metrics.csv").read_bytes(),
                "attention.parquet": attention.read_bytes() if attention.exists() else b"",
                **{count: summary.get(count) for count in COUNTS},
            }
        return found


def git(*words: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def drive(module: str, directory: Path, asked: dict[str, list[str]]) -> None:
    """Run each case in a fork; two at a time."""
    import importlib

    for name in ("torch", "lightning", "datasets", module):
        loaded = importlib.import_module(name)
    running: list[int] = []
    for name, words in asked.items():
        if len(running) == 2:
            running.remove(os.wait()[0])
        pid = os.fork()
        if pid:
            running.append(pid)
            continue
        place = directory / name
        place.mkdir(parents=True)
        os.chdir(place)
        log = os.open("log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["attnspan-train", *words]
        try:
            loaded.main()
        except SystemExit as error:
            os._exit(error.code if isinstance(error.code, int) else 1)
        os._exit(0)
    for _ in running:
        os.wait()


def differences(before: Checkout, after: Checkout, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each case and what differs in it; an empty word where nothing does."""
    for name in names:
        one, other = before.results(name), after.results(name)
        if not one or one.keys() != other.keys():
            yield name, f"{len(one)} and {len(other)} runs, and they are not the same ones"
            continue
        yield name, ", ".join(sorted({part for key in one for part in one[key] if one[key][part] != other[key][part]}))


def main() -> int:
    """Compare two commits."""
    if sys.argv[1:2] == ["--drive"]:
        drive(sys.argv[2], Path(sys.argv[3]), json.load(sys.stdin))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("before")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--keep", metavar="DIR", help="work in DIR, and leave the runs there")
    options = parser.parse_args()
    work = Path(options.keep or tempfile.mkdtemp(prefix="same-numbers-")).absolute()
    inputs = work / "inputs"
    inputs.mkdir(parents=True)
    write_inputs(inputs)
    before, after = (
        Checkout(git("rev-parse", commit), work / name)
        for name, commit in (("before", options.before), ("after", options.after))
    )
    arms = sorted(
        {path.stem for path in (before.code / "conf/decoder").glob("*.yaml")}
        & {path.stem for path in (after.code / "conf/decoder").glob("*.yaml")}
    )
    small = cases(arms, inputs)
    search = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", "optimizer.lr=interval(0.001,0.01)", "study=tuning")
    slow = {
        "killed and resumed": [*TINY, "model.dropout=0.3", "trainer.max_steps=60", "checkpoint_interval=0"],
        "two devices": [*TINY, "trainer.devices=2", "trainer.strategy=ddp"],
        "sweep": ["-m", *TINY, "decoder=plain,luong_general", "seed=1,2", "study=mine"],
        "hyper-parameter search": ["-m", *TINY, *search, "hydra.launcher.n_jobs=1"],
    }
    try:
        for checkout in (before, after):
            checkout.run_all(small)
            for name, overrides in slow.items():
                (checkout.run_killed if name.startswith("killed") else checkout.run)(name, overrides)
        found = dict(differences(before, after, [*small, *slow]))
        width = max(map(len, found))
        for name, what in found.items():
            print(f"{name:<{width}}  {f'DIFFERENT: {what}' if what else 'same'}")
        runs = sum(len(after.results(name)) for name in found)
        print(f"{before.commit[:9]} and {after.commit[:9]}: {sum(not what for what in found.values())} of {len(found)} "
              f"cases the same, {runs} runs")  # fmt: skip
    finally:
        for checkout in (before, after):
            git("worktree", "remove", "--force", str(checkout.code))
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
