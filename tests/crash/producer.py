"""A producer as the protocol wants it: numbers its requests, keeps what is not answered, sends it again unaltered."""

import asyncio
import time
from collections import Counter, deque

import grpc

import protocol
from workload import BATCH_SLOTS, STREAM, batches, window_start

IN_FLIGHT_MAX = 16
# A producer does not run further ahead of the slowest one, which holds the watermark: open windows stay few.
LEAD_WINDOWS_MAX = 10
ANSWERED_KEPT = 3
BACKOFF_SECONDS = (0.02, 0.3)
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20),
           ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.enable_retries", 0)]
# Refusals of whole requests after which the same request is sent again: the gateway promises that a retry can help.
RETRYABLE = {"OVERLOADED", "WINDOWS_FULL", "STOPPING", "MODEL_FAILED", "JOURNAL_FAILING"}


class Refused(Exception):
    """The gateway refused a request as a whole, for now."""


class ProtocolBroken(Exception):
    """The gateway did what the protocol does not allow."""


class CountedWrongly(ProtocolBroken):
    """By its own answers the gateway lost what it acked, or counted it again."""


class Request:
    """One numbered request, as the bytes that go over the wire."""

    __slots__ = ("sequence", "wire", "rows")

    def __init__(self, sequence, wire, rows):
        self.sequence, self.wire, self.rows = sequence, wire, rows


class Producer:
    """Sends its share of every window. Keeps at it until `last_window` is reached and everything is answered."""

    def __init__(self, run, number, slots, rng, *, as_rows, records_per_second):
        self.run, self.number, self.slots, self.rng, self.as_rows = run, number, slots, rng, as_rows
        self.name = f"producer-{number}"
        self.records_per_second = records_per_second
        self.epoch = int(time.time())
        self.next_sequence = 1
        self.unanswered = deque()
        self.answered = deque(maxlen=ANSWERED_KEPT)
        self.acked_rows = []  # of each acked sequence of this epoch
        self.acked_records = 0
        self.fresh = 0  # acks of requests that were not durable before
        self.duplicates = 0
        self.lost_records = 0
        self.doubled_records = 0
        self.refusals = Counter()
        self.window = 0
        self.parts = deque()
        self.singles = deque()  # records that go one in a message
        self.introduced = False
        self.durable_through = 0  # at the last introduction
        self.last_window = None
        self.complete_through = 0
        self.completed = asyncio.Event()

    @property
    def drained(self):
        """Whether everything is sent and answered."""
        return self._nothing_left() and not self.unanswered

    async def produce(self):
        """Connects again and again; ends only by being cancelled, or by a broken protocol."""
        while True:
            try:
                await self._connection()
            except grpc.aio.AioRpcError as error:
                self.refusals[f"call: {error.code().name}"] += 1
            except (asyncio.InvalidStateError, grpc.aio.UsageError):
                self.refusals["call: ended while it was written to"] += 1
            except Refused as refusal:
                self.refusals[str(refusal)] += 1
            await asyncio.sleep(self.rng.uniform(*BACKOFF_SECONDS))

    async def _connection(self):
        async with grpc.aio.insecure_channel(self.run.address, options=OPTIONS) as channel:
            publish = channel.stream_stream(
                protocol.PUBLISH, request_serializer=None, response_deserializer=self.run.pb.PublishResponse.FromString)
            call = publish()
            await self._introduce(call)
            again = self._to_send_again()
            awaited = deque()
            room = asyncio.Event()
            tasks = [asyncio.create_task(self._send(call, again, awaited, room)),
                     asyncio.create_task(self._receive(call, awaited, room))]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            finally:
                call.cancel()
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
            # A broken protocol is told before the broken call that comes with it.
            raise min(ends, key=lambda end: (not isinstance(end, ProtocolBroken), isinstance(end, asyncio.CancelledError)))

    async def _introduce(self, call):
        """Says who and which series, and hears how far it is durable: all that was acked must be."""
        await call.write(self._encode(epoch=self.epoch))
        answer = await self._answer(call)
        self.introduced = True
        if not self.run.durable:
            return
        if self.run.new_epochs and not self.unanswered and self.rng.random() < 0.2:
            self._check_durable(answer)
            self._begin_new_epoch()
            await call.write(self._encode(epoch=self.epoch))
            answer = await self._answer(call)
        self._check_durable(answer)
        self.durable_through = answer.durable_through

    def _check_durable(self, answer):
        if answer.epoch != self.epoch:
            raise ProtocolBroken(f"{self.name}: epoch {answer.epoch} in an answer to epoch {self.epoch}")
        acked, durable = len(self.acked_rows), answer.durable_through
        if durable < acked:
            self.lost_records += sum(self.acked_rows[durable:])
            raise CountedWrongly(f"{self.name}: {acked} was acked, but only {durable} is durable")
        if durable >= self.next_sequence:
            raise ProtocolBroken(f"{self.name}: {durable} is durable, but only {self.next_sequence - 1} were sent")

    def _begin_new_epoch(self):
        self.epoch += 1
        self.next_sequence = 1
        self.acked_rows.clear()
        self.answered.clear()

    def _to_send_again(self):
        """What is not answered, and sometimes what was answered already: both must come back as they were."""
        again = deque(self.unanswered)
        if self.run.durable and self.rng.random() < 0.5:
            again.extendleft(reversed(self.answered))
        return again

    async def _send(self, call, again, awaited, room):
        started, sent = time.monotonic(), 0
        while True:
            while len(awaited) >= IN_FLIGHT_MAX:
                room.clear()
                await room.wait()
            request = again.popleft() if again else self._next_request()
            if request is not None:
                awaited.append(request)
                await call.write(request.wire)
                sent += request.rows
                ahead = sent / self.records_per_second - (time.monotonic() - started)
                if ahead > 0:
                    await asyncio.sleep(ahead)
            elif self.complete_through and self.drained and not self.completed.is_set():
                awaited.append(None)
                await call.write(self._encode(complete_through=self.complete_through))
                await self.completed.wait()
            else:
                room.clear()
                try:
                    await asyncio.wait_for(room.wait(), 0.02)
                except TimeoutError:
                    pass

    async def _receive(self, call, awaited, room):
        while True:
            answer = await self._answer(call)
            request = awaited.popleft()
            room.set()
            if request is None:
                self.completed.set()
                continue
            self._check_answer(request, answer)
            if self.unanswered and self.unanswered[0] is request:
                self.unanswered.popleft()
                self.answered.append(request)
                self.acked_rows.append(request.rows)
                self.acked_records += request.rows
                self.fresh += not answer.duplicate
            elif self.run.durable and not answer.duplicate:
                self._counted_again(request)
            self.duplicates += answer.duplicate

    def _check_answer(self, request, answer):
        if answer.sequence != request.sequence:
            raise ProtocolBroken(f"{self.name}: {answer.sequence} was answered, {request.sequence} was to be")
        if answer.accepted != request.rows or answer.refusals:
            refusals = Counter(self.run.pb.Reason.Name(refusal.reason) for refusal in answer.refusals)
            raise ProtocolBroken(f"{self.name}: {request.sequence}: {answer.accepted} of {request.rows} accepted, {dict(refusals)}")
        if not self.run.durable:
            return
        if answer.durable_through < request.sequence or answer.epoch != self.epoch:
            raise ProtocolBroken(f"{self.name}: {request.sequence} was answered as durable through {answer.durable_through}")
        # The other way round is right: what a cut connection brought may have become durable after the introduction.
        if request.sequence <= self.durable_through and not answer.duplicate:
            self._counted_again(request)

    def _counted_again(self, request):
        self.doubled_records += request.rows
        raise CountedWrongly(f"{self.name}: {request.sequence} was durable before and is not called a duplicate")

    async def _answer(self, call):
        answer = await call.read()
        if answer is grpc.aio.EOF:
            raise Refused("the call ended")
        if answer.HasField("error") and answer.error.code:
            reason = protocol.reason(answer.error)
            # After a refusal the requests behind it leave one out.
            if reason in RETRYABLE or reason == "SEQUENCE_GAP":
                raise Refused(reason)
            raise ProtocolBroken(f"{self.name}: refused as {reason}: {answer.error.message}")
        return answer

    def _nothing_left(self):
        is_sent = not self.parts and not self.singles
        return self.last_window is not None and is_sent and self.window >= self.last_window

    def _next_request(self):
        if not self.parts and not self.singles:
            if self._nothing_left() or self.window >= self.run.slowest_window() + LEAD_WINDOWS_MAX:
                return None
            self.parts.extend(batches(self.window, self.slots, self.rng, self.run.more_columns))
            self.window += 1
        payload, rows = self._next_payload()
        # Some windows are promised to be complete, the others close by what comes later.
        is_last = not self.parts and not self.singles
        promised = window_start(self.window) if is_last and self.window % 3 == 0 else 0
        request = self._encode(epoch=self.epoch, sequence=self.next_sequence, complete_through=promised, **payload)
        request = Request(self.next_sequence, request, rows)
        self.next_sequence += 1
        self.unanswered.append(request)
        return request

    def _next_payload(self):
        """The payload of the next request, and how many records are in it."""
        if not self.singles:
            batch = self.parts.popleft()
            if not self.as_rows:
                return {"arrow_ipc": batch.arrow_ipc()}, batch.rows
            if len(batch.slots) != min(BATCH_SLOTS):
                return {"rows": batch.rows_message(self.run.rows_pb2)}, batch.rows
            # Small ones go one record at a time, so that requests share batches with those of others.
            self.singles.extend(batch.single_messages(self.run.rows_pb2))
        return {"rows": self.singles.popleft()}, 1

    def _encode(self, **fields):
        return self.run.pb.PublishRequest(stream=STREAM, producer=self.name, **fields).SerializeToString()
