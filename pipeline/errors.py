"""Errors for the person who runs the pipeline.

Every message says what is wrong, where (file, row or params path) and what to do about it. Stages print them without a
traceback; anything that is not a :class:`PipelineError` is a defect of this project and keeps its traceback.
"""


class PipelineError(Exception):
    """An expected failure with a remedy in its message."""


class ConfigError(PipelineError):
    """params.yaml holds something that no stage can work with; the message lists every problem with its path."""


class DataError(PipelineError):
    """A data source is missing, is not what its name says, or holds no usable pair."""


class ModelError(PipelineError):
    """A model folder, tokenizer, chat template or architecture cannot be used as asked."""


class ShardError(PipelineError):
    """A Parquet shard or artifact folder is missing, torn, or was made by other params."""


class LockError(PipelineError):
    """Another process is writing the same artifact."""


class NonFiniteError(PipelineError):
    """A score, weight, log-prob or loss is NaN or infinite; the message names the pair."""


class CheckpointError(PipelineError):
    """A training checkpoint belongs to another run, or is not whole."""
