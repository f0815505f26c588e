"""``python -m wavecomp``: the console script, where it is not on the path."""

from wavecomp.cli import main

main()
