"""The ``autotune`` command. Nothing heavy is imported until a command runs."""
