"""Hugging Face sources: saved folders, and a hub that is or is not there."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import datasets
import numpy as np
import pytest
from PIL import Image

from longtail.commands.output import is_disk_full
from longtail.data.sources import huggingface as hub
from longtail.data.sources.registry import load_source
from longtail.errors import LongtailError


def table(labels: list[int], image: str = "image", label: str = "label", classes: int = 3) -> datasets.Dataset:
    names = datasets.ClassLabel(names=[f"c{number}" for number in range(classes)])
    features = datasets.Features({image: datasets.Image(), label: names})
    pictures = [Image.new("RGB", (5, 5), (10 * number, 0, 0)) for number in labels]
    return datasets.Dataset.from_dict({image: pictures, label: labels}, features=features)


def test_a_saved_dictionary_of_splits(tmp_path: Path) -> None:
    datasets.DatasetDict(train=table([0, 1, 1]), test=table([1])).save_to_disk(tmp_path / "saved")
    for spec in (f"hf:{tmp_path / 'saved'}", str(tmp_path / "saved")):
        data = load_source(spec)
        assert data.classes == ("c0", "c1", "c2")
        assert data.counts().counts == (1, 2, 0)
        assert data.splits["test"].image(0).getpixel((0, 0)) == (10, 0, 0)


def test_a_saved_single_table_is_training(tmp_path: Path) -> None:
    table([0, 1]).save_to_disk(tmp_path / "saved")
    assert len(load_source(f"hf:{tmp_path / 'saved'}").splits["train"]) == 2


def test_a_folder_that_is_no_saved_data_set(tmp_path: Path) -> None:
    with pytest.raises(LongtailError, match="save_to_disk"):
        load_source(f"hf:{tmp_path}")
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(LongtailError, match="be read"):
        load_source(f"hf:{tmp_path}")


@pytest.fixture
def hub_holds(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], list[str]]:
    """Let ``load_dataset`` return, or raise, this; gives the list of names asked for."""

    def install(result: object) -> list[str]:
        asked: list[str] = []

        def load_dataset(name: str) -> object:
            asked.append(name)
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        return asked

    return install


def test_a_hub_data_set_with_odd_split_names(hub_holds: Callable[[object], list[str]]) -> None:
    asked = hub_holds({"train": table([0, 1]), "valid": table([1])})
    assert list(load_source("hf:someone/birds").splits) == ["train", "validation"]
    assert asked == ["someone/birds"]


def test_two_splits_of_one_meaning(hub_holds: Callable[[object], list[str]]) -> None:
    hub_holds({"train": table([0, 1]), "valid": table([1]), "dev": table([1])})
    with pytest.raises(LongtailError, match=r"two splits.*'validation'"):
        load_source("hf:someone/birds")


def test_a_hub_table_that_names_no_split_is_said(hub_holds: Callable[[object], list[str]]) -> None:
    hub_holds({"train": table([0, 1]), "unlabeled": table([1])})
    (finding,) = load_source("hf:someone/birds").findings
    assert (finding.kind, "'unlabeled' with 1 rows" in finding.message) == ("table-without-split", True)


def test_a_class_label_may_divide_a_saved_table(tmp_path: Path) -> None:
    places = datasets.ClassLabel(names=["training", "testing"])
    saved = table([0, 1, 2]).add_column("subset", [0, 1, 0]).cast_column("subset", places)
    saved.save_to_disk(tmp_path / "saved")
    data = load_source(f"hf:{tmp_path / 'saved'}")
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {"train": [0, 2], "test": [1]}


@pytest.mark.parametrize(("name", "label"), [("cifar10", "label"), ("cifar100", "fine_label")])
def test_cifar_uses_its_own_columns(hub_holds: Callable[[object], list[str]], name: str, label: str) -> None:
    train = table([0, 2], "img", label)
    if name == "cifar100":
        train = train.add_column("coarse_label", [5, 6])
    asked = hub_holds({"train": train, "test": table([1], "img", label)})
    data = load_source(name)
    assert asked == [f"uoft-cs/{name}"]
    assert data.splits["train"].labels.tolist() == [0, 2]
    assert np.asarray(data.splits["train"].image(1))[0, 0].tolist() == [20, 0, 0]


@pytest.mark.parametrize("spec", ["cifar100", "hf:someone/birds"])
def test_no_network_says_what_to_do(hub_holds: Callable[[object], list[str]], spec: str) -> None:
    hub_holds(ConnectionError("Couldn't reach the hub\nmore"))
    with pytest.raises(LongtailError, match=r"hf:SAVED_DIR.*parquet:") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("refused", [OSError(28, "No space left"), PermissionError(13, "Permission denied", "hub")])
def test_a_cache_of_the_hub_that_cannot_be_written_is_said(
    hub_holds: Callable[[object], list[str]], refused: OSError
) -> None:
    error = datasets.exceptions.DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = refused
    hub_holds(error)
    with pytest.raises(LongtailError, match="HF_HOME") as caught:
        load_source("hf:someone/birds")
    assert not is_disk_full(caught.value), "of the run"


def test_an_unknown_name_and_one_that_wants_a_choice(hub_holds: Callable[[object], list[str]]) -> None:
    hub_holds(datasets.exceptions.DatasetNotFoundError("gone"))
    with pytest.raises(LongtailError, match=r"'someone/brids'"):
        load_source("hf:someone/brids")
    hub_holds(ValueError("Config name is missing."))
    with pytest.raises(LongtailError, match=r"Config name.*save_to_disk"):
        load_source("hf:someone/birds")


def test_a_hub_that_does_not_answer_is_not_tried_for_long(
    monkeypatch: pytest.MonkeyPatch, hf_cache: Path, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "reachable", lambda seconds: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    before = constants.HF_HUB_OFFLINE
    with pytest.raises(LongtailError, match="network"):
        load_source("hf:someone/birds")
    after = constants.HF_HUB_OFFLINE
    assert after == before
    assert not list(hf_cache.rglob("*.arrow"))


def test_a_picture_saved_with_16_bits_reads_like_any_other(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(buffer, "PNG")
    features = datasets.Features({"image": datasets.Image(decode=False), "label": datasets.Value("string")})
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}] * 2, "label": ["a", "b"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    image = load_source(f"hf:{tmp_path / 'saved'}").splits["train"].image(0)
    assert image.getpixel((0, 0)) == (255, 255, 255)


class Answering(BaseHTTPRequestHandler):
    """A web server that answers every question with the status in the path."""

    def do_HEAD(self) -> None:
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answering) as running:
        Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_hub_is_reachable_where_it_answers(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for status, expected in (("200", True), ("401", True), ("502", False)):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{server}/{status}")
        assert hub.reachable() is expected
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{server}/200")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not hub.reachable()


def test_a_proxy_alone_is_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # a port that nobody listens on
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://hub.example")
    assert not hub.reachable()
