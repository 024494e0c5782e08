"""push and hf: against a stand-in of the hub on this machine: what goes up, what stays, and what comes down again."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from longtail.errors import LongtailError
from longtail.predict.hub import local_run, push_run
from longtail.run.model_files import load_info
from longtail.run.result import write_adjusted

SHA = "a" * 40
SCRIPT = """
import sys
from longtail.cli import main
run, photo, out = sys.argv[1:]
assert main(["push", run, "me/fish", "--private", "--revision", "v1"]) == 0
assert main(["predict", "hf:me/fish@v1", photo, "--out", out, "--device", "cpu"]) == 0
assert main(["push", run, "other/fish"]) == 1
assert main(["predict", "hf:me/none", photo, "--out", out]) == 1
from huggingface_hub import constants
constants.ENDPOINT = "http://127.0.0.1:9"
assert main(["push", run, "me/fish"]) == 1
"""


class Hub(ThreadingHTTPServer):
    """What of the hub's HTTP interface the client uses for these."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, value: object = None, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value or {}).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self) -> None:
        body, hub = self.body(), self.server
        if self.headers.get("Authorization") != "Bearer hf_secret":
            return self.answer({"error": "no token"}, 401)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            if asked.get("organization") == "other":
                return self.answer({"error": "not yours"}, 403)
            hub.created.append(asked)
            return self.answer({"url": f"{hub.url}/me/fish", "name": "me/fish"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            files = [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in zip(names, modes, strict=True)]
            return self.answer({"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            made = [
                item | {"actions": {"upload": {"href": f"{hub.url}/blob/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": made})
        if "/commit/" in self.path:
            self.commit(body)
        return self.answer({"commitUrl": f"{hub.url}/me/fish/commit/{SHA}", "commitOid": SHA, "success": True})

    def commit(self, body: bytes) -> None:
        branch = self.path.rpartition("/")[2]
        assert branch == "v1"
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.server.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[value["path"]] = self.server.blobs[value["oid"]]

    def do_PUT(self) -> None:
        body = self.body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.blobs[oid] = body
        self.answer()

    def do_GET(self) -> None:
        files = self.server.files
        request = re.fullmatch(r"/me/fish/resolve/\w+/(.*)", self.path)
        if request and request[1] in files:
            etag = hashlib.sha256(files[request[1]]).hexdigest()
            return self.answer(files[request[1]], X_Repo_Commit=SHA, ETag=f'"{etag}"')
        if self.path.startswith("/api/models/me/fish/tree/"):
            return self.answer([{"type": "file", "path": n, "size": len(d), "oid": SHA} for n, d in files.items()])
        if self.path.startswith("/api/models/me/fish"):
            return self.answer({"id": "me/fish", "sha": SHA, "siblings": [{"rfilename": name} for name in files]})
        return self.answer({"error": "not there"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_pushed_to_a_hub_and_used_from_it(hub: Hub, ready: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "teal").save(tmp_path / "photo.png")
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": "hf_secret",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "no_proxy": "127.0.0.1",
    }
    words = [sys.executable, "-c", SCRIPT, ready, tmp_path / "photo.png", tmp_path / "out.csv"]
    done = subprocess.run(words, env=os.environ | settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{hub.url}/me/fish/commit/{SHA}" in done.stdout
    assert sorted(hub.files) == ["README.md", "config.yaml", "metrics.json", "model.json", "model.safetensors"]
    assert hub.files["model.safetensors"] == (ready / "model.safetensors").read_bytes()
    assert hub.files["README.md"].startswith(b"---\n")
    assert yaml.safe_load(hub.files["config.yaml"])["data"]["source"] == "folder:photos"
    assert hub.created[0].get("visibility") == "private" or hub.created[0].get("private") is True  # newer, older
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2
    complaints = [line for line in done.stderr.splitlines() if line.startswith("longtail: ")]
    assert "`hf auth login`" in complaints[0]
    assert "'me/none'" in complaints[1]
    assert "reached" in complaints[2]
    assert "Traceback" not in done.stderr


def test_what_goes_up_names_no_file_of_the_users(
    untrained_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained_run(tmp_path / "run")
    metrics, config = json.loads((run / "metrics.json").read_text()), yaml.safe_load((run / "config.yaml").read_text())
    metrics |= {"unreadable": ["lynx/my garden.jpg"], "notes": ["1 file left out ('my notes.txt')"]}
    config["model"]["weights"] = "/home/me/runs/first/stage1"
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    texts: dict[str, str] = {}

    def upload(staged: str, *_: object, **__: object) -> str:
        texts.update((path.name, path.read_text()) for path in Path(staged).iterdir() if path.suffix != ".safetensors")
        return "there"

    monkeypatch.setattr("longtail.predict.hub.upload", upload)
    assert push_run(run, "me/fish") == "there"
    assert sorted(texts) == ["README.md", "config.yaml", "metrics.json", "model.json"]
    assert not [name for name, text in texts.items() if re.search(r"/home/me|my (garden|notes)", text)]
    assert json.loads(texts["metrics.json"])["test"] == metrics["test"]
    assert yaml.safe_load(texts["config.yaml"])["model"]["weights"] == "stage1"
    write_adjusted(run, load_info(run).adjustment, {"test": metrics["test"] | {"few": 0.4}})
    push_run(run, "me/fish")
    assert json.loads(texts["adjusted.json"])["test"]["few"] == 0.4


def test_a_table_goes_up_without_the_folders_of_the_machine(
    untrained_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, name = untrained_run(tmp_path / "run"), "predictions.parquet"
    pq.write_table(pa.table({"path": ["/home/me/cat/1.png", "cat/2.png", "row 3"], "label": [0, 1, 2]}), run / name)
    tables: list[pa.Table] = []

    def upload(staged: str, *_: object, **__: object) -> str:
        tables.append(pq.read_table(Path(staged) / name))
        return "there"

    monkeypatch.setattr("longtail.predict.hub.upload", upload)
    push_run(run, "me/fish", include=[name])
    assert tables[0].to_pydict() == {"path": ["1.png", "cat/2.png", "row 3"], "label": [0, 1, 2]}


@pytest.mark.parametrize("name", ["predictions.parquet", "examples.parquet"])
def test_a_damaged_table_is_not_pushed(
    name: str, untrained_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained_run(tmp_path / "run")
    monkeypatch.setattr("longtail.predict.hub.upload", lambda *_, **__: pytest.fail("it was sent"))
    (run / name).write_bytes(b"PAR1 torn")
    with pytest.raises(LongtailError, match=f"run/{name}"):
        push_run(run, "me/fish", include=[name])
    pq.write_table(pa.table({"path": [1, 2]}), run / name)
    with pytest.raises(LongtailError, match=f"run/{name}.*path"):
        push_run(run, "me/fish", include=[name])


def test_offline_is_one_sentence(ready: Path) -> None:
    with pytest.raises(LongtailError, match="reached"):
        push_run(ready, "me/fish")
    with pytest.raises(LongtailError, match="reached"):
        local_run("hf:me/fish")


def test_figures_are_fetched_where_they_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[list[str]] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, allow_patterns, **__: fetched.append(allow_patterns)
    )
    local_run("hf:me/fish")
    local_run("hf:me/fish", with_figures=True)
    assert fetched[0] == ["model.json", "model.safetensors"]
    assert {*fetched[1]} - {*fetched[0]} == {"metrics.json", "adjusted.json", "config.yaml"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_one_sentence(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, "refused", "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(LongtailError, match="HF_HOME"):
        local_run("hf:me/fish")


@pytest.mark.parametrize(
    ("name", "include", "message"),
    [
        ("a b/c", (), "OWNER/NAME"),
        ("fish", (), "OWNER"),
        ("me/fish", ("nothing.txt",), "nothing.txt"),
        ("me/fish", ("../other/secret",), "secret"),
    ],
)
def test_names_and_files_that_cannot_be_pushed(name: str, include: tuple[str, ...], message: str, ready: Path) -> None:
    (ready.parent / "other").mkdir(exist_ok=True)
    (ready.parent / "other" / "secret").touch()
    with pytest.raises(LongtailError, match=message):
        push_run(ready, name, include=include)


def test_a_run_that_cannot_be_loaded_is_not_pushed(untrained_run: Callable[..., Path], tmp_path: Path) -> None:
    run = untrained_run(tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(LongtailError, match="damaged"):
        push_run(run, "me/fish")
