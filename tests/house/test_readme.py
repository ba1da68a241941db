"""What the README says of settings, commands and exit codes is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

from fastroute.cli import ALIASES, COMMANDS, exits
from fastroute.config import SETTINGS, reference

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_reference_of_settings_is_the_tables_own():
    """`python -c 'from fastroute.config import reference; print(reference())'` renders it."""
    told = re.search(r"<!-- settings -->\n(.*)<!-- /settings -->", README, re.DOTALL)
    assert told
    assert told[1].strip() == reference().strip()


def test_every_setting_has_help_and_a_name_of_its_own():
    names = [setting.name for setting in SETTINGS]
    variables = [variable.name for setting in SETTINGS for variable in setting.env]
    assert len(set(names)) == len(names)
    assert len(set(variables)) == len(variables)
    assert all(setting.help for setting in SETTINGS)


def test_every_command_is_shown():
    for command in (*COMMANDS, *ALIASES):
        assert re.search(rf"`(fastroute )?{command}\b|fastroute {command}\b|`{command}`", README), command


def test_the_exit_codes_are_the_documented_ones():
    told = dict(re.findall(r"(\d+) (ok|refused|usage|bad data|store|configuration)", README))
    assert told == {
        str(exits.OK): "ok",
        str(exits.FAILED): "refused",
        str(exits.USAGE): "usage",
        str(exits.DATA): "bad data",
        str(exits.IO): "store",
        str(exits.CONFIG): "configuration",
    }


def test_the_two_commands_lead():
    first = README.index("```\nmake run")
    assert first < README.index("\n## ")
    assert "make test" in README[first : first + 200]


def test_the_snippet_that_decides_prints_what_stands_beside_it(tmp_path):
    [script] = [each for each in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "Catalog([" in each]
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    told = re.findall(r"^print\(.*\) +# (.*)$", script, re.MULTILINE)
    for line, promised in zip(ran.stdout.splitlines(), told, strict=True):
        assert line.startswith(promised.removesuffix("...)")), line
