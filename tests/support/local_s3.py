"""A local S3 server, and buckets in it; what needs it is skipped where its packages are not installed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def local_s3(port: int = 0) -> Iterator[str]:
    """Start a server and give its address; port 0 is any free one."""
    system = pytest.importorskip("s3fs", reason="s3fs is not installed").S3FileSystem
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    started = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    started.start()
    system.clear_instance_cache()  # of another server
    try:
        host, port = started.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        started.stop()
        system.clear_instance_cache()


def s3_environment(server: str) -> dict[str, str]:
    """Return the variables by which a server is found."""
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def new_bucket() -> str:
    """Make a bucket on the server that the environment names, and return its URL."""
    import fsspec

    name = uuid.uuid4().hex
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"
