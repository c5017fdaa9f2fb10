"""The command lines of the installed package; tools/ has the same for a checkout."""

import sys
from collections.abc import Callable
from pathlib import Path


def exit_code(run: Callable[[], None]) -> int:
    """Run a command: 0, or 1 with one line on stderr for what people can mend, 130 if it was interrupted."""
    try:
        run()
    except (ValueError, OSError, ImportError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
