"""The README's first commands are the ones that CI runs; it is short, and leads to what there is."""

import re
import socket
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from jigdofs.cli import VERBS
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import tool


def first_block() -> list[str]:
    found = re.search(r"(?ms)^```[^\n]*\n(.*?)^```$", (REPOSITORY / "README.md").read_text("utf-8"))
    assert found is not None
    return [line for line in found[1].splitlines() if line.strip()]


def test_first_block_is_two_commands() -> None:
    """One line runs the demo, the next the tests; neither is a comment or goes on in another line."""
    demo, tests = first_block()
    assert demo.endswith("jigdofs demo")
    assert "pytest" in tests
    for line in (demo, tests):
        assert not line.startswith(("#", "$", " "))
        assert not line.endswith("\\")


def test_both_commands_are_shell() -> None:
    """A shell can parse them, and the programs of this repository that they name exist."""
    for line in first_block():
        subprocess.run([tool("sh"), "-n", "-c", line], check=True, capture_output=True)
        for name in re.findall(r"(?<!\S)\.ci/\S+", line):
            assert (REPOSITORY / name).stat().st_mode & 0o111, name


def test_ci_runs_the_second_command() -> None:
    """.ci/run takes the command out of the README, so that they cannot drift apart."""
    script = (REPOSITORY / ".ci" / "run").read_text("utf-8")
    found = re.search(r"(?m)^test_command=\$\((.*)\)$", script)
    assert found is not None, "the line that reads the README"
    done = subprocess.run(
        [tool("bash"), "-c", found[1]], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    assert done.stdout == first_block()[1] + "\n"
    assert re.search(r'(?m)^bash -c "\$test_command"$', script)
    assert re.search(r"(?m)^export JIGDOFS_REQUIRE_ALL=1$", script)


DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """What a document points to in this repository is there."""
    text = document.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_document_is_found() -> None:
    """The README leads to all of them."""
    text = DOCUMENTS[0].read_text("utf-8")
    assert [path.name for path in DOCUMENTS[1:] if f"(docs/{path.name})" not in text] == []


def test_a_newcomer_finishes_it() -> None:
    """It names every verb, and is read in five minutes or so: 200 words a minute."""
    text = DOCUMENTS[0].read_text("utf-8")
    assert [verb for verb in VERBS if not re.search(rf"`(jigdofs )?{re.escape(verb)}\b", text)] == []
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    assert len(re.findall(r"[A-Za-z]{2,}", prose)) < 1200


@pytest.mark.parametrize(
    "picture", sorted((REPOSITORY / "docs" / "pictures").iterdir()), ids=lambda path: path.name
)
def test_pictures_are_small_and_show_no_machine(picture: Path) -> None:
    """They fetch nothing, and have no names of the machine they were made on."""
    text = picture.read_text("utf-8")
    assert len(text) < 60_000
    assert ET.fromstring(text).tag.endswith("svg")
    for word in ("@font-face", "url(http", str(REPOSITORY), socket.gethostname(), "/tmp/", ".venv"):
        assert word not in text, word
