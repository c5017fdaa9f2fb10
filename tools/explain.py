"""Where in a video an answer comes from: see `python tools/explain.py --help`, and docs/explain.md."""

import sys

from vidformers.cli.explain import main

if __name__ == "__main__":
    sys.exit(main())
