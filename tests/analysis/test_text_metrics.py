import dataclasses
import re

import numpy as np
import pytest
import sacrebleu

from attnspan.analysis.collection import collect
from attnspan.analysis.statistics import Rates
from attnspan.analysis.study import build_study
from attnspan.analysis.text_metrics import CORPUS_SCORES, PERPLEXITIES
from attnspan.cli import report
from attnspan.errors import InputError
from tests.fake_runs import example, fake_run

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "under", "table", "and", "then", "it", "saw", "another", "house"]
TEXT = {"data.target_tokens": "bpe"}
CHRF = next(score for score in CORPUS_SCORES if score.name == "chrf")


def sentence(generator: np.random.Generator, length: int) -> str:
    return " ".join(generator.choice(WORDS, length))


def garbled(text: str, generator: np.random.Generator, share: float) -> str:
    return " ".join(str(generator.choice(WORDS)) if generator.random() < share else word for word in text.split())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """plain and bahdanau with 3 seeds on 40 sentences of 5 and 40 of 15 words."""
    root = tmp_path_factory.mktemp("texts")
    generator = np.random.default_rng(0)
    lengths = [5] * 40 + [15] * 40
    examples = [example(n, length, reference=sentence(generator, length)) for n, length in enumerate(lengths)]
    for arm, share in (("plain", 0.5), ("bahdanau", 0.2)):
        for seed in range(3):
            changed = lambda records, share=share: [  # noqa: E731
                dataclasses.replace(record, hypothesis=garbled(record.reference, generator, share))
                for record in records
            ]
            fake_run(root, arm, seed, examples, [1] * 80, config=TEXT, change_records=changed)
    return root


@pytest.mark.parametrize("metric", ["bleu", "chrf", "ter"])
def test_a_bins_score_is_sacrebleus_of_its_texts(root, metric):
    study = build_study(collect([root]), edges=[0, 10, 20], ter=True)
    assert len(study.translation) == 2 * 3  # two bins and their side, for two arms
    corpus = getattr(sacrebleu, f"corpus_{metric}")
    for point in study.translation:
        for s, run in enumerate(study.arm(point.arm).runs):
            length = run.records["source_length"]
            rows = run.records[(length > point.region.above) & (length <= point.region.up_to)]
            expected = corpus(rows["hypothesis"].to_list(), [rows["reference"].to_list()]).score
            assert point.by_seed[metric][s] == pytest.approx(expected, abs=1e-9)
        estimate = point.metrics[metric]
        assert estimate.value == pytest.approx(point.by_seed[metric].mean())
        assert 0 <= estimate.low < estimate.value < estimate.high <= 100


def test_the_interval_of_one_seed_is_as_wide_as_a_bootstrap_over_examples_makes_it(root):
    run = collect([root]).runs[0]
    parts = CHRF.statistics(run.records)
    rates = CHRF.rates([run.records], np.ones((1, 80), dtype=bool))
    generator = np.random.default_rng(1)
    scorer = CHRF.scorer()
    drawn = [
        scorer._compute_score_from_stats(parts[generator.integers(0, 80, 80)].sum(axis=0).tolist()).score
        for _ in range(2000)
    ]
    half = rates.half_widths(np.ones((1, 1)))[0]
    assert half == pytest.approx(1.99 * np.std(drawn), rel=0.1)


def test_without_any_output_the_scores_are_zero(tmp_path):
    silent = lambda records: [dataclasses.replace(record, hypothesis="") for record in records]  # noqa: E731
    examples = [example(n, 5, reference="a b") for n in range(30)]
    fake_run(tmp_path, "plain", 0, examples, [5] * 30, config=TEXT, change_records=silent)
    (point, _) = build_study(collect([tmp_path])).translation
    assert [point.metrics[metric].value for metric in ("bleu", "chrf")] == [0, 0]


def test_phones_have_no_bleu_unless_asked_for(tmp_path):
    fake_run(tmp_path, "plain", 0, [example(n, 5) for n in range(30)], [1] * 30)
    collection = collect([tmp_path])
    assert build_study(collection).translation == []
    assert build_study(collection, text=True).translation
    with pytest.raises(InputError, match=r"^--ter: .* if the target is text, add --text$"):
        build_study(collection, ter=True)


def test_words_are_text(tmp_path):
    fake_run(tmp_path, "plain", 0, [example(n, 5) for n in range(30)], [1] * 30, config={"data.target_tokens": "words"})
    assert [score.name for score in build_study(collect([tmp_path])).corpus_scores] == ["bleu", "chrf"]


class TestPerplexity:
    def test_is_of_the_summed_likelihood_per_token_and_per_character(self, root):
        study = build_study(collect([root]), edges=[0, 10, 20])
        for point in study.translation:
            for s, run in enumerate(study.arm(point.arm).runs):
                length = run.records["source_length"]
                rows = run.records[(length > point.region.above) & (length <= point.region.up_to)]
                characters = sum(len(text) + 1 for text in rows["reference"])
                for metric, per in (("perplexity", rows["target_tokens"].sum()), ("character_perplexity", characters)):
                    assert point.by_seed[metric][s] == pytest.approx(np.exp(rows["nll"].sum() / per))
                    assert point.metrics[metric].value == pytest.approx(point.by_seed[metric].mean())

    def test_another_cut_into_tokens_moves_only_the_one_per_token(self, tmp_path):
        """The same texts with the same likelihoods, told in twice as many tokens."""
        found = {}
        for name, factor in (("few", 1), ("many", 2)):
            longer = lambda records, factor=factor: [  # noqa: E731
                dataclasses.replace(record, target_tokens=factor * record.target_tokens) for record in records
            ]
            examples = [example(n, 5, reference="the cat sat") for n in range(30)]
            fake_run(tmp_path / name, "plain", 0, examples, [1] * 30, config=TEXT, change_records=longer)
            (point, _) = build_study(collect([tmp_path / name])).translation
            found[name] = point.metrics
        assert found["few"]["character_perplexity"].value == found["many"]["character_perplexity"].value
        few, many = (found[name]["perplexity"].value for name in ("few", "many"))
        assert few == pytest.approx(many**2)

    def test_its_interval_is_that_of_the_rate_on_another_scale(self, root):
        runs = collect([root]).runs
        records = [run.records.assign(nll=run.records["nll"] * (1 + run.seed / 50)) for run in runs[:3]]
        everything = np.ones((1, 80), dtype=bool)
        rates = PERPLEXITIES[0].rates(records, everything)
        plain = Rates.measure(
            np.stack([one["nll"].to_numpy() for one in records]), records[0]["target_tokens"].to_numpy(), everything
        )
        weight = np.ones((1, 1))
        assert rates.half_widths(weight)[0] == pytest.approx(
            plain.half_widths(weight)[0] * np.exp(plain.mean[0]), rel=0.02
        )


def test_every_file_has_them(root, tmp_path):
    out = tmp_path / "out"
    assert report.main([str(root), "--out", str(out), "--bins", "0,10,20"]) == 0
    assert (out / "text.csv").read_text().count("\n") == 1 + 6
    assert (out / "text_seeds.csv").read_text().count("\n") == 1 + 18
    for name in ("index.html", "report.md", "tables.tex"):
        text = (out / name).read_text()
        assert "Corpus BLEU (0 to 100) by source length" in text
        assert "Corpus chrF (0 to 100) by source length" in text
    assert "tok:13a" in (out / "index.html").read_text()
    assert "\n## BLEU and chrF by source length\n" in (out / "report.md").read_text()
    for name in ("index.html", "report.md"):
        text = (out / name).read_text()
        assert "Perplexity per token, teacher-forced by source length" in text
        assert "Perplexity per character, teacher-forced by source length" in text
        assert "TER" not in text
    header = (out / "text.csv").read_text().splitlines()[0].split(",")
    assert {"bleu", "chrf", "perplexity", "character_perplexity", "character_perplexity_low"} <= set(header)
    assert report.main([str(root), "--out", str(out), "--bins", "0,10,20", "--ter"]) == 0
    markdown = (out / "report.md").read_text()
    assert "\n## BLEU, chrF and TER by source length\n" in markdown
    assert re.search(r"Corpus TER .* with 95% intervals \(nrefs:1\|case:lc\|tok:tercom\|", markdown)
    assert report.main([str(root), "--out", str(out), "--no-text"]) == 0
    assert not (out / "text.csv").exists()


def test_the_page_says_what_the_data_are_like(tmp_path):
    """Rows that were skipped, test examples that training has too, tokens that are unknown; each once for all runs."""
    about = {"skipped": {"train": 1200}, "overlap": 7, "unknown": {"test": {"source": 0.0123, "target": 0.0}}}
    for arm in ("plain", "bahdanau"):
        examples = [example(n, 5, reference="a b") for n in range(30)]
        fake_run(tmp_path / "runs", arm, 0, examples, [1] * 30, config=TEXT, **about)
    out = tmp_path / "out"
    assert report.main([str(tmp_path / "runs"), "--out", str(out)]) == 0
    for name in ("index.html", "report.md"):
        text = (out / name).read_text().replace("&#39;", "'")
        for sentence in (
            "1,200 rows of train could not be used and were skipped.",
            "7 test examples are also in the training set, word for word.",
            "1.23% of the test's source tokens are unknown to the vocabulary.",
        ):
            assert text.count(sentence) == 1, sentence
        assert "target tokens are unknown" not in text
