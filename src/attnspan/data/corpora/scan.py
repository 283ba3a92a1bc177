"""SCAN: navigation commands and the actions that they mean.

Lake and Baroni 2018, "Generalization without systematicity", section 2 and supplementary.

::

    source      walk  left  twice  after  jump
    position     0     1     2      3      4
    target      I_JUMP  I_TURN_LEFT  I_WALK  I_TURN_LEFT  I_WALK
    alignment   4-0 1-1 0-2 1-3 0-4     each action comes from the word that names it

The grammar has 20,910 commands of 1 to 9 words, of 1 to 48 actions, and each is an example once::

    C -> S | S and S | S after S          both in order; "x after y" means y, then x
    S -> V | V twice | V thrice
    V -> U | D | A opposite W | A around W    turn to W twice, then act; (turn to W, act) four times
    D -> A W                              turn to W, then act
    A -> U | turn                         "turn" has no action of its own
    U -> walk | look | run | jump
    W -> left | right
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from attnspan.data.alignment import to_pharaoh
from attnspan.data.corpora.base import (
    ALIGNMENT,
    COLUMNS,
    SPLITS,
    TEST,
    TRAIN,
    VALIDATION,
    BuildContext,
    TokenCorpus,
    check_choice,
    make_example_id,
    option,
)
from attnspan.data.tokenizer import SYMBOLS
from attnspan.errors import SettingError, check_counts

if TYPE_CHECKING:
    from datasets import Dataset

SIMPLE, LENGTH = "simple", "length"
TRAINING_COMMANDS = {SIMPLE: 16_728, LENGTH: 16_990}
"""Split to its number of commands for training."""
LONGEST_TRAINED = 22
"""Actions, in the length split: training has all commands of that many or fewer, test all others."""

_PRIMITIVES = ("walk", "look", "run", "jump")
_DIRECTIONS = ("left", "right")
_TURN = "turn"


@dataclass(frozen=True)
class Command:
    """A command, and for each of its actions the position of the word that names it."""

    words: tuple[str, ...]
    named_by: tuple[int, ...]

    @property
    def actions(self) -> list[str]:
        """``I_WALK`` is named by *walk*, ``I_TURN_LEFT`` by *left*."""
        named = [self.words[position] for position in self.named_by]
        return [f"I_TURN_{word.upper()}" if word in _DIRECTIONS else f"I_{word.upper()}" for word in named]

    def repeated(self, adverb: str, times: int) -> Command:
        """``V twice``, ``V thrice``."""
        return Command((*self.words, adverb), self.named_by * times)

    def joined(self, conjunction: str, other: Command) -> Command:
        """``S and S``, ``S after S``: the words in the order written, the actions in the order done."""
        later = tuple(position + len(self.words) + 1 for position in other.named_by)
        done = {"and": self.named_by + later, "after": later + self.named_by}[conjunction]
        return Command((*self.words, conjunction, *other.words), done)


def commands() -> Iterator[Command]:
    """All commands of the grammar (C)."""
    sentences = [
        sentence
        for verb in _verbs()
        for sentence in (verb, verb.repeated("twice", 2), verb.repeated("thrice", 3))
    ]  # fmt: skip
    yield from sentences
    for conjunction, first, second in product(("and", "after"), sentences, sentences):
        yield first.joined(conjunction, second)


def _verbs() -> Iterator[Command]:
    """V: one act, perhaps with a turn."""
    for act in _PRIMITIVES:
        yield Command((act,), (0,))
    for act, direction in product((*_PRIMITIVES, _TURN), _DIRECTIONS):
        acted = () if act == _TURN else (0,)
        yield Command((act, direction), (1, *acted))
        yield Command((act, "opposite", direction), (2, 2, *acted))
        yield Command((act, "around", direction), (2, *acted) * 4)


@dataclass(frozen=True, kw_only=True)
class Scan(TokenCorpus):
    """All commands in one of the published splits into training and test.

    Validation is held out from training, because SCAN has none.
    """

    split: str
    """``simple``: a random 80% of the commands are for training (16,728), the others (4,182) for test.

    ``length``: the commands of at most 22 actions are for training (16,990), the longer ones (3,920) for test.
    """
    validation_size: int
    """How many of the training commands are for validation instead."""
    data_seed: int
    """Seed of the simple split and of the order of the examples. It is independent of the run's seed."""
    training_alignment: bool = option(False)
    """Whether training has the gold links as well as test, for ``guidance=gold``."""

    def load(self, context: BuildContext, splits: Sequence[str] = SPLITS) -> dict[str, Dataset]:
        """Generate ``splits``."""
        from attnspan.data.arrow import write_dataset

        links = [ALIGNMENT] if self.source_tokens == self.target_tokens == SYMBOLS else []
        linked = (TEST, TRAIN) if self.training_alignment else (TEST,)
        columns = {split: [*COLUMNS, *(links if split in linked else [])] for split in splits}
        found = self.divided()
        return {
            split: write_dataset(context.scratch / split, columns[split], _rows(split, found[split]))
            for split in splits
        }  # fmt: skip

    def divided(self) -> Mapping[str, list[Command]]:
        """The commands of each split, in random order."""
        shuffled = list(commands())
        random.Random(f"{self.data_seed}").shuffle(shuffled)
        if self.split == SIMPLE:
            cut = TRAINING_COMMANDS[SIMPLE]
            known, test = shuffled[:cut], shuffled[cut:]
        else:
            known = [command for command in shuffled if len(command.named_by) <= LONGEST_TRAINED]
            test = [command for command in shuffled if len(command.named_by) > LONGEST_TRAINED]
        return {VALIDATION: known[: self.validation_size], TRAIN: known[self.validation_size :], TEST: test}

    def _check(self) -> None:
        super()._check()
        check_choice("split", "split of SCAN", self.split, TRAINING_COMMANDS)
        check_counts(validation_size=self.validation_size)
        if isinstance(self.data_seed, bool) or not isinstance(self.data_seed, int):
            raise SettingError("data_seed", f"must be a whole number, not {self.data_seed!r}")
        if self.validation_size >= (most := TRAINING_COMMANDS[self.split]):
            raise SettingError("validation_size", f"must be less than the {most:,} commands for training")


def _rows(split: str, found: list[Command]) -> Iterator[dict[str, Any]]:
    """The examples of ``split`` with their ids."""
    for row, command in enumerate(found):
        yield {
            "id": make_example_id(split, row),
            "source": " ".join(command.words),
            "target": " ".join(command.actions),
            "alignment": to_pharaoh(command.named_by),
        }
