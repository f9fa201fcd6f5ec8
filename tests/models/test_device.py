"""Which devices the processes of a stage have."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.device import worker_devices

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)


def test_on_the_cpu_one_process_or_as_many_as_asked_for() -> None:
    assert worker_devices(None, CPU) == [()]
    assert worker_devices(3, CPU, each=2) == [(), (), ()]


@pytest.mark.usefixtures("visible")
def test_a_process_for_each_device_or_group_of_devices() -> None:
    assert worker_devices(None, CUDA) == [("0",), ("1",), ("2",), ("3",), ("4",)]
    assert worker_devices(2, CUDA) == [("0",), ("1",)]
    assert worker_devices(None, CUDA, each=2) == [("0", "1"), ("2", "3")]
    assert worker_devices(3, CUDA, each=2) == [("0", "1"), ("2", "3"), ("0", "1")]
    with pytest.raises(ConfigError, match=r"runtime\.tensor_parallel: 8 .*5 are visible"):
        worker_devices(None, CUDA, each=8)


def test_devices_keep_the_names_that_this_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6, GPU-8c1f,3,99")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)  # 99 is none: CUDA stops there
    assert worker_devices(None, CUDA) == [("6",), ("GPU-8c1f",), ("3",)]
