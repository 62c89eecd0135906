"""Tell the stories of some seeds, as tests/chaos/test_chaos.py does: python -m tests.chaos 137 [SEED ...]"""

import sys

from tests.chaos.test_chaos import name, tell


def main(seeds: list[str]) -> int:
    failed = 0
    for seed in map(int, seeds):
        told = tell(seed)
        print(f"{name(seed)}: {told.took_s:.1f} s; {told.failure or 'all is well'}")
        print(f"  {told.figures}")
        failed += bool(told.failure)
    return 1 if failed or not seeds else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
