"""What is promised of every error: one line that a terminal may be shown."""

from jigdofs.errors import JigdofsError


def one_line(error: JigdofsError) -> None:
    """Assert that a user can be told this."""
    text = str(error)
    assert text
    assert text.isprintable(), text
    assert len(text) < 100_000
