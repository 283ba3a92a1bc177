"""SIGMORPHON 2020, task 1, spelling to sounds in four languages: our arms next to the published systems.

    attnspan-train sweep=sigmorphon2020 data.root=DIRECTORY
    python benchmarks/sigmorphon2020.py @runs/sigmorphon2020.txt

Prints three tables (word error rate, phone error rate as the published scorer counts it, true phone error rate), and
writes them to results/sigmorphon2020/table.md and the scores of every run to runs.csv. It reads records only. A mean
over seeds or languages needs every run of one setting, finished; otherwise there is no table.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from attnspan.analysis.collection import collect, differing_keys, find_runs
from attnspan.analysis.lengths.bins import joined
from attnspan.cli.report import ListParser
from attnspan.config.identity import flatten
from attnspan.errors import InputError, nearest
from attnspan.files import write_text
from attnspan.reporting.formatting import duration
from attnspan.reporting.page import made_on
from attnspan.runs.finished_run import Run
from attnspan.runs.layout import read_config

LANGUAGES = {"fre": "French", "hin": "Hindi", "ice": "Icelandic", "vie": "Vietnamese"}
PUBLISHED = {
    "LSTM with attention": {"fre": (6.22, 1.32), "hin": (6.67, 1.47), "ice": (10.00, 2.36), "vie": (4.67, 1.52)},
    "Transformer": {"fre": (6.89, 1.72), "hin": (9.56, 2.40), "ice": (10.22, 2.21), "vie": (7.56, 2.27)},
    "pair n-gram": {"fre": (13.56, 3.12), "hin": (12.67, 2.82), "ice": (17.56, 3.62), "vie": (8.44, 1.79)},
}
"""Word and phone error rates in percent: Gorman et al. 2020, "The SIGMORPHON 2020 shared task on multilingual
grapheme-to-phoneme conversion", Table 2. The LSTM (fairseq) is the best of 36 settings."""

SETTINGS = (
    "rnn.cell._target_",
    "rnn.layers",
    "model.hidden_size",
    "model.embedding_size",
    "model.dropout",
    "optimizer.lr",
    "loader.batch_tokens",
    "trainer.max_steps",
    "trainer.gradient_clip_val",
    "label_smoothing",
    "selection_metric",
    "decoding.beam_size",
)
"""Config keys that are printed below the tables."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of one run on its test words, in percent."""

    word_error_rate: float
    """Words with at least one wrong phone."""
    published_phone_error_rate: float
    """Edits as :func:`published_edits` counts them, over reference phones."""
    phone_error_rate: float
    """Levenshtein edits over reference phones."""


def published_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Edits as the shared task's scorer counts them.

    The scorer fills the table of the Levenshtein distance, whose cell (i, j) has the distance between the first i
    symbols of one sequence and the first j of the other. But its border is 1 everywhere instead of 0, 1, 2, ... So
    missing or additional symbols at the beginning cost 1 altogether, and an empty hypothesis has one edit. The result
    is never more than the Levenshtein distance.
    """
    above = [0] + [1] * len(reference)
    for produced in hypothesis:
        row = [1]
        for j, wanted in enumerate(reference):
            row.append(above[j] if produced == wanted else 1 + min(above[j], above[j + 1], row[j]))
        above = row
    return above[-1]


def score(run: Run) -> Scores:
    """Score a run's records."""
    records = run.records
    phones = int(records["target_length"].sum())
    published = sum(
        published_edits(hypothesis.split(), reference.split())
        for hypothesis, reference in zip(records["hypothesis"], records["reference"], strict=True)
    )
    return Scores(
        word_error_rate=100 * float((~records["exact_match"]).mean()),
        published_phone_error_rate=100 * published / phones,
        phone_error_rate=100 * int(records["edits"].sum()) / phones,
    )


def language_of(run: Run) -> str:
    """The language of a run.

    Raises:
        InputError: it has none of the published ones.
    """
    language = str(run.config["data"].get("language"))
    if language not in LANGUAGES:
        raise InputError(f"{run.directory}: nothing is published for '{language}'; {nearest(language, LANGUAGES)}")
    return language


def read(paths: Sequence[Path]) -> list[Run]:
    """Read runs that may be averaged: finished, of one setting, with the same arms and seeds for each language.

    Raises:
        InputError: they may not; names the runs or keys that prevent it.
    """
    by_data: dict[str, list[Path]] = {}
    for directory in find_runs(paths):
        by_data.setdefault(str(read_config(directory).get("data_name")), []).append(directory)
    collections = [collect(directories) for directories in by_data.values()]
    unusable = [f"{one.directory} {one.reason}" for collection in collections for one in collection.excluded]
    if unusable:
        raise InputError(f"nothing is averaged over what is left: {'; '.join(unusable)}")
    runs = [run for collection in collections for run in collection.runs]
    differing = [key for key in differing_keys(runs) if not key.startswith(("data.", "decoder."))]
    if differing:
        raise InputError(f"there is not one setting for all languages and arms; runs differ in {', '.join(differing)}")
    there = {(run.arm, run.seed, language_of(run)) for run in runs}
    wanted = {(arm, seed, language) for arm, seed, _ in there for language in LANGUAGES}
    if wanted - there:
        missing = [f"{arm} seed {seed} on {language}" for arm, seed, language in sorted(wanted - there)]
        raise InputError(f"nothing is averaged over what is left: {', '.join(missing)} missing")
    return runs


def over_seeds(values: Sequence[float]) -> str:
    """``6.22 ± 0.31``: the mean, and the standard deviation over seeds if there are two or more."""
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


class Table:
    """The runs by arm, language and seed."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = sorted(runs, key=lambda run: (list(LANGUAGES).index(language_of(run)), run.arm, run.seed))
        self.arms = sorted({run.arm for run in runs}, key=lambda arm: (not arm.startswith("plain"), arm))
        self._scores = {(run.arm, language_of(run), run.seed): score(run) for run in runs}

    def scores(self, run: Run) -> Scores:
        """The scores of a run."""
        return self._scores[run.arm, language_of(run), run.seed]

    def seeds(self, arm: str) -> list[int]:
        """The seeds of an arm, the same in every language."""
        return sorted({run.seed for run in self.runs if run.arm == arm})

    def cell(self, arm: str, languages: Sequence[str], measure: Callable[[Scores], float]) -> str:
        """The mean over languages for each seed, then over seeds."""
        return over_seeds(
            [mean(measure(self._scores[arm, language, seed]) for language in languages) for seed in self.seeds(arm)]
        )

    def markdown(self, measure: Callable[[Scores], float], published: int | None) -> str:
        """A table of one score.

        Args:
            measure: picks the score.
            published: index of the published systems' score to print next to it; None for none.
        """
        systems = PUBLISHED if published is not None else {}
        words = {language_of(run): len(run.records) for run in self.runs}
        lines = [
            ["language", "test words", *self.arms, *systems],
            [":--", *["--:"] * (1 + len(self.arms) + len(systems))],
        ]
        for name, languages in [*((LANGUAGES[one], [one]) for one in LANGUAGES), ("**mean**", list(LANGUAGES))]:
            ours = [self.cell(arm, languages, measure) for arm in self.arms]
            theirs = [f"{mean(system[one][published or 0] for one in languages):.2f}" for system in systems.values()]
            lines.append([name, f"{sum(words[one] for one in languages):,}", *ours, *theirs])
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def csv(self) -> str:
        """One row per run."""
        text = io.StringIO()
        facts = ("best_update", "parameters", "wall_seconds", "run_id")
        columns = ["language", "arm", "seed", *Scores.__annotations__, *facts]
        writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        for run in self.runs:
            scores = {name: f"{value:.4f}" for name, value in vars(self.scores(run)).items()}
            writer.writerow(run.summary | {"language": language_of(run), "arm": run.arm} | scores)
        return text.getvalue()


def write_up(table: Table) -> str:
    """The contents of table.md."""
    means = [f"{arm} {table.cell(arm, list(LANGUAGES), lambda one: one.word_error_rate)}" for arm in table.arms]
    theirs = [f"{name} {mean(wer for wer, _ in system.values()):.2f}" for name, system in PUBLISHED.items()]
    seeds = [f"{arm} has {len(table.seeds(arm))} ({joined(table.seeds(arm))})" for arm in table.arms]
    parameters = [f"{arm} {joined(sizes(table, arm))}" for arm in table.arms]
    wall = sum(run.summary.get("wall_seconds") or 0.0 for run in table.runs)
    config = flatten(table.runs[0].config)
    settings = [f"{key.removesuffix('._target_')}={config[key]}" for key in SETTINGS if key in config]
    return "\n\n".join(
        [
            "# SIGMORPHON 2020, task 1: spelling to sounds",
            f"Mean word error rate over the {len(LANGUAGES)} languages: {joined(means)}; published: {joined(theirs)}.",
            "All in percent, of test words decoded once, by the checkpoint that validation chose. Ours are means over "
            "seeds ± their standard deviation; the published systems (Gorman et al. 2020, Table 2) are single ones, "
            "the LSTM the best of 36 settings. With 450 words the sampling error of a language is 1.0 to 2.4 points.",
            "## Word error rate",
            table.markdown(lambda one: one.word_error_rate, published=0),
            "## Phone error rate, as the published scorer counts",
            "Its edit table has 1 all along the border, where Levenshtein has 0, 1, 2, ...",
            table.markdown(lambda one: one.published_phone_error_rate, published=1),
            "## Phone error rate",
            "Levenshtein edits by reference phones; nobody published it.",
            table.markdown(lambda one: one.phone_error_rate, published=None),
            "## How",
            f"Seeds: {'; '.join(seeds)}. One setting for all languages: {', '.join(settings)}. "
            f"Parameters, with the vocabularies of the languages: {'; '.join(parameters)}. "
            f"All {len(table.runs)} runs together took {duration(wall)} of their processes' time.",
            f"The runs: {made_on(table.runs)}.",
        ]
    )


def sizes(table: Table, arm: str) -> list[str]:
    """Least and greatest number of parameters of an arm."""
    counts = sorted({int(run.summary.get("parameters") or 0) for run in table.runs if run.arm == arm})
    return [f"{count:,}" for count in dict.fromkeys([counts[0], counts[-1]])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code: 2 after a one-line error about runs that make no table."""
    parser = ListParser(prog="sigmorphon2020.py", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run directory, one above some, or @FILE with them")
    parser.add_argument("--out", default="results/sigmorphon2020", metavar="DIR", help="where table.md and runs.csv go")
    options = parser.parse_args(arguments)
    try:
        table = Table(read([Path(run) for run in options.runs]))
        text = write_up(table) + "\n"
        write_text(Path(options.out, "table.md"), text)
        write_text(Path(options.out, "runs.csv"), table.csv())
    except InputError as error:
        print(f"sigmorphon2020.py: {error}", file=sys.stderr)
        return 2
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
