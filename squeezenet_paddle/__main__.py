"""`python -m squeezenet_paddle VERB ...` is the same as `squeezenet VERB ...`."""

import sys
from pathlib import Path

if (
    not __package__
):  # run by its path, as each process of a training run is: see the package, not its parts
    sys.path[0] = str(Path(__file__).parents[1])

from squeezenet_paddle.cli.main import main

if __name__ == "__main__":
    main()
