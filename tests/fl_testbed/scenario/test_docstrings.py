from fl_testbed.scenario.docstrings import entries, sections


def documented(first: int, second: int) -> None:
    """Do one thing.

    As :func:`other` does,
    with ``code``.

    Args:
        first: A number: the
            first.
        second: Another.

    Bound:
        None: it works
        on anything.
    """


def test_sections_are_told_apart_and_their_lines_joined() -> None:
    said = sections(documented)
    assert said[""] == "Do one thing.\n\nAs `other` does, with `code`."
    assert said["Bound"] == "None: it works on anything."


def test_entries_go_on_over_indented_lines() -> None:
    assert entries(documented, "Args") == {"first": "A number: the first.", "second": "Another."}
    assert entries(documented, "Returns") == {}
