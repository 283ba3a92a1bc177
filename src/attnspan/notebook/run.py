"""A finished run that shows what it decodes."""

from __future__ import annotations

import base64
import html
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, overload

from matplotlib.figure import Figure

from attnspan.errors import InputError
from attnspan.evaluation import loaded_run as loaded
from attnspan.evaluation.decoded_again import DecodedExample
from attnspan.files import read_json
from attnspan.notebook.frame import Frame
from attnspan.reporting.explorer.hypotheses import ArmOutput, explorer_of
from attnspan.reporting.formatting import visible
from attnspan.reporting.heatmap_figure import draw, small_png
from attnspan.runs.attention_maps import AttentionMap
from attnspan.runs.layout import SUMMARY
from attnspan.runs.summary import describe_scores


@dataclass(frozen=True, kw_only=True, repr=False)
class Hypothesis(loaded.Hypothesis):
    """What a run decodes from one source, with views of it."""

    arm: str
    seed: int

    def plot(self) -> Figure:
        """The attention as a heat map of matplotlib: source tokens along the top, output tokens downwards.

        Raises:
            InputError: the arm has no attention, or the hypothesis is empty.
        """
        return draw(self._map(), title=[self.arm, f"seed {self.seed}"])

    def show(self) -> Frame:
        """The attention to point at: the interactive view of a report's explorer, inside a notebook or as a file."""
        weights = None if self.weights is None else self.weights.numpy()
        decoded = DecodedExample(source=self.source_tokens, reference=(), output=self.tokens, weights=weights)
        title = f"{self.arm}, seed {self.seed}"
        return Frame(explorer_of([ArmOutput(self.arm, self.seed, decoded)], title=title), height=640)

    def _map(self) -> AttentionMap:
        if self.weights is None:
            raise InputError(f"{self.arm} has no attention")
        if not self.tokens:
            raise InputError("the hypothesis is empty: it has no attention")
        weights = self.weights.numpy()
        return AttentionMap(source=self.source_tokens, output=self.tokens, weights=weights, picture=self.picture)

    def _repr_html_(self) -> str:
        cut = ", cut at the length limit" if self.truncated else ""
        source = " ".join(map(visible, self.source_tokens))
        words = f"<p>{html.escape(source)} &rarr; <strong>{html.escape(self.text) or 'nothing'}</strong><br>"
        words += f"log p {self.log_prob:.3f} nats{cut}</p>"
        if self.weights is None or not self.tokens:
            return words
        content, width, height = small_png(self.plot())
        alt = f"Attention of {len(self.tokens)} output tokens to {len(self.source_tokens)} source tokens"
        image = base64.b64encode(content).decode()
        return f'{words}<img alt="{alt}" width="{width}" height="{height}" src="data:image/png;base64,{image}">'


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LoadedRun(loaded.LoadedRun):
    """A finished run, whose hypotheses show themselves."""

    directory: Path

    @overload  # type: ignore[override]  # its lists have hypotheses that can show themselves
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: None = None,
        batch_size: int = 64,
    ) -> list[Hypothesis]: ...
    @overload
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: int,
        batch_size: int = 64,
    ) -> list[list[Hypothesis]]: ...
    def decode(
        self,
        sources: Sequence[Any],
        *,
        given: Sequence[Mapping[int, str]] | None = None,
        beam_size: int | None = None,
        n_best: int | None = None,
        batch_size: int = 64,
    ) -> list[Hypothesis] | list[list[Hypothesis]]:
        """Decode texts, or the images of a run on images, free-running.

        Sources with tokens that the vocabulary lacks are decoded with an ``UnknownTokensWarning``.

        Args:
            sources: any number of texts of any length, or of images: paths, the bytes of files, images of Pillow, or
                arrays of uint8, [height, width] or [height, width, C].
            given: for each source the tokens that its hypothesis has at positions from 0, as in ``{0: "k9"}``. A run
                whose data gives tokens to the decoder needs them.
            beam_size: use a beam of this size without length normalisation; None for the strategy that the run was
                tested with.
            n_best: hypotheses of each source; None for one.
            batch_size: sources in a batch; the hypotheses do not depend on it.

        Returns:
            A hypothesis for each source; with ``n_best`` a list of them, the best first. It is shorter where there are
            not so many.

        Raises:
            InputError: a source is not a text or has no token, or is an image that cannot be read, with its position;
                given tokens are missing, or are not one token each; the model gives no finite scores.
            SettingError: ``beam_size`` or ``n_best`` is less than 1, or the strategy does not find so many hypotheses.
        """
        if n_best is None:
            best = super().decode(sources, given=given, beam_size=beam_size, batch_size=batch_size)
            return [self._shown(one) for one in best]
        lists = super().decode(sources, given=given, beam_size=beam_size, n_best=n_best, batch_size=batch_size)
        return [[self._shown(one) for one in some] for some in lists]

    def _shown(self, one: loaded.Hypothesis) -> Hypothesis:
        return Hypothesis(**_values(one), arm=str(self.config["arm"]), seed=int(self.config["seed"]))

    def _repr_html_(self) -> str:
        name = f"{self.config['arm']} on {self.config['data_name']}, seed {self.config['seed']}"
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        summary = self.directory / SUMMARY
        scores = f"{describe_scores(read_json(summary)['test'])} on test" if summary.is_file() else "not finished"
        lines = (f"{parameters:,} parameters", scores, str(self.directory))
        return f"<p><strong>{html.escape(name)}</strong><br>{'<br>'.join(map(html.escape, lines))}</p>"


def load_run(directory: str | Path, *, trusted: Sequence[str] = ()) -> LoadedRun:
    """Load the best checkpoint of a run.

    Nothing in the directory can run code: weights load as tensors only, and the config may build only classes of
    attnspan and of the packages in ``trusted``, such as that of your own arm.

    Raises:
        InputError: the directory has no run, its checkpoint is damaged or does not fit its config, a file is not the
            one that its summary describes, the config names a class that is not trusted, or a trusted class is no
            longer what the run was computed with.
    """
    found = loaded.load_run(directory, trusted=trusted)
    return LoadedRun(**_values(found), directory=Path(directory))


def train(overrides: Sequence[str] = (), *, trusted: Sequence[str] = ()) -> LoadedRun:
    """Train and test one run as ``attnspan-train`` does with the same ``key=value`` words, and load it.

    It has the id and the files that the command gives it; a run that is finished is not trained again.

    Args:
        overrides: as on the command line, ``["decoder=bahdanau", "data=reverse", "seed=1"]``.
        trusted: packages whose classes the overrides name, besides attnspan.

    Raises:
        InputError: the overrides do not fit, or the run cannot be carried out.
    """
    from attnspan.cli.single_run import run
    from attnspan.config.compose import compose_config
    from attnspan.config.hydra_errors import COMPOSITION_ERRORS, explain

    try:
        config = compose_config(*overrides)
    except COMPOSITION_ERRORS as error:
        raise InputError(explain(error)) from error
    directory = run(config, shlex.join(["attnspan-train", *overrides]))
    return load_run(directory, trusted=trusted)


def _values(one: Any) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in fields(one)}
