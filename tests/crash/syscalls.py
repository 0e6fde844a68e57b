"""The mode `syscall`: strace kills the gateway at the Kth call of a kind, or makes such calls fail."""

import asyncio
import functools
from collections import Counter

import grpc

import protocol
import tracing
from disks import missing
from gateway import DidNotComeBack, until
from producer import ProtocolBroken
from run import NOT_DURABLE, Run, skipped
from workload import STREAM

# What it is killed before, and the greatest K: strace counts the calls of each thread by itself.
KILLS = {
    "fdatasync": 60,
    "fsync": 16,
    "?rename,?renameat,?renameat2": 10,
    "?unlink,?unlinkat": 4,
    "?fallocate,?ftruncate": 6,
    "?pwrite64,?pwritev,?pwritev2": 40,
    "writev": 60,
    "write": 60,
    "openat": 120,
}
# What fails, and how.
ERRORS = (
    ("fdatasync", "error=EIO:when={first}", "once"),
    ("fsync", "error=EIO:when={first}", "once"),
    ("?fallocate,?ftruncate", "error=ENOSPC:when={first}..{last}", "some times"),
    ("?pwrite64,?pwritev,?pwritev2,writev", "error=ENOSPC:when={first}", "once"),
)
REACHED_WITHIN_SECONDS = 2.0
REFUSED_WITHIN_SECONDS = 120.0
ASKED_WITHIN_SECONDS = 2.0
SETTLED_SECONDS = 1.0
SETTLES = 10


async def syscall(options, name="syscall", **kinds):
    """Two kills at a system call, then an error of one, and so on."""
    if why := missing("strace"):
        return skipped("syscall", why)
    if not await tracing.works():
        return skipped("syscall", "strace may not trace here")
    reached = Counter()

    async def cycles(run):
        kills = list(KILLS.items())
        errors = [functools.partial(failing, *error) for error in ERRORS]
        errors.insert(1, no_sync_succeeds)
        for number in run.faults():
            await run.under_load()
            await run.gateway.kill()
            run.count_crash()
            if number % 3 == 2:
                await errors[number // 3 % len(errors)](run, reached)
            else:
                await killed_at(run, *kills[(number - number // 3) % len(kills)], reached)
            await run.gateway.kill()
            run.count_crash()
            await run.gateway.start()
            run.look()

    async with Run(name, options, **kinds) as run:
        outcome = await run.conclude(cycles)
    for what, times in sorted(reached.items()):
        print(f"{name}: {what}: {times}")
    return outcome


async def killed_at(run, calls, highest, reached):
    """Starts it to be killed at the Kth call of some thread, be it in recovery or under load."""
    when = max(1, round(highest ** run.rng.random()))
    # With --seccomp-bpf strace does not deliver the signal.
    await run.gateway.spawn(tracing.strace(run, calls, f"signal=KILL:when={when}"))
    name = calls.replace("?", "")
    try:
        await until(lambda: not run.gateway.running, "the call is reached", REACHED_WITHIN_SECONDS)
        reached[f"killed at {name}"] += 1
    except TimeoutError:
        reached[f"not reached at {name}"] += 1


async def failing(calls, inject, how, run, reached):
    """Starts it with calls that fail once or some times: it must stay up and ack again."""
    first = run.rng.randint(3, 30)
    name = f"{calls.replace('?', '')} {inject[6:].partition(':')[0]} {how}"
    await run.gateway.spawn(tracing.strace(run, calls, inject.format(first=first, last=first + 3), "--seccomp-bpf"))
    try:
        await run.gateway.until_ready()
    except DidNotComeBack:
        # A start that cannot sync may fail; the next one must not.
        reached[f"did not start: {name}"] += 1
        return
    try:
        await until(lambda: tracing.injected(run), "a call fails", REACHED_WITHIN_SECONDS, every=0.02)
    except TimeoutError:
        reached[f"not reached: {name}"] += 1
        return
    reached[name] += 1
    await run.under_load()
    run.must_be_up(f"after {name}")


async def no_sync_succeeds(run, reached):
    """From a random instant every sync fails: requests are refused, none is acked, the process stays up. In one run
    of two the disk then heals, and requests must be taken again without a restart."""
    await run.gateway.start()
    await run.under_load()
    await run.random_load()
    refused = run.refused()
    tracer = await tracing.attach(run, "fdatasync,fsync", "error=EIO")
    try:
        # Producers send nothing while all that they may have in flight was taken and waits for the disk: so somebody asks.
        asking = asyncio.create_task(until_asked_and_refused(run))
        try:
            await run.wait_for(lambda: asking.done() or run.refused() > refused, "requests are refused while no sync succeeds",
                               REFUSED_WITHIN_SECONDS)
        finally:
            asking.cancel()
        # What was acked before may still be on its way, and read late.
        for _ in range(SETTLES):
            if not await acked_meanwhile(run):
                break
        if acked := await acked_meanwhile(run):
            raise ProtocolBroken(f"{acked} requests were acked although no sync succeeds")
        run.must_be_up("while no sync succeeds")
        reached["every sync EIO"] += 1
        if run.rng.random() < 0.5:
            await tracing.detach(tracer)
            await run.under_load()
            reached["every sync EIO, healed"] += 1
    finally:
        await run.gateway.kill()
        await tracing.detach(tracer)


async def acked_meanwhile(run):
    """How many requests are acked in a while."""
    before = sum(producer.fresh for producer in run.producers)
    await asyncio.sleep(SETTLED_SECONDS)
    return sum(producer.fresh for producer in run.producers) - before


async def until_asked_and_refused(run):
    """Introduces a producer again and again, until that is refused because nothing can be made durable."""
    async with grpc.aio.insecure_channel(run.address) as channel:
        publish = channel.stream_stream(protocol.PUBLISH, request_serializer=run.pb.PublishRequest.SerializeToString,
                                        response_deserializer=run.pb.PublishResponse.FromString)
        while True:
            try:
                call = publish(timeout=ASKED_WITHIN_SECONDS)
                await call.write(run.pb.PublishRequest(stream=STREAM, producer=run.producers[0].name))
                answer = await call.read()
                if answer is not grpc.aio.EOF and protocol.reason(answer.error) in NOT_DURABLE:
                    return
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
                pass  # it does not answer, or the call has ended
            await asyncio.sleep(ASKED_WITHIN_SECONDS / 10)
