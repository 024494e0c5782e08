"""longtail push: a run, with a model card, to a repository of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from longtail.commands.terminal import print_line


def push(
    run: Annotated[str, "RUN"],
    repo_id: Annotated[str, "OWNER/NAME"],
    *,
    private: bool = False,
    revision: Annotated[str, "BRANCH"] | None = None,
    include: Annotated[Sequence[str], "FILE ..."] = (),
) -> None:
    """Upload a RUN with a model card to the Hugging Face hub.

    Args:
        run: RUN folder
        repo_id: OWNER/NAME of the model repository; made if it does not exist
        private: make a new repository private
        revision: branch to write to; made if missing
        include: more files of the run, such as its report
    """
    from longtail.predict.hub import push_run

    print_line(push_run(run, repo_id, private=private, revision=revision, include=list(include)))
