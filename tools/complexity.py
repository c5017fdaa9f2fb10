"""What a registered model costs: see `python tools/complexity.py --help`, and docs/export_and_weights.md."""

import sys

from vidformers.cli.complexity import main

if __name__ == "__main__":
    sys.exit(main())
