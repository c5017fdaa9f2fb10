"""What is in a video: see `python tools/predict.py --help`, and docs/predict.md."""

import sys

from vidformers.cli.predict import main

if __name__ == "__main__":
    sys.exit(main())
