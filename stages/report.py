"""One page on the run: `reports/index.md` and `reports/figures/`."""

import shutil

from pipeline.config.load import read_params
from pipeline.config.report import ReportParams
from pipeline.io.atomic import write_text
from pipeline.report.page import build_page
from stages.common import Stage, main


def work(stage: Stage) -> None:
    """Write the page anew; figures of an earlier one do not stay behind."""
    params = stage.params("report", ReportParams)
    figures = stage.path("reports/figures")
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir(parents=True)
    page = build_page(stage.root, figures, params, read_params(stage.path("params.yaml")))
    write_text(stage.path("reports/index.md"), page)


if __name__ == "__main__":
    main("report", work)
