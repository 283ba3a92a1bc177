"""What ``attnspan-train --help`` prints. A choice is described by the first sentence of its config file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from attnspan.config.config_files import describe_config

GROUPS = {
    "decoder": "the arm",
    "decoder/score": "what query and state say of each other, of arms with attention",
    "decoder/normaliser": "from scores to weights, of arms with attention",
    "decoder/pointer": "copying, of arms with attention; with a plus, +decoder/pointer=..., where an arm has none",
    "encoder": "how the source is encoded",
    "decoder/positions": "of decoder=transformer; encoder/positions has the same choices",
    "rnn": "the cells of encoder and decoder",
    "data": "the data set",
    "decoding": "how hypotheses are found",
    "decoding/length_penalty": "of decoding=beam",
    "guidance": "a loss that says where to look",
    "scheduled_sampling": "training reads some of the model's own tokens",
    "optimizer": "how weights are updated",
    "trainer": "how long, and on what",
    "logger": "where metrics are logged, besides metrics.csv",
    "sweep": "many runs; no -m needed",
}

OPTIONAL = ("guidance", "scheduled_sampling")
"""Groups of which a run may choose nothing."""

_USAGE = """\
attnspan-train trains and tests one arm, or every run of a sweep.

  attnspan-train decoder=bahdanau data=pronunciation seed=1    one run
  attnspan-train sweep=long_sequences                          a study: all its arms and seeds
  attnspan-train -m decoder=plain,bahdanau seed=1,2,3          your own sweep
  attnspan-train data=files data.train=a.csv data.validation=b.csv data.test=c.csv
  attnspan-train --config-dir my_conf decoder=my_arm           with your own config files in addition

Options: --help, --version, --cfg job (print the config of a run), --config-dir DIR, -m (sweep over comma-separated
values), --hydra-help (options of Hydra). Any key of the config can be set as key=value; --cfg job shows them all.
"""


def print_help(console: Console, directories: list[Path]) -> None:
    """Print the usage, and each group with its choices from ``directories``."""
    console.print(_USAGE, highlight=False, markup=False, soft_wrap=True)
    for group, words in GROUPS.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for path in (path for directory in directories for path in sorted((directory / group).glob("*.yaml"))):
            table.add_row(f"  {path.stem}", describe_config(path))
        console.print(f"{group}=...   {words}", highlight=False, style="bold")
        console.print(table)
