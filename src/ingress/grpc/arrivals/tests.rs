//! A message comes out whole or not at all, however it is cut, and its call never holds more than its part.

use std::convert::Infallible;
use std::time::Duration;

use futures::FutureExt;
use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::Code;

use super::super::frames::Frames;
use super::super::messages::PROGRESS_WITHIN;
use super::*;
use crate::engine::budget::{Budget, Line, Needs};

const MESSAGE_MAX: usize = 1 << 20;

/// A body whose parts a test sends.
struct Parts(mpsc::UnboundedReceiver<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

fn line() -> Arc<Line> {
    Arc::new(Budget::new(Needs { bytes: 16 << 20, message_max: MESSAGE_MAX, decoded_max: 1 << 20 })).line()
}

fn arrivals(line: &Arc<Line>) -> (mpsc::UnboundedSender<Bytes>, Arc<Call>, Arrivals<Parts>) {
    arrivals_beside(line, Arc::default())
}

fn arrivals_beside(
    line: &Arc<Line>,
    coming: Arc<Coming>,
) -> (mpsc::UnboundedSender<Bytes>, Arc<Call>, Arrivals<Parts>) {
    let (sender, parts) = mpsc::unbounded_channel();
    let call = line.call();
    (sender, Arc::clone(&call), Arrivals::new(Parts(parts), call, coming, Charged::WithMessage, MESSAGE_MAX))
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
}

async fn next(arrivals: &mut Arrivals<Parts>) -> Option<Result<Bytes, Status>> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *arrivals).poll_frame(context)).await;
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
}

/// Everything that comes without waiting.
fn now(arrivals: &mut Arrivals<Parts>) -> Vec<u8> {
    let mut came = Vec::new();
    while let Some(Some(Ok(part))) = next(arrivals).now_or_never() {
        came.extend(part);
    }
    came
}

#[tokio::test]
async fn nothing_of_a_message_is_given_on_before_it_is_whole() {
    let (sender, call, mut arrivals) = arrivals(&line());
    let message = framed(&[7; 3_000]);
    for part in message[..3_004].chunks(1_000) {
        sender.send(Bytes::copy_from_slice(part)).unwrap();
        assert!(now(&mut arrivals).is_empty());
    }
    sender.send(Bytes::from_static(&[7])).unwrap();
    assert_eq!(now(&mut arrivals), message);
    drop(call.take_arrived());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_stops_arriving_ends_its_call_and_gives_back_its_room() {
    let line = line();
    let (sender, _call, mut arrivals) = arrivals(&line);
    sender.send(framed(&[0; MESSAGE_MAX])[..1_000_000].to_vec().into()).unwrap();
    assert!(now(&mut arrivals).is_empty());
    // Another large message of the connection waits for it.
    let other = line.call();
    let mut waits = std::pin::pin!(Arc::clone(&other).arrive(MESSAGE_MAX));
    assert!(waits.as_mut().now_or_never().is_none());
    let status = next(&mut arrivals).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(next(&mut arrivals).await.is_none());
    assert!(waits.now_or_never().is_some());
    drop(sender);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_trickles_ends_its_call_and_a_slow_one_does_not() {
    for (part, is_slow) in [(1_000, false), (70_000, true)] {
        let (sender, _call, mut arrivals) = arrivals(&line());
        let message = framed(&[0; 700_000]);
        let parts: Vec<Bytes> = message.chunks(part).map(Bytes::copy_from_slice).collect();
        tokio::spawn(async move {
            for part in parts {
                let _ = sender.send(part);
                sleep(PROGRESS_WITHIN - Duration::from_secs(1)).await;
            }
        });
        let first = next(&mut arrivals).await.unwrap();
        assert_eq!(first.is_ok(), is_slow, "{part}");
    }
}

/// HTTP/2 gives a frame on when it is whole, and other calls have their turns: until then a slow message seems to stand still.
#[tokio::test(start_paused = true)]
async fn a_message_may_stand_still_for_some_time_while_its_connection_goes_on() {
    const FRAME: usize = 96 << 10;
    // Of one call that sends slowly; of two that take turns; of one that drips; and of one of which nothing comes any more.
    for (part, others, is_slow) in
        [(33 << 10, 0, true), (66 << 10, 1, true), (1_000, 0, false), (66 << 10, 1_000, false)]
    {
        let mut frames = Frames::new(Duration::ZERO);
        let (sender, _call, mut arrivals) = arrivals_beside(&line(), frames.coming());
        let message = framed(&[0; 600_000]);
        sender.send(message[..10].to_vec().into()).unwrap();
        tokio::spawn(async move {
            let mut come = move |bytes: &[u8]| assert!(!frames.take(bytes, || Duration::ZERO));
            come(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            for own in message[10..].chunks(FRAME) {
                for turn in (0..=others).rev() {
                    come(&[&(own.len() as u32).to_be_bytes()[1..], &[0, 0, 0, 0, 0, 1]].concat());
                    let mut parts = own.chunks(part).peekable();
                    while let Some(bytes) = parts.next() {
                        come(bytes);
                        if turn == 0 && parts.peek().is_none() {
                            let _ = sender.send(own.to_vec().into());
                        }
                        sleep(PROGRESS_WITHIN / 2 - Duration::from_secs(1)).await;
                    }
                }
            }
        });
        assert_eq!(next(&mut arrivals).await.unwrap().is_ok(), is_slow, "{part}, {others}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_between_messages_is_no_fault() {
    let (sender, _call, mut arrivals) = arrivals(&line());
    for _ in 0..3 {
        sender.send(framed(&[1, 2]).into()).unwrap();
        assert_eq!(now(&mut arrivals), framed(&[1, 2]));
        assert!(tokio::time::timeout(PROGRESS_WITHIN * 5, next(&mut arrivals)).await.is_err());
    }
    drop(sender);
}

#[tokio::test]
async fn a_message_that_is_too_long_and_one_that_is_cut_off_are_refused() {
    let (sender, _call, mut too_long) = arrivals(&line());
    sender.send(Bytes::from_static(&[0, 0, 0x10, 0, 1])).unwrap();
    assert_eq!(next(&mut too_long).await.unwrap().unwrap_err().code(), Code::ResourceExhausted);
    let (sender, _call, mut cut) = arrivals(&line());
    sender.send(framed(&[1; 10])[..9].to_vec().into()).unwrap();
    drop(sender);
    assert_eq!(next(&mut cut).await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    let (sender, _call, mut empty) = arrivals(&line());
    drop(sender);
    assert!(next(&mut empty).await.is_none());
}

#[tokio::test]
async fn what_comes_after_the_answer_is_read_on() {
    let (sender, _call, mut arrivals) = arrivals(&line());
    sender.send(framed(&[1; 10]).into()).unwrap();
    assert!(next(&mut arrivals).await.is_some());
    drop(arrivals);
    for _ in 0..100 {
        sender.send(Bytes::from_static(&[0; 100])).unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!sender.is_closed());
}

proptest! {
    #[test]
    fn messages_come_out_as_they_were_however_they_are_cut(
        lengths in prop::collection::vec(0..5_000_usize, 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (sender, call, mut arrivals) = arrivals(&line());
        let messages: Vec<Vec<u8>> = (0..).zip(&lengths).map(|(at, length)| framed(&vec![at; *length])).collect();
        let all = messages.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len() + 1)).collect();
        cuts.extend([0, all.len()]);
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            sender.send(Bytes::copy_from_slice(&all[cut[0]..cut[1]])).unwrap();
        }
        prop_assert_eq!(now(&mut arrivals), all);
        prop_assert!(arrivals.messages.is_between() && arrivals.rest.is_none());
        for _ in lengths {
            drop(call.take_arrived());
        }
    }
}
