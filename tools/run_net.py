"""Train, test and analyse as one YAML file says: see `python tools/run_net.py --help`, and the README."""

import sys

from vidformers.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
