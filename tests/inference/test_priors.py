"""A mix of classes for the field: Bayes' rule, there and back, and every file that is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail.errors import LongtailError
from longtail.inference.adjustment import logit_adjustment
from longtail.inference.info import ModelInfo, ModelSpec, Preprocessing
from longtail.inference.priors import SMALLEST_SHARE, read_prior, with_prior

INFO = ModelInfo(
    model=ModelSpec("plain-cnn", "cosine"),
    classes=("lynx", "märder, steppe", "山猫"),
    counts=(90, 9, 1),
    preprocessing=Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3),
    logit_scale=20.0,
)
LOGITS = torch.rand(9, 3, generator=torch.Generator().manual_seed(0))


def test_another_prior_is_bayes_rule() -> None:
    target = np.array([0.2, 0.2, 0.6])
    before = INFO.scores(LOGITS).softmax(dim=1)
    expected = before * torch.tensor(target / np.array([0.9, 0.09, 0.01])).float()
    after = with_prior(INFO, target).scores(LOGITS).softmax(dim=1)
    torch.testing.assert_close(after, expected / expected.sum(dim=1, keepdim=True))
    torch.testing.assert_close(with_prior(INFO, 50 * target).scores(LOGITS).softmax(dim=1), after)


def test_the_mix_that_is_assumed_already_changes_nothing() -> None:
    balanced = replace(INFO, prior="uniform")
    adjusted = replace(INFO, adjustment=logit_adjustment(INFO.counts, 1.0, temperature=2.0, scale=20.0), threshold=0.4)
    for info, word in ((INFO, "train"), (balanced, "uniform"), (adjusted, "uniform")):
        same = with_prior(info, read_prior(word, info))
        torch.testing.assert_close(same.scores(LOGITS).softmax(1), info.scores(LOGITS).softmax(1))
        assert same.threshold == info.threshold


def test_the_mix_of_training_undoes_logit_adjustment_of_any_strength() -> None:
    calibrated = (LOGITS * 20 / 2).softmax(dim=1)
    for tau in (0.0, 0.3, 1.0, 1.4):
        adjustment = logit_adjustment(INFO.counts, tau, temperature=2.0, scale=20.0)
        back = with_prior(replace(INFO, adjustment=adjustment), read_prior("train", INFO))
        torch.testing.assert_close(back.scores(LOGITS).softmax(dim=1), calibrated)


def test_a_prior_upon_a_prior_is_the_last_one() -> None:
    twice = with_prior(with_prior(INFO, [5, 1, 1]), [1, 2, 3])
    torch.testing.assert_close(twice.scores(LOGITS).softmax(1), with_prior(INFO, [1, 2, 3]).scores(LOGITS).softmax(1))


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [0.5, 0.5, 0.0], [1, 1, -1], [1, 1, float("nan")]])
def test_a_prior_without_a_positive_number_for_each_class_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="a prior takes 3 positive numbers"):
        with_prior(INFO, wrong)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"lynx": 6, "märder, steppe": 3, "山猫": 1}'),
        ("a.csv", 'lynx,6\n"märder, steppe",3\n山猫,1\n'),
        ("a.csv", '\ufeffclass,share\r\nlynx,0.6\r\n"märder, steppe",0.3\r\n\r\n山猫,0.1\r\n'),
        ("a.CSV", "class;share\nlynx;6\nmärder, steppe;3\n山猫;1"),
    ],
)
def test_files_of_shares_or_counts(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    np.testing.assert_allclose(read_prior(str(tmp_path / name), INFO), [0.6, 0.3, 0.1])


def test_a_class_left_out_or_at_nothing_is_all_but_impossible(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"lynx": 3, "山猫": 0}', encoding="utf-8")
    found = read_prior(str(tmp_path / "a.json"), INFO)
    np.testing.assert_allclose(found, [1, SMALLEST_SHARE, SMALLEST_SHARE], rtol=1e-5)
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"lynks": 1}', "knows no class 'lynks'. Did you mean 'lynx'?"),
        ("a.json", '{"lynx": -1}', "share of 'lynx' is -1.0"),
        ("a.json", '{"lynx": 0}', "gives no class a share above 0"),
        ("a.json", "{}", "gives no class a share above 0"),
        ("a.json", '{"lynx": "many"}', "class names with their shares"),
        ("a.json", '{"lynx": true}', "class names with their shares"),
        ("a.json", '{"lynx": NaN}', "class names with their shares"),
        ("a.json", f'{{"lynx": 1{"0" * 400}}}', "class names with their shares"),
        ("a.json", "[1, 2]", "class names with their shares"),
        ("a.json", '{"lynx": 1, "lynx": 2}', "names the class 'lynx' twice"),
        ("a.json", "{", "is no JSON"),
        ("a.csv", "lynx,1\nlynx,2", "names the class 'lynx' twice"),
        ("a.csv", "class,share\nlynx,1\n山猫,much", "line 3: .* should be a class name and its share"),
        ("a.csv", "lynx", "line 1: .* should be a class name and its share"),
        ("a.csv", "lynx,nan", "share of 'lynx' is nan"),
        ("a.csv", "", "gives no class a share above 0"),
    ],
)
def test_files_that_are_no_prior(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(LongtailError, match=message):
        read_prior(str(tmp_path / name), INFO)


def test_words_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match=r"no file 'unifrom'.* Did you mean 'uniform'\?"):
        read_prior("unifrom", INFO)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LongtailError, match="cannot be read as UTF-8"):
        read_prior(str(tmp_path / "a.csv"), INFO)
