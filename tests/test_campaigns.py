"""The programs that attack at random: each can be started, and one that finds something tells."""

import json
import subprocess
import sys

import pytest

from tests.campaigns.__main__ import CAMPAIGNS
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.mounts import REPOSITORY


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_every_campaign_says_what_it_does(name: str) -> None:
    """Each can be started, and says how."""
    command = [sys.executable, "-m", f"tests.campaigns.{name}", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("usage:")


def test_what_is_found_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The figures are printed whatever they are; one that breaks a promise ends in 1."""
    kept, broken = Figure(1, "kept", 0, "<= 0"), Figure(1, "broken", 1, "<= 0")
    conclude([kept])
    with pytest.raises(SystemExit) as ended:
        conclude([kept, broken], seed=7)
    assert ended.value.code == 1
    told = capsys.readouterr().out
    assert json.loads(told[told.index("}\n{") + 2 :])["seed"] == 7
