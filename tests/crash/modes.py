"""The modes that need nothing but a process and a socket: clean, kill, recovery, network."""

import asyncio

from proxy import Proxy
from run import Run

NESTED_SHARE = 0.25
# Recovery is short: most kills come early in it.
NESTED_MS = (20, 60, 300)
RECOVERY_KILLS = 5


async def clean(options, name="clean", **kinds):
    """No fault at all."""

    async def cycles(run):
        for _ in run.faults():
            await run.under_load()
            await run.random_load()
            run.look()

    async with Run(name, options, **kinds) as run:
        return await run.conclude(cycles)


async def kill(options, name="kill", **kinds):
    """SIGKILL at a random instant under load, sometimes again during recovery."""

    async def cycles(run):
        for _ in run.faults():
            await run.under_load()
            await run.random_load()
            await run.gateway.kill()
            run.count_crash()
            run.check_ledger()
            while run.rng.random() < NESTED_SHARE:
                await kill_in_recovery(run)
            await run.gateway.start()
            run.look()

    async with Run(name, options, **kinds) as run:
        return await run.conclude(cycles)


async def recovery(options):
    """Kills during recovery, nested, then a real start."""

    async def cycles(run):
        for _ in run.faults():
            await run.under_load()
            await run.random_load()
            await run.gateway.kill()
            run.count_crash()
            for _ in range(RECOVERY_KILLS):
                await kill_in_recovery(run)
            await run.gateway.start()
            run.look()

    async with Run("recovery", options) as run:
        return await run.conclude(cycles)


async def kill_in_recovery(run):
    """Starts it and kills it a random moment later, perhaps before it serves."""
    await run.gateway.spawn()
    await asyncio.sleep(run.rng.uniform(0, run.rng.choice(NESTED_MS) / 1000))
    await run.gateway.kill()
    run.count_crash()


async def network(options):
    """Connections are cut between the durable write and the answer; sometimes the gateway is killed with them."""
    proxy = Proxy()

    async def cycles(run):
        for _ in run.faults():
            await run.under_load()
            await run.random_load()
            proxy.drop_answers()
            await asyncio.sleep(run.rng.uniform(0, 0.2))
            if run.rng.random() < 0.25:
                await run.gateway.kill()
                await run.gateway.start()
            proxy.cut()
            run.count_crash()
            run.look()

    async with Run("network", options, proxy=proxy) as run:
        outcome = await run.conclude(cycles)
        if options.durable and outcome.good and not any(producer.duplicates for producer in run.producers):
            outcome.problems.append("network: no request was ever answered as a duplicate: the mode tested nothing")
        return outcome
