"""``wavecomp plot``: a figure of a model, of what it makes of a text, or of runs."""

from __future__ import annotations

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wavecomp import plots
from wavecomp.bands import Bands
from wavecomp.codes import Codes
from wavecomp.commands.checkpoint import Model, add_checkpoint, any_model
from wavecomp.commands.text import add_text, check_kept, name_of, output, read_text
from wavecomp.compressors import RatioController
from wavecomp.files import CONFIG, build, load
from wavecomp.networks import ChunkReduce, ChunkReduceLM
from wavecomp.plots.style import new_figure
from wavecomp.positions import DyadicPositionCode, PositionFrequencyEncoding
from wavecomp.report import band_layout, surprisal
from wavecomp.report.figure import SUFFIXES, Drawing, write_figure
from wavecomp.wavelets import BestBasis1d, FilterBank


def add_arguments(parser: ArgumentParser) -> None:
    """What can be set."""
    kinds = parser.add_subparsers(dest="plot", metavar="PLOT", required=True)
    for name, (draw, arguments) in PLOTS.items():
        own = kinds.add_parser(name, help=draw.__doc__, description=draw.__doc__)
        for add in arguments:
            add(own)
        own.add_argument(
            "--output", required=True, type=output(*SUFFIXES), metavar="FILE", help=f"one of {', '.join(SUFFIXES)}"
        )


def run(arguments: Namespace) -> None:
    """Write the figure, and a line that says so."""
    if "file" in arguments:
        check_kept(arguments.output, arguments.file)
    drawing, of = PLOTS[arguments.plot].draw(arguments)
    write_figure(drawing, arguments.output, title=f"{arguments.plot}: {of}")
    sys.stdout.write(f"{arguments.plot} of {of}: {arguments.output}\n")


def energy(arguments: Namespace) -> tuple[Drawing, str]:
    """The energy of each band in each chunk of a text."""
    read = Read.of(arguments)
    codes = read.codes()
    text = None if arguments.stage else read.text
    drawing = plots.plot_band_energy(codes, stage=arguments.stage, layout=band_layout(read.network), text=text)
    return drawing, read.name


def kept(arguments: Namespace) -> tuple[Drawing, str]:
    """The codes that each chunk of a text keeps, beside what it holds for a language model (its surprisal)."""
    read = Read.of(arguments)
    codes = read.codes()
    bits = surprisal(read.model, read.tokens, codes) if isinstance(read.model, ChunkReduceLM) else None
    return plots.plot_kept_codes(codes, stage=arguments.stage, surprisal=bits), read.name


def scalogram(arguments: Namespace) -> tuple[Drawing, str]:
    """The energy of every coefficient of a text, band by band."""
    read = Read.of(arguments)
    return plots.plot_scalogram(read.bands()), read.name


def tree(arguments: Namespace) -> tuple[Drawing, str]:
    """The packets that the best basis of each chunk of a text keeps."""
    read = Read.of(arguments)
    transform = read.part("transform")
    if not isinstance(transform, BestBasis1d):
        found = "no transform" if transform is None else f"a {type(transform).__name__}"
        raise ValueError(f"checkpoint {arguments.checkpoint} has {found}; a tree to plot has BestBasis1d alone")
    return plots.plot_packet_tree(read.bands()), read.name


def position(arguments: Namespace) -> tuple[Drawing, str]:
    """What tells the codes of a text where they lie and which frequency they are."""
    read = Read.of(arguments)
    encoding = read.part("encoding")
    if not isinstance(encoding, PositionFrequencyEncoding | DyadicPositionCode):
        found = "no encoding" if encoding is None else f"a {type(encoding).__name__}"
        raise ValueError(
            f"checkpoint {arguments.checkpoint} has {found}; allowed: PositionFrequencyEncoding, DyadicPositionCode"
        )
    return plots.plot_position_code(encoding, read.codes()), read.name


def filters(arguments: Namespace) -> tuple[Drawing, str]:
    """What the filter bank of a model has learned, beside what it began as."""
    folder = run_folder(arguments.checkpoint)
    model = load(arguments.checkpoint)
    bank, name = filter_bank(model, arguments.bank)
    # a bank that learns nothing is the one that it began as
    initial = filter_bank(build(folder / CONFIG), arguments.bank)[0] if [*bank.parameters()] else None
    return plots.plot_filter_bank(bank, initial=initial), f"{name} in {arguments.checkpoint}"


def rate(arguments: Namespace) -> tuple[Drawing, str]:
    """Bits against codes per byte of each compressor in a benchmark, task by task."""
    every = results(Path(arguments.file))
    names = list(dict.fromkeys(found["compressor"] for found in every))
    tasks: dict[str, list[Mapping[str, Any]]] = {}
    for found in every:
        tasks.setdefault(found["task"], []).append(found)
    figure = new_figure(height=3.0 * len(tasks))
    for panel, (task, runs) in zip(figure.subplots(len(tasks), squeeze=False).flat, tasks.items()):
        plots.plot_rate_distortion(runs, names=names, ax=panel)
        panel.set_title(f"{panel.get_title()}: {task}", fontsize="small")
    return figure, Path(arguments.file).name


def training(arguments: Namespace) -> tuple[Drawing, str]:
    """The course of a run, from the metrics.csv beside its checkpoint."""
    folder = run_folder(arguments.checkpoint)
    metrics, config = folder / "metrics.csv", folder / CONFIG
    if not metrics.is_file():
        raise FileNotFoundError(f"file {metrics} does not exist; give --checkpoint a checkpoint or folder of a run")
    modules = build(config).modules() if config.is_file() else ()
    targets = {module.target_ratio for module in modules if isinstance(module, RatioController)}
    target = targets.pop() if len(targets) == 1 else None
    return plots.plot_training(metrics, target_ratio=target), str(folder)


class Plot(NamedTuple):
    """How a plot is drawn, which also says of what; and what is to be given."""

    draw: Callable[[Namespace], tuple[Drawing, str]]
    arguments: Sequence[Callable[[ArgumentParser], None]]


def add_stage(parser: ArgumentParser) -> None:
    """The argument ``--stage``."""
    parser.add_argument("--stage", type=int, default=0, metavar="N", help="which Chunk-Network (%(default)s)")


def add_bank(parser: ArgumentParser) -> None:
    """The argument ``--bank``."""
    parser.add_argument("--bank", type=int, default=0, metavar="N", help="which, of a model with several (%(default)s)")


def add_results(parser: ArgumentParser) -> None:
    """The argument ``FILE``, of runs."""
    parser.add_argument("file", metavar="FILE", help="the JSON that `wavecomp bench quality` writes")


PLOTS = {
    "energy": Plot(energy, (add_text, add_checkpoint, add_stage)),
    "kept": Plot(kept, (add_text, add_checkpoint, add_stage)),
    "scalogram": Plot(scalogram, (add_text, add_checkpoint, add_stage)),
    "filters": Plot(filters, (add_checkpoint, add_bank)),
    "tree": Plot(tree, (add_text, add_checkpoint, add_stage)),
    "position": Plot(position, (add_text, add_checkpoint, add_stage)),
    "rate": Plot(rate, (add_results,)),
    "training": Plot(training, (add_checkpoint,)),
}


class Read(NamedTuple):
    """A text, the model that is to read it, and the Chunk-Network that is looked at."""

    text: bytes
    name: str
    model: Model
    network: nn.Module

    @classmethod
    def of(cls, arguments: Namespace) -> Read:
        """What the arguments name.

        Raises:
            ValueError: a model without stages, or a stage that it does not have; and what files and checkpoints are
                refused for.
        """
        text = read_text(arguments.file, arguments.bytes)
        model = any_model(arguments.checkpoint)
        if not isinstance(model.body, ChunkReduce):
            body = type(model.body).__name__
            raise ValueError(f"checkpoint {arguments.checkpoint} has a {body} for a body; allowed: ChunkReduce")
        stages = len(model.body.chunk_networks)
        if not 0 <= arguments.stage < stages:
            raise ValueError(f"--stage {arguments.stage} is out of range; allowed: 0 to {stages - 1}")
        return cls(text, name_of(arguments.file, text), model, model.body.chunk_networks[arguments.stage])

    def part(self, name: str) -> nn.Module | None:
        """A part of the compressor, where it has it."""
        return getattr(getattr(self.network, "compressor", None), name, None)

    @property
    def tokens(self) -> Tensor:
        """``(1, length)``."""
        return torch.tensor([list(self.text)])

    def codes(self) -> Codes:
        """Those of the text."""
        with torch.no_grad():
            return self.model.encode(self.tokens)

    def bands(self) -> Bands:
        """Those of its chunks.

        Raises:
            ValueError: a compressor without a transform.
        """
        transform = self.part("transform")
        if transform is None:
            compressor = type(getattr(self.network, "compressor", None)).__name__
            raise ValueError(f"{compressor} has no transform, and so no bands; allowed: compressors with one")
        found: list[Bands] = []
        hook = transform.register_forward_hook(lambda module, given, made: found.append(made))
        try:
            self.codes()
        finally:
            hook.remove()
        return found[0]


def run_folder(checkpoint: str) -> Path:
    """Where a run left its config and its metrics.

    Raises:
        FileNotFoundError: no such checkpoint or folder.
    """
    path = Path(checkpoint)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint {path} does not exist")
    return path if path.is_dir() else path.parent


def filter_bank(model: nn.Module, number: int) -> tuple[FilterBank, str]:
    """A filter bank of a model, and its path there.

    Raises:
        ValueError: a number that it does not have.
    """
    banks = [(bank, name) for name, bank in model.named_modules() if isinstance(bank, FilterBank)]
    if not 0 <= number < len(banks):
        allowed = f"0 to {len(banks) - 1}" if banks else "a model with a filter bank"
        raise ValueError(f"--bank {number} is not in {type(model).__name__}; allowed: {allowed}")
    return banks[number]


def results(path: Path) -> list[Mapping[str, Any]]:
    """The runs of the quality benchmark in a file, in the words of the plot.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"file {path} does not exist; `wavecomp bench quality` writes one")
    try:
        runs = [record(run) for run in json.loads(path.read_text())["runs"]]
        if not runs:
            raise ValueError("runs is empty")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"file {path} holds no runs of compressors; `wavecomp bench quality` writes some") from error
    return runs


def record(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """A run of the quality benchmark in the words of the plot."""
    # nothing is written for the ratio of a model without codes, which is infinite
    rate = 1 / (run["ratio"] or math.inf)
    return {
        **{key: run[key] for key in ("task", "compressor", "asked", "seed")},
        "bits_per_byte": run["bits"],
        "codes_per_byte": rate,
    }
