"""Published weights fetched from a stand-in of the hub: once, and at another image size."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from longtail.models.timm import timm_module

VIT = "test_vit.r160_in1k"
SCRIPT = f"""
import json
from longtail.models import build_backbone
from longtail.models.candidate_networks import candidate_networks
from longtail.models.timm import has_weights

name = "timm:{VIT}"
offered = [len(candidate_networks(download=download)) for download in (False, True)]
had = has_weights(name)
grid = build_backbone(name, pretrained=True, in_size=96).trunk.pos_embed
again = build_backbone(name, pretrained=True, in_size=96).trunk.pos_embed
print(json.dumps([offered, had, has_weights(name), list(grid.shape), bool((grid == again).all())]))
"""


class Hub(ThreadingHTTPServer):
    """The part of a hub that timm needs: one file of one repository."""

    def __init__(self, file: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.file, self.sent = file, 0


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        is_there = self.path == f"/timm/{VIT}/resolve/main/model.safetensors"
        body = self.server.file if is_there else b"{}"
        self.send_response(200 if is_there or self.path == "/" else 404)
        self.send_header("Content-Length", str(len(body)))
        if is_there:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.end_headers()
        if self.command != "HEAD":
            self.server.sent += is_there
            self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    torch.manual_seed(0)
    server = Hub(save(timm_module().create_model(VIT).state_dict()))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_weights_are_fetched_once_and_only_with_download(hub: Hub, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path)}
    environment |= {"HF_HUB_OFFLINE": "0", "TORCH_HOME": str(tmp_path / "torch")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    (here, offered), had, has, shape, same = json.loads(done.stdout.splitlines()[-1])
    assert here < offered
    assert (had, has, shape, same) == (False, True, [1, 37, 64], True)
    assert hub.sent == 1
