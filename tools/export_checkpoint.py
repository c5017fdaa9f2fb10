"""One file of a sharded checkpoint: see `--help`, and docs/distributed.md."""

import sys

from vidformers.cli.export_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
