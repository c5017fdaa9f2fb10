"""One .safetensors file of any weights: see `--help`, and docs/export_and_weights.md."""

import sys

from vidformers.cli.convert_checkpoint import main

if __name__ == "__main__":
    sys.exit(main())
