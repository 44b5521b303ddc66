"""The table of Prefect's settings compares what we have with what Prefect has."""

import json
import os
import subprocess
import sys

from codistill.flows.server import SETTINGS
from codistill.tests.benchmarks.prefect_settings import ALL, DEFAULTS, SHIPPED, VARIANTS, Cost, rows

ASK = """
import json
from prefect.settings import get_current_settings
print(json.dumps(get_current_settings().to_environment_variables(exclude_unset=False)))
"""


def test_every_setting_of_ours_is_prefects_and_is_measured_where_it_differs(tmp_path):
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    said = subprocess.run(
        [sys.executable, "-c", ASK],
        env=plain | {"PREFECT_HOME": str(tmp_path)},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = json.loads(said.stdout.splitlines()[-1])
    assert not [name for name in SETTINGS if name not in theirs]

    def same(one, other):
        return one.lower().removesuffix(".0") == other.lower().removesuffix(".0")

    assert {name for name, value in SETTINGS.items() if not same(value, theirs[name])} == set(DEFAULTS)
    assert all(same(theirs[name], value) for name, value in DEFAULTS.items())


def test_rows_say_what_each_costs_over_what_is_shipped():
    found = {name: [Cost(10, 5, 1), Cost(12, 7, 0.5), Cost(8, 6, 1)] for name in VARIANTS}
    found[ALL] = [Cost(15, 9, 0.25)]
    made = rows(found)
    assert made[0][0] == SHIPPED and made[0][3:] == ["10.0", "6.0", "–", "50 %"]
    assert made[-1][3:] == ["15.0", "9.0", "+50 %", "25 %"]
    assert made[1][:3] == ["`PREFECT_SERVER_ANALYTICS_ENABLED`", "false", "true"]
