"""``dlzoo doctor``: what this machine can run, and how to fix what it cannot."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Check what this machine can run.

    The exit status is 2 if something is broken; the output then says how to fix it.
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
        print_lines(["", "To fix:", *fixes] if fixes else ["", "Nothing to fix."])
    if any(finding.status == "fail" for finding in findings):
        raise typer.Exit(2)
