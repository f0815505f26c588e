"""``wavecomp bench``: the benchmarks, as ``python -m wavecomp.benchmarks`` runs them."""

from wavecomp.benchmarks.__main__ import add_arguments, run

__all__ = ["add_arguments", "run"]
