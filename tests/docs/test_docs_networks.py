"""The table of networks in the documentation is the one in the package, with the rates that were measured."""

from __future__ import annotations

import json
from pathlib import Path

from longtail.models.candidate_networks import CANDIDATE_NETWORKS, CandidateNetwork

DOCS = Path(__file__).parents[2] / "docs"
PAGE, MEASURED = DOCS / "networks.md", DOCS / "performance"


def rates(name: str, file: str) -> str:
    rows = json.loads((MEASURED / file).read_text(encoding="utf-8"))
    of_network = [each["ours"] for each in rows if each["name"].startswith(f"features by {name}, ")]
    return " / ".join(f"{rate:,.0f}" for rate in of_network)


def row(network: CandidateNetwork) -> str:
    first, second = network.sizes(network.native_size)[:2]
    sizes = f"multiples of {network.size_step}" if network.is_transformer else "any"
    cells = (
        f"`{network.name.removeprefix('timm:')}`",
        network.license,
        f"{network.parameters / 1e6:.1f} M",
        f"{network.multiply_adds / 1e9:.1f} G",
        f"{network.megabytes:.0f} MB",
        str(network.native_size),
        f"{sizes}; {first}, {second}, ...",
        rates(network.name, "networks.json"),
        rates(network.name, "networks-bf16.json"),
    )
    return f"| {' | '.join(cells)} |"


def test_the_page_lists_the_networks_of_the_table() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `")] == [row(network) for network in CANDIDATE_NETWORKS]
