"""``python -m benchmarks.robustness.severity`` is the command of `severity`."""

from .severity import main

if __name__ == "__main__":
    main()
