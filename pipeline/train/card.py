"""The model card, `README.md` of a policy's folder: how it was made, from what, how well it did, how to load it.

It is a function of the run's params, inputs and numbers: no date, no path of this machine, no text of any pair. Its
head is what the model hub reads.
"""

import io
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from ruamel.yaml import YAML

from pipeline.config.train import TrainParams
from pipeline.io.atomic import write_text
from pipeline.models.manifest import Manifest

CARD = "README.md"
_TAGS = ("attentionpo", "dpo", "preference-optimization")
_PAPER = "Token-weighted Direct Preference Optimization with Attention"
_LOSSES = {
    "twdpo": "TwDPO, Eq. 5 of the paper",
    "twdpo_length_normalized": "TwDPO without the factor |y|, Eq. 15 of the paper",
}
_LIBRARIES = ("torch", "transformers", "tokenizers")
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for `--max-lora-rank`."""
_MERGED = "Low-rank adapters (LoRA) were trained, and are added to the weights here."
_LOAD_MODEL = """\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "models/policy"  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
```

```sh
vllm serve models/policy
```"""
_LOAD_ADAPTER = """\
This folder holds the adapter alone; its start is loaded with it.

```python
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

folder = "models/policy"  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype="auto")
```

```sh
vllm serve {start} --enable-lora --max-lora-rank {rank} --lora-modules policy=models/policy
```"""


def write_card(
    folder: Path, params: TrainParams, depends: Mapping[str, Any], start: Manifest, summary: Mapping[str, Any]
) -> None:
    """Write the card of a finished run into its policy's folder.

    Args:
        depends: what the result depends on: `inputs`, digests by artifact, and `code`, the digest of the code.
        summary: the run in numbers, as `pipeline.train.finish.Finished` holds it.
    """
    write_text(folder / CARD, _card(params, depends, start, summary))


def _card(params: TrainParams, depends: Mapping[str, Any], start: Manifest, summary: Mapping[str, Any]) -> str:
    adapter = params.lora is not None and not params.lora.merge
    head = ModelCardData(
        library_name="peft" if adapter else "transformers",
        base_model=start.repo if start.source == "hub" else None,
        base_model_relation=("adapter" if adapter else "finetune") if start.source == "hub" else None,
        pipeline_tag="text-generation",
        tags=[*_TAGS, *(["lora"] if params.lora else [])],
    )
    revision = f" at revision `{start.revision}`" if start.revision else ""
    sections = [
        f"---\n{head.to_yaml()}\n---",
        f"# {'Adapter' if adapter else 'Policy'} trained from {_plain(start.name)}",
        f"`{_plain(start.name)}`{revision}, aligned with preference pairs by the pipeline of AttentionPO (*{_PAPER}*)."
        f" The objective was `{params.objective}`: {_LOSSES.get(params.objective, 'see its source')}."
        + (f" {_MERGED}" if params.lora and not adapter else ""),
        "## Loading",
        _LOAD_ADAPTER.format(start=_plain(start.name), rank=_vllm_rank(params)) if adapter else _LOAD_MODEL,
        "## Training",
        f"{summary['pairs']:,} pairs, {summary['validation_pairs']:,} for validation; {summary['steps']:,} steps of"
        f" {params.global_batch_pairs:,} pairs, of which step {summary['kept_step']:,} was kept.",
        _figures(summary),
        "Means over the first and the last tenth of the training's steps, and over the validation pairs at the kept"
        " step. Rewards are the objective's own; `plain` is the unweighted sum of log-ratios, without beta.",
        "## Params",
        f"```yaml\n{_yaml({'train': params.model_dump()})}```",
        "## Made from",
        _table(("what", "sha256"), [(name, f"`{digest}`") for name, digest in _digests(depends, start)]),
        _table(("library", "version"), [(name, version(name)) for name in _libraries(params)]),
    ]
    return "\n\n".join(sections) + "\n"


def _figures(summary: Mapping[str, Any]) -> str:
    columns = [summary[part] for part in ("first_tenth", "last_tenth", "validation")]
    rows = [
        (name, *(f"{column[name]:.4g}" if name in column else "" for column in columns))
        for name in summary["first_tenth"]
    ]
    return _table(("figure", "first tenth", "last tenth", "validation"), rows)


def _digests(depends: Mapping[str, Any], start: Manifest) -> list[tuple[str, str]]:
    inputs = {name: digest for name, digest in depends["inputs"].items() if name != "model"}
    return [("start", start.digest), *inputs.items(), ("code", depends["code"])]


def _libraries(params: TrainParams) -> tuple[str, ...]:
    return (*_LIBRARIES, "peft") if params.lora else _LIBRARIES


def _vllm_rank(params: TrainParams) -> int:
    assert params.lora is not None
    rank = params.lora.rank
    return next((allowed for allowed in _VLLM_RANKS if allowed >= rank), rank)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yaml(value: Mapping[str, Any]) -> str:
    stream = io.StringIO()
    yaml = YAML()
    yaml.representer.add_representer(
        type(None), lambda node, _: node.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    yaml.dump(dict(value), stream)
    return stream.getvalue()


def _plain(name: str) -> str:
    """A folder's name as text that ends neither code nor line."""
    return name.replace("`", "'").replace("\n", " ")
