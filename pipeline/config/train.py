"""Section `train`: objective, optimizer and schedule (paper, Table 6)."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1)]


class LoraParams(Section):
    """Adapters beside frozen weights. Without dropout: a recomputed activation would draw other random numbers, and
    neither micro-batches nor the number of processes may change a result."""

    rank: Count = 16
    """Columns of A's transpose and of B. More can learn more, and cost memory: vLLM serves up to 16 unless told."""
    alpha: Count = 32
    """The adapter's output is multiplied by alpha / rank."""
    target_modules: Literal["all-linear"] | Annotated[list[Name], Field(min_length=1)] = "all-linear"
    """Last parts of the names of linear modules, such as q_proj; all-linear: every one but the output head."""
    use_rslora: bool = False
    """Multiply by alpha / sqrt(rank) in place of alpha / rank."""
    merge: bool = False
    """Leave a whole model with the adapter added to its weights, not the adapter alone."""


class TrainParams(Section):
    """An objective on cached weights and cached reference log-probs."""

    objective: str = "twdpo"
    """One of `pipeline.config.objective.SPECS`; what it takes of weights, reference and third responses is there."""
    beta: Positive = 5e-3
    """As in the objective's formula: IPO's tau, ORPO's lambda; not read by those that have none."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What the objective takes beside beta, such as `{gamma: 1.4}` of SimPO (`pipeline.config.objective`)."""
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    """rmsprop: the code of TDPO, TI-DPO and TIS-DPO; torch's, with smoothing 0.99 and no momentum. `adam_beta1` and
    `adam_beta2` play no part in it, `adam_epsilon` is its epsilon too, and its weight decay is part of the gradient."""
    learning_rate: Positive = 1e-6
    weight_decay: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    adam_beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    adam_beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    adam_epsilon: Positive = 1e-8
    schedule: Literal["cosine", "constant"] = "cosine"
    """Of the learning rate after its warmup. cosine: half of one, down to 0. constant: the code of TDPO, TI-DPO and
    TIS-DPO, with its warmup (`pipeline.train.schedule`)."""
    warmup_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """Of all steps, rounded up."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """In place of `warmup_ratio`."""
    max_grad_norm: Positive = 1.0
    epochs: Count = 1
    max_steps: Count | None = None
    """Stop after so many optimizer steps; the schedule ends there too."""
    global_batch_pairs: Count = 32
    """Pairs in one optimizer step, over all processes; the last, incomplete batch of an epoch is dropped."""
    eval_every_steps: Count = 500
    checkpoint_every_steps: Count = 500
    best_metric: Literal["loss", "accuracy"] = "loss"
    """The validation figure by which the kept checkpoint is chosen."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the forward and backward passes; master weights, gradients' reduction and losses are float32."""
    seed: int = 42
    reference_tolerance: Positive | None = None
    """Largest allowed difference between the policy's first log-probs and the cached reference; none: by dtype."""
    lora: LoraParams | None = None
    """Train adapters alone; none: every weight. Frozen weights are held in `dtype`, without a float32 master."""

    @model_validator(mode="after")
    def _reaches_a_checkpoint(self) -> "TrainParams":
        if self.adam_beta1 >= self.adam_beta2:
            raise ValueError(f"adam_beta1 ({self.adam_beta1}) must be below adam_beta2 ({self.adam_beta2})")
        return self
