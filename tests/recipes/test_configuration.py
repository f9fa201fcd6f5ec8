"""TRL takes the configurations, with the values of METHODS 5.9 and 5.10, for any number of processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from recipes import grpo, logic_rl
from recipes.online import grpo_settings


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)


def test_grpo(tmp_path: Path) -> None:
    config = grpo.configuration(tmp_path, use_cpu=True, bf16=False)
    assert (config.loss_type, config.num_generations, config.beta) == ("grpo", 64, 0.04)
    assert (config.epsilon, config.epsilon_high, config.learning_rate) == (0.2, None, 1e-6)
    assert (config.scale_rewards, config.use_bias_correction_kl, config.entropy_coef) == ("group", False, 0.0)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 1024
    assert config.generation_batch_size == 1024
    assert config.model_init_kwargs == {"use_safetensors": True}
    assert not config.trust_remote_code
    assert config.report_to == []


def test_logic_rl(tmp_path: Path) -> None:
    config = logic_rl.configuration(tmp_path, use_cpu=True, bf16=False)
    assert (config.num_generations, config.learning_rate, config.beta) == (16, 3e-7, 0.001)
    assert (config.max_completion_length, config.num_train_epochs) == (2048, 5)
    assert (config.loss_type, config.use_bias_correction_kl) == ("bnpo", False)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps == 512
    assert config.generation_batch_size == 1024
    assert logic_rl.MAX_PROMPT_TOKENS == 400


def test_a_users_changes_come_last(tmp_path: Path) -> None:
    changes = {"num_generations": 4, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    config = grpo.configuration(tmp_path, use_cpu=True, bf16=False, beta=0.0, **changes)
    assert (config.generation_batch_size, config.beta, config.epsilon) == (4, 0.0, 0.2)
    config = grpo.configuration(tmp_path, use_cpu=True, bf16=False, generation_batch_size=2048)
    assert config.steps_per_generation == 256


def test_more_processes_make_no_larger_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    values = grpo_settings(logic_rl.SETTINGS, 512, 2, {})
    assert (values["gradient_accumulation_steps"], values["steps_per_generation"]) == (2, 4)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"512 completions .* not a multiple of 3 processes times .*=64"):
        grpo_settings(logic_rl.SETTINGS, 512, 2, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1, "betta": 2}, "betta, learning_rat: TRL's GRPOConfig has no such field"),
        ({"num_generations": 7}, "GRPOConfig refuses the settings: .*num_generations"),
        ({"per_device_train_batch_size": 0}, "not a multiple of"),
    ],
)
def test_bad_changes_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grpo.configuration(tmp_path, use_cpu=True, bf16=False, **changes)


def test_nothing_is_reported_to_anybody(root: Path) -> None:
    """In a process of its own, without the tests' offline switch: the library reads its own when it is imported."""
    code = "import recipes.grpo, trl; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    hidden = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
