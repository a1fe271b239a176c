"""``python -m autotune.cli``, where the console script is not installed."""

from autotune.cli.app import main

if __name__ == "__main__":
    main()
