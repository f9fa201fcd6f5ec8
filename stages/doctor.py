"""`make doctor`: check params, data, models, memory and disk before any work. Exit status 1 when it will fail."""

import os
import sys
from pathlib import Path

from pipeline.report.doctor import examine


def main() -> int:
    """Print every finding as it comes."""
    errors = 0
    for finding in examine(Path(os.environ.get("DVC_ROOT", ".")).resolve()):
        errors += finding.level == "error"
        print(f"{finding.level:8}{finding.text}", flush=True)
    print(f"{errors} error(s)" if errors else "nothing stands in the way")
    return min(errors, 1)


if __name__ == "__main__":
    sys.exit(main())
