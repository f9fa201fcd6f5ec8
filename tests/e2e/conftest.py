"""A whole project in a temporary folder: this code, few sample pairs, a tiny random model, tiny shards."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

STAGES = (
    "model",
    "prepare",
    "needs",
    "render",
    "extract",
    "postprocess",
    "tokenize",
    "score",
    "realign",
    "reference",
    "third",
    "train",
    "evaluate",
    "report",
)

TINY: dict[str, Any] = {
    "model.judge": {"source": "folder", "name": "tiny", "revision": None, "chat_template": None},
    "prepare.limit": 24,
    "prepare.pairs_per_shard": 4,
    "extract.layers": [0, 1],
    "extract.dtype": "float32",
    "postprocess.layer": 1,
    "postprocess.top_tokens_min_count": 5,
    "score.dtype": "float32",
    "reference.dtype": "float32",
    "train.dtype": "float32",
    "train.epochs": 2,
    "train.learning_rate": 1e-3,
    "train.global_batch_pairs": 4,
    "train.eval_every_steps": 3,
    "train.checkpoint_every_steps": 2,
    "evaluate.bootstrap_samples": 100,
    "evaluate.max_new_tokens": 4,
    "runtime.threads": 1,
}


@dataclass(frozen=True)
class Project:
    """A copy of this repository that can be run and broken."""

    root: Path

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}

    def start(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def run(self, *command: str, fails: bool = False) -> str:
        process = self.start(*command)
        output, _ = process.communicate(timeout=400)
        assert (process.returncode != 0) == fails, output
        return output

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)

    def stage(self, name: str, fails: bool = False) -> str:
        return self.run(sys.executable, "-m", f"stages.{name}", fails=fails)

    def set(self, changes: Mapping[str, Any]) -> None:
        yaml = YAML()
        file = self.root / "params.yaml"
        params = yaml.load(file.read_text(encoding="utf-8"))
        for key, value in changes.items():
            section, name = key.split(".")
            params[section][name] = value
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(params, stream)

    def copy(self, target: Path) -> "Project":
        shutil.copytree(self.root, target, symlinks=True)
        return Project(target)

    def files(self, *folders: str) -> dict[str, bytes]:
        return {
            str(file.relative_to(self.root)): file.read_bytes()
            for folder in folders
            for file in sorted((self.root / folder).rglob("*"))
            if file.is_file()
        }


@pytest.fixture(scope="session")
def fresh_project(tmp_path_factory: pytest.TempPathFactory, root: Path, default_model_dir: Path) -> Project:
    """Code, sample and tiny model; nothing has run yet."""
    target = tmp_path_factory.mktemp("project") / "repo"
    target.mkdir()
    for folder in ("pipeline", "stages", "profiles", "data/sample"):
        shutil.copytree(root / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(root / file, target)
    _tiny_model(target / "tiny", default_model_dir)
    project = Project(target)
    project.set(TINY)
    return project


@pytest.fixture(scope="session")
def run_project(fresh_project: Project, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Project:
    """The same after one `dvc repro`, under git."""
    project = fresh_project.copy(tmp_path_factory.mktemp("run") / "repo")
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    shutil.copy(root / ".dvc" / "config", project.root / ".dvc" / "config")
    project.commit("a clone")
    project.run("dvc", "repro")
    project.commit("first run")
    return project


def _tiny_model(folder: Path, default_model_dir: Path) -> None:
    """A random Llama of two layers with the default model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(default_model_dir, local_files_only=True)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
