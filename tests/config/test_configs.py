"""Every config composes and builds; the id of a run hangs on what changes its numbers and on nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from attnspan.config.config_files import conf_directory, describe_config
from attnspan.config.identity import claim, run_directory, run_id
from attnspan.config.instantiate import assemble_model, build, build_decoding, check_decoding, check_losses_of_attention
from attnspan.errors import InputError
from attnspan.models.decoding.length_limit import LengthLimit
from attnspan.sweeps.hyperparameters.space import corners
from hydra_plugins.attnspan_sweeps.search_space import read_space
from tests.conftest import ARMS, Compose, parsed
from tests.models.arms import small

MODEL = ("encoder", "decoder", "rnn", "decoding")
TRAINING = ("optimizer", "trainer", "logger", "guidance", "scheduled_sampling")
GROUPS = ("data", *MODEL, *TRAINING)
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((conf_directory() / group).glob("*.yaml"))]
SWEEPS = sorted((conf_directory() / "sweep").glob("*.yaml"))
NEEDS = {
    "files": ("data.train=a.csv", "data.validation=b.csv", "data.test=c.csv", "data.source=a", "data.target=b"),
    "parallel": ("data.train=a", "data.validation=b", "data.test=c", "data.source=de", "data.target=en"),
    "image_files": ("data.train=a.csv", "data.validation=b.csv", "data.test=c.csv", "data.target=b"),
    "hub": ("data.path=owner/name", "data.source=a", "data.target=b"),
    "hub_images": ("data.path=owner/name", "data.target=b"),
    "fashion_mnist": ("data.path=a",),
    "image_backbone": (f"encoder.weights={__file__}",),
    "sigmorphon2020": ("data.root=a", "data.language=fre"),
}
SWEEP_NEEDS = {"fashion_mnist": ("data.path=a",), "sigmorphon2020": ("data.root=a",)}


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(composed: Compose, group: str, choice: str) -> None:
    config = composed(f"{group}={choice}", *NEEDS.get(choice, ()))
    assert config[group] is not None
    assert config["arm"] in ARMS


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "data"])
def test_every_corpus_builds(composed: Compose, choice: str) -> None:
    corpus = build(composed(f"data={choice}", *NEEDS.get(choice, ())), "data")
    assert corpus.identity() if choice not in NEEDS else corpus.target_tokens


@pytest.mark.parametrize("choice", [choice for group, choice in CHOICES if group == "decoding"])
def test_every_decoding_builds(composed: Compose, choice: str) -> None:
    limit = LengthLimit(ratio=1.5, margin=10)
    assert build_decoding(composed(f"decoding={choice}"), limit=limit).limit == limit
    config = composed(f"decoding={choice}", "decoding.limit.margin=3")
    assert build_decoding(config, limit=limit).limit == LengthLimit(ratio=1.5, margin=3)


def test_a_decoding_that_does_not_go_with_the_arm(composed: Compose) -> None:
    beam = build(composed("decoding=beam", "decoding.coverage_penalty=0.2"), "decoding")
    with pytest.raises(InputError, match=r"^decoding\.coverage_penalty: is about attention, and this arm has none"):
        check_decoding(beam, small(composed, "plain"))
    for arm in ("bahdanau", "luong_local_p", "transformer"):
        check_decoding(beam, small(composed, arm))
    check_decoding(build(composed("decoding=beam"), "decoding"), small(composed, "plain"))


def test_a_loss_that_does_not_go_with_the_arm(composed: Compose) -> None:
    config = composed("coverage_loss=1.0")
    with pytest.raises(InputError, match=r"^coverage_loss: is about attention, and this arm has none; leave it out$"):
        check_losses_of_attention(config, small(composed, "plain"))
    check_losses_of_attention(config, small(composed, "bahdanau"))
    check_losses_of_attention(composed(), small(composed, "plain"))
    with pytest.raises(InputError, match=r"^guidance: is about attention, and this arm has none; leave it out$"):
        check_losses_of_attention(composed("guidance=diagonal"), small(composed, "plain"))


@pytest.mark.parametrize("choice", ["none", "normalisation", "gnmt"])
def test_every_length_penalty_builds(composed: Compose, choice: str) -> None:
    config = composed("decoding=beam", f"decoding/length_penalty={choice}")
    assert build(config, "decoding").length_penalty(torch.tensor(1)) == 1.0


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes_and_says_what_it_asks(composed: Compose, path: Path) -> None:
    params = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["sweeper"]["params"]
    written = [f"{key}={values}" for key, values in params.items()]
    space, fixed = read_space(parsed(*written))
    for settings in corners(space):
        ends = [f"{key}={end}" for key, end in settings.items()]
        config = composed(f"sweep={path.stem}", *fixed, *ends, *SWEEP_NEEDS.get(path.stem, ()))
        assert config["study"] == path.stem
    header = path.read_text(encoding="utf-8").split("\nhydra:")[0]
    for word in ("Command:", "Expected:"):
        assert word in header


@pytest.mark.parametrize("path", sorted(conf_directory().rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_says_what_it_is(path: Path) -> None:
    words = describe_config(path)
    assert len(words) > 10
    assert words.endswith((".", "?"))


@pytest.mark.parametrize("arm", ARMS)
def test_sizes_come_from_the_parent(composed: Compose, arm: str) -> None:
    config = composed(f"decoder={arm}", "model.hidden_size=24", "model.embedding_size=10")
    model = assemble_model(config, source_vocabulary_size=7, target_vocabulary_size=9)
    maxout = config["decoder"].get("deep_output", {"features": 24})  # whose size is its own
    assert model.readout.in_features == maxout["features"]
    assert model.target_embedding.embedding_dim == 10


OWN_ENCODER = {
    "bahdanau_2015": "final state of the backward direction only, as in the paper",
    "luong_2015": "LSTM in layers, one direction, reversed source, as in the paper",
    "transformer": "has no recurrence",
}
"""Presets that follow a paper: why their encoder is not the others'."""


def test_arms_differ_in_the_wiring_only(composed: Compose) -> None:
    """Same encoder, bridge, embeddings, readout: the same parameters outside of the decoder, to the shape."""
    wider = {"plain_wide"}  # its bridge leads to its wide state
    shapes, common = [], composed()
    for arm in ARMS:
        config = composed(f"decoder={arm}")
        if arm in OWN_ENCODER:
            assert config["encoder"] != common["encoder"]
            continue
        assert all(config[key] == common[key] for key in config if key not in ("arm", "decoder")), arm
        model = assemble_model(config, source_vocabulary_size=7, target_vocabulary_size=9)
        shapes.append({name: tuple(p.shape) for name, p in model.named_parameters() if not name.startswith("decoder.")})
        (bridge,) = model.decoder.bridge.projections
        assert arm in wider or tuple(bridge.weight.shape) == (192, 192)
    assert all(shape == shapes[0] for shape in shapes)


class TestTheNameOfTheData:
    def test_is_its_file_unless_the_config_says_another(self, composed: Compose) -> None:
        assert composed()["data_name"] == "pronunciation"
        assert composed("data_name=mine")["data_name"] == "mine"
        languages = [composed("data=sigmorphon2020", "data.root=a", f"data.language={one}") for one in ("fre", "hin")]
        assert [config["data_name"] for config in languages] == ["sigmorphon2020_fre", "sigmorphon2020_hin"]

    @pytest.mark.parametrize("bad", ["../mine", "a/b", ".hidden", "'two words'"])
    def test_is_a_folders_name(self, composed: Compose, bad: str) -> None:
        with pytest.raises(InputError, match="data_name: must be a name"):
            composed(f"data_name={bad}")


class TestIdentity:
    def test_free_keys_change_nothing(self, composed: Compose) -> None:
        base = run_id(composed(), data_fingerprint="d")
        for override in (
            "runs_dir=elsewhere",
            "data_name=mine",
            "cache_dir=/tmp/x",
            "logger=none",
            "study=name",
            "rerun=true",
            "threads=2",
            "loader.workers=2",
            "trainer.accelerator=cpu",
            "trainer.log_every_n_steps=7",
            "checkpoint_interval=7",
        ):
            assert run_id(composed(override), data_fingerprint="d") == base, override

    def test_everything_else_does(self, composed: Compose) -> None:
        ids = [run_id(composed(), data_fingerprint=print_) for print_ in ("d", "e")]
        for override in (
            "seed=2",
            "decoder=plain",
            "model.hidden_size=64",
            "optimizer.lr=0.001",
            "trainer.max_steps=400",
            "loader.batch_tokens=100",
            "decoding.limit.ratio=3.0",
            "label_smoothing=0.1",
            "schedule.warmup_steps=1",
            "decoder.fused=false",
            "plateau.patience=3",
            "selection_metric=sequence_error_rate",
            "trainer.gradient_clip_val=0.5",
            "model.dropout=0.1",
            "matmul_precision=medium",
            "optimizer.betas=[0.9,0.99]",
        ):
            ids.append(run_id(composed(override), data_fingerprint="d"))
        assert len(set(ids)) == len(ids)

    def test_a_new_meaning_of_results_is_a_new_id(self, composed: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
        before = run_id(composed(), data_fingerprint="d")
        monkeypatch.setattr("attnspan.config.identity.RESULTS_VERSION", 10**6)
        assert run_id(composed(), data_fingerprint="d") != before

    def test_validations_are_spread_so_that_one_stands_at_the_end(self, composed: Compose) -> None:
        for steps, asked, given in ((1600, 400, 400), (20, 400, 20), (1000, 400, 333), (300, 100, 100)):
            config = composed(f"trainer.max_steps={steps}", f"trainer.val_check_interval={asked}")
            assert config["trainer"]["val_check_interval"] == given

    def test_the_order_of_keys_does_not(self, composed: Compose) -> None:
        config = composed()
        turned = dict(
            reversed([(k, dict(reversed(v.items())) if isinstance(v, dict) else v) for k, v in config.items()])
        )
        assert list(turned) != list(config)
        assert run_id(turned, data_fingerprint="d") == run_id(config, data_fingerprint="d")

    def test_a_directory_that_holds_another_run_is_refused(self, composed: Compose, tmp_path: Path) -> None:
        config = composed(f"runs_dir={tmp_path}")
        directory = run_directory(config, data_fingerprint="d")
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(composed("seed=2")), encoding="utf-8")
        with pytest.raises(InputError, match="already holds another run"):
            claim(directory, config, data_fingerprint="d")
        (directory / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        claim(directory, config, data_fingerprint="d")
