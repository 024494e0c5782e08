"""A mix of classes for the field: Bayes' rule, there and back, and every file that is not one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from longtail.errors import LongtailError
from longtail.evaluation.posthoc import logit_adjustment
from longtail.models.preprocessing import Preprocessing
from longtail.predict.target_prior import SMALLEST_SHARE, read_prior, with_prior
from longtail.run.model_files import ModelInfo, ModelSpec

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
    with pytest.raises(ValueError, match="3 positive numbers"):
        with_prior(INFO, wrong)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"lynx": 6, "märder, steppe": 3, "山猫": 1}'),
        ("a.csv", 'lynx,6\n"märder, steppe",3\n山猫,1\n'),
        ("a.csv", '\ufeffclass,share\r\nlynx,0.6\r\n"märder, steppe",0.3\r\n\r\n山猫,0.1\r\n'),
        ("a.csv", 'LYNX ,share\nlynx, 6\n"ma\u0308rder, steppe",3.0e0\n 山猫 ,1'),
        ("a.CSV", "class;share\nlynx;6\nmärder, steppe;3\n山猫;1"),
    ],
)
def test_files_of_shares_or_counts(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    np.testing.assert_allclose(read_prior(str(tmp_path / name), INFO), [0.6, 0.3, 0.1])


def test_a_class_left_out_or_at_nothing_is_all_but_impossible(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"lynx": 3, "山猫": 0}', encoding="utf-8")
    notes: list[str] = []
    prior = read_prior(str(tmp_path / "a.json"), INFO, notes.append)
    assert len(notes) == 1
    assert "märder" in notes[0]
    np.testing.assert_allclose(prior, [1, SMALLEST_SHARE, SMALLEST_SHARE], rtol=1e-5)
    assert prior.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"lynks": 1}', "mean 'lynx'"),
        ("a.json", '{"lynx": -1}', "'-1'"),
        ("a.json", '{"lynx": 0}', "above 0"),
        ("a.json", "{}", "above 0"),
        ("a.json", '{"lynx": "many"}', "number"),
        ("a.json", '{"lynx": true}', "number"),
        ("a.json", '{"lynx": null}', "number"),
        ("a.json", '{"lynx": {"share": 1}}', "number"),
        ("a.json", '{\n"lynx": 1,\n"山猫": [1]}', "line 3.*number"),
        ("a.json", '{"lynx": NaN}', "'NaN'"),
        ("a.json", '{"lynx": Infinity}', "'Infinity'"),
        ("a.json", f'{{"lynx": 1{"0" * 400}}}', "'10"),
        ("a.json", f'{{"lynx": {"9" * 5000}}}', "'99"),
        ("a.json", "[" * 100_000, "nested"),
        ("a.json", "[1, 2]", "class names"),
        ("a.json", '{"lynx": 1, "lynx": 2}', "'lynx' .*twice"),
        ("a.json", '{"ma\u0308rder, steppe": 1, "m\u00e4rder, steppe": 2}', "twice"),
        ("a.json", "{", "JSON"),
        ("a.csv", "lynx,1\nlynx,2", "line 2.* 'lynx' .*twice"),
        ("a.csv", "class,share\nlynx,1\n山猫,much", "line 3, column 2: .*'much'"),
        ("a.csv", "lynx", "line 1: 1 value"),
        ("a.csv", "lynx,1,2", "line 1: 3 values"),
        ("a.csv", "lynx,nan", "line 1, column 2: .*'nan'"),
        ("a.csv", "lynks,nan\nlynx,1", "'lynks'"),
        ("a.csv", 'lynx,"1,200"\n山猫,3', "line 1, column 2.*write 1200"),
        ("a.csv", 'lynks,"1,200"\n山猫,3', "line 1, column 1: .*'lynks'"),
        ("a.csv", "class,share\nlynx,1_000", "line 2, column 2"),
        ("a.csv", "lynx,12 %", "line 1, column 2"),
        ("a.csv", "lynx,", "line 1, column 2"),
        ("a.csv", "lynx,٣", "line 1, column 2"),
        ("a.csv", "lynx,1e400", "line 1, column 2"),
        ("a.csv", "lynx;0,5\n山猫;0,5", "line 1"),
        ("a.csv", f"lynx,{'1' * 200_000}", "line 1: column 2"),
        ("a.csv", 'lynx,"1\n山猫,2', "never closes"),
        ("a.csv", "", "above 0"),
    ],
)
def test_files_that_are_not_a_prior(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(LongtailError, match=message):
        read_prior(str(tmp_path / name), INFO)


def test_words_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match=r"mean 'uniform'"):
        read_prior("unifrom", INFO)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LongtailError, match="UTF-8"):
        read_prior(str(tmp_path / "a.csv"), INFO)
