"""Ray Data: a local cluster of one core writes the parts that one machine would, and goes on where it was stopped."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_s3 import local_s3, new_bucket, s3_environment
from PIL import Image
from rich.console import Console

import longtail
from longtail import ray_cluster
from longtail.console import Reporter
from longtail.errors import LongtailError
from longtail.predict import Predictor, ray_pipeline
from longtail.predict.merge import COMPLETE, merge_parts
from longtail.predict.parts import list_parts, write_part
from longtail.predict.predict import predict_images
from longtail.predict.ray_pipeline import SKIPPED, predict_on_ray
from longtail.run.model_files import load_info, save_info

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'longtail[ray]'")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    import ray

    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    environment = pytest.MonkeyPatch()
    with socket.create_server(("127.0.0.1", 0)) as server:  # where a test may start a store
        store = f"http://127.0.0.1:{server.getsockname()[1]}"
    for name, value in s3_environment(store).items():  # which workers get as it is now
        environment.setenv(name, value)
    options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 128 * 2**20}
    ray.init(address="local", num_cpus=1, num_gpus=1, logging_level="ERROR", **options)
    yield ray
    ray.shutdown()
    environment.undo()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    folder = tmp_path / "photos"
    (folder / "a").mkdir(parents=True)
    for number in range(60):
        Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    (folder / "a" / "broken.png").write_text("no image")
    (folder / "a" / "film.mov").touch()
    return folder


@pytest.mark.timeout(100)
@pytest.mark.parametrize("address", ["auto", "127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_told(
    address: str, ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")  # of a head that was killed
    with pytest.raises(LongtailError, match="cluster"):
        predict_on_ray(ready, photos, tmp_path / "parts", address=address, device="cpu")


def test_a_cluster_that_does_not_start_is_told(
    ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: Any) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr("ray.init", fail)
    with pytest.raises(LongtailError, match="timed out"):
        predict_on_ray(ready, photos, tmp_path / "parts", device="cpu")


class Cluster:
    """A cluster whose head listens at a port, and of whose two nodes, that of this process and another, any may go."""

    def __init__(self, port: int) -> None:
        self.port, self.is_there, self.has_own = port, True, True

    def get_runtime_context(self) -> SimpleNamespace:
        return SimpleNamespace(gcs_address=f"127.0.0.1:{self.port}", get_node_id=lambda: "head")

    def nodes(self) -> list[dict[str, Any]]:
        head = {"NodeID": "head", "Alive": self.has_own, "Resources": {}}
        return [head, {"NodeID": "other", "Alive": self.is_there, "Resources": {"CPU": 2.0}}]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    monkeypatch.setattr(ray_cluster, "_SECONDS_BETWEEN_CHECKS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def watch_of(cluster: Cluster, said: list[str]) -> ray_cluster.Watch:
    return ray_cluster.Watch(cluster, partial(ray_pipeline._have_all, kinds=("CPU",)), "a core", said.append)


def test_a_head_that_is_gone_ends_the_wait(server: socket.socket) -> None:
    watch = watch_of(Cluster(server.getsockname()[1]), [])
    with Reporter(quiet=True).bar("predict", 7) as bar:
        ray_pipeline._wait(iter([None, 3, None, 4]), watch, bar, 0)  # as long as the head is there
        assert bar.done == 7
        server.close()
        with pytest.raises(LongtailError, match="repeat the command"):
            ray_pipeline._wait(iter([None] * 4), watch, bar, 0)
        with pytest.raises(LongtailError, match="out of memory"):
            ray_pipeline._wait((int(error) for error in ["out of memory"]), watch, bar, 0)


def test_the_loss_of_all_machines_is_said_and_ends_the_wait(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, said = Cluster(server.getsockname()[1]), list[str]()
    watch = watch_of(cluster, said)
    cluster.is_there = False
    watch.check()
    watch.check()
    assert len(said) == 1
    cluster.is_there = True  # another one has come
    watch.check()
    cluster.is_there = False
    watch.check()
    assert len(said) == 2
    monkeypatch.setattr(ray_cluster, "_SECONDS_WITHOUT_MACHINES", 0.0)
    with pytest.raises(LongtailError, match="lost its machines with a core"):
        watch.check()


def test_the_first_machine_is_waited_for(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_SECONDS_WITHOUT_MACHINES", 0.0)
    cluster, said = Cluster(server.getsockname()[1]), list[str]()
    cluster.is_there = False
    watch = watch_of(cluster, said)
    watch.check()
    watch.check()
    assert ["no machines with a core" in text for text in said] == [True]


def test_a_head_that_takes_the_question_and_never_answers_is_gone(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "_SECONDS_TO_ANSWER", 0.01)
    cluster, hold = Cluster(server.getsockname()[1]), threading.Event()
    watch = watch_of(cluster, [])
    monkeypatch.setattr(cluster, "nodes", lambda: hold.wait(60) and [])
    for _ in range(3):
        watch.check()
    with pytest.raises(LongtailError, match="does not answer"):
        watch.check()
    hold.set()


def test_a_head_whose_answer_is_an_error_is_gone(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(server.getsockname()[1])
    watch = watch_of(cluster, [])
    monkeypatch.setattr(cluster, "nodes", lambda: [][0])
    for _ in range(3):
        watch.check()
    with pytest.raises(LongtailError, match="does not answer"):
        watch.check()


def test_a_machine_that_the_cluster_takes_for_lost_is_told(server: socket.socket) -> None:
    cluster = Cluster(server.getsockname()[1])
    watch = watch_of(cluster, [])
    watch.check()
    cluster.has_own = False
    with pytest.raises(ray_cluster.ClusterLostError, match="this machine"):
        watch.check()
    assert watch.is_lost


def test_gpus_need_cores_that_decode() -> None:
    machines = [{"GPU": 2.0}, {"CPU": 4.0}]
    assert ray_pipeline._have_all(machines, ("GPU", "CPU"))
    assert not ray_pipeline._have_all(machines[:1], ("GPU", "CPU"))


@pytest.mark.timeout(280)
def test_a_predictor_maps_batches(ray: Any, ready: Path, photos: Path) -> None:
    paths = sorted(map(str, photos.glob("*.png")))
    rows = (
        ray.data.from_items([{"path": path, "id": number} for number, path in enumerate(paths)])
        .map_batches(
            Predictor,
            fn_constructor_kwargs={"run": str(ready), "top_k": 1, "workers": 1},
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=16,
        )
        .take_all()
    )
    expected = {row.name: row for row in longtail.load(ready).predict(paths)}
    assert sorted(row["id"] for row in rows) == list(range(60))
    for row in rows:
        assert row["prediction"] == row["label_1"] == expected[row["path"]].label
        assert row["confidence"] == pytest.approx(expected[row["path"]].confidence, abs=2e-6)
        assert row["problem"] is None


@pytest.mark.timeout(280)
def test_files_that_a_pipeline_writes_are_one_table(ray: Any, ready: Path, photos: Path, tmp_path: Path) -> None:
    def typed(table: pa.Table) -> pa.Table:  # as in docs/scale.md
        columns = [field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
        return table.cast(pa.schema(columns))

    paths = [{"path": str(path)} for path in (photos / "00.png", photos / "01.png", photos / "a" / "broken.png")]
    rows = ray.data.from_items(paths, override_num_blocks=3).map_batches(
        Predictor,
        fn_constructor_kwargs={"run": str(ready), "top_k": 1, "workers": 1},
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=0,
        batch_size=1,
    )
    rows.map_batches(typed, batch_format="pyarrow", num_cpus=0).write_parquet(str(tmp_path / "out"))
    kinds = [pq.read_schema(file).field("problem").type for file in (tmp_path / "out").iterdir()]
    assert kinds == [pa.string()] * 3
    assert pq.read_table(tmp_path / "out")["problem"].null_count == 2


@pytest.mark.timeout(280)
@pytest.mark.parametrize("device", ["cpu", "auto"])  # auto: the actors that predict on GPUs, as which CPUs stand in
def test_a_cluster_writes_what_one_machine_would_and_goes_on(
    device: str, ray: Any, ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pipeline, "_LEAST_IMAGES", 16)
    options: dict[str, Any] = {"device": device, "batch_size": 4}
    monkeypatch.setattr(ray_pipeline, "GPU", "cpu")
    out, shown = tmp_path / "parts", io.StringIO()
    report = predict_on_ray(ready, photos, out, **options, console=Console(file=shown, width=200))
    assert (report.predicted, report.skipped, report.unread) == (60, 2, {".mov": 1})
    assert "broken.png" in shown.getvalue()
    assert str(out / SKIPPED) in shown.getvalue()
    whole = predict_images(ready, photos, tmp_path / "whole.csv", batch_size=1, workers=1)
    merged = merge_parts(out, tmp_path / "merged.csv")
    rows = [table.out.read_text().splitlines() for table in (whole, merged)]
    assert [row.split(",")[:2] for row in rows[0]] == [row.split(",")[:2] for row in rows[1]]
    assert (tmp_path / "merged.csv.skipped.csv").read_text() == (tmp_path / "whole.csv.skipped.csv").read_text()
    assert (out / SKIPPED).read_text() == (tmp_path / "whole.csv.skipped.csv").read_text()

    assert len(pq.read_table(out)) == 62  # the folder is one table for what reads Parquet

    # Stopped half way: some parts are there, others are not, and one was done twice.
    first, second, *others = list_parts(out)
    assert len(others) == 2
    for part in others:
        part.path.unlink()
    (out / COMPLETE).unlink()
    before = first.path.read_bytes()
    write_part(out / "part-twice.parquet", first.job, [pq.read_table(second.path).slice(3)])
    Image.new("RGB", (9, 9)).save(photos / "0.png")  # a new image, which comes first
    again = predict_on_ray(ready, photos, out, **options)
    assert (again.earlier, again.predicted + again.skipped) == (first.rows + second.rows, 63 - first.rows - second.rows)
    assert first.path.read_bytes() == before
    names = [name for part in list_parts(out) for name in pq.read_table(part.path)["path"].to_pylist()]
    assert len(names) == len(set(names)) == 63
    assert merge_parts(out, tmp_path / "merged.csv").predicted == 61

    # Finished: nothing is left to do.
    assert predict_on_ray(ready, photos, out, device="cpu").predicted == 0


@pytest.mark.timeout(280)
@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_a_file_of_the_prior_is_read_here(
    device: str, ray: Any, ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_pipeline, "GPU", "cpu")
    monkeypatch.chdir(tmp_path)  # where no machine of the cluster works
    Path("prior.json").write_text(json.dumps({name: 9**number for number, name in enumerate(load_info(ready).classes)}))
    report = predict_on_ray(ready, photos, "parts", device=device, batch_size=16, prior="prior.json", top_k=1)
    assert report.predicted == 60
    merge_parts("parts", "merged.csv")
    predict_images(ready, photos, "whole.csv", workers=1, batch_size=16, prior="prior.json", top_k=1)
    predict_images(ready, photos, "without.csv", workers=1, batch_size=16, top_k=1)
    merged, whole, without = (pd.read_csv(f"{name}.csv")["confidence"] for name in ("merged", "whole", "without"))
    assert merged.to_numpy() == pytest.approx(whole.to_numpy(), abs=2e-6)
    assert merged.to_numpy() != pytest.approx(without.to_numpy(), abs=2e-6)


def test_every_machine_fetches_the_same_commit(
    ray: Any, ready: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = []

    def parts_of(_: Any, __: Any, work: Any) -> Iterator[int]:
        works.append(work)
        return iter(())

    monkeypatch.setattr(ray_pipeline, "local_run", lambda _: str(shutil.copytree(ready, tmp_path / "5ac2")))
    monkeypatch.setattr(ray_pipeline, "_parts_by_cpus", parts_of)
    with pytest.raises(LongtailError, match="repeat"):  # as there are no parts
        predict_on_ray("hf:me/fish", photos, tmp_path / "parts", device="cpu")
    assert works[0].run == "hf:me/fish@5ac2"


@pytest.mark.timeout(280)
def test_images_and_parts_in_a_store(ray: Any, ready: Path, photos: Path, tmp_path: Path) -> None:
    with local_s3(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])):
        bucket = new_bucket()
        fsspec.filesystem("s3").put(f"{photos}/", f"{bucket}/photos/", recursive=True)
        report = predict_on_ray(ready, f"{bucket}/photos", f"{bucket}/parts", device="cpu", batch_size=16)
        assert (report.predicted, report.skipped) == (60, 2)
        assert predict_on_ray(ready, f"{bucket}/photos", f"{bucket}/parts", device="cpu").earlier == 62
        merge_parts(f"{bucket}/parts", tmp_path / "merged.csv")
    whole = predict_images(ready, photos, tmp_path / "whole.csv", workers=1)
    rows = [
        [line.split(",")[1] for line in table.read_text().splitlines()]
        for table in (tmp_path / "merged.csv", whole.out)
    ]
    assert rows[0] == rows[1]


def test_parts_of_another_model_are_refused(ray: Any, ready: Path, photos: Path, tmp_path: Path) -> None:
    run = shutil.copytree(ready, tmp_path / "run")
    write_part(tmp_path / "parts" / "part-1.parquet", _job(run, photos), [])
    save_info(replace(load_info(run), threshold=0.9), run)
    with pytest.raises(LongtailError, match="model"):
        predict_on_ray(run, photos, tmp_path / "parts", device="cpu")


@pytest.mark.timeout(280)
def test_what_fails_on_a_machine_is_told_in_one_sentence(ray: Any, ready: Path, photos: Path, tmp_path: Path) -> None:
    run = shutil.copytree(ready, tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(LongtailError, match=r"model\.safetensors") as told:
        predict_on_ray(run, photos, tmp_path / "parts", device="cpu")
    assert "Traceback" not in str(told.value)


def _job(run: Path, photos: Path) -> Any:
    from longtail.predict.images import find_images
    from longtail.predict.predict import job_of

    return job_of(str(run), load_info(run), photos, find_images(photos), top_k=5, prior=None, column=None)


def test_images_inside_a_table_are_refused(ray: Any, ready: Path, photos: Path, tmp_path: Path) -> None:
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(photos.glob("*.png"))]
    pq.write_table(pa.table({"image": cells}), tmp_path / "table.parquet")
    with pytest.raises(LongtailError, match="--shard"):
        predict_on_ray(ready, tmp_path / "table.parquet", tmp_path / "parts", device="cpu")
