"""``attnspan-check``: try an arm, yours or ours, on a tiny batch before it is trained.

:mod:`attnspan.models.contract` says what is tried. ``attnspan-train`` tries it for every arm with a class of your own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attnspan.cli.console import Parser, command

_VOCABULARY = 11


@command("attnspan-check")
def main(arguments: list[str]) -> None:
    """Build the model that the overrides describe, and try it."""
    options = _parser().parse_args(arguments)
    from attnspan.config.compose import compose_config
    from attnspan.config.hydra_errors import COMPOSITION_ERRORS, explain
    from attnspan.config.instantiate import assemble_model, build_corpus  # torch takes seconds to import
    from attnspan.config.overrides import check_override
    from attnspan.errors import InputError
    from attnspan.models.contract import check_contract

    for word in options.overrides:
        check_override(word)
    places = [f"hydra.searchpath=[file://{Path(options.config_dir).absolute()}]"] if options.config_dir else []
    if options.config_dir and not Path(options.config_dir).is_dir():
        raise InputError(f"--config-dir {options.config_dir}: no such directory")
    try:
        config = compose_config(*places, "decoder=bahdanau", *options.overrides)
    except COMPOSITION_ERRORS as error:
        raise InputError(explain(error)) from error
    source = None if build_corpus(config).has_images else _VOCABULARY
    model = assemble_model(config, source_vocabulary_size=source, target_vocabulary_size=_VOCABULARY)
    check_contract(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{config['arm']}: {count:,} parameters; its state hooks are complete, the same batch gives the same numbers "
        "twice, padding changes nothing, teacher forcing gives what decoding gives step by step, and steps may be "
        "reordered"
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="attnspan-check",
        description="Try an arm on a tiny batch, in seconds and without data: are its state hooks complete, does "
        "padding change nothing, does teacher forcing give what decoding gives step by step?",
    )
    add = parser.add_argument
    add("overrides", nargs="*", metavar="KEY=VALUE", help="as for attnspan-train, as in decoder=my_arm rnn=lstm")
    add("--config-dir", metavar="DIR", help="a directory with your own config files")
    return parser


if __name__ == "__main__":
    sys.exit(main())
