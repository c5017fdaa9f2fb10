"""The command lines of the installed package; tools/ has the same for a checkout."""

import sys
from collections.abc import Callable
from pathlib import Path


def exit_code(run: Callable[[], int | None], *, wrong: int = 1) -> int:
    """Run a command: its own code (None is 0), `wrong` with one line on stderr for what people can mend, 130
    if it was interrupted."""
    try:
        return run() or 0
    except (ValueError, OSError, ImportError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return wrong
    except KeyboardInterrupt:
        return 130
