"""The documentation tells the truth: its commands parse, its names exist, its Python runs, its links lead somewhere."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.resources
import io
import re
import runpy
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from streams import tar
from toy.__main__ import draw_toy

import longtail
from longtail import losses
from longtail.cli import ALIASES, COMMANDS, main
from longtail.commands.arguments import parse
from longtail.compare.comparison import compare_runs
from longtail.config.build import read_config_file
from longtail.config.checks import check_config
from longtail.config.options import flatten
from longtail.config.recipes import base_config, list_recipes, load_recipe
from longtail.config.schema import RunConfig
from longtail.losses import LOSSES, loss_options

ROOT = Path(__file__).parents[2]
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in FILES}
README, METHODS = PAGES["README.md"], PAGES["docs/methods.md"]
# What the pages write where you write something of your own; SOURCE, RUN and IMAGES parse as they are.
PLACEHOLDERS = {"NAME": "cifar-lt/gcl", "COMMAND": "train", "FILE": "mine.yaml"}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def code_lines(text: str) -> list[str]:
    """The lines of indented code blocks, continued ones joined."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    joined = re.sub(r"\\\n\s*", " ", plain)
    return [line.strip() for line in joined.splitlines() if line.startswith("    ")]


def script_blocks(text: str) -> list[str]:
    """The lines of scripts and of files that hold commands, continued ones joined."""
    blocks = "".join(fenced(text, "bash") + fenced(text, "yaml"))
    return [line.strip() for line in re.sub(r"\\\n\s*", " ", blocks).splitlines()]


def command_lines(text: str) -> list[str]:
    inline = [" ".join(span.split()) for span in re.findall(r"`(longtail [^`]+)`", text)]
    lines = [*code_lines(text), *script_blocks(text)]
    starts = [(line, match.start(1)) for line in lines if (match := re.search(r"(?:^|[\s\"])(longtail \w)", line))]
    # A command within quotation marks ends with them.
    return inline + [line[at:].rstrip('"') if line[at - 1 : at] == '"' else line[at:] for line, at in starts]


def script_lines(text: str) -> list[str]:
    start = r"python (?:examples|benchmarks)/"
    inline = [" ".join(span.split()) for span in re.findall(rf"`({start}[^`]+)`", text)]
    return inline + re.findall(rf"^ *({start}.*)", re.sub(r"\\\n\s*", " ", text), flags=re.MULTILINE)


def words_of(line: str) -> list[str]:
    bare = re.sub(r"\[[^\]]*\]", " ", line).replace("...", " ")
    bare = re.sub(r"\$\w+", "1", bare)  # variables of a shell
    bare = bare.replace("/data/", "").replace("s3://bucket/birds/", "tars/")  # what machines share
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(bare, comments=True)[1:]]


MENTIONED = [(page, line) for page, text in PAGES.items() for line in dict.fromkeys(command_lines(text))]
LINES = [(page, line) for page, line in MENTIONED if len(line.split()) > 2]  # the others just name a command
SCRIPTS = [(page, line) for page, text in PAGES.items() for line in dict.fromkeys(script_lines(text))]
PYTHON = [(page, block) for page, text in PAGES.items() for block in fenced(text, "python")]
BLOCKS = [(page, block) for page, block in PYTHON if page != "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the pages speak of: a finished run ``runs/gcl``, ``mine.yaml``, photos and shards."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("photos", "SOURCE"):
        for number in range(20):
            of_class = folder / name / ("cat", "lynx")[number % 2]
            of_class.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 50), (number, 0, 0)).save(of_class / f"{number}.png")
    (folder / "tars").mkdir()
    (folder / "tars" / "train.tar").write_bytes(tar([0, 1] * 10))
    (folder / "mine.yaml").write_text(fenced(PAGES["docs/recipes.md"], "yaml")[0])
    (folder / "runs" / "mine").mkdir(parents=True)
    full = base_config("cifar-lt/ce", overlay=read_config_file(folder / "mine.yaml").values) | {"recipe": "cifar-lt/ce"}
    full["data"]["source"] = "photos"
    (folder / "runs" / "mine" / "config.yaml").write_text(yaml.safe_dump(full))
    small = "--epochs 1 --model.name plain-cnn --imbalance-ratio 20 --data.image_size 8 --data.validation_fraction 0.1"
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert main(["prepare", "photos", "--shards", "shards", "--quiet"]) == 0
        assert main(f"train digits --recipe cifar-lt/gcl --out runs/gcl --quiet {small}".split()) == 0
        yield folder


def test_there_are_commands_to_check() -> None:
    pages = {page for page, _ in LINES}
    assert {"README.md", "docs/data.md", "docs/recipes.md", "docs/training.md"} <= pages
    assert all(any(word in line for _, line in LINES) for word in ("$SLURM_ARRAY_TASK_ID", "$shard")), "bash and YAML"
    assert {ALIASES.get(word, word) for word in (words_of(line)[0] for _, line in MENTIONED)} == set(COMMANDS)


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("page", "line"), LINES, ids=lambda value: value if " " not in value else value[9:60])
def test_a_command_parses(
    page: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the real entry point, down to the function that would do the work."""
    done: list[str] = []

    def record(name: str, function: Callable[..., Any]) -> Any:
        @wraps(function)
        def recorded(*args: Any, **_: Any) -> int:
            done.append(name)
            for value in args:
                if isinstance(value, RunConfig):
                    check_config(value)
            return 0

        return recorded

    for name, function in COMMANDS.items():
        inner = [each for each in vars(sys.modules[function.__module__]) if each.endswith("_command")]
        for each in inner:  # training and comparing check their arguments first
            target = f"{function.__module__}.{each}"
            monkeypatch.setattr(target, record(each, vars(sys.modules[function.__module__])[each]))
        if not inner or name == "demo":
            monkeypatch.setitem(COMMANDS, name, record(name, function))
    monkeypatch.setattr("longtail.run.layout.refuse_existing", lambda _: None)
    monkeypatch.setattr("longtail.experiments.grid_plan.recipe_grid", lambda *_, **__: {"set": {}})
    monkeypatch.setattr("longtail.compare.comparison.compare_runs", record("compare", compare_runs))
    for name in ("print_table", "write_csv"):
        monkeypatch.setattr(f"longtail.compare.table.{name}", lambda *_: None)
    words = words_of(line)
    status = main(words)
    done += ["help"] if words[-1].startswith("--help") else []
    assert status == 0, f"{page}: {line}\n{capsys.readouterr().err}"
    assert len(done) == 1


class Parsed(Exception):
    """The arguments of a script are read; the work would start here."""


@pytest.mark.parametrize(("page", "line"), SCRIPTS)
def test_the_arguments_of_a_script_parse(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to where the script has read them, of the toy and of every benchmark."""
    script, *words = shlex.split(line, comments=True)[1:]
    if script == "examples/toy":
        assert isinstance(parse(f"python {script}", draw_toy, words), dict), page
        return
    read = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: Any) -> None:
        read(parser, *args)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(sys, "argv", [script, *words])
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    with pytest.raises(Parsed):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_every_python_file_exists() -> None:
    """By its path, or by a part of it from the right; CONTRIBUTING adds some that are not there."""
    folders = ("src", "tests", "benchmarks", "examples")
    files = [f"/{path.relative_to(ROOT).as_posix()}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    added = set(re.findall(r"`(src/longtail/[\w/]+\.py)`:", PAGES["CONTRIBUTING.md"]))
    assert "src/longtail/losses/vs.py" in added
    for page, text in PAGES.items():
        if page != "CHANGELOG.md":
            for name in set(re.findall(r"(?<![\w*])[\w./-]*\w\.py\b", text)) - added:
                assert any(file.endswith(f"/{name}") for file in files), f"{page}: {name}"


def test_every_command_is_in_the_readme_table() -> None:
    table = re.findall(r"^\| `longtail (\w+)", README, flags=re.MULTILINE)
    assert set(table) == set(COMMANDS)


def test_setting_up_takes_two_commands() -> None:
    assert [line for line in code_lines(README) if line.startswith("make")] == ["make demo", "make test"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page, text in PAGES.items():
        named = {line.split()[1] for line in code_lines(text) if line.startswith("make ")}
        assert named <= targets, page


def test_every_recipe_exists() -> None:
    pattern = r"(?<![\w./-])(?:cifar-lt|imagenet-lt|inaturalist|places-lt|demo)/[a-z][a-z-]*"
    named = {name for text in PAGES.values() for name in re.findall(pattern, text)}
    assert len(named) > 10
    assert named <= set(list_recipes())


def test_the_recipe_page_lists_all_recipes() -> None:
    section = PAGES["docs/recipes.md"].split("## Which there are")[1].split("A recipe names no source")[0]
    listed = set()
    for row in section.splitlines():
        folders, _, names = row.strip("| ").partition(" | ")
        for folder in re.findall(r"`([\w-]+)/`", folders):
            listed |= {f"{folder}/{name}" for name in re.findall(r"`([\w-]+)`", names)}
    assert listed == set(list_recipes())


def test_every_option_exists() -> None:
    options = flatten(asdict(RunConfig()))
    pattern = r"--((?:data|model|stage1|stage2|training)\.\w[\w.]*\w)"
    for page, text in PAGES.items():
        for name in re.findall(pattern, text):
            if ".loss.options." not in name:
                assert name in options, f"{page}: --{name}"


def test_every_name_of_the_library_exists() -> None:
    for page, text in PAGES.items():
        for name in set(re.findall(r"`(longtail(?:\.\w+)+)", text)):
            assert resolves(name), f"{page}: {name}"
        if page != "CONTRIBUTING.md":
            for name in set(re.findall(r"`(\w+Loss|DeferredReweighting)\b", text)) - {"CrossEntropyLoss"}:
                assert hasattr(losses, name), f"{page}: {name}"


def resolves(name: str) -> bool:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            value: Any = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                value = getattr(value, part, None)
            return value is not None
    return False


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_described_with_its_own_defaults(name: str) -> None:
    kind = LOSSES[name].__name__
    heading = re.search(rf"^### .*`{kind}`, `{name}`$", METHODS, flags=re.MULTILINE)
    assert heading is not None
    section = METHODS[heading.end() :].split("\n###")[0].split("\n## ")[0]
    specific = set(loss_options(name)) - set(loss_options("weighted"))
    assert all(f"`{option}`" in section for option in specific), specific
    for option, value in re.findall(r"`(\w+)`(?: \w+(?:\(t\))?)? \(([\d.]+)\b", section):
        assert loss_options(name)[option] == float(value), option
    assert kind in README


def test_each_equation_is_pointed_at_once() -> None:
    methods = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    numbered = re.findall(r"^ {4,}.*  \((\d+)\)$|^\|.* \((\d+)\) \|", methods, flags=re.MULTILINE)
    equations = [int(first or second) for first, second in numbered]
    assert equations == list(range(1, 36))
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    assert sorted(map(int, re.findall(r"# Equation (\d+)", source))) == equations


def test_the_figures_page_names_what_metrics_hold(workplace: Path) -> None:
    metrics = yaml.safe_load((workplace / "runs/gcl/metrics.json").read_text())
    section = METHODS.split("## Figures")[1]
    cells = re.findall(r"^\| (`.*?) \|", section, flags=re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"\w+", cell)}
    assert named == set(metrics["test"]) - {"num_images"}


def test_the_readme_lists_the_files_of_a_run(workplace: Path) -> None:
    section = README.split("## What a run leaves")[1].split("Nothing in it")[0]
    listed = re.findall(r"^ {6}([\w.]+/?)", section, flags=re.MULTILINE)
    there = [path.name + "/" * path.is_dir() for path in (workplace / "runs/gcl").iterdir()]
    # A finished run has dropped its checkpoint, and before this one nothing was chosen.
    assert sorted(set(listed) - {"checkpoint/", "portfolio.json", "search.json"}) == sorted(there)


def test_the_readme_says_what_each_dependency_earns() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["demo"]
    section = README.split("## What it depends on, and why")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z][\w, -]*?)(?: \(extra `demo`\))? \|", section, flags=re.MULTILINE)
    listed = {name for row in rows for name in row.split(", ")} - {"package"}
    assert listed == {re.split(r"[\[>=<]", name)[0] for name in needed}


def test_the_changelog_has_this_version() -> None:
    assert f"## [{longtail.__version__}]" in PAGES["CHANGELOG.md"]


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}-{i}" for i, (page, _) in enumerate(BLOCKS)])
def test_python_runs(page: str, block: str) -> None:
    exec(compile(block, page, "exec"), {"__name__": "__main__"})


def test_the_recipe_of_your_own_resolves(workplace: Path) -> None:
    overlay = read_config_file(workplace / "mine.yaml").values
    assert base_config("cifar-lt/ce", overlay=overlay)["stage1"]["loss"]["options"]["max_margin"] == 0.3
    added = yaml.safe_load(fenced(PAGES["docs/recipes.md"], "yaml")[1])
    folder = Path(str(importlib.resources.files("longtail") / "recipes"))
    assert all((folder / f"{name}.yaml").is_file() for name in added["extends"])
    assert added["config"].keys() <= load_recipe("cifar-lt/gcl").config.keys()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{page} links to {target}"


def anchors(text: str) -> set[str]:
    """Anchors of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
