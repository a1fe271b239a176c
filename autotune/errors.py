"""Errors of the ``autotune`` package: what a person gave, what was expected, what to do."""

from search.errors import AutotuneError

__all__ = [
    "ArtifactError",
    "AutotuneError",
    "BadInput",
    "BadModel",
    "DynamicInput",
    "LinkFailed",
    "ModelNotFound",
    "NoRecords",
    "UnsupportedModel",
    "VerificationFailed",
]


class ModelNotFound(AutotuneError):
    """No such file and no such example."""

    exit_code = 10


class BadModel(AutotuneError):
    """A file that is not what its name says, or is damaged."""

    exit_code = 11


class UnsupportedModel(AutotuneError):
    """A model with an operator that cannot be imported."""

    exit_code = 12


class DynamicInput(AutotuneError):
    """A model that leaves sizes open which nobody gave."""

    exit_code = 13


class BadInput(AutotuneError):
    """An ``--input`` or ``--batch`` that does not fit the model, or an option that makes no sense."""

    exit_code = 14


class NoRecords(AutotuneError):
    """Nothing in the database applies to this model here."""

    exit_code = 15


class LinkFailed(AutotuneError):
    """No linker, or one that fails: the artifact cannot be written."""

    exit_code = 16


class ArtifactError(AutotuneError):
    """A path that holds no artifact, or one that this machine cannot load."""

    exit_code = 17


class VerificationFailed(AutotuneError):
    """The whole artifact computes something else than the original model."""

    exit_code = 18
