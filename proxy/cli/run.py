"""What `make run` starts: the demo where no provider's variable is set, else `bursar serve`. Variables only, no probing."""

import os
import sys

from proxy.__main__ import main
from proxy.config.environment import names_of_provider_variables


def run() -> int:
    """Start the demo or serve."""
    return main(["serve"] if names_of_provider_variables(os.environ) else ["demo"])


if __name__ == "__main__":
    sys.exit(run())
