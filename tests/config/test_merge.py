"""Values of a row on top of params."""

from pipeline.config.merge import merged


def test_mappings_are_merged_and_lists_replaced() -> None:
    base = {"train": {"beta": 0.1, "lora": None}, "extract": {"layers": [0, 1]}}
    found = merged(base, {"train": {"beta": 2.0}}, {"extract": {"layers": [3]}, "new": {"a": 1}})
    assert found == {"train": {"beta": 2.0, "lora": None}, "extract": {"layers": [3]}, "new": {"a": 1}}
    assert base["train"]["beta"] == 0.1


def test_settings_belong_to_the_objective_and_are_replaced_whole() -> None:
    base = {"train": {"objective": "simpo", "settings": {"gamma": 1.0}}}
    assert merged(base, {"train": {"objective": "ipo", "settings": {}}})["train"]["settings"] == {}
