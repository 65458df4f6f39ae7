"""An answer's head and body are sent together, and the memory of requests is counted."""

import asyncio

import pytest

from dlzoo.runtime.protocol.refusal import RefusalError
from dlzoo.runtime.serve.http.http_protocol import JoinedWrites
from dlzoo.runtime.serve.limits import ByteBudget


class Recorder(asyncio.Transport):
    """Records each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def writelines(self, list_of_data: list[bytes]) -> None:
        self.writes.append(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def test_writes_of_one_turn_are_sent_together_and_in_order() -> None:
    async def main() -> list[bytes]:
        transport = Recorder()
        joined = JoinedWrites(transport)
        joined.write(b"head ")
        joined.write(b"body")
        assert transport.writes == []
        await asyncio.sleep(0)
        joined.write(b"next")
        await asyncio.sleep(0)
        return transport.writes

    assert asyncio.run(main()) == [b"head body", b"next"]


def test_nothing_is_lost_when_the_connection_is_closed_in_the_same_turn() -> None:
    async def main() -> Recorder:
        transport = Recorder()
        joined = JoinedWrites(transport)
        joined.write(b"last words")
        joined.close()
        joined.write(b"too late")
        await asyncio.sleep(0)
        return transport

    transport = asyncio.run(main())
    assert transport.closed and transport.writes == [b"last words"]


def test_the_budget_reports_its_peak() -> None:
    budget = ByteBudget(100)
    with budget.hold(60):
        assert not budget.is_idle
        with budget.hold(30), pytest.raises(RefusalError, match="memory for requests is full"):
            budget.hold(11)
    assert budget.is_idle
    assert budget.take_peak() == 90
    assert budget.take_peak() == 0
