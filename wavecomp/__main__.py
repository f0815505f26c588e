"""``python -m wavecomp``: the console script, where it is not on the path."""

from wavecomp.cli import main

if __name__ == "__main__":
    main()
