//! Several pieces of one blob at once: where one connection brings less than we can take, others fetch what comes later.
//!
//! ```text
//!  0          at                    start
//!  │ taken    ├─ one connection ──▶ ├─ part ─┼─ part ─┤ …       parts wait in memory for their turn
//!  watching ── slow for a while, and not for our sake ──▶ ahead ── any part fails ──▶ off
//! ```
//! The one connection goes on as if there were no others until it comes to the first part; from there on all is parts. So a
//! registry without ranges costs one request, and a fast one nothing. Each part has a right to its connection from whoever
//! asks for the blob, and keeps it until it is taken: what bounds the connections bounds the memory.
//! Source: RFC 9110, 14; OCI distribution-spec, "Pulling blobs".

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    ops::Range,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};

use super::Error;

/// How much is fetched by one request, and waits in memory at most.
pub(super) const PART: u64 = 4 << 20;
/// How many connections one blob has at most.
const CONNECTIONS: usize = 3;
/// How long one connection is watched before others are opened, and how often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Bytes per second that one connection may well bring alone: more would spend their time on requests.
const FAST: u64 = 32 << 20;
/// What is over in so many seconds is left alone.
const SOON: u64 = 2;

/// One part on its way.
pub(super) type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Starts to fetch a stretch, whose pieces go to the channel.
pub(super) type Fetch<'a> = dyn Fn(Range<u64>, UnboundedSender<Bytes>) -> Work<'a> + Sync + 'a;

/// What is fetched ahead of the one connection.
pub(super) struct Ahead<'a, S> {
    size: u64,
    fetch: &'a Fetch<'a>,
    spare: &'a (dyn Fn() -> Option<S> + Sync),
    state: State<'a, S>,
}

enum State<'a, S> {
    Off,
    Watching(Pace),
    Ahead(Parts<'a, S>),
}

impl<'a, S> Ahead<'a, S> {
    pub(super) fn new(
        size: u64,
        fetch: &'a Fetch<'a>,
        spare: &'a (dyn Fn() -> Option<S> + Sync),
    ) -> Self {
        let state = if size < 2 * PART { State::Off } else { State::Watching(Pace::start()) };
        Self { size, fetch, spare, state }
    }

    /// Waits for the next piece of the one connection, which is at `at`, and sees to the parts meanwhile.
    pub(super) async fn beside<T>(&mut self, piece: impl Future<Output = T>, at: u64) -> T {
        let began = Instant::now();
        let mut piece = pin!(piece);
        let piece = loop {
            tokio::select! {
                biased;
                piece = &mut piece => break piece,
                () = self.work(at, began) => {}
            }
        };
        if let State::Watching(pace) = &mut self.state {
            pace.waited += began.elapsed();
        }
        piece
    }

    /// Returns when something has changed.
    async fn work(&mut self, at: u64, waiting_since: Instant) {
        match &mut self.state {
            State::Off => std::future::pending().await,
            State::Watching(pace) => {
                sleep_until(pace.look_at).await;
                pace.look_at = Instant::now() + LOOK;
                let waited = pace.waited + waiting_since.elapsed();
                if pays(pace.began.elapsed(), waited, pace.got, self.size.saturating_sub(at)) {
                    self.begin(at + PART);
                }
            }
            State::Ahead(parts) => {
                let error = poll_fn(|cx| match parts.drive(cx) {
                    Some(error) => Poll::Ready(error),
                    None => Poll::Pending,
                });
                let error = error.await;
                self.give_up(&error);
            }
        }
    }

    fn begin(&mut self, start: u64) {
        let mut parts = Parts { all: VecDeque::new(), start, next: start };
        parts.fill(self.size, self.fetch, self.spare, false);
        // No right to a connection now, but perhaps at the next look.
        if !parts.all.is_empty() {
            self.state = State::Ahead(parts);
        }
    }

    /// Leaves all to the one connection.
    pub(super) fn stop(&mut self) {
        self.state = State::Off;
    }

    fn give_up(&mut self, error: &Error) {
        let error = cleat_proto::kind::whole(error);
        tracing::debug!(error, "one connection goes on alone");
        self.stop();
    }

    /// Cuts what the one connection brought where the parts begin.
    pub(super) fn before_parts(&mut self, mut piece: Bytes, at: u64) -> Bytes {
        match &mut self.state {
            State::Off => {}
            State::Watching(pace) => pace.got += piece.len() as u64,
            State::Ahead(parts) => {
                let left = parts.start.saturating_sub(at);
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                piece.truncate(left);
            }
        }
        piece
    }

    /// Whether the parts go on where the one connection is now.
    pub(super) fn starts_at(&self, at: u64) -> bool {
        matches!(&self.state, State::Ahead(parts) if parts.start == at)
    }

    /// Waits for the next piece of the parts, if it is their turn; `None` if it is not, or no longer.
    pub(super) async fn next(&mut self, at: u64) -> Option<Bytes> {
        let State::Ahead(parts) = &mut self.state else { return None };
        if parts.start > at || at >= self.size {
            return None;
        }
        parts.end_before(at);
        parts.fill(self.size, self.fetch, self.spare, true);
        let next = poll_fn(|cx| match parts.drive(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => parts.poll_first(cx).map(|piece| piece.ok_or_else(ended_early)),
        });
        let next = next.await;
        next.inspect_err(|error| self.give_up(error)).ok()
    }
}

fn ended_early() -> Error {
    Error::Protocol("a part of a blob ended early".into())
}

/// The parts, in their order.
struct Parts<'a, S> {
    all: VecDeque<Part<'a, S>>,
    /// Where the one connection hands over.
    start: u64,
    /// Where the next part begins that nobody fetches yet.
    next: u64,
}

struct Part<'a, S> {
    end: u64,
    work: Option<Work<'a>>,
    pieces: UnboundedReceiver<Bytes>,
    /// The right to a connection beyond the blob's first.
    spare: Option<S>,
}

impl<'a, S> Parts<'a, S> {
    /// Begins as many parts as there may be, one of them by the blob's own right if they are `alone`.
    fn fill(&mut self, size: u64, fetch: &Fetch<'a>, spare: &dyn Fn() -> Option<S>, alone: bool) {
        let most = CONNECTIONS - usize::from(!alone);
        while self.next < size && self.all.len() < most {
            let is_own = alone && self.all.iter().all(|part| part.spare.is_some());
            let right = if is_own { None } else { spare() };
            if !is_own && right.is_none() {
                return;
            }
            let end = size.min(self.next + PART);
            let (sender, pieces) = unbounded_channel();
            let work = Some(fetch(self.next..end, sender));
            self.all.push_back(Part { end, work, pieces, spare: right });
            self.next = end;
        }
    }

    /// Lets all of them work. Returns an error that ended one.
    fn drive(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        for part in &mut self.all {
            let Some(work) = &mut part.work else { continue };
            if let Poll::Ready(ended) = work.as_mut().poll(cx) {
                part.work = None;
                if let Err(error) = ended {
                    return Some(error);
                }
            }
        }
        None
    }

    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.all.front_mut().map_or(Poll::Ready(None), |first| first.pieces.poll_recv(cx))
    }

    /// Lets go of what was taken.
    fn end_before(&mut self, at: u64) {
        while self.all.front().is_some_and(|first| first.end <= at) {
            self.all.pop_front();
        }
    }
}

/// How one connection does.
struct Pace {
    began: Instant,
    look_at: Instant,
    /// How long we have waited for it, rather than it for us.
    waited: Duration,
    got: u64,
}

impl Pace {
    fn start() -> Self {
        let began = Instant::now();
        Self { began, look_at: began + LOOK, waited: Duration::ZERO, got: 0 }
    }
}

/// Whether more connections may bring what is left earlier: one alone is slow, and not because we are.
fn pays(elapsed: Duration, waited: Duration, got: u64, left: u64) -> bool {
    let milliseconds = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX).max(1);
    let pace = got.saturating_mul(1000) / milliseconds;
    waited * 2 >= elapsed && pace < FAST && left >= 2 * PART && left > pace.saturating_mul(SOON)
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    const SIZE: u64 = 5 * PART + 5;

    /// A right to a connection, counted.
    struct Right(Arc<AtomicUsize>);

    impl Drop for Right {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rights(count: usize) -> (Arc<AtomicUsize>, impl Fn() -> Option<Right> + Sync) {
        let free = Arc::new(AtomicUsize::new(count));
        let counted = Arc::clone(&free);
        let spare = move || {
            let less = |free: usize| free.checked_sub(1);
            counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok()?;
            Some(Right(Arc::clone(&counted)))
        };
        (free, spare)
    }

    /// Which part of the blob a byte is in says the byte.
    fn send(stretch: &Range<u64>, pieces: &UnboundedSender<Bytes>) {
        let number = u8::try_from(stretch.start / PART).unwrap();
        let length = usize::try_from(stretch.end - stretch.start).unwrap();
        let whole = Bytes::from(vec![number; length]);
        let middle = length / 2;
        pieces.send(whole.slice(..middle)).unwrap();
        pieces.send(whole.slice(middle..)).unwrap();
    }

    async fn collect<S>(ahead: &mut Ahead<'_, S>, from: u64) -> Vec<u8> {
        let mut taken = Vec::new();
        while let Some(piece) = ahead.next(from + taken.len() as u64).await {
            taken.extend_from_slice(&piece);
        }
        taken
    }

    #[tokio::test]
    async fn parts_are_taken_in_their_order_whichever_comes_first() {
        let later = Notify::new();
        let fetch = |stretch: Range<u64>, pieces: UnboundedSender<Bytes>| {
            let later = &later;
            Box::pin(async move {
                // The first comes after the third.
                match stretch.start / PART {
                    1 => later.notified().await,
                    3 => later.notify_one(),
                    _ => {}
                }
                send(&stretch, &pieces);
                Ok(())
            }) as Work<'_>
        };
        let (free, spare) = rights(9);
        let mut ahead = Ahead::new(SIZE, &fetch, &spare);
        ahead.begin(PART);
        assert!(ahead.starts_at(PART) && !ahead.starts_at(0));
        let taken = collect(&mut ahead, PART).await;
        assert_eq!(taken.len() as u64, SIZE - PART);
        let in_place = taken.iter().zip(PART..).all(|(byte, at)| u64::from(*byte) == at / PART);
        assert!(in_place);
        drop(ahead);
        assert_eq!(free.load(Ordering::Relaxed), 9, "each right was given back");
    }

    #[tokio::test]
    async fn there_are_as_many_parts_at_once_as_there_are_rights() {
        for (count, expected) in [(0, 1), (1, 2), (9, CONNECTIONS)] {
            let running = AtomicUsize::new(0);
            let most = AtomicUsize::new(0);
            let fetch = |stretch: Range<u64>, pieces: UnboundedSender<Bytes>| {
                let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                let running = &running;
                Box::pin(async move {
                    tokio::task::yield_now().await;
                    send(&stretch, &pieces);
                    running.fetch_sub(1, Ordering::Relaxed);
                    Ok(())
                }) as Work<'_>
            };
            let (_, spare) = rights(count);
            let mut ahead = Ahead::new(SIZE, &fetch, &spare);
            let state = State::Ahead(Parts { all: VecDeque::new(), start: 0, next: 0 });
            ahead.state = state;
            assert_eq!(collect(&mut ahead, 0).await.len() as u64, SIZE);
            assert_eq!(most.load(Ordering::Relaxed), expected, "{count}");
        }
    }

    #[tokio::test]
    async fn without_a_right_nothing_is_fetched_ahead() {
        let fetch =
            |_: Range<u64>, _: UnboundedSender<Bytes>| -> Work<'_> { panic!("nobody may fetch") };
        let mut ahead = Ahead::new(SIZE, &fetch, &|| None::<Right>);
        ahead.begin(PART);
        assert!(matches!(ahead.state, State::Watching(_)));
        assert_eq!(ahead.before_parts(Bytes::from_static(b"all"), 0), "all");
    }

    #[tokio::test]
    async fn a_part_that_fails_or_ends_early_leaves_the_rest_to_one_connection() {
        let failed = || Err(Error::Protocol("no".into()));
        for end in [Ok(()), failed()] {
            let end = &end;
            let fetch = |_: Range<u64>, pieces: UnboundedSender<Bytes>| {
                let end = end.as_ref().copied().map_err(|_| Error::Protocol("no".into()));
                Box::pin(async move {
                    pieces.send(Bytes::from_static(b"some")).unwrap();
                    end
                }) as Work<'_>
            };
            let (free, spare) = rights(2);
            let mut ahead = Ahead::new(SIZE, &fetch, &spare);
            ahead.begin(PART);
            assert!(collect(&mut ahead, PART).await.len() <= 4);
            assert!(matches!(ahead.state, State::Off));
            assert_eq!(free.load(Ordering::Relaxed), 2);
        }
    }

    #[tokio::test]
    async fn a_part_that_fails_early_does_not_disturb_the_one_connection() {
        let fetch = |_: Range<u64>, _: UnboundedSender<Bytes>| {
            Box::pin(std::future::ready(Err(Error::Protocol("no".into())))) as Work<'_>
        };
        let (_, spare) = rights(2);
        let mut ahead = Ahead::new(SIZE, &fetch, &spare);
        ahead.begin(PART);
        // The part is heard of first, since the piece comes a turn later.
        let piece = ahead.beside(tokio::task::yield_now(), 0);
        piece.await;
        assert!(matches!(ahead.state, State::Off));
        let piece = ahead.before_parts(Bytes::from(vec![0; 2 * PART as usize]), 0);
        assert_eq!(piece.len() as u64, 2 * PART);
    }

    #[tokio::test]
    async fn the_one_connection_is_cut_where_the_parts_begin() {
        let fetch =
            |_: Range<u64>, _: UnboundedSender<Bytes>| Box::pin(std::future::pending()) as Work<'_>;
        let (_, spare) = rights(1);
        let mut ahead = Ahead::new(SIZE, &fetch, &spare);
        ahead.begin(PART);
        assert!(ahead.next(PART - 2).await.is_none(), "not their turn");
        assert_eq!(ahead.before_parts(Bytes::from_static(b"abc"), PART - 2), "ab");
    }

    #[test]
    fn one_connection_is_helped_where_it_is_slow_and_long() {
        let (second, mb) = (Duration::from_secs(1), 1 << 20);
        for (elapsed, waited, got, left, expected) in [
            (second, second, 10 * mb, 100 * mb, true),
            (second, second, 0, 16 * mb, true),
            // Fast.
            (second, second, 100 * mb, 10_000 * mb, false),
            // We are what is slow.
            (second, second / 3, 3 * mb, 100 * mb, false),
            // Over soon.
            (second, second, 10 * mb, 20 * mb, false),
            (second, second, 0, 7 * mb, false),
        ] {
            assert_eq!(pays(elapsed, waited, got, left), expected, "{got} of {left}, {waited:?}");
        }
    }
}
