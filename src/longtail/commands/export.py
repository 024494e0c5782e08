"""longtail export: a run as one file that needs no longtail."""

from __future__ import annotations

from typing import Literal

from jsonargparse import ArgumentParser, Namespace

from longtail.commands.destination import destination, messages_apart, refuse_terminal
from longtail.commands.terminal import as_dict, print_line
from longtail.errors import UsageError

GRAMMAR = "RUN --format onnx|torch --out FILE"


def takes(parser: ArgumentParser) -> None:
    """Add its arguments."""
    parser.add_argument("run", type=str, help="RUN folder, or hf:OWNER/NAME")
    parser.add_argument("--format", type=Literal["onnx", "torch"], default="onnx", help="ONNX, or torch.export's .pt2")
    parser.add_argument("--out", type=str, required=True, metavar="FILE", help="where to write; or -")
    parser.add_argument(
        "--input", type=Literal["uint8", "float32"], default="uint8", help="type of the pixels, 0 to 255 in both"
    )
    parser.add_argument("--images", type=str | None, default=None, help="check on these; the run's examples by default")


def run(flags: Namespace) -> None:
    """Export a RUN to one ONNX or PyTorch file, checked on real images."""
    export_command(**as_dict(flags))


def export_command(
    run: str,
    out: str,
    *,
    format: Literal["onnx", "torch"] = "onnx",  # noqa: A002 - as it is typed
    input: Literal["uint8", "float32"] = "uint8",  # noqa: A002
    images: str | None = None,
) -> None:
    """Export a run to one file, checked on real images."""
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
