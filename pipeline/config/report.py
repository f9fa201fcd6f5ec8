"""Section `report`: what the page shows."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Section


class ReportParams(Section):
    """Text of pairs enters the report only when asked for: data may be private."""

    include_text: bool = False
    examples: Annotated[int, Field(ge=0)] = 4
    """Test pairs whose tokens are shown shaded by weight, where `include_text` is on."""
