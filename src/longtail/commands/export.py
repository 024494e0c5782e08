"""longtail export and longtail push: a run as one file that needs no longtail, or in a repository of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from longtail.commands.output import destination, messages_apart, print_line, refuse_terminal
from longtail.errors import UsageError


def export(
    run: Annotated[str, "RUN"],
    *,
    out: Annotated[str, "FILE"],
    format: Literal["onnx", "torch"] = "onnx",  # noqa: A002 - as it is typed
    input: Literal["uint8", "float32"] = "uint8",  # noqa: A002
    images: Annotated[str, "IMAGES"] | None = None,
) -> None:
    """Export a RUN to one ONNX or PyTorch file, checked on real images.

    Args:
        run: RUN folder, or hf:OWNER/NAME
        out: file to write, or -
        format: ONNX, or the .pt2 of torch.export
        input: type of the pixels, 0 to 255 in both
        images: images to check the file on; the examples of the run by default
    """
    from longtail.predict.export import export_run

    suffixes = {"onnx": (".onnx",), "torch": (".pt2", ".pt")}
    other = next((name for name, endings in suffixes.items() if name != format and out.lower().endswith(endings)), None)
    if other is not None:
        raise UsageError(f"{out} is the name of a {other} file and --format is {format}: change one of the two.")
    file = destination(out, suffixes[format], example=f"model{suffixes[format][0]}")
    refuse_terminal(file.path, "a model")
    with messages_apart(file):
        report = export_run(run, file.path, format=format, input_type=input, images=images)
        print_line(f"{file}: {report}")
        if report.card is not None:
            print_line(f"{report.card}: its model card")


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
