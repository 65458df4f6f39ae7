"""Calls between two processes: answers, errors, and the end of one process."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dlzoo.errors import BundleError, DlzooError
from dlzoo.runtime.proof.report import ProofError
from dlzoo.runtime.protocol.refusal import Reason, RefusalError
from dlzoo.runtime.serve.workers.channel import Channel, ChannelClosedError


def with_channels(
    answer: Callable[..., Awaitable[Any]], use: Callable[[Channel, Channel], Awaitable[None]]
) -> None:
    async def main() -> None:
        async def nothing(*call: Any) -> None:
            raise AssertionError(call)

        mine, theirs = socket.socketpair()
        caller, answering = Channel(nothing), Channel(answer)
        await caller.open(mine)
        await answering.open(theirs)
        try:
            await asyncio.wait_for(use(caller, answering), 20)
        finally:
            caller.close()
            answering.close()
            await answering.closed.wait()

    asyncio.run(main())


def test_each_call_gets_its_own_answer_in_any_order() -> None:
    async def answer(name: str, number: int, payload: bytes) -> tuple[str, int, int]:
        await asyncio.sleep(0.02 * ((number * 7) % 5))
        return name, number, len(payload)

    async def use(caller: Channel, _: Channel) -> None:
        # Some messages are longer than a socket's buffer.
        sizes = [10 ** (i % 7) for i in range(40)]
        calls = [caller.call("n", i, bytes(size)) for i, size in enumerate(sizes)]
        answers = await asyncio.gather(*calls)
        assert answers == [("n", i, size) for i, size in enumerate(sizes)]

    with_channels(answer, use)


def test_errors_come_as_they_were_raised() -> None:
    async def answer(name: str) -> None:
        if name == "refusal":
            raise RefusalError("no", Reason.BUSY, retry_after_s=3)
        if name == "proof":
            raise ProofError("it fails", report=lambda: None)  # type: ignore[arg-type]
        if name == "bundle":
            raise BundleError("damaged")
        raise ZeroDivisionError("secret")

    async def use(caller: Channel, _: Channel) -> None:
        with pytest.raises(RefusalError, match="no") as refused:
            await caller.call("refusal")
        assert (refused.value.reason, refused.value.retry_after_s) == (Reason.BUSY, 3)
        for name, message, exit_code in (("proof", "it fails", 1), ("bundle", "damaged", 2)):
            with pytest.raises(DlzooError, match=message) as told:
                await caller.call(name)
            assert told.value.exit_code == exit_code
        with pytest.raises(RefusalError, match="internal error") as internal:
            await caller.call("bug")
        assert internal.value.reason is Reason.INTERNAL
        assert "secret" not in str(internal.value)

    with_channels(answer, use)


def test_waiting_calls_fail_when_the_other_process_ends() -> None:
    async def answer(name: str) -> None:
        await asyncio.sleep(60)

    async def use(caller: Channel, answering: Channel) -> None:
        call = asyncio.ensure_future(caller.call("n"))
        await asyncio.sleep(0.05)
        answering.close()
        with pytest.raises(ChannelClosedError):
            await call
        assert caller.closed.is_set()
        with pytest.raises(ChannelClosedError):
            await caller.call("n")

    with_channels(answer, use)
