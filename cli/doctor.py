"""``dlzoo doctor``: what this machine can run, and how to mend what it cannot."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Say what this machine can run.

    The exit status is 2 where something is broken; how to mend it is said.
    """
    from dataclasses import asdict

    from dlzoo.cli.console import print_document, print_lines, print_table
    from dlzoo.runtime.session.doctor import diagnose

    findings = diagnose()
    if json:
        print_document([asdict(finding) for finding in findings])
    else:
        print_table(
            ("", "subject", "finding"),
            [(finding.status, finding.subject, finding.detail) for finding in findings],
        )
        fixes = [f"{finding.subject}: {finding.fix}" for finding in findings if finding.fix]
        print_lines(["", "To mend:", *fixes] if fixes else ["", "Nothing to mend."])
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(2)
