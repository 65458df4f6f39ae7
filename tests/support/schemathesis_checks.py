"""Additional checks of schemathesis on every answer: see test_fuzzed_api.py."""

import os

import schemathesis


@schemathesis.check
def errors_are_one_line(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Check that an error is ``{"error": …}``: one line, not empty, of a readable length."""
    # Answers that say whether something is ready are not errors.
    if response.status_code < 400 or case.method == "HEAD" or case.path.endswith("/ready"):
        return
    document = response.json()
    assert list(document) == ["error"], document
    message = document["error"]
    assert 0 < len(message) <= 1000 and len(message.splitlines()) == 1, message


@schemathesis.check
def no_answer_tells_of_the_machine(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Check that an answer holds no folder of the machine and no stack trace."""
    text = response.content.decode("utf-8", "replace")
    for secret in (os.environ["SERVED_FOLDER"], "Traceback", ".py"):
        assert secret not in text, secret
