"""``python -m mfuroof.cli``: the same as the ``mfuroof`` script."""

import sys

from mfuroof.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
