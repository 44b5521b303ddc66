"""The example of docs/kernels.md, run as it stands there."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "kernels.md"


def test_the_example_distils():
    program = re.search(r"<!-- example -->\s*```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    assert program is not None
    names = {}
    exec(compile(program.group(1), str(DOCUMENT), "exec"), names)
    losses = names["losses"]
    assert len(losses) >= 50
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
