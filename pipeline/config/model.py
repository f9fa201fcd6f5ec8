"""Section `model`: which weights judge, which weights the policy starts from, which two are contrasted."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Section


class ModelRef(Section):
    """One model: the packaged default, a local folder, or a hub repository at a fixed commit."""

    source: Literal["packaged", "folder", "hub"] = "packaged"
    name: Annotated[str, Field(min_length=1)] | None = None
    """`folder`: its path; `hub`: the repository id, `owner/name`; `packaged`: none."""
    revision: str | None = None
    """`hub`: branch, tag or commit; the commit it resolves to is written into the manifest."""
    chat_template: str | None = None
    """Path of a Jinja file that replaces the tokenizer's own chat template."""

    @model_validator(mode="after")
    def _names_what_it_needs(self) -> "ModelRef":
        if self.source == "packaged":
            if self.name is not None or self.revision is not None:
                raise ValueError(
                    "source `packaged` takes neither `name` nor `revision`; remove them or change `source`"
                )
        elif self.name is None:
            raise ValueError(f"source `{self.source}` needs `name`: the folder's path or the hub's owner/name")
        if self.source == "folder" and self.revision is not None:
            raise ValueError("source `folder` takes no `revision`: a folder holds one version")
        if self.source == "hub" and self.revision is None:
            raise ValueError("source `hub` needs `revision`: pin a commit, a tag or a branch")
        return self


class ModelParams(Section):
    """Judge and policy start; the same model unless `start` is given."""

    judge: ModelRef = ModelRef()
    start: ModelRef | Literal["judge"] = "judge"
    """The policy's first weights, which are also the reference; `judge`: the judge itself, as in the paper."""
    positive: ModelRef | Literal["start"] = "start"
    """For weights.source contrast and critical: the model of good answers, such as SePO's oracle."""
    negative: ModelRef | Literal["start"] = "start"
    """The model of bad answers, or what the oracle was trained from. Both must have the start's tokenizer."""

    @property
    def start_ref(self) -> ModelRef:
        return self.judge if self.start == "judge" else self.start

    def ref(self, role: str) -> ModelRef:
        """The model of a role: judge, start, positive or negative."""
        found: ModelRef | str = getattr(self, role)
        return self.start_ref if isinstance(found, str) else found
