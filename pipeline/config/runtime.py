"""Section `runtime`: what cannot change a result beyond float tolerance. No stage lists it, so it re-runs nothing.

Of a text that a model writes or samples, float tolerance can be a token, where two are as good as equally likely, and
what follows it.
"""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Section

Count = Annotated[int, Field(ge=1)]


class RuntimeParams(Section):
    """Devices, batch sizes and logging."""

    backend: Literal["auto", "transformers", "vllm"] = "auto"
    """Of `extract`, and of the answers that a judge writes in `score`. vllm: prefix caching and many prompts at once;
    tested with vLLM 0.32.0, and in every run its first rows are compared with those of transformers. auto: transformers
    for `extract`; for answers vllm, where it is installed as tested and computes the judge as transformers does."""
    tensor_parallel: Count = 1
    """Devices (on the CPU: processes) that share one judge under vLLM. It divides the number of heads."""
    vllm_kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory of vLLM's keys and values on each device, GiB; every layer of `extract.layers` takes 1 / (2 · number of
    the judge's layers) of it more. None: on CUDA what `gpu_memory_utilization` leaves, on the CPU 4 or a quarter of
    what is free."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each CUDA device's memory that vLLM takes, captured keys included."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    """CPU threads of torch; none: torch's own choice."""
    token_budget: Count = 8192
    """Tokens in one forward batch of `extract`, `score`, `reference`, `third` and `evaluate`; under vLLM, in one step.
    Attention rollout keeps the queries and keys of all layers of a batch, and wants fewer."""
    workers: Count | None = None
    """Processes of `extract`, `score`, `reference` and `third`; none: one for each CUDA device (with `tensor_parallel`:
    for each group of them), one on the CPU. Under transformers their number changes no byte where `threads` is set;
    where it is not, they share the cores."""
    processes: Count = 1
    """Training processes, launched by torchrun when more than one."""
    micro_batch_tokens: Count = 8192
    """Tokens in one forward and backward pass of one training process; a pair of more has a pass of its own."""
    share_prompts: bool = True
    """Compute a prompt once for all responses of its pair, in `score`, `reference` and `train`."""
    attention: Literal["segments", "sdpa", "flash_attention_2", "flex_attention"] = "segments"
    """Of `score`, `reference`, `third` and `train`. segments: sequence by sequence, on CUDA by torch's flash kernels;
    for every supported model. The others are transformers' own: sdpa (a mask of tokens × tokens), and on CUDA
    flash_attention_2 (without shared prompts) and flex_attention."""
    activation_checkpointing: Literal["none", "full"] | Count = "none"
    """Activations that are computed again in the backward pass instead of kept: of every decoder block (full), or of
    every n-th."""
    offload_activations: bool = False
    """Keep what the backward pass needs in the memory of the CPU. Of use with CUDA alone."""
    compile: bool = False
    """Compile the decoder blocks with torch.compile: minutes at the start, fewer passes over memory in every step."""
    keep_checkpoints: Count = 2
    """Newest checkpoints of a training that stay on disk until it ends, besides the best one."""
    trackers: list[Literal["tensorboard", "wandb"]] = Field(default=[])
    """Where the curves of training are shown besides DVC: below `reports/tensorboard/` and `reports/wandb/`. W&B is
    offline unless WANDB_MODE says otherwise. Both are in `pip install 'attentionpo[watch]'`."""
    allow_mixed: bool = False
    """Let a run go on with another backend or device kind than the one that began it."""
    log_level: Literal["DEBUG", "INFO", "WARNING"] = "INFO"

    @property
    def attention_backend(self) -> Literal["transformers", "vllm"]:
        """What `backend` comes to for `extract`."""
        return "transformers" if self.backend == "auto" else self.backend
