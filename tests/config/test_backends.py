"""Which extraction backend can do what, said before any work."""

import pytest

from pipeline.config.check import check_all
from pipeline.errors import ConfigError
from tests.config.test_config import write

FLASH = {
    "runtime.attention": "flash_attention_2",
    "runtime.share_prompts": False,
    "reference.dtype": "bfloat16",
    "train.dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"runtime.backend": "vllm", "extract.source": "rollout"},
            r"extract\.source: rollout .* set runtime\.backend: transformers",
        ),
        ({"runtime.tensor_parallel": 2}, r"runtime\.tensor_parallel: 2 is for runtime\.backend: vllm alone"),
        ({"runtime.backend": "abacus"}, r"runtime\.backend: .*'transformers' or 'vllm'"),
        ({"runtime.vllm_kv_cache_gib": 0}, r"runtime\.vllm_kv_cache_gib: .*greater than 0"),
        (
            {"runtime.attention": "flash_attention_2", "runtime.share_prompts": False},
            r"runtime\.attention: flash_attention_2 has no float32",
        ),
        ({"runtime.attention": "flash_attention_2"}, r"no shared prompts; set runtime\.share_prompts: false"),
        (
            {**FLASH, "weights.source": "gradient", "score.dtype": "float32"},
            r"flash_attention_2 has no float32, and weights\.source: gradient reads raw scores; set score\.dtype",
        ),
        ({"runtime.gpu_memory_utilization": 1.5}, r"runtime\.gpu_memory_utilization: .*less than or equal to 1"),
    ],
)
def test_refused_with_the_params_path(changes, message, tmp_path, root):
    with pytest.raises(ConfigError, match=message):
        check_all(write(tmp_path, changes, root))


@pytest.mark.parametrize("heads", ["mean", "each", [0, 5]])
@pytest.mark.parametrize("query", ["predicting_position", "verdict_token_row"])
def test_vllm_takes_every_choice_of_heads_and_query(heads, query, tmp_path, root):
    changes = {"runtime.backend": "vllm", "runtime.tensor_parallel": 3, "extract.heads": heads, "extract.query": query}
    check_all(write(tmp_path, changes, root))


@pytest.mark.parametrize(
    "changes",
    [
        {"weights.source": "gradient", "score.dtype": "bfloat16"},
        {"weights.source": "random", "score.dtype": "float32"},
        # It generates, for which runtime.attention plays no part.
        {"weights.source": "verbalized", "score.dtype": "float32"},
    ],
)
def test_flash_attention_refuses_float32_only_where_it_computes(changes, tmp_path, root):
    check_all(write(tmp_path, {**FLASH, **changes}, root))
