"""Work that is finished although its caller is cancelled, by whichever means."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Literal

import anyio
import pytest

from amigo_async import cancellation as shield
from amigo_async.cancellation import finish

pytestmark = pytest.mark.anyio

How = Literal["plain", "scope"]
BOTH = pytest.mark.parametrize("how", ["plain", "scope"])


class Work:
    """Something that takes until it is let go, and remembers what became of it."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.go_on = anyio.Event()
        self.became = "nothing"

    async def run(self, error: Exception | None = None) -> str:
        self.became = "begun"
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.became = "cancelled"
            raise
        self.became = "finished"
        if error is not None:
            raise error
        return "result"


class Caller:
    """A task that awaits `finish`, and can be cancelled in both ways."""

    def __init__(self, work: Work, grace: float | None, error: Exception | None = None) -> None:
        self.scope = anyio.CancelScope()
        self.outcome: object = None
        self.task = asyncio.create_task(self._main(work, grace, error))

    async def _main(self, work: Work, grace: float | None, error: Exception | None) -> None:
        with self.scope:
            try:
                self.outcome = await finish(work.run(error), grace=grace)
            except BaseException as raised:
                self.outcome = raised
                raise

    def cancel(self, how: How) -> None:
        if how == "plain":
            self.task.cancel()
        else:
            self.scope.cancel()

    async def ended(self, how: How) -> None:
        """Wait for its end, which a plain cancellation tells; nothing else is left running."""
        if how == "plain":
            with pytest.raises(asyncio.CancelledError):
                await self.task
        else:
            await self.task
            assert self.scope.cancelled_caught
        assert isinstance(self.outcome, asyncio.CancelledError)
        assert_alone()


def assert_alone() -> None:
    """No task runs that was made here or by `finish`; the test runner has others of its own."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    here = {__file__, shield.__file__}
    assert not [task for task in others if task.get_stack()[0].f_code.co_filename in here]


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_result_comes_back() -> None:
    work = Work()
    work.go_on.set()
    assert await finish(work.run()) == "result"
    assert_alone()


async def test_error_comes_back() -> None:
    work, error = Work(), KeyError("x")
    work.go_on.set()
    with pytest.raises(KeyError) as caught:
        await finish(work.run(error), grace=1.0)
    assert caught.value is error
    assert_alone()


@BOTH
@pytest.mark.parametrize("grace", [None, 5.0])
async def test_cancelled_caller_waits(how: How, grace: float | None) -> None:
    work = Work()
    caller = Caller(work, grace)
    await work.began.wait()
    caller.cancel(how)
    await settle()
    assert work.became == "begun"
    assert not caller.task.done()
    work.go_on.set()
    await caller.ended(how)
    assert work.became == "finished"


@BOTH
async def test_cancellation_beats_an_error(how: How) -> None:
    """And is not reported as an exception that was never retrieved."""
    work = Work()
    caller = Caller(work, None, ValueError("lost"))
    await work.began.wait()
    caller.cancel(how)
    await settle()
    work.go_on.set()
    await caller.ended(how)
    assert work.became == "finished"


@BOTH
async def test_grace_bounds_the_wait(how: How) -> None:
    work = Work()
    caller = Caller(work, 5.0)
    await work.began.wait()
    began = anyio.current_time()
    caller.cancel(how)
    await caller.ended(how)
    assert work.became == "cancelled"
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)


@BOTH
async def test_no_bound_without_grace(how: How) -> None:
    work = Work()
    caller = Caller(work, None)
    await work.began.wait()
    caller.cancel(how)
    await anyio.sleep(86_400)
    assert work.became == "begun"
    work.go_on.set()
    await caller.ended(how)


@BOTH
async def test_zero_grace_cancels_at_once(how: How) -> None:
    work = Work()
    caller = Caller(work, 0.0)
    await work.began.wait()
    began = anyio.current_time()
    caller.cancel(how)
    await caller.ended(how)
    assert work.became == "cancelled"
    assert anyio.current_time() - began < 1.0


@BOTH
async def test_second_cancel_keeps_the_grace(how: How) -> None:
    work = Work()
    caller = Caller(work, 5.0)
    await work.began.wait()
    began = anyio.current_time()
    caller.cancel(how)
    for _ in range(3):
        await anyio.sleep(1.0)
        caller.task.cancel()
        await settle()
        assert work.became == "begun"
    with contextlib.suppress(asyncio.CancelledError):  # an older anyio counts all as its scope's
        await caller.task
    assert isinstance(caller.outcome, asyncio.CancelledError)
    assert work.became == "cancelled"
    assert anyio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert_alone()


async def test_work_that_resists_is_awaited() -> None:
    """Even work that does something when it is cancelled has ended when `finish` has."""
    became = []
    began = anyio.Event()

    async def resists() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(30)
            became.append("cleaned up")

    task = asyncio.create_task(finish(resists(), grace=1.0))
    await began.wait()
    task.cancel()
    await anyio.sleep(10)
    task.cancel()  # one more, while it cleans up
    with pytest.raises(asyncio.CancelledError):
        await task
    assert became == ["cleaned up"]
    assert_alone()


async def test_work_that_fails_after_its_grace() -> None:
    began = anyio.Event()

    async def fails() -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            raise ValueError("instead") from None

    task = asyncio.create_task(finish(fails(), grace=1.0))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_alone()


async def test_work_that_cancels_itself() -> None:
    async def gives_up() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await finish(gives_up(), grace=5.0)
    assert_alone()


async def test_caller_cancelled_before() -> None:
    """The work is begun and finished, then the cancellation is delivered."""
    work = Work()
    work.go_on.set()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await finish(work.run(), grace=60.0)
    assert scope.cancelled_caught
    assert work.became == "finished"


async def test_deadline_is_held_back_too() -> None:
    work = Work()

    async def let_go() -> None:
        await anyio.sleep(10)
        work.go_on.set()

    helper = asyncio.create_task(let_go())
    began = anyio.current_time()
    with anyio.move_on_after(2) as scope:
        await finish(work.run(), grace=60.0)
    assert scope.cancelled_caught
    assert anyio.current_time() - began == pytest.approx(10, abs=0.5)
    assert work.became == "finished"
    await helper


async def test_cancellation_ends_at_its_scope() -> None:
    """A caller in a timeout block goes on behind it as if nothing had been held back."""
    work = Work()
    work_time = asyncio.get_running_loop().call_later(10, work.go_on.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await finish(work.run(), grace=60.0)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0
    await anyio.sleep(1)
    assert work.became == "finished"
    work_time.cancel()
