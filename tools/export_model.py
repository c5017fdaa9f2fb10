"""A model as an ONNX or torch.export file: see `--help`, and docs/export_and_weights.md."""

import sys

from vidformers.cli.export_model import main

if __name__ == "__main__":
    sys.exit(main())
