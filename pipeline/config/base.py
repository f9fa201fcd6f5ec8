"""What all sections of params.yaml share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """One section of params.yaml: immutable, every key known, no value silently converted to another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
