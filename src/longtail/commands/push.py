"""longtail push: a run, with a model card, to a repository of the Hugging Face hub."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.terminal import as_dict, print_line

GRAMMAR = "RUN OWNER/NAME [--private] [--revision BRANCH]"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("run", type=str, help="RUN folder")
    parser.add_argument("repo_id", type=str, help="OWNER/NAME of the model repository; made if it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", type=str | None, default=None, help="branch to write to; made if missing")
    parser.add_argument(
        "--include", type=str, nargs="+", default=[], help="further files of the run, such as its report"
    )


def run(flags: Namespace) -> None:
    """Upload a RUN with a model card to the Hugging Face hub."""
    push_command(**as_dict(flags))


def push_command(
    run: str, repo_id: str, *, private: bool = False, revision: str | None = None, include: list[str] | None = None
) -> None:
    """Upload a run with a model card to the Hugging Face hub."""
    from longtail.predict.hub import push_run

    print_line(push_run(run, repo_id, private=private, revision=revision, include=include or []))
