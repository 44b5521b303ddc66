"""The end of runs whose report nobody reads."""

import pytest
from codistill.flows.finish import finish
from codistill.flows.folder import RunFolder
from codistill.flows.plan import Plan


def finish_without_report(folder: RunFolder, plan: Plan) -> None:
    """Finish a run without drawing its report; those of later runs in this process are drawn as ever."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("codistill.flows.report.write.write_report", lambda *anything: None)
        finish(folder, plan, None)
